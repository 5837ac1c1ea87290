//! Resource quotas: how much a namespace may have.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    short: &["quota"],
    has_status: true,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "ResourceQuota", "resourcequotas"])
};

const COLUMNS: &str = "Name, Request, Limit, Age";

fn default(quota: &mut Value) {
    pod_spec::set(quota, "spec", json!({}));
    pod_spec::set(quota, "status", json!({}));
}

/// What a scope selects can be limited in these only.
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Resources without a domain that a quota may count.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

fn validate(quota: &Value, errors: &mut Errors) {
    let spec = &quota["spec"];
    for (resource, _) in spec["hard"].as_object().into_iter().flatten() {
        let field = format!("spec.hard[{resource}]");
        let name = Value::from(resource.as_str());
        if !crate::kinds::is_qualified_name(resource) {
            errors.push(FieldError::invalid(field.as_str(), &name, "must be a valid resource name"));
        } else if !resource.contains('/')
            && !STANDARD.contains(&resource.as_str())
            && !resource.starts_with("requests.hugepages-")
            && !resource.starts_with("hugepages-")
        {
            errors.push(FieldError::invalid(
                field.as_str(),
                &name,
                "must be a standard resource type or fully qualified",
            ));
            errors.push(FieldError::invalid(field.as_str(), &name, "must be a standard resource for quota"));
        }
    }
    errors.quantities(&spec["hard"], "spec.hard");
    let scopes = list(&spec["scopes"]);
    for scope in scopes {
        if !scope.as_str().is_some_and(|scope| SCOPES.contains(&scope)) {
            errors.push(FieldError::invalid("spec.scopes", &spec["scopes"], "unsupported scope"));
        }
    }
    let has = |scope: &str| scopes.iter().any(|s| s == scope);
    if (has("BestEffort") && has("NotBestEffort")) || (has("Terminating") && has("NotTerminating")) {
        errors.push(FieldError::invalid("spec.scopes", &spec["scopes"], "conflicting scopes"));
    }
    for (i, demand) in list(&spec["scopeSelector"]["matchExpressions"]).iter().enumerate() {
        let at = |field: &str| format!("spec.scopeSelector.matchExpressions[{i}].{field}");
        if !demand["scopeName"].as_str().is_some_and(|scope| SCOPES.contains(&scope)) {
            errors.push(FieldError::invalid(at("scopeName"), &demand["scopeName"], "unsupported scope"));
        }
        let values = list(&demand["values"]).len();
        match demand["operator"].as_str() {
            Some("In" | "NotIn") if values == 0 => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(at("values"), why));
            }
            Some("Exists" | "DoesNotExist") if values > 0 => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(at("values"), &demand["values"], why));
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => errors.push(FieldError::invalid(at("operator"), &demand["operator"], "not a valid selector operator")),
        }
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let sorted = |quota: &Value| {
        let mut scopes: Vec<String> = list(&quota["spec"]["scopes"]).iter().map(ToString::to_string).collect();
        scopes.sort();
        scopes
    };
    if sorted(old) != sorted(new) {
        errors.push(FieldError::invalid("spec.scopes", &new["spec"]["scopes"], "field is immutable"));
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in object["status"]["hard"].as_object().into_iter().flatten() {
        let used = object["status"]["used"][resource].as_str().unwrap_or("0");
        let shown = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    requests.sort();
    limits.sort();
    vec![object["metadata"]["name"].clone(), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}
