//! Deployments.

use serde_json::{Value, json};

use super::{Builtin, Column, Errors, column, pod_spec, replicaset};
use crate::table::{age, containers, count, images, selector};

const COLUMNS: &[Column] = &[
    column("Name", 0),
    column("Ready", 0),
    column("Up-to-date", 0),
    column("Available", 0),
    column("Age", 0),
    column("Containers", 1),
    column("Images", 1),
    column("Selector", 1),
];

pub fn deployment(rules: Builtin) -> Builtin {
    Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..rules }
}

fn default(deployment: &mut Value) {
    let spec = &mut deployment["spec"];
    pod_spec::set(spec, "replicas", 1);
    pod_spec::set(spec, "revisionHistoryLimit", 10);
    pod_spec::set(spec, "progressDeadlineSeconds", 600);
    pod_spec::set(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    pod_spec::set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        pod_spec::set(strategy, "rollingUpdate", json!({}));
        pod_spec::set(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        pod_spec::set(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
    replicaset::default_template(spec);
}

fn validate(deployment: &Value, errors: &mut Errors) {
    let spec = &deployment["spec"];
    replicaset::validate_workload(spec, errors);
    errors.range(&spec["minReadySeconds"], "spec.minReadySeconds", 0, i64::MAX);
    errors.range(&spec["revisionHistoryLimit"], "spec.revisionHistoryLimit", 0, i64::MAX);
    let strategy = &spec["strategy"];
    errors.one_of(&strategy["type"], "spec.strategy.type", &["Recreate", "RollingUpdate"]);
    if strategy["type"] == "Recreate" && strategy["rollingUpdate"].is_object() {
        errors.push(crate::status::FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["spec"]["selector"], &new["spec"]["selector"], "spec.selector");
}

fn cells(deployment: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    vec![
        deployment["metadata"]["name"].clone(),
        format!("{}/{}", count(&status["readyReplicas"]), count(&spec["replicas"])).into(),
        count(&status["updatedReplicas"]).into(),
        count(&status["availableReplicas"]).into(),
        age(deployment, now),
        containers(&spec["template"]["spec"]),
        images(&spec["template"]["spec"]),
        selector(&spec["selector"]),
    ]
}
