//! Namespaces.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, NameRule, pod_spec};
use crate::object::{child, metadata};
use crate::table::{age, text};

pub static KIND: Description = Description {
    short: &["ns"],
    namespaced: false,
    has_status: true,
    subresources: &[("finalize", "Namespace", &["update"])],
    name_rule: NameRule::Label,
    rules: Builtin {
        default,
        columns: COLUMNS,
        cells: |ns, now| vec![ns["metadata"]["name"].clone(), text(&ns["status"]["phase"], ""), age(ns, now)],
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "Namespace", "namespaces"])
};

const COLUMNS: &str = "Name, Status, Age";

fn default(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    metadata(namespace);
    child(&mut namespace["metadata"], "labels").insert("kubernetes.io/metadata.name".into(), name);
    pod_spec::set(namespace, "spec", json!({}));
    pod_spec::set(namespace, "status", json!({}));
    pod_spec::set(&mut namespace["status"], "phase", "Active");
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        pod_spec::set(&mut namespace["spec"], "finalizers", json!(["kubernetes"]));
    }
}
