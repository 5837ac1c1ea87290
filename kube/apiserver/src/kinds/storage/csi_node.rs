//! CSI nodes: which drivers a node has.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    idle: "there are no volume drivers",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "CSINode", "csinodes"])
};

const COLUMNS: &str = "Name, Drivers:integer, Age";

fn default(node: &mut Value) {
    pod_spec::set(node, "spec", json!({}));
    pod_spec::set(&mut node["spec"], "drivers", json!([]));
}

fn validate(node: &Value, errors: &mut Errors) {
    let drivers = list(&node["spec"]["drivers"]);
    for (i, driver) in drivers.iter().enumerate() {
        errors.require(&driver["name"], format!("spec.drivers[{i}].name"));
        errors.require(&driver["nodeID"], format!("spec.drivers[{i}].nodeID"));
        if drivers[..i].iter().any(|other| other["name"] == driver["name"]) {
            errors.push(FieldError::duplicate(format!("spec.drivers[{i}].name"), &driver["name"]));
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), list(&object["spec"]["drivers"]).len().into(), age(object, now)]
}
