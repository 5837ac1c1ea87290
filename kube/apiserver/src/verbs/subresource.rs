//! Subresources that are read and written like objects: status, scale, binding, finalize.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use substrate_store::{Error, Precondition};

use super::patch::{self, Said};
use super::write::{self, Part};
use super::{Call, read};
use crate::admission::{self, Operation};
use crate::auth::account_tokens;
use crate::body::{self, Body};
use crate::custom::conversion;
use crate::kinds::{Kind, NameRule, Rules};
use crate::object::{self, meta};
use crate::patch::PatchKind;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::table;

pub async fn answer(server: &ApiServer, call: &Call, verb: &str, sent: &[u8]) -> Result<Response<Body>, Status> {
    let kind = &call.kind;
    let listed = kind.subresources.iter().any(|(name, _, _)| *name == call.route.subresource);
    match (call.route.subresource.as_str(), verb) {
        ("status", _) if !kind.has_status => Err(Status::no_resource()),
        ("status", "get") => read::get(server, call).await,
        ("status", "update") => {
            let mut object = body::parse(&call.headers, sent)?;
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove("managedFields"); // not set through the status, and much to copy
            }
            write::update(server, call, Part::Status, |_| Ok(object.clone())).await?.respond(call, StatusCode::OK)
        }
        ("status", "patch") => patch::patch(server, call, Part::Status, sent).await,
        ("scale", "get") if listed => {
            let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
            let entry = conversion::shown_one(server, kind, entry).await?;
            Ok(body::json(StatusCode::OK, &scale_of(kind, &read::decoded(kind, &entry)?)?))
        }
        ("scale", "update" | "patch") if listed => scale(server, call, verb, sent).await,
        ("token", "create") if listed => {
            let answer = account_tokens::request(server, call, sent).await?;
            Ok(body::json(StatusCode::CREATED, &answer))
        }
        ("eviction", "create") if listed => super::eviction::evict(server, call, sent).await,
        ("ephemeralcontainers", "get") if listed => read::get(server, call).await,
        ("ephemeralcontainers", "update" | "patch") if listed => ephemeral(server, call, verb, sent).await,
        ("resize", "get") if listed => read::get(server, call).await,
        ("resize", "update" | "patch") if listed => super::resize::resize(server, call, verb, sent).await,
        ("approval", "get") if listed => read::get(server, call).await,
        ("approval", "update" | "patch") if listed => approval(server, call, verb, sent).await,
        ("binding", "create") if listed => bind(server, call, sent).await,
        ("finalize", "update") if listed => finalize(server, call, sent).await,
        _ if listed || call.route.subresource == "status" => Err(Status::method_not_allowed()),
        _ => Err(Status::no_resource()),
    }
}

/// What a request makes of the field at `path` of `old`: a patch of it, or another object.
pub(super) fn wanted(call: &Call, verb: &str, sent: &[u8], old: &Value, path: &[&str]) -> Result<Value, Status> {
    if verb == "update" {
        return body::parse(&call.headers, sent);
    }
    if call.applies() {
        return Said::read(call, sent, path)?.onto(call, old);
    }
    let patch: Value =
        serde_json::from_slice(sent).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    PatchKind::from_content_type(call.content_type(), false)?.apply_as(call.kind.view(), old, &patch)
}

/// `old` with the version that is wanted, and the managers that applying has made.
pub(super) fn with_head(call: &Call, old: &Value, wanted: &Value) -> Value {
    let mut object = old.clone();
    object["metadata"]["resourceVersion"] = wanted["metadata"]["resourceVersion"].clone();
    if let Some(managers) = wanted["metadata"].get("managedFields").filter(|_| call.applies()) {
        object["metadata"]["managedFields"] = managers.clone();
    }
    object
}

/// Writes the decision about a request for a certificate, and nothing else of it.
async fn approval(server: &ApiServer, call: &Call, verb: &str, sent: &[u8]) -> Result<Response<Body>, Status> {
    let written = write::update(server, call, Part::Status, |old| {
        let wanted = wanted(call, verb, sent, old, &["status", "conditions"])?;
        let mut object = with_head(call, old, &wanted);
        object["status"]["conditions"] = wanted["status"]["conditions"].clone();
        Ok(object)
    })
    .await?;
    written.respond(call, StatusCode::OK)
}

