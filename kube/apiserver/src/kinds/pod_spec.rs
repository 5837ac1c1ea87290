//! A pod's spec, alone or inside a template: what is filled in and what is refused.

mod container;
mod placement;
mod validate;
mod volume;

use serde_json::{Value, json};
use substrate_client::quantity::Quantity;

pub use self::validate::validate;
use crate::object::child;

/// Sets `map[key]` when it is absent; text also when it is empty, which is the same in Go.
pub fn set(value: &mut Value, key: &str, default: impl Into<Value>) {
    let default = default.into();
    if value[key].is_null() || (default.is_string() && value[key] == "") {
        value[key] = default;
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by requests and limits of CPU and memory.
pub fn qos_class(spec: &Value) -> &'static str {
    let containers =
        || ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let amount = |container: &Value, kind: &str, resource: &str| {
        container["resources"][kind][resource]
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok())
            .filter(|n| *n > Quantity::ZERO)
    };
    let any = containers()
        .any(|c| ["cpu", "memory"].iter().any(|r| ["requests", "limits"].iter().any(|k| amount(c, k, r).is_some())));
    let all = containers().all(|c| {
        ["cpu", "memory"]
            .iter()
            .all(|r| amount(c, "limits", r).is_some() && amount(c, "limits", r) == amount(c, "requests", r))
    });
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn each<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in what a pod's spec leaves out (`pkg/apis/core/v1/defaults.go`).
pub fn default(spec: &mut Value) {
    child_spec(spec);
    set(spec, "restartPolicy", "Always");
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

/// Fills in what is filled in for pods themselves, not for templates of pods.
pub fn default_pod(spec: &mut Value) {
    set(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        each(spec, list).for_each(requests);
    }
    if spec["hostNetwork"] == json!(true) {
        for container in each(spec, "containers") {
            for port in each(container, "ports") {
                let number = port["containerPort"].clone();
                set(port, "hostPort", number);
            }
        }
    }
}

fn child_spec(spec: &mut Value) {
    if !spec.is_object() {
        *spec = json!({});
    }
}

/// What is limited and not asked for is asked for.
fn requests(container: &mut Value) {
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        let requests = child(&mut container["resources"], "requests");
        for (resource, amount) in limits {
            requests.entry(resource).or_insert(amount);
        }
    }
}

fn container(container: &mut Value) {
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    let image = container["image"].as_str().unwrap_or_default();
    let latest = !image.contains('@')
        && image.rsplit('/').next().is_some_and(|last| !last.contains(':') || last.ends_with(":latest"));
    set(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    set(container, "resources", json!({}));
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef")) {
            set(field, "apiVersion", "v1");
        }
        if let Some(field) = variable.get_mut("valueFrom").and_then(|v| v.get_mut("resourceFieldRef")) {
            set(field, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            set(probe, "timeoutSeconds", 1);
            set(probe, "periodSeconds", 10);
            set(probe, "successThreshold", 1);
            set(probe, "failureThreshold", 3);
            http(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook)) {
            http(hook);
        }
    }
}

fn http(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet").filter(|http| http.is_object()) {
        set(http, "path", "/");
        set(http, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Value) {
    const MODE: i64 = 0o644;
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            set(source, "defaultMode", MODE);
        }
    }
    if let Some(host) = volume.get_mut("hostPath").filter(|h| h.is_object()) {
        set(host, "type", "");
    }
    let sources = volume.as_object().map_or(0, |v| v.len());
    if sources == 1 {
        volume["emptyDir"] = json!({});
    }
    for source in each(&mut volume["projected"], "sources") {
        if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| token.is_object()) {
            set(token, "expirationSeconds", 3600);
        }
    }
    for item in each(&mut volume["downwardAPI"], "items") {
        if let Some(field) = item.get_mut("fieldRef").filter(|f| f.is_object()) {
            set(field, "apiVersion", "v1");
        }
    }
    // Indexing above may have made nulls, which would read as a second source.
    if let Some(map) = volume.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
}
