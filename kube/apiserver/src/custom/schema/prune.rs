//! Pruning: fields that no schema names go.

use serde_json::Value;

use super::{Additional, Schema};

/// Unknown fields that are told.
const TOLD_MAX: usize = 16;

/// Removes fields that no schema names; returns the paths of the first of them.
pub fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    // Almost nothing that is written has any, and looking costs less than telling.
    if has_unknown(object, schema, true) {
        prune_at(object, schema, true, &mut String::new(), &mut unknown);
    }
    unknown
}

/// Whether type and metadata of an object are the server's business, not the schema's.
fn is_head(schema: &Schema, root: bool, name: &str) -> bool {
    (root || schema.embedded) && matches!(name, "apiVersion" | "kind" | "metadata")
}

fn is_free(schema: &Schema) -> bool {
    schema.preserve && schema.properties.is_empty()
}

fn has_unknown(value: &Value, schema: &Schema, root: bool) -> bool {
    if is_free(schema) {
        return false;
    }
    match value {
        Value::Object(map) => map.iter().any(|(name, child)| {
            !is_head(schema, root, name)
                && match (schema.field(name), &schema.additional) {
                    (Some(of), _) => has_unknown(child, of, false),
                    (None, Additional::Any) => false,
                    (None, _) => !schema.preserve,
                }
        }),
        Value::Array(items) => items.iter().any(|item| match &schema.items {
            Some(of) => has_unknown(item, of, false),
            None => has_unknown(item, &Schema::default(), false),
        }),
        _ => false,
    }
}

fn prune_at(value: &mut Value, schema: &Schema, root: bool, path: &mut String, unknown: &mut Vec<String>) {
    if is_free(schema) {
        return;
    }
    match value {
        Value::Object(map) => {
            let mut names: Vec<String> = map.keys().cloned().collect();
            names.sort(); // told in this order, whatever the order in which they were written
            for name in names {
                if is_head(schema, root, &name) {
                    continue;
                }
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
                match (schema.field(&name), &schema.additional) {
                    (Some(of), _) => prune_at(&mut map[&name], of, false, path, unknown),
                    (None, Additional::Any) => {}
                    _ if schema.preserve => {}
                    _ => {
                        map.remove(&name);
                        if unknown.len() < TOLD_MAX {
                            unknown.push(path.clone());
                        }
                    }
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let nothing = Schema::default();
            let of = schema.items.as_deref().unwrap_or(&nothing);
            for (i, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{i}]"));
                prune_at(item, of, false, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
