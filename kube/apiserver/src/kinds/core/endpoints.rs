//! Endpoints: the older form of endpoint slices, which `kubectl describe` reads.

use serde_json::Value;

use crate::kinds::rules::{self, Check, Rule, check};
use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list, some};

pub static KIND: Description = Description {
    short: &["ep"],
    rules: Builtin {
        default,
        validate,
        columns: COLUMNS,
        cells: |object, now| {
            let mut shown = Vec::new();
            for subset in list(&object["subsets"]) {
                for address in list(&subset["addresses"]) {
                    let ip = address["ip"].as_str().unwrap_or_default();
                    let ports = list(&subset["ports"]);
                    shown.extend(ports.iter().map(|p| format!("{ip}:{}", p["port"])));
                    if ports.is_empty() {
                        shown.push(ip.to_owned());
                    }
                }
            }
            vec![object["metadata"]["name"].clone(), some(&shown), age(object, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "Endpoints", "endpoints"])
};

const COLUMNS: &str = "Name, Endpoints, Age";

const RULES: &[Rule] = &[
    Rule("subsets[].addresses|notReadyAddresses[].ip", Check::Says(rules::reachable_ip)),
    Rule("subsets[].addresses|notReadyAddresses[].hostname", Check::Name(NameRule::Label)),
    Rule("subsets[].addresses|notReadyAddresses[].nodeName", Check::Name(NameRule::Subdomain)),
    Rule("subsets[].ports[].port", Check::IsPort),
    Rule("subsets[].ports[].protocol", Check::OneOf(&["SCTP", "TCP", "UDP"])),
    Rule("subsets[].ports[].name", Check::Name(NameRule::Label)),
];

fn default(endpoints: &mut Value) {
    for subset in endpoints.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
        for port in subset.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            pod_spec::set(port, "protocol", "TCP");
        }
    }
}

fn validate(endpoints: &Value, errors: &mut Errors) {
    check(RULES, endpoints, "", errors);
    for (i, subset) in list(&endpoints["subsets"]).iter().enumerate() {
        if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
            let why = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(format!("subsets[{i}]"), why));
        }
        let ports = list(&subset["ports"]);
        for (j, port) in ports.iter().enumerate().filter(|_| ports.len() > 1) {
            errors.require(&port["name"], format!("subsets[{i}].ports[{j}].name"));
        }
    }
}
