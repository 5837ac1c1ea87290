//! A schema as OpenAPI tells it: what fields there are and of which type, without the bounds.

use serde_json::{Map, Value, json};

use super::{Additional, Schema, Type};

impl Schema {
    /// The schema in OpenAPI's words.
    pub fn openapi(&self) -> Value {
        let mut told = match self.kind {
            Some(Type::IntOrString) => json!({ "x-kubernetes-int-or-string": true }),
            Some(kind) => json!({ "type": kind.word() }),
            None => json!({}),
        };
        if !self.properties.is_empty() {
            let properties: Map<String, Value> =
                self.properties.iter().map(|(name, of)| (name.to_string(), of.openapi())).collect();
            told["properties"] = properties.into();
        }
        if !self.required.is_empty() {
            told["required"] = json!(self.required);
        }
        if let Some(allowed) = &self.allowed {
            told["enum"] = json!(allowed);
        }
        if let Some(default) = &self.default {
            told["default"] = default.clone();
        }
        if let Some(items) = &self.items {
            told["items"] = items.openapi();
        }
        match &self.additional {
            Additional::No => {}
            Additional::Any => told["additionalProperties"] = json!(true),
            Additional::Of(of) => told["additionalProperties"] = of.openapi(),
        }
        if self.preserve {
            told["x-kubernetes-preserve-unknown-fields"] = json!(true);
        }
        told
    }
}