/// Adds containers to a pod that runs; none is changed or taken away.
async fn ephemeral(server: &ApiServer, call: &Call, verb: &str, sent: &[u8]) -> Result<Response<Body>, Status> {
    const FIELD: &str = "spec.ephemeralContainers";
    let written = write::update(server, call, Part::Internal, |old| {
        let wanted = wanted(call, verb, sent, old, &["spec", "ephemeralContainers"])?;
        let before = table::list(&old["spec"]["ephemeralContainers"]);
        let after = table::list(&wanted["spec"]["ephemeralContainers"]);
        for container in before {
            let now = after.iter().find(|other| other["name"] == container["name"]);
            if now.is_none_or(|now| !unchanged(container, now)) {
                let why = format!("existing ephemeral containers {} may not be changed", container["name"]);
                let error = FieldError::forbidden(FIELD, &why);
                return Err(Status::invalid("", "Pod", &call.route.name, &[error]));
            }
        }
        let mut object = with_head(call, old, &wanted);
        object["spec"]["ephemeralContainers"] = after.into();
        Ok(object)
    })
    .await?;
    written.respond(call, StatusCode::OK)
}

/// Whether what was said of a container is still said; defaults that were filled in need not be repeated.
fn unchanged(before: &Value, now: &Value) -> bool {
    now.as_object().is_some_and(|now| now.iter().all(|(field, value)| before[field] == *value))
}

fn scale_of(kind: &Kind, object: &Value) -> Result<Value, Status> {
    let (wanted, observed, selector) = match &kind.rules {
        Rules::Custom(custom) => custom.scale(object)?,
        Rules::Builtin(_) => (
            table::count(&object["spec"]["replicas"]).into(),
            table::count(&object["status"]["replicas"]).into(),
            table::selector(&object["spec"]["selector"]),
        ),
    };
    let metadata = json!({
        "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"], "uid": object["metadata"]["uid"],
        "resourceVersion": object["metadata"]["resourceVersion"], "creationTimestamp": object["metadata"]["creationTimestamp"],
    });
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": wanted }, "status": { "replicas": observed, "selector": selector },
    }))
}

async fn scale(server: &ApiServer, call: &Call, verb: &str, sent: &[u8]) -> Result<Response<Body>, Status> {
    let said = if call.applies() { Some(Said::read(call, sent, &["spec", "replicas"])?) } else { None };
    let patches = verb == "patch" && said.is_none();
    let patch = if patches { Some(PatchKind::from_content_type(call.content_type(), false)?) } else { None };
    let sent: Value = match (patch, &said) {
        (Some(_), _) => {
            serde_json::from_slice(sent).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?
        }
        (None, Some(_)) => Value::Null,
        (None, None) => body::parse(&call.headers, sent)?,
    };
    // What is wanted of one state is asked about, and written if that still stands.
    for _ in 0..write::TRIES {
        let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let entry = conversion::shown_one(server, &call.kind, entry).await?;
        let seen = read::decoded(&call.kind, &entry)?;
        let before = scale_of(&call.kind, &seen)?;
        let mut wanted = match (patch, &said) {
            (Some(kind), _) => kind.apply(&before, &sent)?,
            (None, Some(said)) => {
                let mut wanted = before.clone();
                wanted["metadata"]["resourceVersion"] = Value::Null;
                wanted["spec"]["replicas"] = said.says("/spec/replicas").cloned().unwrap_or_default();
                wanted
            }
            (None, None) => sent.clone(),
        };
        let version = meta(&wanted, "resourceVersion");
        let unconditional = patch.is_some() || version.is_empty();
        if !unconditional && version != meta(&seen, "resourceVersion") {
            return Err(call.stale());
        }
        let what = (Operation::Update, Some(["autoscaling", "v1", "Scale"]));
        admission::ask(server, call, what, &mut wanted, (Some(&before), call.dry_run()?)).await?;
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", &call.route.name, &[error]));
        }
        let written = write::update(server, call, Part::Internal, |old| {
            if meta(old, "resourceVersion") != meta(&seen, "resourceVersion") {
                return Err(call.stale());
            }
            let mut object = old.clone();
            if let Some(said) = &said {
                object = said.onto(call, old)?;
            }
            match &call.kind.rules {
                Rules::Custom(custom) => custom.set_replicas(&mut object, replicas),
                Rules::Builtin(_) => object["spec"]["replicas"] = replicas.into(),
            }
            Ok(object)
        });
        match written.await {
            Err(status) if unconditional && status == call.stale() => {}
            written => return Ok(body::json(StatusCode::OK, &scale_of(&call.kind, &written?.object)?)),
        }
    }
    Err(call.stale())
}

