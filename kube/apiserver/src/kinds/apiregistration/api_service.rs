//! API services: which group is served by whom. Foreign servers are not asked, and the object says so.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    has_status: true,
    categories: &["api-extensions"],
    idle: "groups of foreign servers are not served; its condition `Available` says so",
    rules: Builtin {
        default,
        prepare: |service, old, _| prepare(service, old),
        validate,
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["apiregistration.k8s.io", "v1", "APIService", "apiservices"])
};

const COLUMNS: &str = "Name, Service, Available, Age";

/// A group of a foreign server is not served, which its condition says.
fn prepare(service: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let foreign = service["spec"]["service"].is_object();
    let (status, reason, message) = match foreign {
        true => ("False", "NotBuilt", "this server does not forward requests to other API servers"),
        false => ("True", "Local", "Local APIServices are always available"),
    };
    service["status"] = json!({ "conditions": [{
        "type": "Available", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": crate::object::now(),
    }] });
}

fn default(service: &mut Value) {
    if let Some(target) = service.get_mut("spec").and_then(|s| s.get_mut("service")).filter(|s| s.is_object()) {
        pod_spec::set(target, "port", 443);
    }
}

fn validate(service: &Value, errors: &mut Errors) {
    let spec = &service["spec"];
    let part = |field: &str| spec[field].as_str().unwrap_or_default();
    let wanted = format!("{}.{}", part("version"), part("group"));
    if service["metadata"]["name"] != json!(wanted) {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", &service["metadata"]["name"], &why));
    }
    errors.named(&json!(part("version")), "spec.version", NameRule::Dns1035);
    errors.range(&spec["groupPriorityMinimum"], "spec.groupPriorityMinimum", 1, 20_000);
    errors.range(&spec["versionPriority"], "spec.versionPriority", 1, 1_000);
    for field in ["groupPriorityMinimum", "versionPriority"] {
        if spec[field].is_null() {
            let most = if field == "versionPriority" { "1000" } else { "20000" };
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                &json!(0),
                &format!("must be positive and less than {most}"),
            ));
        }
    }
    let target = &spec["service"];
    if target.is_object() {
        errors.require(&target["namespace"], "spec.service.namespace");
        errors.require(&target["name"], "spec.service.name");
        if spec["insecureSkipTLSVerify"] == json!(true) && spec["caBundle"].as_str().is_some_and(|pem| !pem.is_empty())
        {
            errors.push(FieldError::invalid(
                "spec.insecureSkipTLSVerify",
                &json!(true),
                "may not be true if caBundle is present",
            ));
        }
    } else if spec["insecureSkipTLSVerify"] == json!(true) {
        errors.push(FieldError::invalid(
            "spec.insecureSkipTLSVerify",
            &json!(true),
            "local APIServices may not have insecureSkipTLSVerify",
        ));
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let shown = match service.is_object() {
        true => format!(
            "{}/{}",
            service["namespace"].as_str().unwrap_or_default(),
            service["name"].as_str().unwrap_or_default()
        ),
        false => "Local".into(),
    };
    let available = list(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Available");
    let available = available.map_or_else(
        || "Unknown".to_owned(),
        |c| {
            let status = c["status"].as_str().unwrap_or("Unknown");
            if status == "True" {
                status.to_owned()
            } else {
                format!("{status} ({})", c["reason"].as_str().unwrap_or("?"))
            }
        },
    );
    vec![object["metadata"]["name"].clone(), shown.into(), available.into(), age(object, now)]
}
