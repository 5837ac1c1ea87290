//! Tables: what `kubectl get` shows (`meta/v1 Table`).

use serde_json::{Value, json};

use crate::kinds::{Column, Kind, Rules};

/// A `Table` of `objects`. `include` is `None`, `Metadata` (the default) or `Object`.
pub fn table(kind: &Kind, objects: &[Value], list_metadata: Value, include: &str) -> Value {
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({ "cells": cells(kind, object, now) });
            match include {
                "None" => {}
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = partial(object),
            }
            row
        })
        .collect();
    let columns: Vec<Value> = columns(kind)
        .iter()
        .map(|c| {
            json!({ "name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// Only type and metadata of an object.
pub fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn columns(kind: &Kind) -> Vec<Column> {
    match &kind.rules {
        Rules::Builtin(rules) => crate::kinds::columns(rules.columns).collect(),
        Rules::Custom(custom) => custom.columns(),
    }
}

fn cells(kind: &Kind, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    match &kind.rules {
        Rules::Builtin(rules) => (rules.cells)(object, now),
        Rules::Custom(custom) => custom.cells(object, now),
    }
}

/// Text, or what stands for nothing.
pub fn text(value: &Value, absent: &str) -> Value {
    value.as_str().filter(|t| !t.is_empty()).unwrap_or(absent).into()
}

/// A number that counts as 0 when absent.
pub fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// How old an object is.
pub fn age(object: &Value, now: jiff::Timestamp) -> Value {
    match object["metadata"]["creationTimestamp"].as_str() {
        Some(at) => since(at, now).into(),
        None => "<unknown>".into(),
    }
}

/// How long ago `at` was, as Kubernetes says it (`duration.HumanDuration`).
pub fn since(at: &str, now: jiff::Timestamp) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<invalid>".into(),
    }
}

/// Seconds as Kubernetes says them.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |whole: i64, unit: char, rest: i64, rest_unit: char| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{rest_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..=0 => "0s".into(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// Addresses a row shows.
const SHOWN: usize = 3;

/// The items of a list; none for anything else.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The first few of many.
pub fn some(all: &[String]) -> Value {
    match all.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN).into(),
        _ => all.join(",").into(),
    }
}

fn joined(spec: &Value, field: &str) -> Value {
    let all: Vec<&str> =
        spec["containers"].as_array().into_iter().flatten().filter_map(|c| c[field].as_str()).collect();
    all.join(",").into()
}

/// Names of a pod spec's containers.
pub fn containers(spec: &Value) -> Value {
    joined(spec, "name")
}

/// Images of a pod spec's containers.
pub fn images(spec: &Value) -> Value {
    joined(spec, "image")
}

/// A map as `key=value` pairs.
pub fn pairs(map: &Value) -> Value {
    selector(&json!({ "matchLabels": map }))
}

/// A label selector as text.
pub fn selector(selector: &Value) -> Value {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str() {
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            _ => format!("{key} in ({})", values.join(",")),
        });
    }
    if parts.is_empty() { "<none>".into() } else { parts.join(",").into() }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn durations_read_as_kubernetes_writes_them() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (135, "2m15s"),
            (601, "10m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (2 * 86400 + 3600, "2d1h"),
            (30 * 86400, "30d"),
            (800 * 86400, "2y70d"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }
}
