//! Structural schemas (`JSONSchemaProps` of apiextensions/v1): pruning, defaults, validation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kinds::Errors;
use crate::status::{FieldError, FieldReason};

/// Nesting of schemas and objects that is followed; deeper ones are refused.
const DEPTH_MAX: usize = 64;

/// That a schema can be enforced as it stands.
///
/// # Errors
/// What is not built, or is no schema, in words.
pub fn check(schema: &Value, depth: usize) -> Result<(), String> {
    let Some(map) = schema.as_object() else { return Err("must be an object".into()) };
    if depth > DEPTH_MAX {
        return Err(format!("is nested deeper than {DEPTH_MAX}"));
    }
    if map.contains_key("x-kubernetes-validations") {
        return Err("x-kubernetes-validations (CEL rules) are not implemented by this server".into());
    }
    for key in ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "uniqueItems"] {
        if map.contains_key(key) && map[key] != json!(false) {
            return Err(format!("{key} is forbidden in a structural schema"));
        }
    }
    for (_, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check(property, depth + 1)?;
    }
    if let Some(items) = map.get("items") {
        check(items, depth + 1)?;
    }
    if let Some(additional) = map.get("additionalProperties").filter(|a| a.is_object()) {
        check(additional, depth + 1)?;
    }
    Ok(())
}

/// Removes fields that no schema names, and notes their paths.
pub fn prune(value: &mut Value, schema: &Value, root: bool, path: &mut String, unknown: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == json!(true) && schema["properties"].is_null() {
        return;
    }
    let keep = schema["x-kubernetes-preserve-unknown-fields"] == json!(true);
    let embedded = schema["x-kubernetes-embedded-resource"] == json!(true);
    match value {
        Value::Object(map) => {
            let mut names: Vec<String> = map.keys().cloned().collect();
            names.sort(); // told in this order, whatever the order in which they were written
            for name in names {
                if (root || embedded) && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let property = &schema["properties"][&name];
                let additional = &schema["additionalProperties"];
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
                match (property.is_object(), additional) {
                    (true, _) => prune(&mut map[&name], property, false, path, unknown),
                    (false, Value::Object(_)) => prune(&mut map[&name], additional, false, path, unknown),
                    (false, Value::Bool(true)) => {}
                    _ if keep => {}
                    _ => {
                        map.remove(&name);
                        if unknown.len() < 16 {
                            unknown.push(path.clone());
                        }
                    }
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{i}]"));
                prune(item, &schema["items"], false, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Fills in defaults, outermost first; a null where null is not allowed counts as absent.
pub fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let given = &property["default"];
                let absent = match map.get(name) {
                    None => true,
                    Some(Value::Null) => property["nullable"] != json!(true),
                    Some(_) => false,
                };
                if absent && !given.is_null() {
                    map.insert(name.clone(), given.clone());
                }
                if let Some(child) = map.get_mut(name) {
                    default(child, property);
                }
            }
            if schema["additionalProperties"].is_object() {
                let known = &schema["properties"];
                map.iter_mut()
                    .filter(|(name, _)| known[name.as_str()].is_null())
                    .for_each(|(_, v)| default(v, &schema["additionalProperties"]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| default(item, &schema["items"])),
        _ => {}
    }
}

/// Judges `value` under `path`.
pub fn validate(value: &Value, schema: &Value, path: &str, root: bool, errors: &mut Errors) {
    validate_at(value, schema, path, root, 0, errors);
}

fn validate_at(value: &Value, schema: &Value, path: &str, root: bool, depth: usize, errors: &mut Errors) {
    if depth > DEPTH_MAX {
        return errors.push(FieldError::forbidden(path, &format!("nested deeper than {DEPTH_MAX}")));
    }
    if value.is_null() && schema["nullable"] == json!(true) {
        return;
    }
    if !type_fits(value, schema) {
        let wanted = schema["type"].as_str().unwrap_or("integer or string");
        let observed = type_name(value);
        let detail = format!("{path} in body must be of type {wanted}: {observed:?}");
        return errors.push(FieldError::type_invalid(path, observed, &detail));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let words: Vec<String> = allowed.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value, &words));
    }
    match value {
        Value::Object(map) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(name) {
                    errors.push(FieldError::required(join(path, name), ""));
                }
            }
            count(map.len(), schema, "Properties", path, errors);
            // Told in this order, whatever the order in which they were written.
            let children: BTreeMap<&String, &Value> = map.iter().collect();
            for (name, child) in children {
                if root && name == "metadata" {
                    continue;
                }
                let property = &schema["properties"][name];
                let of = if property.is_object() { property } else { &schema["additionalProperties"] };
                if of.is_object() {
                    validate_at(child, of, &join(path, name), false, depth + 1, errors);
                }
            }
        }
        Value::Array(items) => {
            count(items.len(), schema, "Items", path, errors);
            if schema["items"].is_object() {
                for (i, item) in items.iter().enumerate() {
                    validate_at(item, &schema["items"], &format!("{path}[{i}]"), false, depth + 1, errors);
                }
            }
            let keys = schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
            if schema["x-kubernetes-list-type"] == "map" {
                for (i, item) in items.iter().enumerate() {
                    let same = |other: &Value| keys.iter().filter_map(Value::as_str).all(|key| item[key] == other[key]);
                    if items[..i].iter().any(same) {
                        errors.push(FieldError::duplicate(format!("{path}[{i}]"), item));
                    }
                }
            }
        }
        Value::String(text) => string(text, value, schema, path, errors),
        Value::Number(number) => bounds(number, value, schema, path, errors),
        _ => {}
    }
    for branch in schema["allOf"].as_array().into_iter().flatten() {
        validate_at(value, branch, path, false, depth + 1, errors);
    }
    for (word, fits) in [("anyOf", 1..usize::MAX), ("oneOf", 1..2)] {
        if let Some(branches) = schema[word].as_array() {
            let passing = branches.iter().filter(|b| passes(value, b, depth)).count();
            if !fits.contains(&passing) {
                let detail = format!(
                    "must validate {} of the schemas ({word})",
                    if word == "oneOf" { "one and only one" } else { "at least one" }
                );
                errors.push(FieldError::invalid(path, value, &detail));
            }
        }
    }
    if schema["not"].is_object() && passes(value, &schema["not"], depth) {
        errors.push(FieldError::invalid(path, value, "must not validate the schema (not)"));
    }
}

