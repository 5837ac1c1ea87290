//! Defaults: what is absent is filled in.

use serde_json::Value;

use super::Schema;

/// Fills in defaults, outermost first; a null where null is not allowed counts as absent.
pub fn default(value: &mut Value, schema: &Schema) {
    if !schema.completes {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                if !property.completes_something() {
                    continue;
                }
                let absent = match map.get(&**name) {
                    None => true,
                    Some(Value::Null) => !property.nullable,
                    Some(_) => false,
                };
                if absent && let Some(given) = &property.default {
                    map.insert((**name).to_owned(), given.clone());
                }
                if let Some(child) = map.get_mut(&**name) {
                    default(child, property);
                }
            }
            if let Some(additional) = schema.additional.schema() {
                let others = map.iter_mut().filter(|(name, _)| schema.property(name).is_none());
                others.for_each(|(_, child)| default(child, additional));
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| default(item, of));
            }
        }
        _ => {}
    }
}
