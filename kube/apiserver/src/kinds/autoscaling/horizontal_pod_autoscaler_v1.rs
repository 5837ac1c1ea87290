//! Horizontal pod autoscalers as `autoscaling/v1` sees them: one measure, CPU. They are kept as those of `v2`.
//!
//! Limitation: what `v1` has no fields for is carried in annotations as upstream names them, but in the form of `v2`.

use serde_json::{Value, json};

use crate::kinds::description::Face;
use crate::kinds::{Builtin, Description, Errors};
use crate::object::child;
use crate::table::{age, count, list};

pub static KIND: Description = Description {
    short: &["hpa"],
    categories: &["all"],
    has_status: true,
    face: Some(&FACE),
    idle: "a controller scales by CPU and memory; metrics of kinds Pods, Object and External are not read, and its condition says so",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers"])
};

static FACE: Face =
    Face { stored_as: ["autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"], read, write };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// Annotation, and where in `v2` its content is.
const CARRIED: [(&str, &str, &str); 3] = [
    ("autoscaling.alpha.kubernetes.io/behavior", "spec", "behavior"),
    ("autoscaling.alpha.kubernetes.io/conditions", "status", "conditions"),
    ("autoscaling.alpha.kubernetes.io/current-metrics", "status", "currentMetrics"),
];

const COLUMNS: &str = "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age";

fn is_cpu(metric: &Value) -> bool {
    metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["averageUtilization"].is_i64()
}

/// From `v2`: the first target of CPU has a field here, all else goes into annotations.
fn read(scaler: &mut Value) {
    let mut metrics = list(&scaler["spec"]["metrics"]).to_vec();
    if let Some(at) = metrics.iter().position(is_cpu) {
        let cpu = metrics.remove(at);
        scaler["spec"]["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    child(scaler, "spec").remove("metrics");
    let measured = list(&scaler["status"]["currentMetrics"]).iter().find(|m| m["resource"]["name"] == "cpu");
    if let Some(percent) = measured.and_then(|m| m["resource"]["current"]["averageUtilization"].as_i64()) {
        scaler["status"]["currentCPUUtilizationPercentage"] = percent.into();
    }
    let mut annotations = Vec::new();
    if !metrics.is_empty() {
        annotations.push((METRICS, Value::from(metrics)));
    }
    for (name, part, field) in CARRIED {
        match child(scaler, part).remove(field) {
            None | Some(Value::Null) => {}
            Some(value) => annotations.push((name, value)),
        }
    }
    if !annotations.is_empty() {
        let metadata = child(scaler, "metadata");
        let map = metadata.entry("annotations").or_insert_with(|| json!({}));
        for (name, value) in annotations {
            map[name] = value.to_string().into();
        }
    }
}

/// Back to `v2`.
fn write(scaler: &mut Value) {
    let mut taken = |name: &str| {
        let annotations = scaler["metadata"]["annotations"].as_object_mut()?;
        let value = annotations.remove(name)?;
        if annotations.is_empty() {
            child(scaler, "metadata").remove("annotations");
        }
        serde_json::from_str::<Value>(value.as_str()?).ok()
    };
    let mut metrics = match taken(METRICS) {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    let carried: Vec<_> = CARRIED.map(|(name, part, field)| (part, field, taken(name))).into();
    if let Some(percent) = child(scaler, "spec").remove("targetCPUUtilizationPercentage").filter(Value::is_i64) {
        let target = json!({ "type": "Utilization", "averageUtilization": percent });
        metrics.insert(0, json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
    }
    scaler["spec"]["metrics"] = metrics.into();
    child(scaler, "status").remove("currentCPUUtilizationPercentage");
    for (part, field, value) in carried {
        if let Some(value) = value {
            scaler[part][field] = value;
        }
    }
}

/// The older version has no target unless one is given; then it is that of `v2`, 80 %.
fn default(scaler: &mut Value) {
    crate::kinds::pod_spec::set(&mut scaler["spec"], "minReplicas", 1);
    if scaler["spec"]["targetCPUUtilizationPercentage"].is_null()
        && scaler["metadata"]["annotations"][METRICS].is_null()
    {
        scaler["spec"]["targetCPUUtilizationPercentage"] = 80.into();
    }
    crate::kinds::pod_spec::set(scaler, "status", json!({}));
    for field in ["currentReplicas", "desiredReplicas"] {
        crate::kinds::pod_spec::set(&mut scaler["status"], field, 0);
    }
}

fn validate(scaler: &Value, errors: &mut Errors) {
    let mut newer = scaler.clone();
    write(&mut newer);
    super::horizontal_pod_autoscaler::validate(&newer, errors);
}

fn cells(scaler: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let mut newer = scaler.clone();
    write(&mut newer);
    let spec = &newer["spec"];
    let part = |field: &str| spec["scaleTargetRef"][field].as_str().unwrap_or_default();
    vec![
        newer["metadata"]["name"].clone(),
        format!("{}/{}", part("kind"), part("name")).into(),
        super::horizontal_pod_autoscaler::targets(&newer).into(),
        spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
        count(&spec["maxReplicas"]).to_string().into(),
        count(&newer["status"]["currentReplicas"]).to_string().into(),
        age(&newer, now),
    ]
}
