//! Ingresses: how Services are reached from outside.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::some;
use crate::table::{age, count, list, text};

pub static KIND: Description = Description {
    short: &["ing"],
    has_status: true,
    counts: true,
    idle: "it is for an ingress controller, which a user brings",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["networking.k8s.io", "v1", "Ingress", "ingresses"])
};

const COLUMNS: &str = "Name, Class, Hosts, Address, Ports, Age";

fn default(ingress: &mut Value) {
    pod_spec::set(ingress, "spec", json!({}));
    pod_spec::set(ingress, "status", json!({}));
    pod_spec::set(&mut ingress["status"], "loadBalancer", json!({}));
}

fn validate(ingress: &Value, errors: &mut Errors) {
    let spec = &ingress["spec"];
    if list(&spec["rules"]).is_empty() && spec["defaultBackend"].is_null() {
        errors.push(FieldError::invalid("spec", spec, "either `defaultBackend` or `rules` must be specified"));
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", errors);
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        for why in NameRule::Subdomain.judge(class) {
            errors.push(FieldError::invalid("spec.ingressClassName", &spec["ingressClassName"], &why));
        }
    }
    for (i, rule) in list(&spec["rules"]).iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        if let Some(host) = rule["host"].as_str().filter(|host| !host.is_empty()) {
            let rest = host.strip_prefix("*.").unwrap_or(host);
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(FieldError::invalid(
                    format!("{at}.host"),
                    &rule["host"],
                    "must be a DNS name, not an IP address",
                ));
            }
            for why in NameRule::Subdomain.judge(rest) {
                errors.push(FieldError::invalid(format!("{at}.host"), &rule["host"], &why));
            }
        }
        if rule["http"].is_object() && list(&rule["http"]["paths"]).is_empty() {
            errors.push(FieldError::required(format!("{at}.http.paths"), ""));
        }
        for (k, path) in list(&rule["http"]["paths"]).iter().enumerate() {
            http_path(path, &format!("{at}.http.paths[{k}]"), errors);
        }
    }
}

fn http_path(path: &Value, at: &str, errors: &mut Errors) {
    match path["pathType"].as_str() {
        None | Some("") => errors.push(FieldError::required(format!("{at}.pathType"), "pathType must be specified")),
        Some("Exact" | "Prefix") => {
            let text = path["path"].as_str().unwrap_or_default();
            if !text.starts_with('/') {
                errors.push(FieldError::invalid(format!("{at}.path"), &json!(text), "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                errors.push(FieldError::invalid(
                    format!("{at}.path"),
                    &json!(text),
                    &format!("must not contain '{part}'"),
                ));
            }
        }
        Some("ImplementationSpecific") => {
            if path["path"].as_str().is_some_and(|text| !text.is_empty() && !text.starts_with('/')) {
                errors.push(FieldError::invalid(format!("{at}.path"), &path["path"], "must be an absolute path"));
            }
        }
        Some(_) => errors.push(FieldError::not_supported(
            format!("{at}.pathType"),
            &path["pathType"],
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    backend(&path["backend"], &format!("{at}.backend"), errors);
}

fn backend(backend: &Value, at: &str, errors: &mut Errors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_object(), resource.is_object()) {
        (true, true) => {
            errors.push(FieldError::invalid(at, &json!(""), "cannot set both resource and service backends"))
        }
        (false, false) => errors.push(FieldError::invalid(at, &json!(""), "resource or service backend is required")),
        (false, true) => {
            errors.require(&resource["kind"], format!("{at}.resource.kind"));
            errors.require(&resource["name"], format!("{at}.resource.name"));
        }
        (true, false) => {
            let at = format!("{at}.service");
            errors.named(&service["name"], &format!("{at}.name"), NameRule::Dns1035);
            let port = &service["port"];
            let name = port["name"].as_str().is_some_and(|name| !name.is_empty());
            match (name, count(&port["number"])) {
                (true, 0) => errors.port(&port["name"], &format!("{at}.port.name"), true),
                (true, _) => {
                    errors.push(FieldError::invalid(at, &json!(""), "cannot set both port name & port number"))
                }
                (false, 0) => errors.push(FieldError::required(at, "port name or number is required")),
                (false, _) => errors.port(&port["number"], &format!("{at}.port.number"), false),
            }
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let mut hosts: Vec<String> = list(&spec["rules"])
        .iter()
        .filter_map(|rule| rule["host"].as_str())
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    if hosts.is_empty() {
        hosts.push("*".into());
    }
    let addresses: Vec<&str> = list(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|point| point["ip"].as_str().or(point["hostname"].as_str()))
        .collect();
    vec![
        object["metadata"]["name"].clone(),
        text(&spec["ingressClassName"], "<none>"),
        some(&hosts),
        addresses.join(",").into(),
        if list(&spec["tls"]).is_empty() { "80".into() } else { "80, 443".into() },
        age(object, now),
    ]
}
