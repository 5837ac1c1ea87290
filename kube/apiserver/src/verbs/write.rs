//! Create and update: the one way in which objects change.
//!
//! ```text
//! sent ─decode─▶ known fields ─default─▶ ─system fields─▶ ─admission─▶ ─validate─▶ store (compare-and-swap)
//! ```

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::Value;
use substrate_store::{Error, Precondition};

use super::read::decoded;
use super::{Call, FieldValidation};
use crate::admission::{self, Operation, Request};
use crate::auth::User;
use crate::body::Body;
use crate::kinds::{Errors, Kind};
use crate::object::{self, meta, metadata};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};

/// Tries of a change that does not name a version (upstream: 5).
const TRIES: usize = 8;
/// Bytes of all annotations (`TotalAnnotationSizeLimitB` upstream).
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but `status` (of kinds that write it apart).
    Main,
    /// `status` alone.
    Status,
    /// The server itself changes it: scale, binding, finalize. No admission.
    Internal,
}

#[derive(Clone, Copy)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
}

impl WriteOptions {
    pub fn of(call: &Call) -> Result<Self, Status> {
        Ok(Self { dry_run: call.dry_run()?, validation: FieldValidation::of(&call.query)? })
    }
}

/// An object as it is after a write.
pub struct Written {
    pub object: Value,
    pub warnings: Vec<String>,
}

impl Written {
    /// The response to whoever asked for the write.
    pub fn respond(&self, call: &Call, code: StatusCode) -> Result<Response<Body>, Status> {
        let mut response = super::represent(call, code, &self.object)?;
        super::warn(&mut response, &self.warnings);
        Ok(response)
    }
}

/// Creates `sent` in `namespace`.
pub async fn create(
    server: &ApiServer,
    user: &User,
    kind: &Arc<Kind>,
    namespace: &str,
    sent: Value,
    options: WriteOptions,
) -> Result<Written, Status> {
    let (mut object, mut warnings) = understand(kind, sent, options.validation)?;
    place(kind, namespace, &mut object)?;
    if kind.has_status && kind.names.kind != "Node" {
        // A node registers with its status; every other status is written by who observes it.
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
    }
    system_fields(&mut object);
    if !kind.counts {
        metadata(&mut object).remove("generation");
    }
    kind.default(&mut object);
    kind.prepare(&mut object, None, user);
    let name = meta(&object, "name").to_owned();
    let request = Request {
        operation: Operation::Create,
        group: &kind.names.group,
        plural: &kind.names.plural,
        subresource: "",
        kind,
        namespace,
        name: &name,
        user,
        old: None,
        dry_run: options.dry_run,
    };
    warnings.extend(admission::admit(server, &request, &mut object).await?);
    let name = meta(&object, "name").to_owned();
    if server.inner.store.get(&kind.key(namespace, &name)).is_some() {
        // Before its addresses are looked at: they are taken by the object itself.
        return Err(Status::already_exists(&kind.names.group, &kind.names.plural, &name));
    }
    let _lock = if kind.is("", "services") {
        let lock = server.inner.addresses.lock().await;
        let others = all(server, kind)?;
        server.inner.addresses.assign(&mut object, &others)?;
        Some(lock)
    } else {
        None
    };
    validate(kind, &object, None)?;
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        object["status"] = crate::custom::status(&object);
    }
    if options.dry_run {
        return Ok(Written { object, warnings });
    }
    let value = object::encode(&kind.stored(&object)).map_err(Status::internal)?;
    let revision = server
        .inner
        .store
        .put(&kind.key(namespace, &name), Precondition::Absent, value)
        .await
        .map_err(|e| write_error(kind, &name, e))?;
    metadata(&mut object).insert("resourceVersion".into(), revision.to_string().into());
    after_write(server, kind, &object);
    Ok(Written { object, warnings })
}

