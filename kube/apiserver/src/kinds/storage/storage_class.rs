//! Storage classes: how volumes are made.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["sc"],
    namespaced: false,
    idle: "`local-path` is provisioned; there are no volume drivers",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "StorageClass", "storageclasses"])
};

const COLUMNS: &str = "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion:boolean, Age";

/// As upstream.
const PARAMETERS_MAX: usize = 512;

fn default(class: &mut Value) {
    pod_spec::set(class, "reclaimPolicy", "Delete");
    pod_spec::set(class, "volumeBindingMode", "Immediate");
}

fn validate(class: &Value, errors: &mut Errors) {
    match class["provisioner"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("provisioner", "")),
        name if !crate::kinds::is_qualified_name(&name.to_lowercase()) => {
            errors.push(FieldError::invalid(
                "provisioner",
                &class["provisioner"],
                crate::kinds::validate::QUALIFIED_NAME,
            ));
        }
        _ => {}
    }
    let parameters = class["parameters"].as_object();
    if parameters.is_some_and(|map| map.len() > PARAMETERS_MAX) {
        errors.push(FieldError {
            reason: crate::status::FieldReason::TooLong,
            field: "parameters".into(),
            message: format!("Too long: may not be more than {PARAMETERS_MAX} bytes"),
        });
    }
    if parameters.is_some_and(|map| map.contains_key("")) {
        errors.push(FieldError::invalid("parameters", &json!(""), "field can not be empty."));
    }
    errors.one_of(&class["reclaimPolicy"], "reclaimPolicy", &["Delete", "Retain"]);
    errors.one_of(&class["volumeBindingMode"], "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if old[field] != new[field] {
            errors.push(FieldError::forbidden(field, &format!("updates to {field} are forbidden.")));
        }
    }
    errors.immutable(&old["volumeBindingMode"], &new["volumeBindingMode"], "volumeBindingMode");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let annotation = &object["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"];
    vec![
        if annotation == "true" { format!("{name} (default)").into() } else { name.into() },
        text(&object["provisioner"], ""),
        text(&object["reclaimPolicy"], ""),
        text(&object["volumeBindingMode"], ""),
        (object["allowVolumeExpansion"] == json!(true)).into(),
        age(object, now),
    ]
}
