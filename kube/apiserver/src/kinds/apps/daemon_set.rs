//! Daemon sets: one pod on each node.

use super::deployment::validate_update;
use serde_json::{Value, json};

use crate::kinds::validate::number_or_percent;
use crate::kinds::{Builtin, Description, Errors, pod_spec, workload};
use crate::status::FieldError;
use crate::table::{age, containers, count, images, pairs, selector};

pub static KIND: Description = Description {
    short: &["ds"],
    categories: &["all"],
    has_status: true,
    counts: true,
    rules: Builtin {
        default,
        prepare: |set, old, _| prepare(set, old),
        validate,
        validate_update,
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["apps", "v1", "DaemonSet", "daemonsets"])
};

const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Up-to-date:integer, Available:integer, Node Selector, Age, Containers+, Images+, Selector+";

fn default(set: &mut Value) {
    let spec = &mut set["spec"];
    pod_spec::set(spec, "revisionHistoryLimit", 10);
    pod_spec::set(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    pod_spec::set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        pod_spec::set(strategy, "rollingUpdate", json!({}));
        pod_spec::set(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
        pod_spec::set(&mut strategy["rollingUpdate"], "maxSurge", 0);
    }
    workload::default_template(spec);
    pod_spec::set(set, "status", json!({}));
    for field in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"] {
        pod_spec::set(&mut set["status"], field, 0);
    }
}

/// How often the template has changed, where it was before `metadata.generation`; upstream keeps it still.
const TEMPLATES: &str = "deprecated.daemonset.template.generation";

fn prepare(set: &mut Value, old: Option<&Value>) {
    let before =
        old.and_then(|old| old["metadata"]["annotations"][TEMPLATES].as_str()?.parse::<i64>().ok()).unwrap_or(0);
    let changed = old.is_none_or(|old| old["spec"]["template"] != set["spec"]["template"]);
    let metadata = crate::object::metadata(set);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[TEMPLATES] = (before + i64::from(changed)).to_string().into();
}

fn validate(set: &Value, errors: &mut Errors) {
    let spec = &set["spec"];
    errors.label_selector(&spec["selector"], "spec.selector");
    if workload::matches(spec) == Some(false) {
        workload::mismatch(spec, "spec.template", errors);
    }
    if spec["selector"].is_object()
        && crate::selector::Labels::from_object(&spec["selector"]).is_ok_and(|s| s.is_empty())
    {
        errors.push(FieldError::invalid("spec.selector", &spec["selector"], "empty selector is invalid for daemonset"));
    }
    workload::template(&spec["template"], "spec.template", errors);
    workload::always(spec, "DaemonSet", errors);
    errors.nonnegative(&spec["minReadySeconds"], "spec.minReadySeconds");
    strategy(&spec["updateStrategy"], errors);
    errors.nonnegative(&spec["revisionHistoryLimit"], "spec.revisionHistoryLimit");
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    errors.all_nonnegative(&set["status"], "status", &counts);
}

fn strategy(strategy: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.updateStrategy.rollingUpdate";
    let (unavailable, surge) = (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
    match strategy["type"].as_str() {
        Some("OnDelete") => {}
        Some("RollingUpdate") => {
            for (value, field) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
                let field = format!("{PATH}.{field}");
                errors.number_or_percent(value, &field);
                errors.at_most_100_percent(value, &field);
            }
            match (number_or_percent(unavailable) > 0, number_or_percent(surge) > 0) {
                (true, true) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(format!("{PATH}.maxSurge"), surge, why));
                }
                (false, false) => {
                    let why = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(format!("{PATH}.maxUnavailable"), why));
                }
                _ => {}
            }
        }
        _ => errors.push(FieldError::not_supported("spec.updateStrategy", strategy, &["RollingUpdate", "OnDelete"])),
    }
}

fn cells(set: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&set["spec"], &set["status"]);
    let pod = &spec["template"]["spec"];
    vec![
        set["metadata"]["name"].clone(),
        count(&status["desiredNumberScheduled"]).into(),
        count(&status["currentNumberScheduled"]).into(),
        count(&status["numberReady"]).into(),
        count(&status["updatedNumberScheduled"]).into(),
        count(&status["numberAvailable"]).into(),
        pairs(&pod["nodeSelector"]),
        age(set, now),
        containers(pod),
        images(pod),
        selector(&spec["selector"]),
    ]
}
