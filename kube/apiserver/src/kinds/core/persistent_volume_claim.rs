//! Persistent volume claims: who needs to keep data.

use serde_json::{Value, json};

use super::persistent_volume::{access_modes, modes};
use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list, text};
use substrate_client::quantity::Quantity;

pub static KIND: Description = Description {
    short: &["pvc"],
    has_status: true,
    idle: "of volumes, the kubelet mounts hostPath and local; the class `local-path` is provisioned, others are not",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"])
};

const COLUMNS: &str =
    "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode+";

fn default(claim: &mut Value) {
    pod_spec::set(&mut claim["spec"], "volumeMode", "Filesystem");
    pod_spec::set(claim, "status", json!({}));
    pod_spec::set(&mut claim["status"], "phase", "Pending");
}

fn validate(claim: &Value, errors: &mut Errors) {
    let spec = &claim["spec"];
    if list(&spec["accessModes"]).is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    } else {
        access_modes(&spec["accessModes"], "spec.accessModes", errors);
    }
    errors.label_selector(&spec["selector"], "spec.selector");
    let storage = &spec["resources"]["requests"]["storage"];
    match storage.as_str().map(str::parse::<Quantity>) {
        None => errors.push(FieldError::required("spec.resources[storage]", "")),
        Some(Ok(amount)) if amount <= Quantity::ZERO => {
            let why = "must be greater than zero";
            errors.push(FieldError::invalid("spec.resources[storage]", storage, why));
        }
        Some(Ok(_)) => {}
        Some(Err(why)) => errors.push(FieldError::invalid("spec.resources[storage]", storage, &why.to_string())),
    }
    if let Some(class) = spec["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        for why in NameRule::Subdomain.judge(class) {
            errors.push(FieldError::invalid("spec.storageClassName", &spec["storageClassName"], &why));
        }
    }
    errors.one_of(&spec["volumeMode"], "spec.volumeMode", &["Block", "Filesystem"]);
}

/// A claim that is bound may only grow; the name of its volume is given once.
fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let fixed = |claim: &Value| {
        let mut spec = claim["spec"].as_object().cloned().unwrap_or_default();
        spec.remove("resources");
        spec.remove("volumeAttributesClassName");
        if old["spec"]["volumeName"].is_null() {
            spec.remove("volumeName");
        }
        spec
    };
    if fixed(old) != fixed(new) {
        errors.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let asked = |claim: &Value| {
        claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(|text| text.parse::<Quantity>().ok())
    };
    if let (Some(before), Some(after)) = (asked(old), asked(new)) {
        if after < before {
            let why = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", why));
        } else if after > before && old["status"]["phase"] != "Bound" {
            errors.push(FieldError::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ));
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let bound = spec["volumeName"].as_str().is_some_and(|name| !name.is_empty());
    let phase = if crate::object::is_deleting(object) { "Terminating".into() } else { text(&status["phase"], "") };
    vec![
        object["metadata"]["name"].clone(),
        phase,
        text(&spec["volumeName"], ""),
        if bound { text(&status["capacity"]["storage"], "") } else { "".into() },
        if bound { modes(&status["accessModes"]) } else { "".into() },
        text(&spec["storageClassName"], ""),
        text(&spec["volumeAttributesClassName"], "<unset>"),
        age(object, now),
        text(&spec["volumeMode"], "<unset>"),
    ]
}
