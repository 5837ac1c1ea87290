//! Deployments.

use serde_json::{Value, json};

use crate::kinds::description::SCALE;
use crate::kinds::validate::number_or_percent;
use crate::kinds::workload::{self, Words};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, containers, count, images, selector};

pub static KIND: Description = Description {
    short: &["deploy"],
    categories: &["all"],
    has_status: true,
    counts: true,
    subresources: SCALE,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["apps", "v1", "Deployment", "deployments"])
};

const COLUMNS: &str = "Name, Ready, Up-to-date, Available, Age, Containers+, Images+, Selector+";

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
    workload::default_template(spec);
    pod_spec::set(deployment, "status", json!({}));
}

fn validate(deployment: &Value, errors: &mut Errors) {
    let spec = &deployment["spec"];
    errors.nonnegative(&spec["replicas"], "spec.replicas");
    // Upstream speaks of a replica set here, too.
    workload::validate(spec, Words { in_selector: "deployment", in_deadline: "ReplicaSet" }, errors);
    strategy(&spec["strategy"], errors);
    errors.all_nonnegative(spec, "spec", &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"]);
    if spec["progressDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds <= count(&spec["minReadySeconds"])) {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &spec["progressDeadlineSeconds"], why));
    }
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    let all = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    workload::counts(&deployment["status"], &all, &parts, errors);
}

fn strategy(strategy: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.strategy.rollingUpdate";
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("Recreate") if rolling.is_object() => {
            errors.push(FieldError::forbidden(PATH, "may not be specified when strategy `type` is 'Recreate'"));
        }
        Some("Recreate") => {}
        Some("RollingUpdate") => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            errors.number_or_percent(unavailable, &format!("{PATH}.maxUnavailable"));
            errors.number_or_percent(surge, &format!("{PATH}.maxSurge"));
            if number_or_percent(unavailable) == 0 && number_or_percent(surge) == 0 {
                let why = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(format!("{PATH}.maxUnavailable"), unavailable, why));
            }
            errors.at_most_100_percent(unavailable, &format!("{PATH}.maxUnavailable"));
        }
        _ => errors.push(FieldError::not_supported("spec.strategy", strategy, &["Recreate", "RollingUpdate"])),
    }
}

/// A selector stays.
pub fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["spec"]["selector"], &new["spec"]["selector"], "spec.selector");
    workload::collisions_grow(old, new, errors);
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
