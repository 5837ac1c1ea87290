//! Pods: defaults, rules, and the row that `kubectl get pods` shows.

use serde_json::{Value, json};

use crate::kinds::description::Subresource;
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

const SUBRESOURCES: &[Subresource] = &[
    ("attach", "PodAttachOptions", &["create", "get"]),
    ("binding", "Binding", &["create"]),
    ("ephemeralcontainers", "Pod", &["get", "patch", "update"]),
    ("eviction", "Eviction", &["create"]),
    ("exec", "PodExecOptions", &["create", "get"]),
    ("log", "Pod", &["get"]),
    ("portforward", "PodPortForwardOptions", &["create", "get"]),
    ("proxy", "PodProxyOptions", &["create", "delete", "get", "patch", "update"]),
    ("resize", "Pod", &["get", "patch", "update"]),
];

/// On a pod that a node shows of its own: whatever the API says, the node runs it.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

pub static KIND: Description = Description {
    short: &["po"],
    categories: &["all"],
    has_status: true,
    counts: true,
    subresources: SUBRESOURCES,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "Pod", "pods"])
};

const COLUMNS: &str = "Name, Ready, Status, Restarts, Age, IP+, Node+, Nominated Node+, Readiness Gates+";

fn default(pod: &mut Value) {
    pod_spec::default(&mut pod["spec"]);
    pod_spec::default_pod(&mut pod["spec"]);
    // What a node shows of a pod of its own runs as nobody: else a node could make pods to get tokens of any account.
    let is_mirror = pod["metadata"]["annotations"][MIRROR].is_string();
    let spec = &mut pod["spec"];
    // What the admission plug-ins ServiceAccount and DefaultTolerationSeconds do to every pod.
    if !is_mirror {
        pod_spec::set(spec, "serviceAccountName", "default");
        let account = spec["serviceAccountName"].clone();
        pod_spec::set(spec, "serviceAccount", account);
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        tolerate(spec, key);
    }
    pod_spec::set(pod, "status", json!({}));
    let class = pod_spec::qos_class(&pod["spec"]);
    // The older field is the first of the newer one.
    if let Some(ip) = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()).map(str::to_owned) {
        pod_spec::set(&mut pod["status"], "podIPs", json!([{ "ip": ip }]));
    }
    pod_spec::set(&mut pod["status"], "phase", "Pending");
    pod_spec::set(&mut pod["status"], "qosClass", class);
}

fn tolerate(spec: &mut Value, key: &str) {
    pod_spec::set(spec, "tolerations", json!([]));
    let Some(list) = spec["tolerations"].as_array_mut() else { return };
    let tolerated = list.iter().any(|t| {
        let effect = t["effect"].as_str().unwrap_or_default();
        let named = t["key"].as_str().unwrap_or_default();
        (named == key || named.is_empty()) && (effect.is_empty() || effect == "NoExecute")
    });
    if !tolerated {
        list.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
    }
}

fn validate(pod: &Value, errors: &mut Errors) {
    pod_spec::validate(&pod["spec"], "spec", errors);
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) && pod["spec"]["nodeName"].is_string() {
        errors
            .push(FieldError::forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
}

/// A pod's spec is fixed but for images, tolerations that are added, and what a gate still holds open.
fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let gated = old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty());
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        if let Some(map) = spec.as_object_mut() {
            for open in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
                map.remove(open);
            }
            if gated {
                // KEP-3838: while gated, node selection may be narrowed.
                map.remove("nodeSelector");
                map.remove("affinity");
            }
            if old["spec"]["nodeName"].is_null() {
                map.remove("nodeName");
            }
        }
        spec
    };
    let deadline = |pod: &Value| pod["spec"]["activeDeadlineSeconds"].as_i64();
    match (deadline(old), deadline(new)) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &after.into(), why));
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &Value::Null, why));
        }
        _ => {}
    }
    if frozen(old) != frozen(new) {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let gates = |pod: &Value| pod["spec"]["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default().to_vec();
    let before = gates(old);
    if gates(new).iter().any(|gate| !before.contains(gate)) {
        errors.push(FieldError::forbidden(
            "spec.schedulingGates",
            "only deletion is allowed, but found new scheduling gate",
        ));
    }
}

fn cells(pod: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let status = &pod["status"];
    let statuses = status["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = statuses.iter().filter(|s| s["ready"] == json!(true) && s["state"]["running"].is_object()).count();
    let restarts: i64 = statuses.iter().filter_map(|s| s["restartCount"].as_i64()).sum();
    let last = statuses.iter().filter_map(|s| s["lastState"]["terminated"]["finishedAt"].as_str()).max();
    let restarts = match last {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", crate::table::since(at, now)),
        _ => restarts.to_string(),
    };
    vec![
        pod["metadata"]["name"].clone(),
        format!("{ready}/{total}").into(),
        reason(pod, statuses).into(),
        restarts.into(),
        age(pod, now),
        text(&status["podIP"], "<none>"),
        text(&pod["spec"]["nodeName"], "<none>"),
        text(&status["nominatedNodeName"], "<none>"),
        "<none>".into(),
    ]
}

/// The STATUS column (`printPod` upstream): the most telling of phase, reason and container states.
fn reason(pod: &Value, statuses: &[Value]) -> String {
    let status = &pod["status"];
    let mut reason = status["phase"].as_str().unwrap_or_default().to_owned();
    if let Some(given) = status["reason"].as_str().filter(|r| !r.is_empty()) {
        reason = given.to_owned();
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let mut has_running = false;
    for container in statuses.iter().rev() {
        let state = &container["state"];
        let given = |v: &Value| v["reason"].as_str().filter(|r| !r.is_empty()).map(str::to_owned);
        if let Some(waiting) = given(&state["waiting"]) {
            reason = waiting;
        } else if state["terminated"].is_object() {
            let terminated = &state["terminated"];
            reason = given(terminated).unwrap_or_else(|| match terminated["signal"].as_i64() {
                Some(signal) if signal != 0 => format!("Signal:{signal}"),
                _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
            });
        } else if container["ready"] == json!(true) && state["running"].is_object() {
            has_running = true;
        }
    }
    if reason == "Completed" && has_running {
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        reason = if ready { "Running".into() } else { "NotReady".into() };
    }
    if crate::object::is_deleting(pod) {
        reason = if status["reason"] == "NodeLost" { "Unknown".into() } else { "Terminating".into() };
    }
    reason
}
