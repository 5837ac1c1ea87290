//! Create and update: the one way in which objects change.
//!
//! ```text
//! sent ─decode─▶ known fields ─default─▶ ─system fields─▶ ─managers─▶ ─admission (mutate)─▶ ─validate─▶ ─admission (judge)─▶ store
//!                                                                                                   (compare-and-swap)
//! ```
//!
//! Managers are noted where upstream notes them: what admission changes after that belongs to nobody.

mod create;
mod parts;
mod update;

use std::borrow::Cow;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;
use substrate_store::Error;

pub use self::create::create;
pub use self::update::{TRIES, update};

use super::{Call, FieldValidation};
use crate::authorization;
use crate::body::{self, Body, View};
use crate::custom::conversion;
use crate::kinds::{Errors, Kind, QUALIFIED_NAME, is_qualified_name};
use crate::object::{self, meta, metadata};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::warnings;

/// Bytes of all annotations (`TotalAnnotationSizeLimitB` upstream).
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but `status` (of kinds that write it apart).
    Main,
    /// `status` alone.
    Status,
    /// What comes by a subresource of its own, which has taken out of it what it may change.
    Internal,
}

#[derive(Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// Under which name what is written is owned.
    pub manager: String,
    /// Whether the object comes with its managers as they are to be kept.
    pub applied: bool,
}

impl WriteOptions {
    pub fn of(call: &Call) -> Result<Self, Status> {
        Ok(Self {
            dry_run: call.dry_run()?,
            validation: FieldValidation::of(&call.query)?,
            manager: call.manager()?,
            applied: call.applies(),
        })
    }
}

/// An object as it is after a write.
pub struct Written {
    pub object: Value,
    /// Its text, if it was written for the store: not to be written again.
    text: Option<Bytes>,
}

impl Written {
    /// The response to whoever asked for the write.
    pub fn respond(&self, call: &Call, code: StatusCode) -> Result<Response<Body>, Status> {
        match (&self.text, call.wanted(false)?.0) {
            (Some(text), View::Object) => Ok(body::json_bytes(code, text.clone())),
            (Some(text), View::Metadata) => Ok(body::json_bytes(code, object::partial_of(text))),
            _ => super::represent(call, code, &self.object),
        }
    }
}

/// What is kept of an object, and that again if it is what is shown, too.
async fn kept(server: &ApiServer, kind: &Kind, object: &Value) -> Result<(Bytes, Option<Bytes>), Status> {
    let kept = conversion::kept(server, kind, object).await?;
    let value = object::encode(&kept).map_err(Status::internal)?;
    Ok((value.clone(), matches!(kept, Cow::Borrowed(_)).then_some(value)))
}

/// Whether an object that is being deleted has nothing left that holds it.
pub fn is_over(kind: &Kind, object: &Value) -> bool {
    object::is_deleting(object)
        && object::finalizers(object).is_empty()
        && (!kind.is("", "namespaces") || object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
        && (!kind.is("", "pods") || object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0)
}

/// Decodes what was sent and deals with unknown fields as asked.
pub fn understand(kind: &Kind, sent: Value, validation: FieldValidation) -> Result<Value, Status> {
    let (object, unknown) = known(kind, sent)?;
    let unknown: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            return Err(cannot(kind, &format!("strict decoding error: {}", unknown.join(", "))));
        }
        FieldValidation::Warn => unknown.into_iter().for_each(warnings::tell),
        _ => {}
    }
    Ok(object)
}

fn cannot(kind: &Kind, why: &str) -> Status {
    let name = &kind.names.kind;
    Status::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {why}", kind.names.version))
}

