//! Runtime classes: which handler of a machine runs a pod, what that costs beside its containers, and where there is one.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors, LABEL, name_is_label};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    namespaced: false,
    rules: Builtin {
        validate,
        validate_update: |old, new, errors| errors.immutable(&old["handler"], &new["handler"], "handler"),
        columns: COLUMNS,
        cells: |class, now| vec![class["metadata"]["name"].clone(), text(&class["handler"], ""), age(class, now)],
        ..Builtin::USUAL
    },
    ..Description::of(["node.k8s.io", "v1", "RuntimeClass", "runtimeclasses"])
};

const COLUMNS: &str = "Name, Handler, Age";

fn validate(class: &Value, errors: &mut Errors) {
    match class["handler"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("handler", "")),
        handler if !name_is_label(handler) => errors.push(FieldError::invalid("handler", &class["handler"], LABEL)),
        _ => {}
    }
}
