//! Validating webhooks: who else judges what is written.

use serde_json::Value;

use super::webhooks::{complete, judge};
use crate::kinds::{Builtin, Column, Description, Errors, column, typed};
use crate::protobuf;
use crate::table::{age, list};

pub static KIND: Description = Description {
    namespaced: false,
    counts: true,
    categories: &["api-extensions"],
    idle: "webhooks are not called",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(
        [
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "validatingwebhookconfiguration",
        ],
        &protobuf::admissionregistration::ValidatingWebhookConfiguration,
    )
};

const COLUMNS: &[Column] = &[column("Name", 0), typed("Webhooks", "integer", 0), column("Age", 0)];

fn default(configuration: &mut Value) {
    complete(configuration, false);
}

fn validate(configuration: &Value, errors: &mut Errors) {
    judge(configuration, errors);
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), list(&object["webhooks"]).len().into(), age(object, now)]
}
