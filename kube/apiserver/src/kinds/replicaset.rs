//! Replica sets, and the rules of everything that carries a pod template.

use serde_json::{Value, json};

use super::{Builtin, Column, Errors, column, pod_spec};
use crate::selector;
use crate::status::FieldError;
use crate::table::{age, containers, count, images};

const COLUMNS: &[Column] = &[
    column("Name", 0),
    column("Desired", 0),
    column("Current", 0),
    column("Ready", 0),
    column("Age", 0),
    column("Containers", 1),
    column("Images", 1),
    column("Selector", 1),
];

pub fn replica_set(rules: Builtin) -> Builtin {
    Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..rules }
}

fn default(set: &mut Value) {
    pod_spec::set(&mut set["spec"], "replicas", 1);
    default_template(&mut set["spec"]);
    // `status.replicas` is required by the schema.
    pod_spec::set(set, "status", json!({}));
    pod_spec::set(&mut set["status"], "replicas", 0);
}

/// Fills in the pod template of a workload.
pub fn default_template(spec: &mut Value) {
    pod_spec::set(spec, "template", json!({}));
    pod_spec::set(&mut spec["template"], "metadata", json!({}));
    pod_spec::default(&mut spec["template"]["spec"]);
}

fn validate(set: &Value, errors: &mut Errors) {
    validate_workload(&set["spec"], errors);
}

/// Judges replicas, selector and template.
pub fn validate_workload(spec: &Value, errors: &mut Errors) {
    errors.range(&spec["replicas"], "spec.replicas", 0, i64::MAX);
    let labels = &spec["template"]["metadata"]["labels"];
    errors.labels(labels, "spec.template.metadata.labels");
    let wanted = &spec["selector"];
    match selector::Labels::from_object(wanted) {
        _ if wanted.is_null() => errors.push(FieldError::required("spec.selector", "")),
        Ok(parsed) if parsed.is_empty() => {
            errors.push(FieldError::invalid("spec.selector", wanted, "empty selector is invalid for deployment"));
        }
        Ok(parsed) if !parsed.matches(labels) => {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
        }
        Ok(_) => {}
        Err(why) => errors.push(FieldError::invalid("spec.selector", wanted, &why)),
    }
    pod_spec::validate(&spec["template"]["spec"], "spec.template.spec", errors);
    errors.one_of(&spec["template"]["spec"]["restartPolicy"], "spec.template.spec.restartPolicy", &["Always"]);
}

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
