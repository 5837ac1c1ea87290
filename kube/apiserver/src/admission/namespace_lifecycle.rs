//! Nothing new in a namespace that is not there or is on its way out (admission plug-in NamespaceLifecycle).

use serde_json::json;

use super::{Operation, Request};
use crate::authorization::reviews::is_review;
use crate::object;
use crate::server::ApiServer;
use crate::status::Status;

/// Refuses what is to be made in a namespace that does not take anything.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>) -> Result<(), Status> {
    let (kind, namespace) = (request.kind, request.namespace);
    // What may be asked about a namespace does not say whether it is there.
    if request.operation != Operation::Create || !kind.namespaced || is_review(request.group) {
        return Ok(());
    }
    let Some(namespaces) = server.inner.registry.get("", "v1", "namespaces") else { return Err(Status::no_resource()) };
    let entry = server
        .inner
        .store
        .get(&namespaces.key("", namespace))
        .ok_or_else(|| Status::not_found("", "namespaces", namespace))?;
    if object::value_at(&entry.value, "metadata.deletionTimestamp").is_string() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = Status::forbidden(&kind.names.group, &kind.names.plural, request.name, &why);
        if let Some(details) = &mut status.details {
            let message = format!("namespace {namespace} is being terminated");
            details["causes"] =
                json!([{ "reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace" }]);
        }
        return Err(status);
    }
    Ok(())
}