/// Gives a pod its node (`Binding`).
async fn bind(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    let mut binding = body::parse(&call.headers, sent)?;
    let dry_run = write::WriteOptions::of(call)?.dry_run;
    let what = (Operation::Create, Some(["", "v1", "Binding"]));
    admission::ask(server, call, what, &mut binding, (None, dry_run)).await?;
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    let (group, plural, name) = (&call.kind.names.group, &call.kind.names.plural, &call.route.name);
    if node.is_empty() {
        let error = FieldError::required("target.name", "");
        return Err(Status::invalid("", "Binding", name, &[error]));
    }
    let target = &binding["target"]["kind"];
    if !matches!(target.as_str(), None | Some("" | "Node")) {
        let error = FieldError::not_supported("target.kind", target, &["Node", "<empty>"]);
        return Err(Status::invalid("", "Binding", name, &[error]));
    }
    if !matches!(meta(&binding, "name"), "" | "*") && meta(&binding, "name") != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let refuse = |why: String| Err(Status::conflict(group, &format!("{plural}/binding"), name, &why));
    // What stands was judged when it came, and nothing else of it is changed here.
    for _ in 0..write::TRIES {
        let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        // Its text is read and changed in a few places: it is no more than that, and pods are bound by the thousand.
        let at = |path: &str| object::value_at(&entry.value, path);
        let (uid, found) = (meta(&binding, "uid"), at("metadata.uid"));
        if !uid.is_empty() && found != uid {
            let found = found.as_str().unwrap_or_default();
            return refuse(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"));
        }
        if at("metadata.deletionTimestamp").is_string() {
            return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if let Some(given) = at("spec.nodeName").as_str().filter(|n| !n.is_empty()) {
            return refuse(format!("pod {name} is already assigned to node {given:?}"));
        }
        if at("spec.schedulingGates").as_array().is_some_and(|gates| !gates.is_empty()) {
            return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let wrong = NameRule::Subdomain.judge(&node);
        if !wrong.is_empty() {
            let error = |why: &String| FieldError::invalid("spec.nodeName", &node.as_str().into(), why);
            return Err(Status::invalid("", "Pod", name, &wrong.iter().map(error).collect::<Vec<_>>()));
        }
        let mut conditions = at("status.conditions").as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::now() }));
        let changes = [
            ("metadata.generation", (at("metadata.generation").as_i64().unwrap_or(1) + 1).into()),
            ("spec.nodeName", node.as_str().into()),
            ("status.conditions", conditions.into()),
        ];
        let put = |value: Bytes, (path, new): &(&str, Value)| object::put_at(&value, path, new);
        let value = changes.iter().try_fold(entry.value.clone(), put);
        let value = value.ok_or_else(|| Status::internal("the pod has no spec or no status"))?;
        let known = Precondition::Revision(entry.revision);
        match if dry_run { Ok(0) } else { server.inner.store.put(&call.key(), known, value).await } {
            Ok(_) => {
                let status =
                    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
                return Ok(body::json(StatusCode::CREATED, &status));
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(write::write_error(&call.kind, name, error)),
        }
    }
    Err(Status::stale(group, plural, name))
}

/// Writes a namespace's finalizers; with the last one gone it goes too.
async fn finalize(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    let sent = body::parse(&call.headers, sent)?;
    let written = write::update(server, call, Part::Internal, |old| {
        let mut object = old.clone();
        object["spec"]["finalizers"] = sent["spec"]["finalizers"].as_array().cloned().unwrap_or_default().into();
        object["metadata"]["resourceVersion"] = sent["metadata"]["resourceVersion"].clone();
        Ok(object)
    })
    .await?;
    written.respond(call, StatusCode::OK)
}
