//! Patches: merge (RFC 7386), JSON (RFC 6902), strategic merge.

pub mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::schema::View;
use crate::status::{FieldError, Status};

/// The media types of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/merge-patch+json`
    Merge,
    /// `application/json-patch+json`
    Json,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// Operations of one JSON patch (`maxJSONPatchOperations` upstream).
const OPERATIONS_MAX: usize = 10_000;

impl PatchKind {
    /// The kind of patch that a `Content-Type` names. Strategic patches are for built-in kinds only.
    ///
    /// # Errors
    /// 415, with what is accepted.
    pub fn from_content_type(content_type: &str, custom: bool) -> Result<Self, Status> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/json-patch+json" => Ok(Self::Json),
            "application/strategic-merge-patch+json" if !custom => Ok(Self::Strategic),
            other => {
                let mut accepted = vec!["application/json-patch+json", "application/merge-patch+json"];
                if !custom {
                    accepted.push("application/strategic-merge-patch+json");
                }
                accepted.push("application/apply-patch+yaml");
                Err(Status::unsupported_media_type(other, &accepted.join(", ")))
            }
        }
    }

    /// `object`, of which nothing is known, with `patch` applied.
    ///
    /// # Errors
    /// As [`PatchKind::apply_as`].
    pub fn apply(self, object: &Value, patch: &Value) -> Result<Value, Status> {
        self.apply_as(View::Free, object, patch)
    }

    /// `object` with `patch` applied; `view` says how its lists are merged.
    ///
    /// # Errors
    /// 400 for a patch that is none, 422 for one that does not fit the object.
    pub fn apply_as(self, view: View<'_>, object: &Value, patch: &Value) -> Result<Value, Status> {
        let mut patched = object.clone();
        match self {
            Self::Merge if !patch.is_object() => return Err(does_not_fit(patch, "a merge patch must be an object")),
            Self::Merge => json_patch::merge(&mut patched, patch),
            Self::Strategic => strategic::apply(&mut patched, patch, view).map_err(Status::bad_request)?,
            Self::Json => {
                if patch.as_array().is_some_and(|operations| operations.len() > OPERATIONS_MAX) {
                    return Err(Status::too_large(OPERATIONS_MAX));
                }
                let patch: json_patch::Patch =
                    serde_json::from_value(patch.clone()).map_err(|e| rejected(&e, patch.is_array()))?;
                for (nth, operation) in patch.iter().enumerate() {
                    if is_met(operation, &patched) {
                        continue;
                    }
                    json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|mut e| {
                        e.operation = nth;
                        rejected(&e, true)
                    })?;
                }
            }
        }
        Ok(patched)
    }
}

/// Whether an operation asks for nothing where nothing is. To RFC 6902 that is no place; upstream takes it for null, and controllers
/// that look for finalizers of others before they add the first one rely on it.
fn is_met(operation: &PatchOperation, object: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let Some((parent, _)) = test.path.as_str().rsplit_once('/') else { return false };
    test.value.is_null()
        && object.pointer(parent).is_some_and(Value::is_object)
        && object.pointer(test.path.as_str()).is_none()
}

/// 422: the object would be none of its kind after the `patch`.
pub fn does_not_fit(patch: &Value, why: &str) -> Status {
    Status::invalid("", "", "", &[FieldError::invalid("patch", patch, why)])
}

/// A JSON patch that is none (400), or one that cannot be done (422).
fn rejected(why: &dyn std::fmt::Display, is_list: bool) -> Status {
    let said =
        if is_list { "the server rejected our request due to an error in our request" } else { "error decoding patch" };
    let mut status = Status::bad_request(format!("{said}: {why}"));
    if is_list {
        (status.code, status.reason) = (422, "Invalid");
    }
    status
}
