//! Runtime classes: which handler of a machine runs a pod, what that costs beside its containers, and where there is one.

use serde_json::Value;

use super::{Builtin, Column, Errors, LABEL, column, name_is_label};
use crate::status::FieldError;
use crate::table::{age, text};

const COLUMNS: &[Column] = &[column("Name", 0), column("Handler", 0), column("Age", 0)];

pub fn runtime_class(rules: Builtin) -> Builtin {
    Builtin {
        validate,
        validate_update: |old, new, errors| errors.immutable(&old["handler"], &new["handler"], "handler"),
        columns: COLUMNS,
        cells: |class, now| vec![class["metadata"]["name"].clone(), text(&class["handler"], ""), age(class, now)],
        ..rules
    }
}

fn validate(class: &Value, errors: &mut Errors) {
    match class["handler"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("handler", "")),
        handler if !name_is_label(handler) => errors.push(FieldError::invalid("handler", &class["handler"], LABEL)),
        _ => {}
    }
}
