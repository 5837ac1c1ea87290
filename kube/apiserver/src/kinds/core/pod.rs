//! Pods: defaults, rules, and the row that `kubectl get pods` shows.

use serde_json::{Value, json};

use crate::kinds::description::Subresource;
use crate::kinds::{Builtin, Decoded, Description, Errors, pod_spec};
use crate::registry::Registry;
use crate::status::{FieldError, Status};
use crate::table::{age, list, text};

/// Reads a pod of a file, in YAML or JSON, as the API would take it: completed by `complete`, no unknown fields, defaults filled in, judged.
///
/// # Errors
/// What is wrong with it, in the words of the API.
pub fn read(text: &[u8], complete: impl FnOnce(&mut Value)) -> Result<Value, String> {
    let mut sent = crate::body::parse_yaml(text).map_err(|status| status.message)?;
    if (sent["kind"].as_str(), sent["apiVersion"].as_str()) != (Some("Pod"), Some("v1")) {
        return Err(format!("needed a Pod of v1, found {} of {}", sent["kind"], sent["apiVersion"]));
    }
    complete(&mut sent);
    let kind = Registry::builtin().get("", "v1", "pods").ok_or("pods are not served")?;
    let Decoded { object: mut pod, unknown } = kind.decode(sent)?;
    if let Some(field) = unknown.first() {
        return Err(format!("unknown field {field:?}"));
    }
    kind.default(&mut pod);
    let mut errors = Errors::default();
    kind.validate(&pod, None, &mut errors);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match errors.into_vec() {
        none if none.is_empty() => Ok(pod),
        wrong => Err(Status::invalid("", "Pod", name, &wrong).message),
    }
}

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
    let (init, main) = (list(&pod["status"]["initContainerStatuses"]), list(&pod["status"]["containerStatuses"]));
    let is_sidecar = |name: &Value| {
        list(&pod["spec"]["initContainers"]).iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
    };
    let sidecars = || init.iter().filter(|c| is_sidecar(&c["name"]));
    let begins = initializing(pod, init, is_sidecar);
    // Until they have had their turn, what is told is of those that come first; then they are over, but for the sidecars.
    let counted: Vec<&Value> = match begins {
        Some(_) => init.iter().collect(),
        None => sidecars().chain(main).collect(),
    };
    let ready = match begins {
        Some(_) => sidecars().filter(|c| c["ready"] == true).count(),
        None => {
            let running = main.iter().filter(|c| c["ready"] == true && c["state"]["running"].is_object());
            running.count() + sidecars().filter(|c| c["ready"] == true && c["started"] == true).count()
        }
    };
    let total = list(&pod["spec"]["containers"]).len()
        + list(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always").count();
    let restarts: i64 = counted.iter().filter_map(|c| c["restartCount"].as_i64()).sum();
    let last = counted.iter().filter_map(|c| c["lastState"]["terminated"]["finishedAt"].as_str()).max();
    let restarts = match last {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", crate::table::since(at, now)),
        _ => restarts.to_string(),
    };
    vec![
        pod["metadata"]["name"].clone(),
        format!("{ready}/{total}").into(),
        reason(pod, begins, main).into(),
        restarts.into(),
        age(pod, now),
        text(&pod["status"]["podIP"], "<none>"),
        text(&pod["spec"]["nodeName"], "<none>"),
        text(&pod["status"]["nominatedNodeName"], "<none>"),
        "<none>".into(),
    ]
}

/// How far init containers are, in the words of the STATUS column; `None` once the containers have had their turn.
fn initializing(pod: &Value, init: &[Value], is_sidecar: impl Fn(&Value) -> bool) -> Option<String> {
    let conditions = list(&pod["status"]["conditions"]);
    if conditions.iter().any(|c| c["type"] == "Initialized" && c["status"] == "True") {
        return None;
    }
    let is_done = |c: &Value| match is_sidecar(&c["name"]) {
        true => c["started"] == true,
        false => c["state"]["terminated"]["exitCode"] == 0,
    };
    let (place, container) = init.iter().enumerate().find(|(_, c)| !is_done(c))?;
    let state = &container["state"];
    let waits = given(&state["waiting"]).filter(|why| why != "PodInitializing");
    Some(match state["terminated"].is_object() {
        true => format!("Init:{}", ended(&state["terminated"])),
        false => match waits {
            Some(why) => format!("Init:{why}"),
            None => format!("Init:{place}/{}", list(&pod["spec"]["initContainers"]).len()),
        },
    })
}

