//! Validating admission policies: rules in CEL for what is written.

use serde_json::{Value, json};

use crate::admission::{conditions, policies};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    has_status: true,
    counts: true,
    categories: &["api-extensions"],
    idle: "audit annotations and `authorizer` are not there, and types are not checked",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of([
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    ])
};

const COLUMNS: &str = "Name, Validations:integer, ParamKind, Age";

fn default(policy: &mut Value) {
    pod_spec::set(policy, "spec", json!({}));
    pod_spec::set(&mut policy["spec"], "failurePolicy", "Fail");
    if let Some(constraints) = policy["spec"].get_mut("matchConstraints").filter(|constraints| constraints.is_object())
    {
        complete_match(constraints);
    }
    pod_spec::set(policy, "status", json!({}));
}

/// Fills in what is matched.
pub fn complete_match(constraints: &mut Value) {
    pod_spec::set(constraints, "matchPolicy", "Equivalent");
    pod_spec::set(constraints, "namespaceSelector", json!({}));
    pod_spec::set(constraints, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in constraints.get_mut(rules).and_then(Value::as_array_mut).into_iter().flatten() {
            pod_spec::set(rule, "scope", "*");
        }
    }
}

fn validate(policy: &Value, errors: &mut Errors) {
    let spec = &policy["spec"];
    if list(&spec["validations"]).is_empty() && list(&spec["auditAnnotations"]).is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(format!("spec.{field}"), why));
        }
    }
    errors.one_of(&spec["failurePolicy"], "spec.failurePolicy", &["Fail", "Ignore"]);
    if !spec["matchConstraints"].is_object() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else if list(&spec["matchConstraints"]["resourceRules"]).is_empty() {
        errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
    }
    errors.label_selector(&spec["matchConstraints"]["namespaceSelector"], "spec.matchConstraints.namespaceSelector");
    errors.label_selector(&spec["matchConstraints"]["objectSelector"], "spec.matchConstraints.objectSelector");
    expressions(spec, errors);
}

/// Judges what is written in CEL.
fn expressions(spec: &Value, errors: &mut Errors) {
    // Each sees the variables before it; the field without a name says that there are no others.
    let owned = |i: usize| {
        let before = list(&spec["variables"])[..i].iter().map(|variable| &variable["name"]);
        let before = before.filter_map(Value::as_str).map(|name| format!("variables.{name}"));
        before.chain(["variables.".to_owned()]).collect::<Vec<_>>()
    };
    conditions::check(&spec["matchConditions"], "spec.matchConditions", &conditions::POLICY, errors);
    for (i, variable) in list(&spec["variables"]).iter().enumerate() {
        let at = |field: &str| format!("spec.variables[{i}].{field}");
        let fields = owned(i);
        let names: Vec<&str> = policies::names().into_iter().chain(fields.iter().map(String::as_str)).collect();
        conditions::check_any(&variable["expression"], &at("expression"), &names, errors);
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), "name is not specified"));
        } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.as_bytes()[0].is_ascii_digit() {
            errors.push(FieldError::invalid(at("name"), &variable["name"], "name is not a valid CEL identifier"));
        }
        if list(&spec["variables"])[..i].iter().any(|other| other["name"] == variable["name"]) {
            errors.push(FieldError::duplicate(at("name"), &variable["name"]));
        }
    }
    let fields = owned(list(&spec["variables"]).len());
    let names: Vec<&str> = policies::names().into_iter().chain(fields.iter().map(String::as_str)).collect();
    for (i, rule) in list(&spec["validations"]).iter().enumerate() {
        let at = |field: &str| format!("spec.validations[{i}].{field}");
        conditions::check_truth(&rule["expression"], &at("expression"), &names, errors);
        if !rule["messageExpression"].is_null() {
            // Who may what is nothing to tell.
            let names: Vec<&str> = names.iter().copied().filter(|name| !name.starts_with("authorizer")).collect();
            conditions::check_any(&rule["messageExpression"], &at("messageExpression"), &names, errors);
        }
        errors.one_of(
            &rule["reason"],
            at("reason"),
            &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"],
        );
    }
    for (i, annotation) in list(&spec["auditAnnotations"]).iter().enumerate() {
        let at = format!("spec.auditAnnotations[{i}].valueExpression");
        conditions::check_any(&annotation["valueExpression"], &at, &names, errors);
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let param = &object["spec"]["paramKind"];
    let shown = match param.is_object() {
        true => format!(
            "{}/{}",
            param["apiVersion"].as_str().unwrap_or_default(),
            param["kind"].as_str().unwrap_or_default()
        ),
        false => "<unset>".into(),
    };
    vec![
        object["metadata"]["name"].clone(),
        list(&object["spec"]["validations"]).len().into(),
        shown.into(),
        age(object, now),
    ]
}
