//! Changes of objects.

use serde_json::Value;
use substrate_store::{Error, Precondition};

use super::parts::{count_generation, keep_addresses, merge_parts};
use super::{
    Part, WriteOptions, Written, after_delete, after_write, is_over, kept, place, understand, validate, write_error,
};
use crate::admission::{self, Operation, Request};
use crate::apply::{self, Writer};
use crate::custom::conversion;
use crate::object::{self, meta, metadata};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::verbs::Call;
use crate::verbs::read::decoded;

/// Tries of a change that does not name a version (upstream: 5).
pub const TRIES: usize = 8;

/// Changes one object: `change` makes the new one from the present one.
pub async fn update<F>(server: &ApiServer, call: &Call, part: Part, change: F) -> Result<Written, Status>
where
    F: Fn(&Value) -> Result<Value, Status>,
{
    let options = WriteOptions::of(call)?;
    let kind = &call.kind;
    for _ in 0..TRIES {
        let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let entry = conversion::shown_one(server, kind, entry).await?;
        let mut old = decoded(kind, &entry)?;
        let changed = change(&old)?;
        let mut object = understand(kind, changed, options.validation).map_err(|status| {
            // Of a patch it is the patch that is wrong.
            if call.method == http::Method::PATCH && !call.applies() { status.of_patch() } else { status }
        })?;
        if meta(&object, "name").is_empty() {
            metadata(&mut object).insert("name".into(), call.route.name.clone().into());
        }
        let (given, asked) = (meta(&object, "namespace"), &call.route.namespace);
        if kind.namespaced && !given.is_empty() && given != asked {
            return Err(Status::bad_request(format!(
                "the namespace of the object ({given}) does not match the namespace on the request ({asked})"
            )));
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
            if call.method == http::Method::PATCH {
                let error = FieldError::invalid("metadata.uid", &uid.into(), "field is immutable");
                return Err(Status::invalid(&kind.names.group, &kind.names.kind, &call.route.name, &[error]));
            }
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta(&old, "uid"));
            return Err(Status::conflict(&kind.names.group, &kind.names.plural, &call.route.name, &why));
        }
        let brought = metadata(&mut object).remove("managedFields").unwrap_or_default();
        let stand = metadata(&mut old).remove("managedFields").unwrap_or_default();
        merge_parts(kind, part, &old, &mut object);
        kind.default(&mut object);
        kind.prepare(&mut object, Some(&old), &call.user);
        let (managers, moved) = note(call, &options, &old, &object, stand, brought);
        let request = Request {
            operation: Operation::Update,
            group: &kind.names.group,
            plural: &kind.names.plural,
            subresource: &call.route.subresource,
            kind,
            sent: None,
            namespace: &call.route.namespace,
            name: &call.route.name,
            user: &call.user,
            old: Some(&old),
            dry_run: options.dry_run,
        };
        let asked = request.subresource != "scale"; // which are asked about as what they are
        if asked {
            admission::mutate(server, &request, &mut object).await?;
        }
        let of_service = kind.is("", "services") && part == Part::Main;
        if of_service {
            keep_addresses(&old, &mut object);
        }
        if part == Part::Internal && kind.is("", "pods") {
            // What comes by a subresource of its own has been judged there.
            let mut before = old.clone();
            for field in ["containers", "initContainers", "ephemeralContainers"] {
                if object["spec"][field].is_array() {
                    before["spec"][field] = object["spec"][field].clone();
                }
            }
            validate(kind, &object, Some(&before))?;
        } else {
            validate(kind, &object, Some(&old))?;
        }
        let _taken = if of_service {
            let taken = server.inner.addresses.taken(&server.inner.store, &kind.prefix("")).await?;
            server.inner.addresses.assign(&mut object, Some(&old), &taken.others(&call.key()))?;
            Some(taken)
        } else {
            None
        };
        if asked {
            admission::judge(server, &request, &object).await?;
        }
        count_generation(kind, &old, &mut object);
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") && part == Part::Main {
            object["status"] = crate::custom::status(&object);
        }
        metadata(&mut object).insert("resourceVersion".into(), entry.revision.to_string().into());
        if part == Part::Main || request.subresource == "resize" {
            admission::charge(server, &request, &object).await?;
        }
        let same = !moved && object == old;
        let renewal = !same && kind.is_renewal(&old, &object);
        if let Some(managers) = managers {
            metadata(&mut object).insert("managedFields".into(), managers);
        }
        if same || options.dry_run {
            return Ok(Written { object, text: None });
        }
        let (value, shown) = kept(server, kind, &object).await?;
        let (store, key, known) = (&server.inner.store, call.key(), Precondition::Revision(entry.revision));
        let written = match renewal {
            _ if is_over(kind, &object) => store.delete(&key, entry.revision).await,
            true => store.renew(&key, known, value).await,
            false => store.put(&key, known, value).await,
        };
        match written {
            Ok(revision) => {
                metadata(&mut object).insert("resourceVersion".into(), revision.to_string().into());
                if is_over(kind, &object) {
                    after_delete(server, kind, &object);
                } else {
                    after_write(server, kind, &object);
                }
                let text = shown.map(|value| object::to_json(&value, revision));
                return Ok(Written { object, text });
            }
            Err(Error::Conflict { .. }) if unconditional => {}
            Err(error) => return Err(write_error(kind, &call.route.name, error)),
        }
    }
    Err(Status::stale(&kind.names.group, &kind.names.plural, &call.route.name))
}

/// Who owns what, and whether that is other than what `stand`s. `brought` are the managers that the request came with.
fn note(
    call: &Call,
    options: &WriteOptions,
    old: &Value,
    object: &Value,
    stand: Value,
    brought: Value,
) -> (Option<Value>, bool) {
    let subresource = call.route.subresource.as_str();
    if options.applied {
        // Applying has noted its own.
        let moved = brought != stand;
        return (Some(brought).filter(Value::is_array), moved);
    }
    // Managers are set through the object itself alone.
    let brought = if subresource.is_empty() { brought } else { Value::Null };
    let writer = Writer { name: &options.manager, version: &call.kind.names.api_version(), subresource };
    apply::note(Some(old), object, stand, brought, call.kind.view(), &writer)
}
