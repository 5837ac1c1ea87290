//! Persistent volumes: what there is to keep data on.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list, text};

pub static KIND: Description = Description {
    short: &["pv"],
    namespaced: false,
    has_status: true,
    idle: "of volumes, the kubelet mounts hostPath and local; the class `local-path` is provisioned, others are not",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "PersistentVolume", "persistentvolumes"])
};

const COLUMNS: &str = "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode+";

/// Ways in which a volume can be mounted.
pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of a spec that say what kind of volume it is.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn default(volume: &mut Value) {
    let spec = &mut volume["spec"];
    pod_spec::set(spec, "persistentVolumeReclaimPolicy", "Retain");
    pod_spec::set(spec, "volumeMode", "Filesystem");
    if let Some(host) = spec.get_mut("hostPath").filter(|host| host.is_object()) {
        pod_spec::set(host, "type", "");
    }
    pod_spec::set(volume, "status", json!({}));
    pod_spec::set(&mut volume["status"], "phase", "Pending");
}

fn validate(volume: &Value, errors: &mut Errors) {
    let spec = &volume["spec"];
    access_modes(&spec["accessModes"], "spec.accessModes", errors);
    match spec["capacity"].as_object().filter(|capacity| !capacity.is_empty()) {
        None => {
            errors.push(FieldError::required("spec.capacity", ""));
            errors.push(FieldError::not_supported("spec.capacity", &spec["capacity"], &["storage"]));
        }
        Some(capacity) => {
            if !capacity.contains_key("storage") || capacity.len() > 1 {
                errors.push(FieldError::not_supported("spec.capacity", &spec["capacity"], &["storage"]));
            }
            errors.quantities(&spec["capacity"], "spec.capacity");
        }
    }
    errors.one_of(
        &spec["persistentVolumeReclaimPolicy"],
        "spec.persistentVolumeReclaimPolicy",
        &["Delete", "Recycle", "Retain"],
    );
    let sources: Vec<&&str> = SOURCES.iter().filter(|source| spec[**source].is_object()).collect();
    match sources[..] {
        [] => errors.push(FieldError::required("spec", "must specify a volume type")),
        [source] if *source == "hostPath" => errors.require(&spec["hostPath"]["path"], "spec.hostPath.path"),
        [source] if *source == "local" => {
            errors.require(&spec["local"]["path"], "spec.local.path");
            if !spec["nodeAffinity"]["required"].is_object() {
                errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
            }
        }
        [_] => {}
        [_, ref more @ ..] => {
            for source in more {
                errors.push(FieldError::forbidden(format!("spec.{source}"), "may not specify more than 1 volume type"));
            }
        }
    }
    errors.one_of(&spec["volumeMode"], "spec.volumeMode", &["Block", "Filesystem"]);
}

/// Judges access modes; there must be one.
pub fn access_modes(modes: &Value, field: &str, errors: &mut Errors) {
    if list(modes).is_empty() {
        let why = if field == "spec.accessModes" { "" } else { "at least 1 access mode is required" };
        errors.push(FieldError::required(field, why));
    }
    for mode in list(modes) {
        errors.one_of(mode, field, ACCESS_MODES);
    }
    let exclusive = list(modes).iter().any(|mode| mode == "ReadWriteOncePod");
    if exclusive && list(modes).len() > 1 {
        let why = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(field, why));
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let source = |volume: &Value| SOURCES.iter().map(|source| volume["spec"][*source].clone()).collect::<Vec<_>>();
    if source(old) != source(new) {
        let why = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", why));
    }
    errors.immutable(&old["spec"]["volumeMode"], &new["spec"]["volumeMode"], "spec.volumeMode");
    if !old["spec"]["nodeAffinity"].is_null() {
        errors.immutable(&old["spec"]["nodeAffinity"], &new["spec"]["nodeAffinity"], "spec.nodeAffinity");
    }
}

/// `RWO,ROX`.
pub fn modes(modes: &Value) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => Some("RWO"),
        Some("ReadOnlyMany") => Some("ROX"),
        Some("ReadWriteMany") => Some("RWX"),
        Some("ReadWriteOncePod") => Some("RWOP"),
        _ => None,
    };
    list(modes).iter().filter_map(short).collect::<Vec<_>>().join(",").into()
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let claim = match spec["claimRef"]["name"].as_str() {
        Some(name) => format!("{}/{name}", spec["claimRef"]["namespace"].as_str().unwrap_or_default()),
        None => String::new(),
    };
    let phase = if crate::object::is_deleting(object) { "Terminating".into() } else { text(&status["phase"], "") };
    vec![
        object["metadata"]["name"].clone(),
        text(&spec["capacity"]["storage"], ""),
        modes(&spec["accessModes"]),
        text(&spec["persistentVolumeReclaimPolicy"], ""),
        phase,
        claim.into(),
        text(&spec["storageClassName"], ""),
        text(&spec["volumeAttributesClassName"], "<unset>"),
        text(&status["reason"], ""),
        age(object, now),
        text(&spec["volumeMode"], "<unset>"),
    ]
}
