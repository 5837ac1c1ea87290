//! Secrets.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::config_map::{entries, immutable_data, validate_data};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::object::child;
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    rules: Builtin {
        default,
        validate,
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
    ..Description::of(["", "v1", "Secret", "secrets"])
};

const COLUMNS: &str = "Name, Type, Data, Age";

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

/// What a Secret of a type must have: any of these entries if the last says so, else all.
const ENTRIES: &[(&str, &[&str], bool)] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"], false),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"], false),
    ("kubernetes.io/basic-auth", &["username", "password"], true),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"], false),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"], false),
];
const ACCOUNT: &str = "kubernetes.io/service-account.name";

fn validate(secret: &Value, errors: &mut Errors) {
    validate_data(secret, &["data"], errors);
    let kind = secret["type"].as_str().unwrap_or_default();
    let data = &secret["data"];
    for (_, entries, any) in ENTRIES.iter().filter(|(named, ..)| *named == kind) {
        let missing = || entries.iter().filter(|entry| data[**entry].is_null());
        if !any || missing().count() == entries.len() {
            missing().for_each(|entry| errors.push(FieldError::required(format!("data[{entry}]"), "")));
        }
    }
    for entry in [".dockercfg", ".dockerconfigjson"].iter().filter(|entry| kind.ends_with(&entry[1..])) {
        let bytes = data[*entry].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        // What the bytes are is never said: they are a credential.
        if let Some(why) = bytes.and_then(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).err()) {
            let why = format!("not JSON at column {}", why.column());
            errors.push(FieldError::invalid(format!("data[{entry}]"), &"<secret contents redacted>".into(), &why));
        }
    }
    if kind == "kubernetes.io/service-account-token" {
        let account = &secret["metadata"]["annotations"][ACCOUNT];
        errors.require(account, format!("metadata.annotations[{ACCOUNT}]"));
    }
}
