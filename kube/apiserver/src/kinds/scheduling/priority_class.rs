//! Priority classes: which pods come first.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, count, text};

pub static KIND: Description = Description {
    short: &["pc"],
    namespaced: false,
    counts: true,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses"])
};

const COLUMNS: &str = "Name, Value:integer, Global-Default:boolean, Age, PreemptionPolicy";

/// Higher ones are the system's own (`HighestUserDefinablePriority` upstream).
const USER_MAX: i64 = 1_000_000_000;
/// The classes that every cluster has, and their values.
pub const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn default(class: &mut Value) {
    pod_spec::set(class, "preemptionPolicy", "PreemptLowerPriority");
    pod_spec::set(class, "value", 0);
}

fn validate(class: &Value, errors: &mut Errors) {
    let name = class["metadata"]["name"].as_str().unwrap_or_default();
    let value = count(&class["value"]);
    if name.starts_with("system-") {
        let known = SYSTEM.iter().any(|(system, its)| *system == name && *its == value);
        if !known || class["globalDefault"] == json!(true) {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: ".to_owned()
                + &match SYSTEM.iter().find(|(system, _)| *system == name) {
                    None => format!("{name} is not a known system priority class"),
                    Some((_, its)) if *its != value => format!("value of {name} PriorityClass must be {its}"),
                    Some(_) => format!("globalDefault of {name} PriorityClass must be false"),
                };
            errors.push(FieldError::forbidden("metadata.name", &why));
        }
    } else if value > USER_MAX {
        let why = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.push(FieldError::forbidden("value", &why));
    }
    errors.one_of(&class["preemptionPolicy"], "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    if old["value"] != new["value"] {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    errors.immutable(&old["preemptionPolicy"], &new["preemptionPolicy"], "preemptionPolicy");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![
        object["metadata"]["name"].clone(),
        count(&object["value"]).into(),
        (object["globalDefault"] == json!(true)).into(),
        age(object, now),
        text(&object["preemptionPolicy"], ""),
    ]
}
