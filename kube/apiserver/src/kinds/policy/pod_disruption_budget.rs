//! Pod disruption budgets: how many pods may be missing at once. Evictions are judged by [`crate::verbs`].

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, count};

pub static KIND: Description = Description {
    short: &["pdb"],
    has_status: true,
    counts: true,
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"])
};

const COLUMNS: &str = "Name, Min Available, Max Unavailable, Allowed Disruptions:integer, Age";

fn default(budget: &mut Value) {
    pod_spec::set(budget, "spec", json!({}));
    pod_spec::set(budget, "status", json!({}));
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        pod_spec::set(&mut budget["status"], field, 0);
    }
}

fn validate(budget: &Value, errors: &mut Errors) {
    let spec = &budget["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.push(FieldError::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        errors.number_or_percent(&spec[field], &format!("spec.{field}"));
        errors.at_most_100_percent(&spec[field], &format!("spec.{field}"));
    }
    errors.label_selector(&spec["selector"], "spec.selector");
    let policy = &spec["unhealthyPodEvictionPolicy"];
    errors.one_of(policy, "spec.unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    errors.all_nonnegative(&budget["status"], "status", &counts);
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let shown = |value: &Value| match value {
        Value::Null => Value::from("N/A"),
        Value::String(text) => text.as_str().into(),
        number => number.to_string().into(),
    };
    vec![
        object["metadata"]["name"].clone(),
        shown(&object["spec"]["minAvailable"]),
        shown(&object["spec"]["maxUnavailable"]),
        count(&object["status"]["disruptionsAllowed"]).into(),
        age(object, now),
    ]
}