fn passes(value: &Value, schema: &Value, depth: usize) -> bool {
    let mut errors = Errors::default();
    validate_at(value, schema, "", false, depth + 1, &mut errors);
    errors.into_vec().is_empty()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn type_fits(value: &Value, schema: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Some("number") => value.is_number(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn count(length: usize, schema: &Value, what: &str, path: &str, errors: &mut Errors) {
    let bound = |word: &str| schema[format!("{word}{what}")].as_u64();
    if let Some(most) = bound("max").filter(|most| length as u64 > *most) {
        errors.push(FieldError {
            reason: FieldReason::TooLong,
            field: path.to_owned(),
            message: format!("Too many: {length}: must have at most {most} items"),
        });
    }
    if let Some(least) = bound("min").filter(|least| (length as u64) < *least) {
        let detail = format!("{path} in body should have at least {least} {}", what.to_lowercase());
        errors.push(FieldError::invalid(path, &json!(length), &detail));
    }
}

fn string(text: &str, value: &Value, schema: &Value, path: &str, errors: &mut Errors) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        errors.push(FieldError {
            reason: FieldReason::TooLong,
            field: path.to_owned(),
            message: format!("Too long: may not be more than {most} bytes"),
        });
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body should be at least {least} chars long")));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        // The engine is linear in the text, so a hostile pattern cannot stall the server; its size is bounded.
        let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
        if !regex.is_ok_and(|r| r.is_match(text)) {
            errors.push(FieldError::invalid(path, value, &format!("{path} in body should match '{pattern}'")));
        }
    }
    let fits = match schema["format"].as_str() {
        Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("ipv4") => text.parse::<std::net::Ipv4Addr>().is_ok(),
        Some("ipv6") => text.parse::<std::net::Ipv6Addr>().is_ok(),
        Some("byte") => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).is_ok(),
        _ => true,
    };
    if !fits {
        let format = schema["format"].as_str().unwrap_or_default();
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        errors.push(FieldError::invalid(path, value, &detail));
    }
}

fn bounds(number: &serde_json::Number, value: &Value, schema: &Value, path: &str, errors: &mut Errors) {
    let Some(number) = number.as_f64() else { return };
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == json!(true);
        if number > most || (exclusive && number == most) {
            let detail =
                format!("{path} in body should be less than {}{most}", if exclusive { "" } else { "or equal to " });
            errors.push(FieldError::invalid(path, value, &detail));
        }
    }
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == json!(true);
        if number < least || (exclusive && number == least) {
            let detail =
                format!("{path} in body should be greater than {}{least}", if exclusive { "" } else { "or equal to " });
            errors.push(FieldError::invalid(path, value, &detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(schema: &Value, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(object, schema, "", true, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
            "type": "object", "required": ["kind"], "properties": {
                "kind": {"type": "string", "enum": ["A", "B"]},
                "count": {"type": "integer", "minimum": 1, "default": 3},
                "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "name": {"type": "string", "pattern": "^[a-z]+$"}}}}})
    }

    #[test]
    fn unknown_fields_go_and_free_ones_stay() {
        let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"},
            "spec": {"kind": "A", "odd": 1, "raw": {"any": {"thing": 1}}, "map": {"k": "v"}}, "more": {}});
        let mut unknown = Vec::new();
        prune(&mut object, &schema(), true, &mut String::new(), &mut unknown);
        assert_eq!(unknown, ["more", "spec.odd"]);
        assert_eq!(object["spec"], json!({"kind": "A", "raw": {"any": {"thing": 1}}, "map": {"k": "v"}}));
        default(&mut object, &schema());
        assert_eq!(object["spec"]["count"], 3);
    }

    #[test]
    fn wrong_values_are_named() {
        assert_eq!(judged(&schema(), &json!({"spec": {"kind": "A", "size": "1Gi"}})), Vec::<String>::new());
        assert_eq!(judged(&schema(), &json!({})), ["spec: Required value"]);
        assert_eq!(
            judged(&schema(), &json!({"spec": {"kind": "C", "count": 0, "size": 1.5, "name": "A1"}})),
            [
                "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
                "spec.kind: Unsupported value: \"C\": supported values: \"A\", \"B\"",
                "spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
                "spec.size: Invalid value: \"number\": spec.size in body must be of type integer or string: \"number\"",
            ]
        );
    }
}
