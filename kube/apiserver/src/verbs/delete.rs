//! Delete: at once, gracefully, or when what holds an object lets go.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use substrate_store::{Entry, Error, Precondition};

use super::Call;
use super::read::{Selection, decoded};
use super::write::{self, is_over, write_error};
use crate::admission::{self, Operation, Request};
use crate::body::{self, Body};
use crate::custom::conversion;
use crate::kinds::{Kind, Rules};
use crate::object::{self, meta, metadata};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};

/// `DeleteOptions`, from the body and the query.
#[derive(Clone, Debug, Default)]
struct Options {
    grace_seconds: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
}

impl Options {
    fn of(call: &Call, sent: &[u8]) -> Result<Self, Status> {
        let sent =
            if sent.iter().all(u8::is_ascii_whitespace) { Value::Null } else { body::parse(&call.headers, sent)? };
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let mut options = Self {
            grace_seconds: sent["gracePeriodSeconds"].as_i64(),
            propagation: text(&sent["propagationPolicy"]),
            uid: text(&sent["preconditions"]["uid"]),
            resource_version: text(&sent["preconditions"]["resourceVersion"]),
            dry_run: call.dry_run()? || sent["dryRun"].as_array().is_some_and(|d| !d.is_empty()),
        };
        if let Some(seconds) = call.query.get("gracePeriodSeconds") {
            options.grace_seconds = Some(
                seconds.parse().map_err(|_| Status::bad_request(format!("invalid gracePeriodSeconds {seconds:?}")))?,
            );
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            options.propagation = Some(policy.to_owned());
        }
        let refused = |error| Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        if sent["orphanDependents"].is_boolean() {
            if let Some(policy) = options.propagation {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                return refused(FieldError::invalid("propagationPolicy", &policy.into(), why));
            }
            let orphan = sent["orphanDependents"] == json!(true);
            options.propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        }
        match options.propagation.as_deref() {
            None | Some("Background" | "Foreground" | "Orphan") => {}
            Some(other) => {
                let known = &["Foreground", "Background", "Orphan", "nil"];
                return refused(FieldError::not_supported("propagationPolicy", &other.into(), known));
            }
        }
        if options.grace_seconds.is_some_and(|seconds| seconds < 0) {
            return Err(Status::bad_request("gracePeriodSeconds must be greater than or equal to 0"));
        }
        Ok(options)
    }
}

pub async fn delete(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    let options = Options::of(call, sent)?;
    let (object, gone) = delete_one(server, call, &call.key(), &call.route.name, &options).await?;
    if !gone || call.kind.is("", "pods") {
        return super::represent(call, StatusCode::OK, &object);
    }
    let n = &call.kind.names;
    let mut details = json!({ "name": call.route.name, "kind": n.plural, "uid": meta(&object, "uid") });
    if !n.group.is_empty() {
        details["group"] = n.group.as_ref().into();
    }
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Ok(body::json(StatusCode::OK, &status))
}

