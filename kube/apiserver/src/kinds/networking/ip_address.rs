//! IP addresses: whose an address is. They are named by it.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::status::FieldError;
use crate::table::age;

pub static KIND: Description = Description {
    short: &["ip"],
    namespaced: false,
    name_rule: NameRule::PathSegment,
    idle: "addresses of Services are not reserved by them",
    rules: Builtin {
        validate,
        validate_update: |old, new, errors| {
            errors.immutable(&old["spec"]["parentRef"], &new["spec"]["parentRef"], "spec.parentRef")
        },
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["networking.k8s.io", "v1", "IPAddress", "ipaddresses"])
};

const COLUMNS: &str = "Name, ParentRef, Age";

fn validate(address: &Value, errors: &mut Errors) {
    let name = &address["metadata"]["name"];
    // One address has one name: the shortest way to write it.
    let canonical = name.as_str().and_then(|text| text.parse::<std::net::IpAddr>().ok()).map(|ip| ip.to_string());
    match canonical {
        None => errors.push(FieldError::invalid(
            "metadata.name",
            name,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        )),
        Some(canonical) if canonical != name.as_str().unwrap_or_default() => {
            errors.push(FieldError::invalid(
                "metadata.name",
                name,
                &format!("must be in canonical form ({canonical:?})"),
            ));
        }
        Some(_) => {}
    }
    let parent = &address["spec"]["parentRef"];
    if parent.is_null() {
        errors.push(FieldError::required("spec.parentRef", ""));
        return;
    }
    errors.require(&parent["resource"], "spec.parentRef.resource");
    errors.require(&parent["name"], "spec.parentRef.name");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let part = |field: &str| parent[field].as_str().unwrap_or_default();
    let kind = if part("group").is_empty() {
        part("resource").to_owned()
    } else {
        format!("{}.{}", part("resource"), part("group"))
    };
    let place = if part("namespace").is_empty() {
        part("name").to_owned()
    } else {
        format!("{}/{}", part("namespace"), part("name"))
    };
    vec![object["metadata"]["name"].clone(), format!("{kind}/{place}").into(), age(object, now)]
}
