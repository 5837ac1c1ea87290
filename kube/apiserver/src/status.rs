//! `Status`: how every failure reads to a client (`meta/v1`), and the one place where errors become responses.

use std::fmt;

use serde_json::{Value, json};

use crate::node_proxy;

/// What is wrong with one field (`field.Error` upstream), in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Why, as a `StatusCause` reason.
    pub reason: FieldReason,
    /// Path of the field, as `spec.containers[0].image`.
    pub field: String,
    /// The message without the path.
    pub message: String,
}

/// Reasons of a [`FieldError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldReason {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
}

impl FieldReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

impl FieldError {
    /// `Required value`, with an optional explanation.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { reason: FieldReason::Required, field: field.into(), message }
    }

    /// `Invalid value: VALUE: detail`.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            reason: FieldReason::Invalid,
            field: field.into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }

    /// `Unsupported value: VALUE: supported values: …`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self {
            reason: FieldReason::NotSupported,
            field: field.into(),
            message: format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", ")),
        }
    }

    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: FieldReason::Forbidden, field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// `Duplicate value: VALUE`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: FieldReason::Duplicate,
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    /// `Invalid value: "type": detail`, for a value of the wrong JSON type.
    pub fn type_invalid(field: impl Into<String>, observed: &str, detail: &str) -> Self {
        Self {
            reason: FieldReason::TypeInvalid,
            field: field.into(),
            message: format!("Invalid value: {observed:?}: {detail}"),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A value in a message: bounded, so that a hostile object does not come back whole.
fn shown(value: &Value) -> String {
    const SHOWN_MAX: usize = 256;
    let mut text = value.to_string();
    if text.len() > SHOWN_MAX {
        let end = (0..=SHOWN_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A failed request. `Display` is its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `StatusReason`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details`: name, group, kind, causes.
    pub details: Option<Box<Value>>,
    /// Where a list that cannot go on as it was goes on as things are now (`metadata.continue`).
    pub goes_on: Option<String>,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, goes_on: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = json!({});
        if !kind.is_empty() {
            details["kind"] = kind.into();
        }
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        self.details = Some(Box::new(details));
        self
    }

    /// A reason that this server knows, by its word.
    pub(crate) fn known_reason(word: &str) -> Option<&'static str> {
        const REASONS: [&str; 12] = [
            "AlreadyExists",
            "BadRequest",
            "Conflict",
            "Expired",
            "Forbidden",
            "InternalError",
            "Invalid",
            "NotFound",
            "ServiceUnavailable",
            "Timeout",
            "TooManyRequests",
            "Unauthorized",
        ];
        REASONS.into_iter().find(|known| *known == word)
    }

    /// 404: no object of this name.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(plural, group));
        Self::new(404, "NotFound", message).about(group, plural, name)
    }

    /// 404: no such path or resource.
    pub fn no_resource() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::new(json!({})));
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(plural, group));
        Self::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    /// 409: it changed since it was read, or a precondition failed.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(plural, group));
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 409 because the resourceVersion sent is not the current one.
    pub fn stale(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: an applier would change what others own: each manager with a field.
    pub fn apply_conflict(message: String, conflicts: &[(&str, String)]) -> Self {
        let cause = |(manager, field): &(&str, String)| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field });
        let causes: Vec<Value> = conflicts.iter().map(cause).collect();
        Self { details: Some(Box::new(json!({ "causes": causes }))), ..Self::new(409, "Conflict", message) }
    }

    /// 422: the object breaks rules of its kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut status = Self::new(422, "Invalid", format!("{} {name:?} is invalid: {list}", qualified(kind, group)))
            .about(group, kind, name);
        if let Some(details) = &mut status.details {
            details["causes"] = errors
                .iter()
                .map(|e| json!({ "reason": e.reason.as_str(), "message": e.message, "field": e.field }))
                .collect();
        }
        status
    }

    /// 422 instead of 400: the object would be none of its kind after a patch.
    pub fn of_patch(self) -> Self {
        if self.code != 400 {
            return self;
        }
        let (field, message) = ("patch".into(), format!("Invalid value: {}", self.message));
        Self::invalid("", "", "", &[FieldError { reason: FieldReason::Invalid, field, message }])
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody we know.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: known, and not allowed.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let of = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{}{of} is forbidden: {why}", qualified(plural, group));
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
    }

    /// With details of which there are none, as upstream says it of what is about no object.
    fn plain(self) -> Self {
        Self { details: Some(Box::new(json!({}))), ..self }
    }

    /// 405: the resource does not do that.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource").plain()
    }

    /// 406: no acceptable representation.
    pub fn not_acceptable(supported: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {supported}")).plain()
    }

    /// 410: the resource version is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is larger than the bound.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 415: no such body is understood.
    pub fn unsupported_media_type(sent: &str, supported: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {supported}, got {sent:?}"
            ),
        )
        .plain()
    }

    /// 429: not now; after `seconds` perhaps (0: when something changes).
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.details = Some(Box::new(if seconds == 0 { json!({}) } else { json!({ "retryAfterSeconds": seconds }) }));
        status
    }

    /// 500: our fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 501: known, and not built.
    pub fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not implemented by this server"))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: the revision is none that this server has reached.
    pub fn too_large_version(asked: u64, newest: u64) -> Self {
        let mut status = Self::timeout(format!("Too large resource version: {asked}, current: {newest}"));
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        status.details = Some(Box::new(json!({ "causes": [cause], "retryAfterSeconds": 1 })));
        status
    }

    /// 504: it took too long; it may have happened.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into()))
    }

    /// 507: the disk is full.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, "InsufficientStorage", message)
    }

    /// The object of kind `Status` that goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            value["details"] = Value::clone(details);
        }
        if let Some(token) = &self.goes_on {
            value["metadata"]["continue"] = token.as_str().into();
        }
        value
    }
}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl From<node_proxy::Error> for Status {
    fn from(error: node_proxy::Error) -> Self {
        use node_proxy::Error;
        match error {
            Error::NotFound(message) => Self::new(404, "NotFound", message),
            Error::BadRequest(message) => Self::bad_request(message),
            Error::Unavailable(message) => Self::unavailable(message),
            Error::NotImplemented(message) => Self::new(501, "NotImplemented", message),
            Error::Internal(message) => Self::internal(message),
        }
    }
}
