//! Services. Cluster addresses and node ports are given out by [`crate::addresses`].

use serde_json::{Value, json};

use crate::kinds::{Builtin, Column, Description, Errors, NameRule, column, pod_spec};
use crate::protobuf;
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["svc"],
    categories: &["all"],
    has_status: true,
    subresources: &[("proxy", "ServiceProxyOptions", &["create", "delete", "get", "patch", "update"])],
    name_rule: NameRule::Dns1035,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "Service", "services", "service"], &protobuf::core::Service)
};

const COLUMNS: &[Column] = &[
    column("Name", 0),
    column("Type", 0),
    column("Cluster-IP", 0),
    column("External-IP", 0),
    column("Port(s)", 0),
    column("Age", 0),
    column("Selector", 1),
];

fn default(service: &mut Value) {
    pod_spec::set(service, "status", json!({ "loadBalancer": {} }));
    let spec = &mut service["spec"];
    pod_spec::set(spec, "type", "ClusterIP");
    pod_spec::set(spec, "sessionAffinity", "None");
    if spec["type"] == "ExternalName" {
        return;
    }
    pod_spec::set(spec, "internalTrafficPolicy", "Cluster");
    pod_spec::set(spec, "ipFamilies", json!(["IPv4"]));
    pod_spec::set(spec, "ipFamilyPolicy", "SingleStack");
    if spec["type"] == "NodePort" {
        pod_spec::set(spec, "externalTrafficPolicy", "Cluster");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        pod_spec::set(port, "protocol", "TCP");
        let number = port["port"].clone();
        pod_spec::set(port, "targetPort", number);
    }
}

fn validate(service: &Value, errors: &mut Errors) {
    let spec = &service["spec"];
    errors.one_of(&spec["type"], "spec.type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    errors.one_of(&spec["sessionAffinity"], "spec.sessionAffinity", &["ClientIP", "None"]);
    if spec["type"] == "ExternalName" {
        errors.require(&spec["externalName"], "spec.externalName");
        return;
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["clusterIP"] != "None" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    for (i, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        if ports.len() > 1 {
            errors.require(&port["name"], at("name"));
        }
        if port["port"].is_null() {
            errors.push(FieldError::required(at("port"), ""));
        }
        errors.port(&port["port"], &at("port"), false);
        errors.port(&port["targetPort"], &at("targetPort"), true);
        errors.one_of(&port["protocol"], at("protocol"), &["SCTP", "TCP", "UDP"]);
        let twin = |other: &Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        if ports[..i].iter().any(twin) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), port));
        }
    }
    errors.labels(&spec["selector"], "spec.selector");
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (&old["spec"]["clusterIP"], &new["spec"]["clusterIP"]);
    if before.is_string() && new["spec"]["type"] != "ExternalName" && before != after {
        errors.push(FieldError::invalid("spec.clusterIPs[0]", after, "may not change once set"));
    }
}

fn cells(service: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    let external: Vec<&str> = service["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str()))
        .collect();
    let external = match spec["type"].as_str() {
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or("<none>").to_owned(),
        Some("LoadBalancer") if external.is_empty() => "<pending>".to_owned(),
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external.join(","),
    };
    vec![
        service["metadata"]["name"].clone(),
        spec["type"].clone(),
        text(&spec["clusterIP"], "<none>"),
        external.into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age(service, now),
        crate::table::selector(&json!({ "matchLabels": spec["selector"] })),
    ]
}
