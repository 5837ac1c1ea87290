//! Horizontal pod autoscalers: how many pods there should be, by what is measured.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, count, list};

pub static KIND: Description = Description {
    short: &["hpa"],
    has_status: true,
    categories: &["all"],
    idle: "a controller scales by CPU and memory; metrics of kinds Pods, Object and External are not read, and its condition says so",
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"])
};

/// Headings of both versions.
pub const COLUMNS: &str = "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age";

/// Completes one.
pub fn default(scaler: &mut Value) {
    let spec = &mut scaler["spec"];
    pod_spec::set(spec, "minReplicas", 1);
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        let target = json!({ "type": "Utilization", "averageUtilization": 80 });
        spec["metrics"] = json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }]);
    }
    pod_spec::set(scaler, "status", json!({}));
    pod_spec::set(&mut scaler["status"], "desiredReplicas", 0);
    pod_spec::set(&mut scaler["status"], "currentMetrics", Value::Null);
}

/// Judges one.
pub fn validate(scaler: &Value, errors: &mut Errors) {
    let spec = &scaler["spec"];
    let (low, high) = (spec["minReplicas"].as_i64(), count(&spec["maxReplicas"]));
    if low.is_some_and(|low| low < 1) {
        errors.push(FieldError::invalid(
            "spec.minReplicas",
            &spec["minReplicas"],
            "must be greater than or equal to 1",
        ));
    }
    if high < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &json!(high), "must be greater than 0"));
    }
    if low.is_some_and(|low| high < low) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &json!(high), why));
    }
    for field in ["kind", "name"] {
        errors.named(&spec["scaleTargetRef"][field], &format!("spec.scaleTargetRef.{field}"), NameRule::PathSegment);
    }
    for (i, metric) in list(&spec["metrics"]).iter().enumerate() {
        judge(metric, &format!("spec.metrics[{i}]"), errors);
    }
}

/// The field of each type of metric.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn judge(metric: &Value, at: &str, errors: &mut Errors) {
    let Some(kind) = metric["type"].as_str().filter(|kind| !kind.is_empty()) else {
        return errors.push(FieldError::required(format!("{at}.type"), "must specify a metric source type"));
    };
    let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return errors.push(FieldError::not_supported(
            format!("{at}.type"),
            &metric["type"],
            &SOURCES.map(|(name, _)| name),
        ));
    };
    if !metric[*source].is_object() {
        let why = "must populate information for the given metric source";
        return errors.push(FieldError::required(format!("{at}.{source}"), why));
    }
    let target = &metric[*source]["target"];
    if matches!(*source, "resource" | "containerResource") {
        errors.require(&metric[*source]["name"], format!("{at}.{source}.name"));
        let (percent, value) = (&target["averageUtilization"], &target["averageValue"]);
        match (percent.is_null(), value.is_null()) {
            (true, true) => {
                let why = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(format!("{at}.{source}.target.averageUtilization"), why));
            }
            (false, false) => {
                let why = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(format!("{at}.{source}.target.averageValue"), why));
            }
            _ => {}
        }
        if percent.as_i64().is_some_and(|percent| percent < 1) {
            errors.push(FieldError::invalid(
                format!("{at}.{source}.target.averageUtilization"),
                percent,
                "must be greater than 0",
            ));
        }
    }
    let field = format!("{at}.{source}.target.type");
    errors.require(&target["type"], field.clone());
    errors.one_of(&target["type"], field, &["Utilization", "Value", "AverageValue"]);
}

/// `cpu: 20%/80%`; what was not measured is `<unknown>`.
pub fn targets(scaler: &Value) -> String {
    let metrics = list(&scaler["spec"]["metrics"]);
    let shown: Vec<String> = metrics
        .iter()
        .map(|metric| {
            let source =
                SOURCES.iter().find(|(name, _)| metric["type"] == *name).map_or("resource", |(_, source)| source);
            let target = &metric[source]["target"];
            let name =
                metric[source]["name"].as_str().or(metric[source]["metric"]["name"].as_str()).unwrap_or_default();
            let current =
                list(&scaler["status"]["currentMetrics"]).iter().find(|m| m[source]["name"] == metric[source]["name"]);
            let percent = |value: &Value| value.as_i64().map(|percent| format!("{percent}%"));
            let amount = |value: &Value| {
                percent(&value["averageUtilization"])
                    .or_else(|| value["averageValue"].as_str().map(str::to_owned))
                    .or_else(|| value["value"].as_str().map(str::to_owned))
            };
            let now = current.and_then(|c| amount(&c[source]["current"])).unwrap_or_else(|| "<unknown>".into());
            format!("{name}: {now}/{}", amount(target).unwrap_or_else(|| "<auto>".into()))
        })
        .collect();
    match shown.as_slice() {
        [] => "<none>".into(),
        [first, second, more @ ..] if !more.is_empty() => format!("{first}, {second} + {} more...", more.len()),
        few => few.join(", "),
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let target = &spec["scaleTargetRef"];
    let part = |field: &str| target[field].as_str().unwrap_or_default();
    vec![
        object["metadata"]["name"].clone(),
        format!("{}/{}", part("kind"), part("name")).into(),
        targets(object).into(),
        spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
        count(&spec["maxReplicas"]).to_string().into(),
        count(&object["status"]["currentReplicas"]).to_string().into(),
        age(object, now),
    ]
}
