//! `AdmissionReview` of `admission.k8s.io/v1`: what a webhook is asked, and what it may answer.

use serde_json::{Value, json};

use super::super::{Operation, Request};
use crate::custom::conversion::between;
use crate::kinds::Kind;
use crate::server::ApiServer;
use crate::status::Status;

/// Warnings of one answer, and bytes of each, that reach the caller.
const WARNINGS_MAX: usize = 16;
const WARNING_BYTES_MAX: usize = 256;

/// The question about a request whose objects are shown as those of `shown`.
///
/// # Errors
/// When they cannot be converted.
pub async fn question(
    server: &ApiServer,
    uid: &str,
    request: &Request<'_>,
    shown: &Kind,
    object: &Value,
) -> Result<Value, Status> {
    let mut asked = about(request, shown);
    asked["uid"] = uid.into();
    [asked["object"], asked["oldObject"]] = seen(server, request, shown, object).await?;
    Ok(asked)
}

/// The object as it is to be and as it was, as those of `shown`.
///
/// # Errors
/// When they cannot be converted.
pub async fn seen(
    server: &ApiServer,
    request: &Request<'_>,
    shown: &Kind,
    object: &Value,
) -> Result<[Value; 2], Status> {
    if request.sent.is_some() {
        return Ok([object.clone(), request.old.cloned().unwrap_or_default()]); // it has no other version
    }
    let now = match request.operation {
        Operation::Delete => Value::Null,
        _ => between(server, request.kind, shown, object).await?,
    };
    let old = match request.old {
        Some(old) => between(server, request.kind, shown, old).await?,
        None => Value::Null,
    };
    Ok([now, old])
}

/// What is said of a request, without its objects.
pub fn about(request: &Request<'_>, shown: &Kind) -> Value {
    let (mut kind, resource) = names(shown);
    let (mut request_kind, request_resource) = names(request.kind);
    if let Some([group, version, name]) = request.sent {
        kind = json!({ "group": group, "version": version, "kind": name });
        request_kind = kind.clone();
    }
    let options = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "",
    };
    let mut about = json!({
        "kind": kind, "resource": resource, "requestKind": request_kind, "requestResource": request_resource,
        "name": request.name, "operation": request.operation.word(), "dryRun": request.dry_run,
        "userInfo": { "username": request.user.name, "groups": request.user.groups },
        "options": { "kind": options, "apiVersion": "meta.k8s.io/v1" },
    });
    if options.is_empty() {
        about["options"] = Value::Null;
    } else if request.dry_run {
        about["options"]["dryRun"] = json!(["All"]);
    }
    if !request.subresource.is_empty() {
        about["subResource"] = request.subresource.into();
        about["requestSubResource"] = request.subresource.into();
    }
    let namespace = if request.is_namespace() { request.name } else { request.namespace };
    if !namespace.is_empty() {
        about["namespace"] = namespace.into();
    }
    about
}

fn names(kind: &Kind) -> (Value, Value) {
    let n = &kind.names;
    (
        json!({ "group": n.group, "version": n.version, "kind": n.kind }),
        json!({ "group": n.group, "version": n.version, "resource": n.plural }),
    )
}

/// What a webhook said.
pub struct Answer {
    /// Why not, if it refuses.
    pub refusal: Option<Status>,
    /// JSON patch.
    pub patch: Option<Value>,
    /// For the caller.
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

/// Reads the answer of the webhook `name` to the question `uid`.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn answer(name: &str, uid: &str, mutates: bool, review: &Value) -> Result<Answer, String> {
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let (version, kind) = (review["apiVersion"].as_str().unwrap_or("/"), review["kind"].as_str().unwrap_or_default());
    if (version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let wanted = "admission.k8s.io/v1, Kind=AdmissionReview";
        let version = if version == "/" { "/".to_owned() } else { version.chars().take(64).collect() };
        return invalid(format!("expected webhook response of {wanted}, got {version}, Kind={kind}"));
    }
    let response = &review["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".into());
    }
    let told = response["uid"].as_str().unwrap_or_default();
    if told != uid {
        return invalid(format!("expected response.uid={uid:?}, got {told:?}"));
    }
    let said = |field: &str| response[field].as_str().filter(|text| !text.is_empty());
    let patch = match (mutates, said("patch"), said("patchType")) {
        (_, None, None) => None,
        (false, Some(_), _) => return invalid("validating webhook may not return response.patch".into()),
        (false, None, Some(_)) => return invalid("validating webhook may not return response.patchType".into()),
        (true, Some(patch), Some("JSONPatch")) => Some(patch),
        (true, Some(_), None) => return invalid("webhook returned response.patch but not response.patchType".into()),
        (true, None, Some(_)) => return invalid("webhook returned response.patchType but not response.patch".into()),
        (true, Some(_), Some(other)) => {
            return invalid(format!("webhook returned invalid response.patchType of {other:?}"));
        }
    };
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let patch = patch
        .map(|patch| {
            let text = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, patch);
            let text = text.map_err(|e| undecodable(e.to_string()))?;
            serde_json::from_slice(&text).map_err(|e| undecodable(e.to_string()))
        })
        .transpose()?;
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let warnings = warnings.take(WARNINGS_MAX).map(|text| text.chars().take(WARNING_BYTES_MAX).collect()).collect();
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let annotations =
        annotations.filter_map(|(key, value)| Some((format!("{name}/{key}"), value.as_str()?.to_owned())));
    let annotations = annotations.collect();
    let refusal = (response["allowed"] != true).then(|| refusal(name, &response["status"]));
    Ok(Answer { refusal, patch, warnings, annotations })
}

/// A refusal in the words of who refuses.
fn refusal(name: &str, result: &Value) -> Status {
    let said = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match said("message").or(said("reason")) {
        Some(why) => format!("{denied}: {}", why.chars().take(4096).collect::<String>()),
        None => format!("{denied} without explanation"),
    };
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    let mut status = Status::bad_request(message);
    status.code = if (400..600).contains(&code) { code } else { 400 };
    status.reason = said("reason").and_then(Status::known_reason).unwrap_or_default();
    status.details = Some(&result["details"]).filter(|details| details.is_object()).cloned().map(Box::new);
    status
}
