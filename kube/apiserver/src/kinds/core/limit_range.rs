//! Limit ranges: what pods of a namespace may ask for.

use crate::kinds::rbac::role::{COLUMNS, cells};
use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors};
use crate::object::child;
use crate::status::FieldError;
use crate::table::list;
use substrate_client::quantity::Quantity;

pub static KIND: Description = Description {
    short: &["limits"],
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "LimitRange", "limitranges"])
};

/// Limits beyond defaults: a maximum is the default of containers, that or a minimum what is asked for.
fn default(range: &mut Value) {
    let limits = range.get_mut("spec").and_then(|spec| spec.get_mut("limits")).and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter(|limit| limit["type"] == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source = limit[from].as_object().cloned().unwrap_or_default();
            if source.is_empty() {
                continue;
            }
            let target = child(limit, to);
            for (resource, amount) in source {
                target.entry(resource).or_insert(amount);
            }
        }
    }
}

fn validate(range: &Value, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (i, limit) in list(&range["spec"]["limits"]).iter().enumerate() {
        let at = |field: &str| format!("spec.limits[{i}].{field}");
        let kind = &limit["type"];
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(at("type"), kind));
        }
        seen.push(kind);
        errors.require(kind, at("type"));
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            errors.quantities(&limit[field], &at(field));
        }
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if limit[field].as_object().is_some_and(|map| !map.is_empty()) {
                    errors.push(FieldError::forbidden(at(field), "may not be specified when `type` is 'Pod'"));
                }
            }
        }
        if kind == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
            errors.push(FieldError::required(
                format!("spec.limits[{i}]"),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        ordered(limit, i, errors);
    }
}

/// Minimum, default request, default and maximum do not decrease.
fn ordered(limit: &Value, i: usize, errors: &mut Errors) {
    let amount =
        |field: &str, resource: &str| limit[field][resource].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let words = [("min", "min"), ("defaultRequest", "default request"), ("default", "default"), ("max", "max")];
    for (high, (upper, upper_word)) in words.iter().enumerate() {
        for (lower, lower_word) in &words[..high] {
            for resource in limit[*lower].as_object().into_iter().flatten().map(|(name, _)| name) {
                if let (Some(low), Some(high)) = (amount(lower, resource), amount(upper, resource))
                    && low > high
                {
                    let value = limit[*lower][resource].as_str().unwrap_or_default();
                    let bound = limit[*upper][resource].as_str().unwrap_or_default();
                    let why = format!("{lower_word} value {value} is greater than {upper_word} value {bound}");
                    let field = if *lower == "min" && *upper == "max" { "min" } else { lower };
                    errors.push(FieldError::invalid(
                        format!("spec.limits[{i}].{field}[{resource}]"),
                        &json!(value),
                        &why,
                    ));
                }
            }
        }
    }
}
