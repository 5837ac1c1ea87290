//! Validation: whether a value is what its schema says, and if not, every reason.

use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

use super::{Bounds, DEPTH_MAX, Range, Schema, Type};
use crate::kinds::Errors;
use crate::status::{FieldError, FieldReason};

/// Judges an object. What is as it was in `old` is not held against whoever changes something else (*ratcheting*).
pub fn validate(object: &Value, old: Option<&Value>, schema: &Schema, errors: &mut Errors) {
    // Almost everything fits, and saying so needs no paths.
    if !fits(object, schema, true, 0) {
        validate_at(object, old, schema, "", true, 0, errors);
    }
}

impl Schema {
    /// What an item of a list was before, if its items can be told apart.
    pub(super) fn item_before<'a>(&self, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
        let keys = self.map_keys.as_ref()?;
        old?.as_array()?.iter().find(|before| keys.iter().all(|key| before[&**key] == item[&**key]))
    }
}

/// Says whether [`validate_at`] would find nothing.
pub(super) fn fits(value: &Value, schema: &Schema, root: bool, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    if value.is_null() && schema.nullable {
        return true;
    }
    if !type_fits(value, schema.kind) || schema.allowed.as_ref().is_some_and(|allowed| !allowed.contains(value)) {
        return false;
    }
    let bounds = schema.bounds.as_deref();
    let itself = match value {
        Value::Object(map) => {
            let has = |name: &str| map.contains_key(name);
            schema.required.iter().all(|name| has(name))
                && bounds.is_none_or(|bounds| bounds.properties.holds(map.len()))
                && map.iter().all(|(name, child)| {
                    root && name == "metadata" || schema.field(name).is_none_or(|of| fits(child, of, false, depth + 1))
                })
        }
        Value::Array(items) => {
            bounds.is_none_or(|bounds| bounds.items.holds(items.len()))
                && schema.items.as_ref().is_none_or(|of| items.iter().all(|item| fits(item, of, false, depth + 1)))
                && schema.map_keys.as_ref().is_none_or(|keys| !has_duplicate(items, keys))
        }
        Value::String(text) => bounds.is_none_or(|bounds| bounds.hold_text(text)),
        Value::Number(number) => bounds.is_none_or(|bounds| bounds.hold_number(number)),
        _ => true,
    };
    let passes = |branch: &Schema| fits(value, branch, false, depth + 1);
    itself
        && schema.all_of.iter().all(passes)
        && schema.any_of.as_ref().is_none_or(|branches| branches.iter().any(passes))
        && schema.one_of.as_ref().is_none_or(|branches| branches.iter().filter(|branch| passes(branch)).count() == 1)
        && schema.not.as_ref().is_none_or(|not| !passes(not))
}

/// Says whether two items have the same keys.
fn has_duplicate(items: &[Value], keys: &[Box<str>]) -> bool {
    items.iter().enumerate().any(|(i, item)| is_duplicate(item, items.get(..i).unwrap_or_default(), keys))
}

fn is_duplicate(item: &Value, before: &[Value], keys: &[Box<str>]) -> bool {
    before.iter().any(|other| keys.iter().all(|key| item[&**key] == other[&**key]))
}

impl Range {
    fn holds(self, length: usize) -> bool {
        let length = length as u64;
        self.least.is_none_or(|least| length >= least) && self.most.is_none_or(|most| length <= most)
    }
}

impl Bounds {
    fn hold_text(&self, text: &str) -> bool {
        (self.length == Range::default() || self.length.holds(text.chars().count()))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
            && self.format.as_ref().is_none_or(|format| format_fits(text, format))
    }

    fn hold_number(&self, number: &Number) -> bool {
        let Some(number) = number.as_f64() else { return true };
        self.maximum.is_none_or(|(most, exclusive)| number < most || (!exclusive && number <= most))
            && self.minimum.is_none_or(|(least, exclusive)| number > least || (!exclusive && number >= least))
    }
}

