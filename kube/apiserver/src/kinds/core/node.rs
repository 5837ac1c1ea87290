//! Nodes.

use serde_json::{Value, json};

use crate::kinds::rules::{self, Check, Rule, check, unique};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["no"],
    namespaced: false,
    has_status: true,
    subresources: &[("proxy", "NodeProxyOptions", &["create", "delete", "get", "patch", "update"])],
    rules: Builtin {
        default,
        validate,
        validate_update,
        columns: COLUMNS,
        cells,
        heartbeat: Some(without_heartbeats),
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "Node", "nodes"])
};

fn without_heartbeats(node: &mut Value) {
    for condition in node["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = Value::Null;
    }
}

const COLUMNS: &str =
    "Name, Status, Roles, Age, Version, Internal-IP+, External-IP+, OS-Image+, Kernel-Version+, Container-Runtime+";

const RULES: &[Rule] = &[
    Rule("podCIDRs[]", Check::Says(rules::cidr)),
    // Upstream says where they are not: below the metadata.
    Rule("taints[].key", Check::Required("")),
    Rule("taints[].key", Check::Says(rules::qualified_name)),
    Rule("taints[].effect", Check::Required("")),
    Rule("taints[].effect", Check::OneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
];

fn default(node: &mut Value) {
    // The older field is the first of the newer one.
    if let Some(range) = node["spec"]["podCIDR"].as_str().map(str::to_owned) {
        pod_spec::set(&mut node["spec"], "podCIDRs", json!([range]));
    }
}

fn validate(node: &Value, errors: &mut Errors) {
    check(&RULES[..1], &node["spec"], "spec", errors);
    check(&RULES[1..], &node["spec"], "metadata", errors);
    unique(
        &node["spec"]["taints"],
        |taint| Some((taint["key"].clone(), taint["effect"].clone())),
        |i, taint| {
            let mut error = FieldError::duplicate(format!("metadata.taints[{i}]"), taint);
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        },
    );
    errors.quantities(&node["status"]["capacity"], "status.capacity");
    errors.quantities(&node["status"]["allocatable"], "status.allocatable");
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, new) = (&old["spec"], &new["spec"]);
    for (field, word) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        if !old[field].is_null() && old[field] != new[field] {
            let why = format!("node updates may not change {word} except from \"\" to valid");
            errors.push(FieldError::forbidden(format!("spec.{field}"), &why));
        }
    }
}

fn cells(node: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let status = &node["status"];
    let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let mut shown = match ready.map(|c| &c["status"]) {
        Some(Value::String(s)) if s == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == json!(true) {
        shown.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    let address = |kind: &str| {
        let found = status["addresses"].as_array().into_iter().flatten().find(|a| a["type"] == kind);
        text(found.map_or(&Value::Null, |a| &a["address"]), "<none>")
    };
    let info = |field: &str| text(&status["nodeInfo"][field], "<unknown>");
    vec![
        node["metadata"]["name"].clone(),
        shown.into(),
        if roles.is_empty() { "<none>".into() } else { roles.join(",").into() },
        age(node, now),
        text(&status["nodeInfo"]["kubeletVersion"], ""),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}
