//! Role bindings: who may do what a role says, in a namespace. Shared with cluster role bindings.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    name_rule: NameRule::PathSegment,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"])
};

/// Headings of bindings.
pub const COLUMNS: &str = "Name, Role, Age, Users+, Groups+, ServiceAccounts+";

const GROUP: &str = "rbac.authorization.k8s.io";

/// Fills in the groups of role and subjects.
pub fn default(binding: &mut Value) {
    if binding["roleRef"].is_object() {
        pod_spec::set(&mut binding["roleRef"], "apiGroup", GROUP);
    }
    for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            pod_spec::set(subject, "apiGroup", GROUP);
        }
    }
}

fn validate(binding: &Value, errors: &mut Errors) {
    judge(binding, &["Role", "ClusterRole"], errors);
}

/// Judges a binding to one of these kinds of roles.
pub fn judge(binding: &Value, kinds: &[&str], errors: &mut Errors) {
    let role = &binding["roleRef"];
    if role["apiGroup"] != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &shown(&role["apiGroup"]), &[GROUP]));
    }
    if !role["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)) {
        errors.push(FieldError::not_supported("roleRef.kind", &shown(&role["kind"]), kinds));
    }
    errors.named(&role["name"], "roleRef.name", NameRule::PathSegment);
    for (i, subject) in list(&binding["subjects"]).iter().enumerate() {
        let at = |field: &str| format!("subjects[{i}].{field}");
        errors.require(&subject["name"], at("name"));
        let group = subject["apiGroup"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("ServiceAccount") => {
                if let Some(name) = subject["name"].as_str().filter(|name| !name.is_empty()) {
                    for why in NameRule::Subdomain.judge(name) {
                        errors.push(FieldError::invalid(at("name"), &subject["name"], &why));
                    }
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(at("apiGroup"), &subject["apiGroup"], &[""]));
                }
                errors.require(&subject["namespace"], at("namespace"));
            }
            Some("User" | "Group") if group != GROUP => {
                errors.push(FieldError::not_supported(at("apiGroup"), &shown(&subject["apiGroup"]), &[GROUP]));
            }
            Some("User" | "Group") => {}
            _ => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(at("kind"), &shown(&subject["kind"]), &kinds));
            }
        }
    }
}

fn shown(value: &Value) -> Value {
    json!(value.as_str().unwrap_or_default())
}

/// The role that is bound stays the same.
pub fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    if old["roleRef"] != new["roleRef"] {
        errors.push(FieldError::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
    }
}

/// A row of a binding.
pub fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = list(&object["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| {
                let name = subject["name"].as_str().unwrap_or_default();
                match subject["namespace"].as_str() {
                    Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{name}"),
                    _ => name.to_owned(),
                }
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = &object["roleRef"];
    let part = |field: &str| role[field].as_str().unwrap_or_default();
    vec![
        object["metadata"]["name"].clone(),
        format!("{}/{}", part("kind"), part("name")).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