pub(super) fn validate_at(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: &str,
    root: bool,
    depth: usize,
    errors: &mut Errors,
) {
    if old == Some(value) {
        return;
    }
    if depth > DEPTH_MAX {
        return errors.push(FieldError::forbidden(path, &format!("nested deeper than {DEPTH_MAX}")));
    }
    if value.is_null() && schema.nullable {
        return;
    }
    if !type_fits(value, schema.kind) {
        let wanted = schema.kind.map_or("integer or string", Type::word);
        let observed = type_name(value);
        let detail = format!("{path} in body must be of type {wanted}: {observed:?}");
        return errors.push(FieldError::type_invalid(path, observed, &detail));
    }
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
    {
        let words: Vec<String> = allowed.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value, &words));
    }
    let bounds = schema.bounds.as_deref();
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|name| !map.contains_key(&***name)) {
                errors.push(FieldError::required(join(path, name), ""));
            }
            count(map.len(), bounds.map(|bounds| bounds.properties), "Properties", path, errors);
            // Told in this order, whatever the order in which they were written.
            let children: BTreeMap<&String, &Value> = map.iter().collect();
            for (name, child) in children {
                if root && name == "metadata" {
                    continue;
                }
                if let Some(of) = schema.field(name) {
                    validate_at(
                        child,
                        old.and_then(|old| old.get(name)),
                        of,
                        &join(path, name),
                        false,
                        depth + 1,
                        errors,
                    );
                }
            }
        }
        Value::Array(items) => {
            count(items.len(), bounds.map(|bounds| bounds.items), "Items", path, errors);
            if let Some(of) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    validate_at(
                        item,
                        schema.item_before(old, item),
                        of,
                        &format!("{path}[{i}]"),
                        false,
                        depth + 1,
                        errors,
                    );
                }
            }
            if let Some(keys) = &schema.map_keys {
                for (i, item) in items.iter().enumerate() {
                    if is_duplicate(item, items.get(..i).unwrap_or_default(), keys) {
                        errors.push(FieldError::duplicate(format!("{path}[{i}]"), item));
                    }
                }
            }
        }
        Value::String(text) => bounds.into_iter().for_each(|bounds| string(text, value, bounds, path, errors)),
        Value::Number(number) => bounds.into_iter().for_each(|bounds| limits(number, value, bounds, path, errors)),
        _ => {}
    }
    for branch in &schema.all_of {
        validate_at(value, old, branch, path, false, depth + 1, errors);
    }
    let passes = |branch: &&Schema| fits(value, branch, false, depth + 1);
    for (word, branches, fit) in [("anyOf", &schema.any_of, 1..usize::MAX), ("oneOf", &schema.one_of, 1..2)] {
        if let Some(branches) = branches
            && !fit.contains(&branches.iter().filter(passes).count())
        {
            let detail = format!(
                "must validate {} of the schemas ({word})",
                if word == "oneOf" { "one and only one" } else { "at least one" }
            );
            errors.push(FieldError::invalid(path, value, &detail));
        }
    }
    if schema.not.as_deref().is_some_and(|not| passes(&not)) {
        errors.push(FieldError::invalid(path, value, "must not validate the schema (not)"));
    }
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn type_fits(value: &Value, kind: Option<Type>) -> bool {
    match kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Boolean) => value.is_boolean(),
        Some(Type::Integer) => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Some(Type::Number) => value.is_number(),
        Some(Type::IntOrString) => value.is_string() || value.is_i64() || value.is_u64(),
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
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

fn count(length: usize, range: Option<Range>, what: &str, path: &str, errors: &mut Errors) {
    let Some(range) = range else { return };
    if let Some(most) = range.most.filter(|most| length as u64 > *most) {
        errors.push(FieldError {
            reason: FieldReason::TooLong,
            field: path.to_owned(),
            message: format!("Too many: {length}: must have at most {most} items"),
        });
    }
    if let Some(least) = range.least.filter(|least| (length as u64) < *least) {
        let detail = format!("{path} in body should have at least {least} {}", what.to_lowercase());
        errors.push(FieldError::invalid(path, &json!(length), &detail));
    }
}

fn string(text: &str, value: &Value, bounds: &Bounds, path: &str, errors: &mut Errors) {
    let length = text.chars().count() as u64;
    if let Some(most) = bounds.length.most.filter(|most| length > *most) {
        errors.push(FieldError {
            reason: FieldReason::TooLong,
            field: path.to_owned(),
            message: format!("Too long: may not be more than {most} bytes"),
        });
    }
    if let Some(least) = bounds.length.least.filter(|least| length < *least) {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body should be at least {least} chars long")));
    }
    if let Some(pattern) = bounds.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body should match '{}'", pattern.text)));
    }
    if let Some(format) = bounds.format.as_ref().filter(|format| !format_fits(text, format)) {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        errors.push(FieldError::invalid(path, value, &detail));
    }
}

fn format_fits(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).is_ok(),
        _ => true,
    }
}

fn limits(number: &Number, value: &Value, bounds: &Bounds, path: &str, errors: &mut Errors) {
    let Some(number) = number.as_f64() else { return };
    if let Some((most, exclusive)) = bounds.maximum
        && (number > most || (exclusive && number == most))
    {
        let detail =
            format!("{path} in body should be less than {}{most}", if exclusive { "" } else { "or equal to " });
        errors.push(FieldError::invalid(path, value, &detail));
    }
    if let Some((least, exclusive)) = bounds.minimum
        && (number < least || (exclusive && number == least))
    {
        let detail =
            format!("{path} in body should be greater than {}{least}", if exclusive { "" } else { "or equal to " });
        errors.push(FieldError::invalid(path, value, &detail));
    }
}
