//! OpenAPI v3: which operations there are, and the schemas of every kind, so that `kubectl explain` explains it and `kubectl apply` knows
//! that the server judges unknown fields itself (`fieldValidation`).
//!
//! Not built: descriptions of fields, v2, the protobuf form, an ETag.

mod schemas;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::Kind;
use crate::registry::Registry;
use crate::status::Status;

/// The group versions and where their documents are.
pub fn index(registry: &Registry) -> Value {
    let mut paths = BTreeMap::new();
    for kind in registry.all() {
        let at = path(&kind);
        paths.entry(at).or_insert_with_key(|at| {
            let document = document(registry, at).map(|d| d.to_string()).unwrap_or_default();
            let hash: String = Sha256::digest(document).iter().take(16).map(|b| format!("{b:02X}")).collect();
            json!({ "serverRelativeURL": format!("/openapi/v3/{at}?hash={hash}") })
        });
    }
    json!({ "paths": paths })
}

fn path(kind: &Kind) -> String {
    let n = &kind.names;
    if n.group.is_empty() { format!("api/{}", n.version) } else { format!("apis/{}/{}", n.group, n.version) }
}

/// The document of `api/v1` or `apis/GROUP/VERSION`.
///
/// # Errors
/// 404 for one that is not served.
pub fn document(registry: &Registry, group_version: &str) -> Result<Value, Status> {
    let kinds: Vec<_> = registry.all().into_iter().filter(|kind| path(kind) == group_version).collect();
    if kinds.is_empty() {
        return Err(Status::no_resource());
    }
    let mut paths = Map::new();
    for kind in &kinds {
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{group_version}{scope}/{}", kind.names.plural);
        paths.insert(collection.clone(), json!({ "get": operation(kind, "list"), "post": operation(kind, "post") }));
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation(kind, "get"), "put": operation(kind, "put"),
                "patch": operation(kind, "patch"), "delete": operation(kind, "delete"),
            }),
        );
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.34.0" },
        "paths": paths,
        "components": { "schemas": schemas::of(&kinds) },
    }))
}

fn operation(kind: &Kind, action: &str) -> Value {
    let n = &kind.names;
    let query =
        |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters = match action {
        "patch" => vec![query("dryRun"), query("fieldManager"), query("fieldValidation"), query("force")],
        "post" | "put" => vec![query("dryRun"), query("fieldManager"), query("fieldValidation")],
        "list" => {
            vec![query("labelSelector"), query("fieldSelector"), query("limit"), query("continue"), query("watch")]
        }
        _ => Vec::new(),
    };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": { "group": n.group, "version": n.version, "kind": n.kind },
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
    });
    if action == "patch" {
        let mut content = Map::new();
        for media in ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"] {
            content.insert(media.into(), json!({ "schema": { "type": "object" } }));
        }
        operation["requestBody"] = json!({ "content": content });
    }
    operation
}
