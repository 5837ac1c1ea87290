//! Service CIDRs: from which addresses Services get theirs.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    has_status: true,
    idle: "addresses of Services come from one range, given at the start",
    rules: Builtin {
        validate,
        validate_update: |old, new, errors| {
            errors.immutable(&old["spec"]["cidrs"], &new["spec"]["cidrs"], "spec.cidrs")
        },
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs"])
};

const COLUMNS: &str = "Name, CIDRs, Age";

/// What is said of a text that is no CIDR.
pub const WRONG: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Reads `10.9.8.0/24`.
pub fn parse(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.parse::<u8>().ok().filter(|length| *length <= most).map(|length| (address, length))
}

/// Whether `inner` is a smaller part of `outer`.
pub fn within(outer: (std::net::IpAddr, u8), inner: (std::net::IpAddr, u8)) -> bool {
    use std::net::IpAddr::{V4, V6};
    let same = match (outer.0, inner.0) {
        (V4(a), V4(b)) => outer.1 == 0 || (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(outer.1),
        (V6(a), V6(b)) => outer.1 == 0 || (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(outer.1),
        _ => false,
    };
    same && inner.1 > outer.1
}

fn validate(range: &Value, errors: &mut Errors) {
    let cidrs = list(&range["spec"]["cidrs"]);
    if cidrs.is_empty() {
        errors.push(FieldError::required("spec.cidrs", "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        let why = "may only hold up to 2 values";
        errors.push(FieldError::invalid("spec", &range["spec"], why));
    }
    for (i, cidr) in cidrs.iter().enumerate().take(2) {
        if cidr.as_str().and_then(parse).is_none() {
            errors.push(FieldError::invalid(format!("spec.cidrs[{i}]"), cidr, WRONG));
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(&object["spec"]["cidrs"]).iter().filter_map(Value::as_str).collect();
    vec![object["metadata"]["name"].clone(), cidrs.join(",").into(), age(object, now)]
}
