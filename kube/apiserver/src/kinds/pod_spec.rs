//! A pod's spec, alone or inside a template: what is filled in and what is refused.

use serde_json::{Value, json};
use substrate_client::quantity::Quantity;

use super::validate::{Errors, LABEL, name_is_label};
use crate::object::child;
use crate::status::FieldError;

/// Sets `map[key]` when it is absent.
pub fn set(value: &mut Value, key: &str, default: impl Into<Value>) {
    if value[key].is_null() {
        value[key] = default.into();
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
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            set(probe, "timeoutSeconds", 1);
            set(probe, "periodSeconds", 10);
            set(probe, "successThreshold", 1);
            set(probe, "failureThreshold", 3);
            if let Some(http) = probe.get_mut("httpGet").filter(|h| h.is_object()) {
                set(http, "path", "/");
                set(http, "scheme", "HTTP");
            }
        }
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

/// Judges a pod's spec under `path`.
pub fn validate(spec: &Value, path: &str, errors: &mut Errors) {
    let at = |field: &str| format!("{path}.{field}");
    errors.require(&spec["containers"], at("containers"));
    errors.one_of(&spec["restartPolicy"], at("restartPolicy"), &["Always", "OnFailure", "Never"]);
    errors.one_of(&spec["dnsPolicy"], at("dnsPolicy"), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    errors.range(&spec["terminationGracePeriodSeconds"], at("terminationGracePeriodSeconds"), 0, i64::MAX);
    let volumes: Vec<&str> = names(&spec["volumes"]);
    for (i, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        name(volume, &format!("{path}.volumes[{i}].name"), &volumes[..i.min(volumes.len())], errors);
        if volume.as_object().is_some_and(|v| v.len() > 2) {
            let field = format!("{path}.volumes[{i}]");
            errors.push(FieldError::forbidden(field, "may not specify more than 1 volume type"));
        }
    }
    let mut seen = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            validate_container(container, &format!("{path}.{list}[{i}]"), &seen, &volumes, errors);
            seen.extend(container["name"].as_str());
        }
    }
    for (i, gate) in spec["schedulingGates"].as_array().into_iter().flatten().enumerate() {
        errors.require(&gate["name"], format!("{path}.schedulingGates[{i}].name"));
    }
    for (i, toleration) in spec["tolerations"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.tolerations[{i}]");
        errors.one_of(&toleration["operator"], format!("{field}.operator"), &["Equal", "Exists"]);
        errors.one_of(
            &toleration["effect"],
            format!("{field}.effect"),
            &["NoSchedule", "PreferNoSchedule", "NoExecute", ""],
        );
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|v| v["name"].as_str().unwrap_or_default()).collect()
}

fn name(object: &Value, field: &str, seen: &[&str], errors: &mut Errors) {
    match object["name"].as_str() {
        None | Some("") => errors.push(FieldError::required(field, "")),
        Some(name) if !name_is_label(name) => errors.push(FieldError::invalid(field, &object["name"], LABEL)),
        Some(name) if seen.contains(&name) => errors.push(FieldError::duplicate(field, &object["name"])),
        Some(_) => {}
    }
}

fn validate_container(container: &Value, path: &str, seen: &[&str], volumes: &[&str], errors: &mut Errors) {
    name(container, &format!("{path}.name"), seen, errors);
    errors.require(&container["image"], format!("{path}.image"));
    errors.one_of(
        &container["imagePullPolicy"],
        format!("{path}.imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    for (i, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.ports[{i}]");
        if port["containerPort"].is_null() || port["containerPort"] == json!(0) {
            errors.push(FieldError::required(format!("{field}.containerPort"), ""));
        }
        errors.port(&port["containerPort"], &format!("{field}.containerPort"), false);
        errors.port(&port["name"], &format!("{field}.name"), true);
        errors.one_of(&port["protocol"], format!("{field}.protocol"), &["SCTP", "TCP", "UDP"]);
    }
    for (i, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        errors.require(&variable["name"], format!("{path}.env[{i}].name"));
    }
    let mut paths = Vec::new();
    for (i, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.volumeMounts[{i}]");
        let volume = mount["name"].as_str().unwrap_or_default();
        if !volumes.contains(&volume) {
            let error = FieldError {
                reason: crate::status::FieldReason::Invalid,
                field: format!("{field}.name"),
                message: format!("Not found: {volume:?}"),
            };
            errors.push(error);
        }
        errors.require(&mount["mountPath"], format!("{field}.mountPath"));
        if paths.contains(&&mount["mountPath"]) {
            errors.push(FieldError::invalid(format!("{field}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        paths.push(&mount["mountPath"]);
    }
    resources(&container["resources"], &format!("{path}.resources"), errors);
}

fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    errors.quantities(&resources["limits"], &format!("{path}.limits"));
    errors.quantities(&resources["requests"], &format!("{path}.requests"));
    let amount = |v: &Value| v.as_str().and_then(|text| text.parse::<Quantity>().ok());
    for (resource, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][resource];
        if let (Some(wanted), Some(most)) = (amount(request), amount(limit))
            && wanted > most
        {
            let detail = format!("must be less than or equal to {resource} limit of {}", limit.as_str().unwrap_or(""));
            errors.push(FieldError::invalid(format!("{path}.requests"), request, &detail));
        }
    }
}
