//! Secrets.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::config_map::{entries, immutable_data, validate_data};
use crate::kinds::{Builtin, Column, Description, column, pod_spec};
use crate::object::child;
use crate::protobuf;
use crate::table::{age, text};

pub static KIND: Description = Description {
    rules: Builtin {
        default,
        validate: |secret, errors| validate_data(secret, &["data"], errors),
        validate_update: |old, new, errors| {
            errors.immutable(&old["type"], &new["type"], "type");
            immutable_data(old, new, errors);
        },
        columns: COLUMNS,
        cells: |secret, now| {
            let count = entries(secret, &["data"]);
            vec![secret["metadata"]["name"].clone(), text(&secret["type"], ""), count.into(), age(secret, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "Secret", "secrets", "secret"], &protobuf::core::Secret)
};

const COLUMNS: &[Column] = &[column("Name", 0), column("Type", 0), column("Data", 0), column("Age", 0)];

/// `stringData` is written into `data` and not kept.
fn default(secret: &mut Value) {
    pod_spec::set(secret, "type", "Opaque");
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) else { return };
    let data = child(secret, "data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, BASE64_STANDARD.encode(text).into());
    }
}
