//! Replication controllers: what replica sets were before.

use serde_json::{Value, json};

use crate::kinds::description::SCALE;
use crate::kinds::{Builtin, Description, Errors, pod_spec, workload};
use crate::status::FieldError;
use crate::table::{age, containers, count, images, pairs};

pub static KIND: Description = Description {
    short: &["rc"],
    categories: &["all"],
    has_status: true,
    counts: true,
    subresources: SCALE,
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "ReplicationController", "replicationcontrollers"])
};

const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Age, Containers+, Images+, Selector+";

fn default(controller: &mut Value) {
    let labels = controller["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        pod_spec::set(&mut controller["spec"], "selector", labels.clone());
        if controller["metadata"]["labels"].as_object().is_none_or(serde_json::Map::is_empty) {
            controller["metadata"]["labels"] = labels;
        }
    }
    pod_spec::set(&mut controller["spec"], "replicas", 1);
    if controller["spec"]["template"].is_object() {
        workload::default_template(&mut controller["spec"]);
    }
    pod_spec::set(controller, "status", json!({}));
    pod_spec::set(&mut controller["status"], "replicas", 0);
}

fn validate(controller: &Value, errors: &mut Errors) {
    let spec = &controller["spec"];
    errors.nonnegative(&spec["minReadySeconds"], "spec.minReadySeconds");
    let wanted = spec["selector"].as_object().filter(|selector| !selector.is_empty());
    if wanted.is_none() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    errors.nonnegative(&spec["replicas"], "spec.replicas");
    if spec["template"].is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if wanted.into_iter().flatten().any(|(key, value)| labels.get(key) != Some(value)) {
        workload::mismatch(spec, "spec.template", errors);
    }
    workload::template(&spec["template"], "spec.template", errors);
    workload::always(spec, "ReplicationController", errors);
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let all = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    workload::counts(&controller["status"], &all, &parts, errors);
}

fn cells(controller: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&controller["spec"], &controller["status"]);
    vec![
        controller["metadata"]["name"].clone(),
        count(&spec["replicas"]).into(),
        count(&status["replicas"]).into(),
        count(&status["readyReplicas"]).into(),
        age(controller, now),
        containers(&spec["template"]["spec"]),
        images(&spec["template"]["spec"]),
        pairs(&spec["selector"]),
    ]
}
