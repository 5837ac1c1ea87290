//! Services. Families, cluster addresses and node ports are given out, and judged, by [`crate::addresses`].

use serde_json::{Value, json};

use crate::addresses::has_health_check;
use crate::kinds::rules::{self, Check, Rule, check, unique};
use crate::kinds::{Builtin, Description, Errors, LABEL, NameRule, name_is_label, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["svc"],
    categories: &["all"],
    has_status: true,
    subresources: &[("proxy", "ServiceProxyOptions", &["create", "delete", "get", "patch", "update"])],
    name_rule: NameRule::Dns1035,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "Service", "services"])
};

const COLUMNS: &str = "Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector+";

fn default(service: &mut Value) {
    pod_spec::set(service, "status", json!({ "loadBalancer": {} }));
    let spec = &mut service["spec"];
    pod_spec::set(spec, "type", "ClusterIP");
    pod_spec::set(spec, "sessionAffinity", "None");
    if spec["type"] == "ExternalName" {
        return;
    }
    pod_spec::set(spec, "internalTrafficPolicy", "Cluster");
    if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        pod_spec::set(spec, "externalTrafficPolicy", "Cluster");
    }
    if spec["type"] == "LoadBalancer" {
        pod_spec::set(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        pod_spec::set(port, "protocol", "TCP");
        let number = port["port"].clone();
        pod_spec::set(port, "targetPort", number);
    }
}

const RULES: &[Rule] = &[
    Rule("type", Check::OneOf(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])),
    Rule("sessionAffinity", Check::OneOf(&["ClientIP", "None"])),
    Rule("sessionAffinityConfig.clientIP.timeoutSeconds", Check::Says(affinity_seconds)),
    Rule("externalTrafficPolicy|internalTrafficPolicy", Check::OneOf(&["Cluster", "Local"])),
    Rule("externalIPs[]", Check::Says(rules::reachable_ip)),
    Rule("loadBalancerClass", Check::Says(rules::qualified_name)),
    Rule("loadBalancerSourceRanges[]", Check::Says(rules::cidr)),
    Rule("selector", Check::Labels),
    Rule("ports[].port", Check::IsPort),
    Rule("ports[].targetPort", Check::PortOrName),
    Rule("ports[].protocol", Check::OneOf(&["SCTP", "TCP", "UDP"])),
    Rule("ports[].name", Check::Says(port_name)),
];

fn affinity_seconds(seconds: &Value) -> Vec<&'static str> {
    match seconds.as_i64() {
        Some(1..=86400) => Vec::new(),
        _ => vec!["must be greater than 0 and less than 86400"],
    }
}

fn port_name(name: &Value) -> Vec<&'static str> {
    match name.as_str() {
        Some(name) if !name.is_empty() && !name_is_label(name) => vec![LABEL],
        _ => Vec::new(),
    }
}

fn validate(service: &Value, errors: &mut Errors) {
    let spec = &service["spec"];
    check(RULES, spec, "spec", errors);
    let kind = spec["type"].as_str().unwrap_or_default();
    if kind == "ExternalName" {
        let name = spec["externalName"].as_str().unwrap_or_default();
        match name.strip_suffix('.').unwrap_or(name) {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => errors.named(&name.into(), "spec.externalName", NameRule::Subdomain),
        }
    }
    if kind != "LoadBalancer" && spec["loadBalancerSourceRanges"].as_array().is_some_and(|ranges| !ranges.is_empty()) {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden("spec.loadBalancerSourceRanges", why));
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if kind != "LoadBalancer" && !spec[field].is_null() {
            let why = "may only be used when `type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden(format!("spec.{field}"), why));
        }
    }
    let from_outside = matches!(kind, "LoadBalancer" | "NodePort") || !spec["externalIPs"].is_null();
    if !from_outside && !spec["externalTrafficPolicy"].is_null() {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], why));
    }
    let health = &spec["healthCheckNodePort"];
    if health.as_i64().is_some_and(|port| port != 0) && !has_health_check(spec) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", health, why));
    }
    ports(spec, kind, errors);
}

fn ports(spec: &Value, kind: &str, errors: &mut Errors) {
    let ports = &spec["ports"];
    let count = ports.as_array().map_or(0, Vec::len);
    if count == 0 && spec["clusterIP"] != "None" && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    for (i, port) in ports.as_array().into_iter().flatten().enumerate() {
        if count > 1 {
            errors.require(&port["name"], format!("spec.ports[{i}].name"));
        }
        if kind == "ClusterIP" && port["nodePort"].as_i64().is_some_and(|port| port != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(format!("spec.ports[{i}].nodePort"), why));
        }
    }
    let text = |port: &Value, field: &str| port[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    unique(
        ports,
        |port| text(port, "name"),
        |i, port| errors.push(FieldError::duplicate(format!("spec.ports[{i}].name"), &port["name"])),
    );
    unique(
        ports,
        |port| Some((text(port, "protocol"), port["port"].clone())),
        |i, port| errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), port)),
    );
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (&old["spec"]["healthCheckNodePort"], &new["spec"]["healthCheckNodePort"]);
    if has_health_check(&old["spec"]) && has_health_check(&new["spec"]) && !before.is_null() && before != after {
        errors.push(FieldError::invalid("spec.healthCheckNodePort", after, "field is immutable"));
    }
    let (before, after) = (&old["spec"]["loadBalancerClass"], &new["spec"]["loadBalancerClass"]);
    if [old, new].iter().all(|service| service["spec"]["type"] == "LoadBalancer") && before != after {
        errors.push(FieldError::invalid("spec.loadBalancerClass", after, "may not change once set"));
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