/// The fields of an object that its kind knows, and the paths of the others.
///
/// # Errors
/// 400 when it is none of this kind.
pub fn known(kind: &Kind, sent: Value) -> Result<(Value, Vec<String>), Status> {
    let (version, name) = (kind.names.api_version(), &kind.names.kind);
    if !sent.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized: it is no JSON object"));
    }
    for (field, expected) in [("apiVersion", version.as_str()), ("kind", name)] {
        let given = sent[field].as_str().unwrap_or_default();
        if !given.is_empty() && given != expected {
            let what = if field == "kind" { "kind" } else { "API version" };
            return Err(Status::bad_request(format!(
                "the {what} in the data ({given}) does not match the expected {what} ({expected})"
            )));
        }
    }
    let mut decoded = kind.decode(sent).map_err(|why| cannot(kind, &why))?;
    decoded.object["apiVersion"] = version.into();
    decoded.object["kind"] = name.as_ref().into();
    for field in ["annotations", "finalizers", "labels", "ownerReferences"] {
        // Go does not write them when they are empty, and `kubectl diff` would show them.
        if matches!(&decoded.object["metadata"][field], Value::Object(map) if map.is_empty())
            || matches!(&decoded.object["metadata"][field], Value::Array(list) if list.is_empty())
        {
            metadata(&mut decoded.object).remove(field);
        }
    }
    Ok((decoded.object, decoded.unknown))
}

/// Puts an object into the namespace of the URL.
pub fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let given = meta(object, "namespace").to_owned();
    if !kind.namespaced {
        metadata(object).remove("namespace");
        return Ok(());
    }
    if !given.is_empty() && given != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} is not {namespace})"
        )));
    }
    metadata(object).insert("namespace".into(), namespace.into());
    Ok(())
}

fn validate(kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut errors = Errors::default();
    let name = meta(object, "name");
    match name {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        _ if old.is_some() => {}
        _ => {
            for why in kind.name_rule.judge(name) {
                errors.push(FieldError::invalid("metadata.name", &object["metadata"]["name"], &why));
            }
        }
    }
    errors.labels(&object["metadata"]["labels"], "metadata.labels");
    let annotations = object["metadata"]["annotations"].as_object();
    let size: usize = annotations.into_iter().flatten().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATION_BYTES_MAX {
        errors.push(FieldError {
            reason: crate::status::FieldReason::TooLong,
            field: "metadata.annotations".into(),
            message: format!("Too long: may not be more than {ANNOTATION_BYTES_MAX} bytes"),
        });
    }
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        if !is_qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &key.as_str().into(), QUALIFIED_NAME));
        }
    }
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "name must not be empty"),
            ("uid", "uid must not be empty"),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::invalid(format!("metadata.ownerReferences.{field}"), &"".into(), why));
            }
        }
    }
    for (i, finalizer) in object["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        let why = match text {
            "foregroundDeletion" | "orphan" | "kubernetes" => continue,
            _ if !is_qualified_name(text) => QUALIFIED_NAME,
            _ if !text.contains('/') => "name is neither a standard finalizer name nor is it fully qualified",
            _ => continue,
        };
        errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), finalizer, why));
    }
    kind.validate(object, old, &mut errors);
    if let Some(old) = old {
        kind.validate_update(old, object, &mut errors);
    }
    let errors = errors.into_vec();
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&kind.names.group, &kind.names.kind, name, &errors)) }
}

/// What a refused write reads like.
pub fn write_error(kind: &Kind, name: &str, error: Error) -> Status {
    let (group, plural) = (&kind.names.group, &kind.names.plural);
    match error {
        Error::Exists { .. } => Status::already_exists(group, plural, name),
        Error::NotFound { .. } => Status::not_found(group, plural, name),
        Error::Conflict { .. } => Status::stale(group, plural, name),
        Error::TooLarge { bytes, limit, .. } => {
            let mut status = Status::too_large(limit);
            status.message = format!("{plural} {name:?} is too large: {bytes} bytes, and at most {limit} fit");
            status
        }
        Error::DiskFull { .. } => Status::insufficient_storage(error.to_string()),
        other => Status::internal(other),
    }
}

/// A definition is served as soon as it is written.
fn after_write(server: &ApiServer, kind: &Kind, object: &Value) {
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        server.inner.registry.define(object);
    }
    if kind.names.group == authorization::GROUP {
        server.inner.rights.changed();
    }
}

/// … and no longer once it is gone.
pub fn after_delete(server: &ApiServer, kind: &Kind, object: &Value) {
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        server.inner.registry.forget(object);
    }
    if kind.names.group == authorization::GROUP {
        server.inner.rights.changed();
    }
}