/// Changes one object: `change` makes the new one from the present one.
pub async fn update<F>(server: &ApiServer, call: &Call, part: Part, change: F) -> Result<Written, Status>
where
    F: Fn(&Value) -> Result<Value, Status>,
{
    let options = WriteOptions::of(call)?;
    let kind = &call.kind;
    for _ in 0..TRIES {
        let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let old = decoded(kind, &entry)?;
        let (mut object, mut warnings) = understand(kind, change(&old)?, options.validation)?;
        if meta(&object, "name").is_empty() {
            metadata(&mut object).insert("name".into(), call.route.name.clone().into());
        }
        place(kind, &call.route.namespace, &mut object)?;
        if meta(&object, "name") != call.route.name {
            return Err(Status::bad_request(
                "the name of the object (".to_owned()
                    + meta(&object, "name")
                    + ") does not match the name on the URL ("
                    + &call.route.name
                    + ")",
            ));
        }
        let asked = meta(&object, "resourceVersion").to_owned();
        let unconditional = asked.is_empty() || asked == "0";
        if !unconditional && asked != entry.revision.to_string() {
            return Err(Status::stale(&kind.names.group, &kind.names.plural, &call.route.name));
        }
        let uid = meta(&object, "uid");
        if !uid.is_empty() && uid != meta(&old, "uid") {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta(&old, "uid"));
            return Err(Status::conflict(&kind.names.group, &kind.names.plural, &call.route.name, &why));
        }
        merge_parts(kind, part, &old, &mut object);
        kind.default(&mut object);
        kind.prepare(&mut object, Some(&old), &call.user);
        if part != Part::Internal {
            let request = Request {
                operation: Operation::Update,
                group: &kind.names.group,
                plural: &kind.names.plural,
                subresource: &call.route.subresource,
                kind,
                namespace: &call.route.namespace,
                name: &call.route.name,
                user: &call.user,
                old: Some(&old),
                dry_run: options.dry_run,
            };
            warnings.extend(admission::admit(server, &request, &mut object).await?);
        }
        let _lock = if kind.is("", "services") && part == Part::Main {
            let lock = server.inner.addresses.lock().await;
            keep_addresses(&old, &mut object);
            let others: Vec<Value> =
                all(server, kind)?.into_iter().filter(|o| o["metadata"]["uid"] != old["metadata"]["uid"]).collect();
            server.inner.addresses.assign(&mut object, &others)?;
            Some(lock)
        } else {
            None
        };
        let mut before = old.clone();
        if part == Part::Internal && kind.is("", "pods") && object["spec"]["ephemeralContainers"].is_array() {
            // They come by their own subresource, which has judged them.
            before["spec"]["ephemeralContainers"] = object["spec"]["ephemeralContainers"].clone();
        }
        validate(kind, &object, Some(&before))?;
        count_generation(kind, &old, &mut object);
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") && part == Part::Main {
            object["status"] = crate::custom::status(&object);
        }
        metadata(&mut object).insert("resourceVersion".into(), entry.revision.to_string().into());
        if object == old || options.dry_run {
            return Ok(Written { object, warnings });
        }
        let value = object::encode(&kind.stored(&object)).map_err(Status::internal)?;
        let written = if is_over(kind, &object) {
            server.inner.store.delete(&call.key(), entry.revision).await
        } else {
            server.inner.store.put(&call.key(), Precondition::Revision(entry.revision), value).await
        };
        match written {
            Ok(revision) => {
                metadata(&mut object).insert("resourceVersion".into(), revision.to_string().into());
                if is_over(kind, &object) {
                    after_delete(server, kind, &object);
                } else {
                    after_write(server, kind, &object);
                }
                return Ok(Written { object, warnings });
            }
            Err(Error::Conflict { .. }) if unconditional => {}
            Err(error) => return Err(write_error(kind, &call.route.name, error)),
        }
    }
    Err(Status::stale(&kind.names.group, &kind.names.plural, &call.route.name))
}

/// Whether an object that is being deleted has nothing left that holds it.
pub fn is_over(kind: &Kind, object: &Value) -> bool {
    object::is_deleting(object)
        && object::finalizers(object).is_empty()
        && (!kind.is("", "namespaces") || object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
        && (!kind.is("", "pods") || object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0)
}

/// Decodes what was sent and deals with unknown fields as asked.
fn understand(kind: &Kind, sent: Value, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
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
    let cannot = |why: &str| {
        Status::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {why}", kind.names.version))
    };
    let mut decoded = kind.decode(sent).map_err(|why| cannot(&why))?;
    decoded.object["apiVersion"] = version.into();
    decoded.object["kind"] = name.as_ref().into();
    let unknown: Vec<String> = decoded.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            Err(cannot(&format!("strict decoding error: {}", unknown.join(", "))))
        }
        FieldValidation::Warn => Ok((decoded.object, unknown)),
        _ => Ok((decoded.object, Vec::new())),
    }
}

