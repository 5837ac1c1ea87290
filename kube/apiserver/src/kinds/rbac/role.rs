//! Roles: what may be done in a namespace. The rules of roles are shared with cluster roles.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::status::FieldError;
use crate::table::{list, text};

pub static KIND: Description = Description {
    name_rule: NameRule::PathSegment,
    rules: Builtin { validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["rbac.authorization.k8s.io", "v1", "Role", "roles"])
};

/// Headings of what has nothing to show but when it was made.
pub const COLUMNS: &str = "Name, Created At";

fn validate(role: &Value, errors: &mut Errors) {
    policy_rules(role, false, errors);
}

/// Judges what a role allows.
pub fn policy_rules(role: &Value, cluster: bool, errors: &mut Errors) {
    for (i, rule) in list(&role["rules"]).iter().enumerate() {
        let at = |field: &str| format!("rules[{i}].{field}");
        let empty = |field: &str| list(&rule[field]).is_empty();
        if empty("verbs") {
            errors.push(FieldError::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            if !cluster {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), &rule["nonResourceURLs"], why));
            }
            if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), &rule["nonResourceURLs"], why));
            }
            continue;
        }
        if empty("apiGroups") {
            errors.push(FieldError::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if empty("resources") {
            errors.push(FieldError::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
}

/// A row of that.
pub fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let _ = now;
    vec![object["metadata"]["name"].clone(), text(&object["metadata"]["creationTimestamp"], "")]
}