fn given(state: &Value) -> Option<String> {
    state["reason"].as_str().filter(|r| !r.is_empty()).map(str::to_owned)
}

fn ended(terminated: &Value) -> String {
    given(terminated).unwrap_or_else(|| match terminated["signal"].as_i64() {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
    })
}

/// The STATUS column (`printPod` upstream): the most telling of phase, reason and container states.
fn reason(pod: &Value, begins: Option<String>, statuses: &[Value]) -> String {
    let status = &pod["status"];
    let mut reason = status["phase"].as_str().unwrap_or_default().to_owned();
    if let Some(given) = given(status) {
        reason = given;
    }
    let conditions = list(&status["conditions"]);
    if conditions.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let mut has_running = false;
    for container in statuses.iter().rev().filter(|_| begins.is_none()) {
        let state = &container["state"];
        if let Some(waiting) = given(&state["waiting"]) {
            reason = waiting;
        } else if state["terminated"].is_object() {
            reason = ended(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            has_running = true;
        }
    }
    if reason == "Completed" && has_running {
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        reason = if ready { "Running".into() } else { "NotReady".into() };
    }
    if crate::object::is_deleting(pod) {
        return if status["reason"] == "NodeLost" { "Unknown".into() } else { "Terminating".into() };
    }
    begins.unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// READY, STATUS and RESTARTS of a pod with the init containers `a` and the sidecar `b`, and the container `c`.
    fn told(init: Value, main: Value, initialized: bool) -> String {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}], "containers": [{"name": "c"}]},
            "status": {"phase": "Pending", "initContainerStatuses": init, "containerStatuses": main,
                "conditions": [{"type": "Initialized", "status": if initialized { "True" } else { "False" }}]},
        });
        let cells = cells(&pod, jiff::Timestamp::UNIX_EPOCH);
        [&cells[1], &cells[2], &cells[3]].map(|cell| cell.as_str().unwrap_or_default().to_owned()).join(" ")
    }

    #[test]
    fn how_far_init_containers_are() {
        let waiting = json!([{"name": "c", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]);
        let one = |name: &str, state: Value, more: Value| {
            let mut status = json!({"name": name, "restartCount": 0, "ready": false, "state": state});
            more.as_object().into_iter().flatten().for_each(|(key, value)| status[key] = value.clone());
            status
        };
        let running = || json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}});
        let later = || one("b", json!({"waiting": {"reason": "PodInitializing"}}), json!({}));
        let done = || {
            one(
                "a",
                json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
                json!({"ready": true, "restartCount": 2}),
            )
        };
        assert_eq!(told(json!([one("a", running(), json!({})), later()]), waiting.clone(), false), "0/2 Init:0/2 0");
        let failed = one("a", json!({"terminated": {"exitCode": 3, "reason": "Error"}}), json!({"restartCount": 1}));
        assert_eq!(told(json!([failed, later()]), waiting.clone(), false), "0/2 Init:Error 1");
        let again = one("a", json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"restartCount": 1}));
        assert_eq!(told(json!([again, later()]), waiting.clone(), false), "0/2 Init:CrashLoopBackOff 1");
        assert_eq!(
            told(json!([done(), one("b", running(), json!({"started": false}))]), waiting.clone(), false),
            "0/2 Init:1/2 2"
        );
        let beside = one("b", running(), json!({"started": true, "ready": true, "restartCount": 1}));
        assert_eq!(told(json!([done(), beside.clone()]), waiting, true), "1/2 PodInitializing 1");
        let main = json!([{"name": "c", "restartCount": 4, "ready": true, "state": running()}]);
        assert_eq!(told(json!([done(), beside]), main, true), "2/2 Pending 5", "the phase is what the kubelet says");
    }
}