/// Puts an object into the namespace of the URL.
fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), Status> {
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

/// What only the server writes.
fn system_fields(object: &mut Value) {
    let generate = meta(object, "generateName").to_owned();
    let map = metadata(object);
    if map.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() && !generate.is_empty() {
        const SUFFIX: usize = 5; // as upstream, from letters that make no words
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let random = uuid::Uuid::new_v4();
        let suffix: String =
            random.as_bytes()[..SUFFIX].iter().map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect();
        let base: String = generate.chars().take(63 - SUFFIX).collect();
        map.insert("name".into(), format!("{base}{suffix}").into());
    }
    map.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    map.insert("creationTimestamp".into(), object::now().into());
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
        map.remove(field);
    }
    map.insert("generation".into(), 1.into());
}

/// Keeps of the old object what this write may not change.
fn merge_parts(kind: &Kind, part: Part, old: &Value, object: &mut Value) {
    if part == Part::Status {
        let status = object["status"].take();
        let version = object["metadata"]["resourceVersion"].take();
        *object = old.clone();
        object["status"] = status;
        object["metadata"]["resourceVersion"] = version;
        return;
    }
    for field in
        ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"]
    {
        let kept = old["metadata"][field].clone();
        let map = metadata(object);
        if kept.is_null() {
            map.remove(field)
        } else {
            map.insert(field.into(), kept)
        };
    }
    metadata(object).remove("managedFields");
    if kind.has_status && part == Part::Main {
        if old["status"].is_null() {
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
            }
        } else {
            object["status"] = old["status"].clone();
        }
    }
    if object::is_deleting(old) {
        // While something is being deleted, finalizers can only be taken away.
        let before: Vec<Value> = object::finalizers(old).into_iter().map(Value::from).collect();
        let kept: Vec<Value> =
            object::finalizers(object).into_iter().map(Value::from).filter(|f| before.contains(f)).collect();
        metadata(object).insert("finalizers".into(), kept.into());
    }
    if object["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty) {
        metadata(object).remove("finalizers");
    }
}

/// A Service keeps its addresses and ports when an update does not name them.
fn keep_addresses(old: &Value, object: &mut Value) {
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" {
        return;
    }
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() && old["spec"]["clusterIP"].is_string() {
        spec["clusterIP"] = old["spec"]["clusterIP"].clone();
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
        let before = old["spec"]["ports"].as_array().into_iter().flatten().find(same);
        if port["nodePort"].is_null()
            && let Some(node) = before.map(|o| &o["nodePort"]).filter(|n| !n.is_null())
        {
            port["nodePort"] = node.clone();
        }
    }
}

/// The generation counts changes of what is wanted: everything but metadata and status.
fn count_generation(kind: &Kind, old: &Value, object: &mut Value) {
    if !kind.counts {
        metadata(object).remove("generation");
        return;
    }
    let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
    let grown = before + i64::from(!wants_the_same(kind, old, object));
    metadata(object).insert("generation".into(), grown.into());
}

fn wants_the_same(kind: &Kind, old: &Value, new: &Value) -> bool {
    let wanted = |name: &&String| *name != "metadata" && !(kind.has_status && *name == "status");
    let names = |object: &Value| object.as_object().map_or(0, |map| map.keys().filter(wanted).count());
    names(old) == names(new)
        && new
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
            .filter(wanted)
            .all(|name| old.get(name) == new.get(name))
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
    for (i, owner) in object["metadata"]["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            errors.require(&owner[field], format!("metadata.ownerReferences[{i}].{field}"));
        }
    }
    kind.validate(object, old, &mut errors);
    if let Some(old) = old {
        kind.validate_update(old, object, &mut errors);
    }
    let errors = errors.into_vec();
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&kind.names.group, &kind.names.kind, name, &errors)) }
}

fn all(server: &ApiServer, kind: &Kind) -> Result<Vec<Value>, Status> {
    let page = server.inner.store.list(&kind.prefix(""), None, 0, None).map_err(Status::internal)?;
    page.entries.iter().map(|entry| decoded(kind, entry)).collect()
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
}

/// … and no longer once it is gone.
pub fn after_delete(server: &ApiServer, kind: &Kind, object: &Value) {
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        server.inner.registry.forget(object);
    }
}
