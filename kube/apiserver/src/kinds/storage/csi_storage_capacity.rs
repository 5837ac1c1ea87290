//! CSI storage capacities: how much a driver still has, and where.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::table::text;

pub static KIND: Description = Description {
    idle: "there are no volume drivers",
    rules: Builtin { validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities"])
};

const COLUMNS: &str = "Name, StorageClassName, Capacity";

fn validate(capacity: &Value, errors: &mut Errors) {
    errors.named(&capacity["storageClassName"], "storageClassName", NameRule::Subdomain);
    errors.label_selector(&capacity["nodeTopology"], "nodeTopology");
    for field in ["capacity", "maximumVolumeSize"] {
        if !capacity[field].is_null() {
            errors.quantities(&json!({ field: capacity[field] }), "");
        }
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["nodeTopology"], &new["nodeTopology"], "nodeTopology");
    errors.immutable(&old["storageClassName"], &new["storageClassName"], "storageClassName");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let _ = now;
    vec![
        object["metadata"]["name"].clone(),
        text(&object["storageClassName"], ""),
        text(&object["capacity"], "<unset>"),
    ]
}