pub async fn delete_collection(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    let options = Options::of(call, sent)?;
    let selection = Selection::of(call)?;
    let page =
        server.inner.store.list(&call.kind.prefix(&call.route.namespace), None, 0, None).map_err(Status::internal)?;
    let mut items = Vec::new();
    for entry in &conversion::shown(server, &call.kind, page.entries).await? {
        let name = object::value_at(&entry.value, "metadata.name");
        if !selection.matches(&entry.value) {
            continue;
        }
        match delete_one(server, call, &entry.key, name.as_str().unwrap_or_default(), &options).await {
            Ok((mut object, _)) => {
                if matches!(call.kind.rules, Rules::Builtin(_)) {
                    // Of what they are the list says.
                    object
                        .as_object_mut()
                        .into_iter()
                        .for_each(|map| map.retain(|key, _| key != "kind" && key != "apiVersion"));
                }
                items.push(object);
            }
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let n = &call.kind.names;
    let list = json!({
        "kind": format!("{}List", n.kind), "apiVersion": n.api_version(),
        "metadata": { "resourceVersion": server.inner.store.revision().to_string() }, "items": items,
    });
    Ok(body::json(StatusCode::OK, &list))
}

/// The object as it is now or was last, and whether it is gone.
async fn delete_one(
    server: &ApiServer,
    call: &Call,
    key: &str,
    name: &str,
    options: &Options,
) -> Result<(Value, bool), Status> {
    let kind = &call.kind;
    let (group, plural) = (&kind.names.group, &kind.names.plural);
    loop {
        let entry = server.inner.store.get(key).ok_or_else(|| Status::not_found(group, plural, name))?;
        let entry = conversion::shown_one(server, kind, entry).await?;
        let old = decoded(kind, &entry)?;
        preconditions(kind, name, options, &entry, &old)?;
        if kind.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
            return Err(Status::forbidden(group, plural, name, "this namespace may not be deleted"));
        }
        let mut object = old.clone();
        let namespace = meta(&old, "namespace").to_owned();
        let request = Request {
            operation: Operation::Delete,
            group,
            plural,
            subresource: "",
            kind,
            sent: None,
            namespace: &namespace,
            name,
            user: &call.user,
            old: Some(&old),
            dry_run: options.dry_run,
        };
        if call.route.subresource.is_empty() {
            // Who evicts was judged as one who evicts.
            admission::mutate(server, &request, &mut old.clone()).await?;
            admission::judge(server, &request, &old).await?;
        }
        mark(kind, options, &mut object);
        let over = is_over(kind, &object);
        if options.dry_run {
            return Ok((if over { old } else { object }, over));
        }
        if over && kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            purge(server, &old).await?;
        }
        let written = if over {
            server.inner.store.delete(key, entry.revision).await
        } else if object == old {
            return Ok((old, false));
        } else {
            if kind.counts {
                let generation =
                    old["metadata"]["generation"].as_i64().unwrap_or(1) + i64::from(!object::is_deleting(&old));
                metadata(&mut object).insert("generation".into(), generation.into());
            }
            let value =
                object::encode(conversion::kept(server, kind, &object).await?.as_ref()).map_err(Status::internal)?;
            server.inner.store.put(key, Precondition::Revision(entry.revision), value).await
        };
        match written {
            Ok(revision) => {
                if over && !kind.is("", "pods") {
                    object = old; // nobody waited for it: it goes as it was
                }
                metadata(&mut object).insert("resourceVersion".into(), revision.to_string().into());
                if over {
                    write::after_delete(server, kind, &object);
                }
                return Ok((object, over));
            }
            Err(Error::Conflict { .. }) => {} // somebody wrote in between: look again
            Err(error) => return Err(write_error(kind, name, error)),
        }
    }
}

fn preconditions(kind: &Kind, name: &str, options: &Options, entry: &Entry, old: &Value) -> Result<(), Status> {
    // Upstream names the kind here, not the resource.
    let conflict = |why: String| Status::conflict(&kind.names.group, &kind.names.kind, name, &why);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta(old, "uid")) {
        let observed = meta(old, "uid");
        return Err(conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({observed}). The object might have been deleted and then recreated"
        )));
    }
    if let Some(version) = options.resource_version.as_deref().filter(|v| *v != entry.revision.to_string()) {
        let observed = entry.revision;
        return Err(conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({observed}). The object might have been modified"
        )));
    }
    Ok(())
}

/// Sets what says that deletion has begun, and what must be done before it ends.
fn mark(kind: &Kind, options: &Options, object: &mut Value) {
    let grace = grace_seconds(kind, options, object);
    let began = object::is_deleting(object);
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let is_namespace = kind.is("", "namespaces");
    let map = metadata(object);
    if !began {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        map.insert("deletionTimestamp".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
        if !is_namespace {
            map.insert("deletionGracePeriodSeconds".into(), grace.into());
        }
    } else if before.is_none_or(|before| grace < before) {
        map.insert("deletionGracePeriodSeconds".into(), grace.into()); // it can only be shortened
    }
    let mut finalizers: Vec<Value> = map.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(policy) = &options.propagation {
        finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
        match policy.as_str() {
            "Foreground" => finalizers.push("foregroundDeletion".into()),
            "Orphan" => finalizers.push("orphan".into()),
            _ => {}
        }
    }
    if finalizers.is_empty() {
        map.remove("finalizers");
    } else {
        map.insert("finalizers".into(), finalizers.into());
    }
    if is_namespace {
        object["status"]["phase"] = "Terminating".into();
    }
}

/// How long a pod that runs somewhere is given; everything else goes at once.
fn grace_seconds(kind: &Kind, options: &Options, object: &Value) -> i64 {
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if !kind.is("", "pods") || !placed || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    options.grace_seconds.unwrap_or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30))
}

/// Removes every object that a definition defined.
async fn purge(server: &ApiServer, definition: &Value) -> Result<(), Status> {
    for kind in crate::custom::kinds(definition) {
        let page = server.inner.store.list(&kind.prefix(""), None, 0, None).map_err(Status::internal)?;
        for entry in page.entries {
            match server.inner.store.delete(&entry.key, entry.revision).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(Error::Conflict { .. }) => {
                    return Err(Status::conflict(
                        "apiextensions.k8s.io",
                        "customresourcedefinitions",
                        meta(definition, "name"),
                        "its objects are being written; try again",
                    ));
                }
                Err(error) => return Err(Status::internal(error)),
            }
        }
    }
    Ok(())
}
