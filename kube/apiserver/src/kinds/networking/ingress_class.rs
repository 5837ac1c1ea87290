//! Ingress classes: which controller serves an ingress.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    namespaced: false,
    counts: true,
    idle: "it is for an ingress controller, which a user brings",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["networking.k8s.io", "v1", "IngressClass", "ingressclasses"])
};

const COLUMNS: &str = "Name, Controller, Parameters, Age";

/// As upstream.
const CONTROLLER_MAX: usize = 250;

fn default(class: &mut Value) {
    if let Some(parameters) = class.get_mut("spec").and_then(|s| s.get_mut("parameters")).filter(|p| p.is_object()) {
        pod_spec::set(parameters, "scope", "Cluster");
    }
}

fn validate(class: &Value, errors: &mut Errors) {
    let controller = &class["spec"]["controller"];
    match controller.as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.controller", "")),
        name if name.len() > CONTROLLER_MAX => errors.push(FieldError {
            reason: crate::status::FieldReason::TooLong,
            field: "spec.controller".into(),
            message: format!("Too long: may not be more than {CONTROLLER_MAX} bytes"),
        }),
        name if !(name.contains('/') && name.split('/').all(|part| !part.is_empty())) => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid("spec.controller", controller, why));
        }
        _ => {}
    }
    let parameters = &class["spec"]["parameters"];
    if parameters.is_object() {
        errors.require(&parameters["kind"], "spec.parameters.kind");
        errors.require(&parameters["name"], "spec.parameters.name");
        errors.one_of(&parameters["scope"], "spec.parameters.scope", &["Cluster", "Namespace"]);
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["spec"]["controller"], &new["spec"]["controller"], "spec.controller");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let parameters = &object["spec"]["parameters"];
    let part = |field: &str| parameters[field].as_str().unwrap_or_default();
    let shown = match (parameters.is_object(), part("apiGroup")) {
        (false, _) => "<none>".to_owned(),
        (true, "") => format!("{}/{}", part("kind"), part("name")),
        (true, group) => format!("{}.{group}/{}", part("kind"), part("name")),
    };
    vec![object["metadata"]["name"].clone(), text(&object["spec"]["controller"], ""), shown.into(), age(object, now)]
}
