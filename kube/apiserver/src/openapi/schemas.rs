//! The schemas of OpenAPI: of built-in types from the table, of custom kinds from their definitions.
//!
//! Descriptions are upstream's sentences, or those of who wrote a definition; none are kept, so none are told.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Rules};
use crate::schema::{Shape, Type, View, type_named};

/// The schemas of `kinds` and of all that they hold, by name.
pub fn of(kinds: &[std::sync::Arc<Kind>]) -> Map<String, Value> {
    let mut schemas = BTreeMap::new();
    for kind in kinds {
        let n = &kind.names;
        let head = json!([{ "group": n.group, "version": n.version, "kind": n.kind }]);
        match (&kind.rules, kind.view()) {
            (Rules::Builtin(_), View::Type(of)) => {
                add(of, &mut schemas);
                if let Some(schema) = schemas.get_mut(&name(of)) {
                    schema["x-kubernetes-group-version-kind"] = head;
                }
            }
            (Rules::Custom(custom), _) => {
                let mut schema = custom.openapi();
                let text = json!({ "type": "string" });
                for field in ["apiVersion", "kind"] {
                    schema["properties"][field] = text.clone();
                }
                if let Some(meta) = type_named("meta.v1.ObjectMeta") {
                    add(meta, &mut schemas);
                    schema["properties"]["metadata"] = reference(meta);
                }
                schema["x-kubernetes-group-version-kind"] = head;
                let reversed: Vec<&str> = n.group.rsplit('.').collect();
                schemas.insert(format!("{}.{}.{}", reversed.join("."), n.version, n.kind), schema);
            }
            _ => {}
        }
    }
    schemas.into_iter().collect()
}

/// As `io.k8s.api.core.v1.Pod`.
fn name(of: &Type) -> String {
    let prefix = match of.name.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{prefix}.{}", of.name)
}

fn reference(of: &Type) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", name(of)) })
}

/// A value of either type, which has a name: `kubectl explain` shows that.
fn either(of: &str, types: [&str; 2], mut schema: Value, schemas: &mut BTreeMap<String, Value>) -> Value {
    let name = format!("io.k8s.apimachinery.pkg.{of}");
    schema["oneOf"] = types.iter().map(|of| json!({ "type": of })).collect();
    let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
    schemas.insert(name, schema);
    reference
}

/// The schema of a type and of those it holds, each once.
fn add(of: &'static Type, schemas: &mut BTreeMap<String, Value>) {
    if schemas.contains_key(&name(of)) {
        return;
    }
    schemas.insert(name(of), Value::Null); // types hold themselves
    let mut properties = Map::new();
    for field in of.fields() {
        properties.insert(field.name.to_owned(), shape(&field.shape, schemas));
    }
    let required: Vec<&str> = of.fields().iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schemas.insert(name(of), schema);
}

fn shape(of: &Shape, schemas: &mut BTreeMap<String, Value>) -> Value {
    match of {
        Shape::Text => json!({ "type": "string" }),
        Shape::Quantity => either("api.resource.Quantity", ["string", "number"], json!({}), schemas),
        Shape::Bytes => json!({ "type": "string", "format": "byte" }),
        Shape::Time | Shape::MicroTime => json!({ "type": "string", "format": "date-time" }),
        Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
        Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
        Shape::Float => json!({ "type": "number", "format": "double" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::IntOrString => {
            let format = json!({ "format": "int-or-string" });
            either("util.intstr.IntOrString", ["integer", "string"], format, schemas)
        }
        Shape::Any | Shape::Or(_) => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
        Shape::Object(of) => {
            add(of, schemas);
            reference(of)
        }
        Shape::List(of) => json!({ "type": "array", "items": shape(of, schemas) }),
        Shape::Map(of) => json!({ "type": "object", "additionalProperties": shape(of, schemas) }),
    }
}
