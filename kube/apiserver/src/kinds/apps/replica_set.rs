//! Replica sets.

use serde_json::{Value, json};

use crate::kinds::description::SCALE;
use crate::kinds::workload::{self, Words};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::table::{age, containers, count, images};

pub static KIND: Description = Description {
    short: &["rs"],
    categories: &["all"],
    has_status: true,
    counts: true,
    subresources: SCALE,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["apps", "v1", "ReplicaSet", "replicasets"])
};

const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Age, Containers+, Images+, Selector+";

fn default(set: &mut Value) {
    pod_spec::set(&mut set["spec"], "replicas", 1);
    workload::default_template(&mut set["spec"]);
    // `status.replicas` is required by the schema.
    pod_spec::set(set, "status", json!({}));
    pod_spec::set(&mut set["status"], "replicas", 0);
}

fn validate(set: &Value, errors: &mut Errors) {
    errors.all_nonnegative(&set["spec"], "spec", &["replicas", "minReadySeconds"]);
    workload::validate(&set["spec"], WORDS, errors);
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let all = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    workload::counts(&set["status"], &all, &parts, errors);
}

/// Upstream speaks of a deployment here, too.
const WORDS: Words = Words { in_selector: "deployment", in_deadline: "ReplicaSet" };

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["spec"]["selector"], &new["spec"]["selector"], "spec.selector");
}

fn cells(set: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&set["spec"], &set["status"]);
    vec![
        set["metadata"]["name"].clone(),
        count(&spec["replicas"]).into(),
        count(&status["replicas"]).into(),
        count(&status["readyReplicas"]).into(),
        age(set, now),
        containers(&spec["template"]["spec"]),
        images(&spec["template"]["spec"]),
        crate::table::selector(&spec["selector"]),
    ]
}
