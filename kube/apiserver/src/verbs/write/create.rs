//! New objects.

use std::sync::Arc;

use serde_json::Value;
use substrate_store::Precondition;

use super::parts::system_fields;
use super::{WriteOptions, Written, after_write, kept, place, understand, validate, write_error};
use crate::admission::{self, Operation, Request};
use crate::apply::{self, Writer};
use crate::auth::User;
use crate::kinds::Kind;
use crate::object::{self, meta, metadata};
use crate::server::ApiServer;
use crate::status::Status;

/// Creates `sent` in `namespace`.
pub async fn create(
    server: &ApiServer,
    user: &User,
    kind: &Arc<Kind>,
    namespace: &str,
    sent: Value,
    options: WriteOptions,
) -> Result<Written, Status> {
    let mut object = understand(kind, sent, options.validation)?;
    place(kind, namespace, &mut object)?;
    if kind.has_status && kind.names.kind != "Node" {
        // A node registers with its status; every other status is written by who observes it.
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
    }
    let brought = metadata(&mut object).remove("managedFields").unwrap_or_default();
    system_fields(&mut object);
    if !kind.counts {
        metadata(&mut object).remove("generation");
    }
    kind.default(&mut object);
    kind.prepare(&mut object, None, user);
    let managers = if options.applied {
        Some(brought).filter(Value::is_array)
    } else {
        let writer = Writer { name: &options.manager, version: &kind.names.api_version(), subresource: "" };
        apply::note(None, &object, Value::Null, brought, kind.view(), &writer).0
    };
    if let Some(managers) = managers {
        metadata(&mut object).insert("managedFields".into(), managers);
    }
    let name = meta(&object, "name").to_owned();
    let request = Request {
        operation: Operation::Create,
        group: &kind.names.group,
        plural: &kind.names.plural,
        subresource: "",
        kind,
        sent: None,
        namespace,
        name: &name,
        user,
        old: None,
        dry_run: options.dry_run,
    };
    admission::mutate(server, &request, &mut object).await?;
    validate(kind, &object, None)?;
    let name = meta(&object, "name").to_owned();
    let exists = || match server.inner.store.get(&kind.key(namespace, &name)) {
        Some(_) => Err(Status::already_exists(&kind.names.group, &kind.names.plural, &name)),
        None => Ok(()),
    };
    let _taken = if kind.is("", "services") {
        // Before its addresses are looked at: they are taken by the object itself.
        exists()?;
        let taken = server.inner.addresses.taken(&server.inner.store, &kind.prefix("")).await?;
        server.inner.addresses.assign(&mut object, None, &taken.others(""))?;
        Some(taken)
    } else {
        None
    };
    admission::judge(server, &request, &object).await?;
    exists()?;
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        object["status"] = crate::custom::status(&object);
    }
    admission::charge(server, &request, &object).await?;
    if options.dry_run {
        return Ok(Written { object, text: None });
    }
    let (value, shown) = kept(server, kind, &object).await?;
    let revision = server
        .inner
        .store
        .put(&kind.key(namespace, &name), Precondition::Absent, value)
        .await
        .map_err(|e| write_error(kind, &name, e))?;
    metadata(&mut object).insert("resourceVersion".into(), revision.to_string().into());
    after_write(server, kind, &object);
    if kind.is("", "namespaces") {
        account_of(server, &name).await;
    }
    let text = shown.map(|value| object::to_json(&value, revision));
    Ok(Written { object, text })
}

/// A namespace brings the account that its pods run as: where pods need one, the first must not come before it. A controller makes it again
/// if it is lost.
async fn account_of(server: &ApiServer, namespace: &str) {
    if server.inner.issuer.get().is_none() {
        return;
    }
    let Some(kind) = server.inner.registry.get("", "v1", "serviceaccounts") else { return };
    let account = serde_json::json!({ "metadata": { "name": "default" } });
    let root = User::new("system:apiserver", &[crate::authorization::MASTERS]);
    match Box::pin(crate::verbs::create_object(server, &root, &kind, namespace, account)).await {
        Err(status) if status.reason != "AlreadyExists" => {
            tracing::warn!(namespace, message = status.message, "no account was made");
        }
        _ => {}
    }
}
