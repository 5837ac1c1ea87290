//! Config maps, secrets and service accounts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Builtin, Column, Errors, column, pod_spec};
use crate::object::child;
use crate::status::FieldError;
use crate::table::{age, text};

/// The sum of a secret's or config map's data (`MaxSecretSize` upstream).
const DATA_BYTES_MAX: usize = 1024 * 1024;

const DATA_COLUMNS: &[Column] = &[column("Name", 0), column("Data", 0), column("Age", 0)];
const SECRET_COLUMNS: &[Column] = &[column("Name", 0), column("Type", 0), column("Data", 0), column("Age", 0)];
const ACCOUNT_COLUMNS: &[Column] = &[column("Name", 0), column("Secrets", 0), column("Age", 0)];

fn entries(object: &Value, fields: &[&str]) -> usize {
    fields.iter().map(|f| object[*f].as_object().map_or(0, serde_json::Map::len)).sum()
}

pub fn config_map(rules: Builtin) -> Builtin {
    Builtin {
        validate: |map, errors| validate_data(map, &["data", "binaryData"], errors),
        validate_update: immutable_data,
        columns: DATA_COLUMNS,
        cells: |map, now| {
            let count = entries(map, &["data", "binaryData"]);
            vec![map["metadata"]["name"].clone(), count.into(), age(map, now)]
        },
        ..rules
    }
}

pub fn secret(rules: Builtin) -> Builtin {
    Builtin {
        default: default_secret,
        validate: |secret, errors| validate_data(secret, &["data"], errors),
        validate_update: |old, new, errors| {
            errors.immutable(&old["type"], &new["type"], "type");
            immutable_data(old, new, errors);
        },
        columns: SECRET_COLUMNS,
        cells: |secret, now| {
            let count = entries(secret, &["data"]);
            vec![secret["metadata"]["name"].clone(), text(&secret["type"], ""), count.into(), age(secret, now)]
        },
        ..rules
    }
}

/// `stringData` is written into `data` and not kept.
fn default_secret(secret: &mut Value) {
    pod_spec::set(secret, "type", "Opaque");
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) else { return };
    let data = child(secret, "data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, BASE64_STANDARD.encode(text).into());
    }
}

fn validate_data(object: &Value, fields: &[&str], errors: &mut Errors) {
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

fn immutable_data(old: &Value, new: &Value, errors: &mut Errors) {
    if old["immutable"] != json!(true) {
        return;
    }
    for field in ["data", "binaryData", "immutable"] {
        if old[field] != new[field] {
            errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}

pub fn service_account(rules: Builtin) -> Builtin {
    Builtin {
        columns: ACCOUNT_COLUMNS,
        cells: |account, now| {
            let secrets = account["secrets"].as_array().map_or(0, Vec::len);
            vec![account["metadata"]["name"].clone(), secrets.into(), age(account, now)]
        },
        ..rules
    }
}
