//! The older form, Swagger 2.0: one document of everything, in which a parameter has no schema of its own and a body is a parameter.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{operations, path, schemas};
use crate::kinds::Kind;

/// The text of the document of all `kinds`.
pub fn document(kinds: &[Arc<Kind>]) -> String {
    let mut paths = Map::new();
    for kind in kinds {
        for (at, mut operations) in operations(&path(kind), kind) {
            operations.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(older);
            let names = at.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let given = |name| json!({ "name": name, "in": "path", "required": true, "type": "string" });
            operations["parameters"] = names.map(given).collect();
            paths.insert(at, operations);
        }
    }
    let mut definitions = schemas::of(kinds);
    for schema in definitions.values_mut().filter_map(Value::as_object_mut) {
        if schema.remove("oneOf").is_some() {
            schema.insert("type".into(), "string".into()); // there is no either here
        }
    }
    let document = json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.34.0" },
        "paths": paths,
        "definitions": definitions,
    });
    document.to_string().replace("\"#/components/schemas/", "\"#/definitions/")
}

/// Makes an operation of v3 one of v2.
fn older(operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(schema)) = parameter.remove("schema") {
            parameter.extend(schema);
        }
    }
    let action = operation["x-kubernetes-action"].as_str().unwrap_or_default();
    if matches!(action, "post" | "put" | "patch")
        && let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut)
    {
        parameters.push(json!({ "name": "body", "in": "body", "required": true, "schema": { "type": "object" } }));
    }
    let content = operation.as_object_mut().and_then(|operation| operation.remove("requestBody"));
    if let Some(Value::Object(content)) = content.map(|mut body| body["content"].take()) {
        operation["consumes"] = content.keys().map(String::as_str).collect();
    }
    operation["produces"] = json!(["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE]);
}
