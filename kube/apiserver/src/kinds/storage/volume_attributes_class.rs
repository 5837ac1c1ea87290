//! Volume attributes classes: what of a volume can be changed while it is used.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["vac"],
    namespaced: false,
    idle: "there are no volume drivers",
    rules: Builtin { validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses"])
};

const COLUMNS: &str = "Name, DriverName, Age";

fn validate(class: &Value, errors: &mut Errors) {
    errors.require(&class["driverName"], "driverName");
    if class["parameters"].as_object().is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        if old[field] != new[field] {
            errors.push(FieldError::forbidden(field, &format!("updates to {field} are forbidden.")));
        }
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), text(&object["driverName"], ""), age(object, now)]
}
