//! Patches, and server-side apply, which is asked for as one.

use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::Call;
use super::write::{self, Part, WriteOptions};
use crate::apply::{self, Writer};
use crate::authorization::{self, Attributes};
use crate::body::{self, Body};
use crate::kinds::Rules;
use crate::object::{self, meta, metadata};
use crate::patch::PatchKind;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};

/// The media type of what is applied.
pub const APPLY: &str = "application/apply-patch+yaml";

/// Tries to apply what others create and delete meanwhile.
const TRIES: usize = 5;

pub async fn patch(server: &ApiServer, call: &Call, part: Part, sent: &[u8]) -> Result<Response<Body>, Status> {
    if call.applies() {
        return apply(server, call, part, sent).await;
    }
    refuse_force(call)?;
    let kind = PatchKind::from_content_type(call.content_type(), matches!(call.kind.rules, Rules::Custom(_)))?;
    let patch: Value = serde_json::from_slice(sent)
        .or_else(|_| body::parse_yaml(sent))
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let written = write::update(server, call, part, |old| {
        let mut patched = kind.apply_as(call.kind.view(), old, &patch)?;
        // A patch that does not speak of the version applies to whatever is there now.
        if patch["metadata"]["resourceVersion"].is_null() && kind != PatchKind::Json {
            object::metadata(&mut patched).remove("resourceVersion");
        }
        Ok(patched)
    })
    .await?;
    written.respond(call, StatusCode::OK)
}

async fn apply(server: &ApiServer, call: &Call, part: Part, sent: &[u8]) -> Result<Response<Body>, Status> {
    let said = Said::read(call, sent, if part == Part::Status { &["status"] } else { &[] })?;
    let mut last = call.not_found();
    for _ in 0..TRIES {
        let there = server.inner.store.get(&call.key()).is_some();
        let written = if there || part != Part::Main {
            write::update(server, call, part, |old| said.onto(call, old)).await
        } else {
            // It may be changed by who asks; that it is made has to be allowed, too.
            authorization::require(server, &call.user, &Attributes::of("create", &call.route, &call.query))?;
            let object = said.onto(call, &Value::Object(Map::new()))?;
            write::create(server, &call.user, &call.kind, &call.route.namespace, object, said.options.clone()).await
        };
        match written {
            Ok(written) => {
                return written.respond(call, if there { StatusCode::OK } else { StatusCode::CREATED });
            }
            // It came or went between the look and the write.
            Err(status) if part == Part::Main && matches!(status.reason, "AlreadyExists" | "NotFound") => last = status,
            Err(status) => return Err(status),
        }
    }
    Err(last)
}

fn refuse_force(call: &Call) -> Result<(), Status> {
    match call.query.get("force") {
        None => Ok(()),
        Some(_) => {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]))
        }
    }
}

/// What somebody applies.
pub struct Said {
    object: Value,
    options: WriteOptions,
    force: bool,
}

impl Said {
    /// Reads what is applied through a resource that has only the field at `path` (all but the status, if empty).
    ///
    /// # Errors
    /// 422 without a manager, 400 for what is not applied (managers, what is no object, another name or version).
    pub fn read(call: &Call, sent: &[u8], path: &[&str]) -> Result<Self, Status> {
        if call.query.get("fieldManager").unwrap_or_default().is_empty() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let options = WriteOptions::of(call)?;
        let version = call.kind.names.api_version();
        let said = body::parse_yaml(sent).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
        if !said["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if said.is_object() && said["apiVersion"].as_str().unwrap_or_default().is_empty() {
            let why = "Incorrect version specified in apply patch. Specified patch version: , expected:";
            return Err(Status::bad_request(format!("{why} {version}")));
        }
        let scale = call.route.subresource == "scale"; // it is of another kind: its one field is looked at by itself
        let (mut object, unknown) = if scale { (said, Vec::new()) } else { write::known(&call.kind, said)? };
        if let Some(path) = unknown.first() {
            let (of, kind) = (&call.route, &call.kind.names.kind);
            return Err(Status::bad_request(format!(
                "failed to create typed patch object ({}/{}; {version}, Kind={kind}): .{path}: field not declared in schema",
                of.namespace, of.name
            )));
        }
        if !object.is_object() {
            return Err(Status::bad_request("the object provided is unrecognized: it is no JSON object"));
        }
        write::place(&call.kind, &call.route.namespace, &mut object)?;
        match meta(&object, "name") {
            "" => drop(metadata(&mut object).insert("name".into(), call.route.name.clone().into())),
            name if name != call.route.name => {
                let asked = &call.route.name;
                return Err(Status::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({asked})"
                )));
            }
            _ => {}
        }
        if path.is_empty() {
            if let Some(map) = object.as_object_mut().filter(|_| call.kind.has_status) {
                map.remove("status");
            }
        } else {
            object = only(&call.kind.names.api_version(), &call.kind.names.kind, object, path);
        }
        let force = call.query.flag("force");
        Ok(Self { object, options, force })
    }

    /// What applying it makes of `old`.
    pub fn onto(&self, call: &Call, old: &Value) -> Result<Value, Status> {
        let version = call.kind.names.api_version();
        let writer = Writer { name: &self.options.manager, version: &version, subresource: &call.route.subresource };
        let mut applied = apply::apply(old, &self.object, call.kind.view(), &writer, self.force)?;
        if meta(&self.object, "resourceVersion").is_empty() {
            metadata(&mut applied).remove("resourceVersion");
        }
        Ok(applied)
    }

    /// What it says at `pointer`.
    pub fn says(&self, pointer: &str) -> Option<&Value> {
        self.object.pointer(pointer)
    }
}

/// Of `object` what names it, and the field at `path`.
fn only(version: &str, kind: &str, mut object: Value, path: &[&str]) -> Value {
    let said = path.iter().try_fold(&mut object, |at, name| at.get_mut(*name)).map(Value::take);
    let inner = said.map(|said| path.iter().rev().fold(said, |inner, name| serde_json::json!({ *name: inner })));
    let mut out = inner.unwrap_or_else(|| Value::Object(Map::new()));
    out["apiVersion"] = version.into();
    out["kind"] = kind.into();
    for field in ["name", "namespace", "resourceVersion"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata(&mut out).insert(field.into(), value.clone());
        }
    }
    out
}
