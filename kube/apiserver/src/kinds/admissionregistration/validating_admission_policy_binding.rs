//! Bindings of validating admission policies: where they hold, and with which parameters.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::status::FieldError;
use crate::table::{age, list, text};

pub static KIND: Description = Description {
    namespaced: false,
    counts: true,
    categories: &["api-extensions"],
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of([
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ])
};

const COLUMNS: &str = "Name, PolicyName, ParamRef, Age";

fn default(binding: &mut Value) {
    if let Some(constraints) =
        binding.get_mut("spec").and_then(|s| s.get_mut("matchResources")).filter(|m| m.is_object())
    {
        super::validating_admission_policy::complete_match(constraints);
    }
}

fn validate(binding: &Value, errors: &mut Errors) {
    let spec = &binding["spec"];
    errors.named(&spec["policyName"], "spec.policyName", NameRule::Subdomain);
    errors.label_selector(&spec["matchResources"]["namespaceSelector"], "spec.matchResources.namespaceSelector");
    errors.label_selector(&spec["matchResources"]["objectSelector"], "spec.matchResources.objectSelector");
    let param = &spec["paramRef"];
    if param.is_object() {
        errors.label_selector(&param["selector"], "spec.paramRef.selector");
        if param["name"].is_string() == param["selector"].is_object() {
            errors.push(FieldError::required("spec.paramRef.name", "one of name or selector must be specified"));
        }
        errors.require(&param["parameterNotFoundAction"], "spec.paramRef.parameterNotFoundAction");
        errors.one_of(&param["parameterNotFoundAction"], "spec.paramRef.parameterNotFoundAction", &["Allow", "Deny"]);
    }
    let actions = list(&spec["validationActions"]);
    if actions.is_empty() {
        errors.push(FieldError::required("spec.validationActions", "at least one validation action is required"));
    }
    for (i, action) in actions.iter().enumerate() {
        errors.one_of(action, format!("spec.validationActions[{i}]"), &["Audit", "Deny", "Warn"]);
        if actions[..i].contains(action) {
            errors.push(FieldError::duplicate(format!("spec.validationActions[{i}]"), action));
        }
    }
    let has = |word: &str| actions.iter().any(|action| action == word);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid("spec.validationActions", &spec["validationActions"], why));
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let param = &object["spec"]["paramRef"];
    let name = param["name"].as_str().unwrap_or_default();
    let shown = match (param.is_object(), param["namespace"].as_str()) {
        (false, _) => "<unset>".to_owned(),
        (true, Some(namespace)) => format!("{namespace}/{name}"),
        (true, None) => name.to_owned(),
    };
    vec![object["metadata"]["name"].clone(), text(&object["spec"]["policyName"], ""), shown.into(), age(object, now)]
}
