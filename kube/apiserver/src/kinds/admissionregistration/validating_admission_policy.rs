//! Validating admission policies: rules in CEL for what is written.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Column, Description, Errors, column, pod_spec, typed};
use crate::protobuf;
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    has_status: true,
    counts: true,
    categories: &["api-extensions"],
    idle: "rules in CEL are not evaluated",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(
        [
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
        ],
        &protobuf::admissionregistration::ValidatingAdmissionPolicy,
    )
};

const COLUMNS: &[Column] =
    &[column("Name", 0), typed("Validations", "integer", 0), column("ParamKind", 0), column("Age", 0)];

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
    for (i, rule) in list(&spec["validations"]).iter().enumerate() {
        if rule["expression"].as_str().is_none_or(|text| text.trim().is_empty()) {
            errors
                .push(FieldError::required(format!("spec.validations[{i}].expression"), "expression is not specified"));
        }
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
