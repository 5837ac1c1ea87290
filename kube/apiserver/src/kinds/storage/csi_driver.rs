//! CSI drivers: how a driver wants to be treated.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    counts: true,
    idle: "there are no volume drivers",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "CSIDriver", "csidrivers"])
};

const COLUMNS: &str = "Name, AttachRequired:boolean, PodInfoOnMount:boolean, StorageCapacity:boolean, TokenRequests, RequiresRepublish:boolean, Modes, Age";

fn default(driver: &mut Value) {
    pod_spec::set(driver, "spec", json!({}));
    let spec = &mut driver["spec"];
    pod_spec::set(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        pod_spec::set(spec, field, false);
    }
    pod_spec::set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    pod_spec::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

fn validate(driver: &Value, errors: &mut Errors) {
    let spec = &driver["spec"];
    for mode in list(&spec["volumeLifecycleModes"]) {
        errors.one_of(mode, "spec.volumeLifecycleModes", &["Ephemeral", "Persistent"]);
    }
    errors.one_of(&spec["fsGroupPolicy"], "spec.fsGroupPolicy", &["ReadWriteOnceWithFSType", "File", "None"]);
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    for field in ["attachRequired", "volumeLifecycleModes"] {
        errors.immutable(&old["spec"][field], &new["spec"][field], &format!("spec.{field}"));
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let audiences: Vec<&str> =
        list(&spec["tokenRequests"]).iter().filter_map(|token| token["audience"].as_str()).collect();
    let modes: Vec<&str> = list(&spec["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
    vec![
        object["metadata"]["name"].clone(),
        (spec["attachRequired"] != json!(false)).into(),
        (spec["podInfoOnMount"] == json!(true)).into(),
        (spec["storageCapacity"] == json!(true)).into(),
        if audiences.is_empty() { "<unset>".into() } else { audiences.join(",").into() },
        (spec["requiresRepublish"] == json!(true)).into(),
        if modes.is_empty() { "<none>".into() } else { modes.join(",").into() },
        age(object, now),
    ]
}
