//! Endpoint slices.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors};
use crate::table::{age, list, some};

/// Endpoints in one slice (`maxEndpoints` upstream).
const ENDPOINTS_MAX: usize = 1000;

pub static KIND: Description = Description {
    counts: true,
    rules: Builtin {
        validate,
        validate_update: |old, new, errors| errors.immutable(&old["addressType"], &new["addressType"], "addressType"),
        columns: COLUMNS,
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
        ..Builtin::USUAL
    },
    ..Description::of(["discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"])
};

const COLUMNS: &str = "Name, AddressType, Ports, Endpoints, Age";

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
