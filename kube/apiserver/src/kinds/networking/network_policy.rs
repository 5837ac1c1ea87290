//! Network policies: who may reach pods, and whom they may reach.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::selector;
use crate::table::{age, list};

pub static KIND: Description = Description {
    short: &["netpol"],
    counts: true,
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"])
};

const COLUMNS: &str = "Name, Pod-Selector, Age";

fn default(policy: &mut Value) {
    let spec = &mut policy["spec"];
    let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    pod_spec::set(spec, "podSelector", json!({}));
    pod_spec::set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten() {
            let ports = rule.get_mut("ports").and_then(Value::as_array_mut);
            ports.into_iter().flatten().for_each(|port| pod_spec::set(port, "protocol", "TCP"));
        }
    }
}

fn validate(policy: &Value, errors: &mut Errors) {
    let spec = &policy["spec"];
    errors.label_selector(&spec["podSelector"], "spec.podSelector");
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(&spec[direction]).iter().enumerate() {
            let at = format!("spec.{direction}[{i}]");
            for (k, one) in list(&rule["ports"]).iter().enumerate() {
                port(one, &format!("{at}.ports[{k}]"), errors);
            }
            for (k, one) in list(&rule[side]).iter().enumerate() {
                peer(one, &format!("{at}.{side}[{k}]"), errors);
            }
        }
    }
    let types = list(&spec["policyTypes"]);
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", &spec["policyTypes"], why));
        return;
    }
    for (i, one) in types.iter().enumerate() {
        errors.one_of(one, format!("spec.policyTypes[{i}]"), &["Egress", "Ingress"]);
    }
}

fn port(port: &Value, at: &str, errors: &mut Errors) {
    errors.one_of(&port["protocol"], format!("{at}.protocol"), &["SCTP", "TCP", "UDP"]);
    errors.port(&port["port"], &format!("{at}.port"), true);
    let end = &port["endPort"];
    match (end.as_i64(), &port["port"]) {
        (None, _) => {}
        (Some(_), Value::Null) => {
            errors.push(FieldError::required(format!("{at}.port"), "must be specified when `endPort` is specified"))
        }
        (Some(_), Value::String(_)) => {
            let why = "may not be specified when `port` is non-numeric";
            errors.push(FieldError::invalid(format!("{at}.endPort"), end, why));
        }
        (Some(last), first) => {
            if Some(last) < first.as_i64() {
                let why = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(format!("{at}.endPort"), end, why));
            }
            errors.port(end, &format!("{at}.endPort"), false);
        }
    }
}

fn peer(peer: &Value, at: &str, errors: &mut Errors) {
    let block = &peer["ipBlock"];
    let selects = peer["podSelector"].is_object() || peer["namespaceSelector"].is_object();
    if !selects && !block.is_object() {
        errors.push(FieldError::required(at, "must specify a peer"));
    } else if selects && block.is_object() {
        errors.push(FieldError::forbidden(at, "may not specify both ipBlock and another peer"));
    }
    errors.label_selector(&peer["podSelector"], &format!("{at}.podSelector"));
    errors.label_selector(&peer["namespaceSelector"], &format!("{at}.namespaceSelector"));
    if !block.is_object() {
        return;
    }
    let field = format!("{at}.ipBlock.cidr");
    let Some(cidr) = block["cidr"].as_str().filter(|text| !text.is_empty()) else {
        return errors.push(FieldError::required(field, ""));
    };
    let Some(outer) = super::service_cidr::parse(cidr) else {
        return errors.push(FieldError::invalid(field, &block["cidr"], super::service_cidr::WRONG));
    };
    for (i, except) in list(&block["except"]).iter().enumerate() {
        let field = format!("{at}.ipBlock.except[{i}]");
        match except.as_str().and_then(super::service_cidr::parse) {
            None => errors.push(FieldError::invalid(field, except, super::service_cidr::WRONG)),
            Some(inner) if !super::service_cidr::within(outer, inner) => {
                errors.push(FieldError::invalid(field, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), selector(&object["spec"]["podSelector"]), age(object, now)]
}
