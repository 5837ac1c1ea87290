//! Where a Service's traffic goes: endpoint slices, and the older endpoints that `kubectl describe` reads.

use serde_json::Value;

use super::{Builtin, Column, Errors, column};
use crate::table::age;

/// Endpoints in one slice (`maxEndpoints` upstream).
const ENDPOINTS_MAX: usize = 1000;
/// Addresses a row shows.
const SHOWN: usize = 3;

const ENDPOINTS: &[Column] = &[column("Name", 0), column("Endpoints", 0), column("Age", 0)];
const SLICES: &[Column] =
    &[column("Name", 0), column("AddressType", 0), column("Ports", 0), column("Endpoints", 0), column("Age", 0)];

pub fn endpoints(rules: Builtin) -> Builtin {
    Builtin {
        columns: ENDPOINTS,
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
        ..rules
    }
}

pub fn endpoint_slice(rules: Builtin) -> Builtin {
    Builtin {
        validate,
        validate_update: |old, new, errors| errors.immutable(&old["addressType"], &new["addressType"], "addressType"),
        columns: SLICES,
        cells: |slice, now| {
            let ports: Vec<String> = list(&slice["ports"]).iter().map(|p| p["port"].to_string()).collect();
            let addresses: Vec<String> = list(&slice["endpoints"])
                .iter()
                .flat_map(|e| list(&e["addresses"]))
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect();
            let kind = slice["addressType"].clone();
            vec![slice["metadata"]["name"].clone(), kind, some(&ports), some(&addresses), age(slice, now)]
        },
        ..rules
    }
}

fn validate(slice: &Value, errors: &mut Errors) {
    errors.require(&slice["addressType"], "addressType");
    errors.one_of(&slice["addressType"], "addressType", &["FQDN", "IPv4", "IPv6"]);
    let endpoints = list(&slice["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(crate::status::FieldError {
            reason: crate::status::FieldReason::TooLong,
            field: "endpoints".into(),
            message: format!("Too many: {}: must have at most {ENDPOINTS_MAX} items", endpoints.len()),
        });
    }
    for (i, endpoint) in endpoints.iter().enumerate().take(ENDPOINTS_MAX) {
        errors.require(&endpoint["addresses"], format!("endpoints[{i}].addresses"));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn some(all: &[String]) -> Value {
    match all.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN).into(),
        _ => all.join(",").into(),
    }
}
