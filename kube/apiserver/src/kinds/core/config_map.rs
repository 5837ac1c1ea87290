//! Config maps, and the rules of everything that carries `data`.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors};
use crate::status::FieldError;
use crate::table::age;

/// The sum of a secret's or config map's data (`MaxSecretSize` upstream).
const DATA_BYTES_MAX: usize = 1024 * 1024;

pub static KIND: Description = Description {
    short: &["cm"],
    rules: Builtin {
        validate: |map, errors| validate_data(map, &["data", "binaryData"], errors),
        validate_update: immutable_data,
        columns: COLUMNS,
        cells: |map, now| {
            vec![map["metadata"]["name"].clone(), entries(map, &["data", "binaryData"]).into(), age(map, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "ConfigMap", "configmaps"])
};

const COLUMNS: &str = "Name, Data, Age";

/// How many entries `fields` have together.
pub fn entries(object: &Value, fields: &[&str]) -> usize {
    fields.iter().map(|f| object[*f].as_object().map_or(0, serde_json::Map::len)).sum()
}

/// Judges keys, and the size of all values.
pub fn validate_data(object: &Value, fields: &[&str], errors: &mut Errors) {
    let mut total = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            total += value.as_str().map_or(0, str::len);
            let fits = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && key != ".."
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !fits {
                errors.push(FieldError::invalid(
                    format!("{field}[{key}]"),
                    &json!(key),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            }
        }
    }
    if total > DATA_BYTES_MAX * 4 / 3 {
        errors.push(FieldError {
            reason: crate::status::FieldReason::TooLong,
            field: fields[0].into(),
            message: format!("Too long: may not be more than {DATA_BYTES_MAX} bytes"),
        });
    }
}

/// Data that were said not to change do not change.
pub fn immutable_data(old: &Value, new: &Value, errors: &mut Errors) {
    if old["immutable"] != json!(true) {
        return;
    }
    for field in ["data", "binaryData", "immutable"] {
        if old[field] != new[field] {
            errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}
