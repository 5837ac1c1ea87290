//! Events.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{since, text};

pub static KIND: Description = Description {
    short: &["ev"],
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "Event", "events"])
};

/// An event is where its object is; that of what belongs to the cluster may be in `default`.
fn validate(event: &Value, errors: &mut Errors) {
    let (at, about) = (&event["metadata"]["namespace"], &event["involvedObject"]["namespace"]);
    let of_cluster = about.as_str().unwrap_or_default().is_empty();
    let fits = if of_cluster { at == "default" || at == "kube-system" } else { at == about };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

/// What Go writes of an event also when there is nothing of it.
fn default(event: &mut Value) {
    for field in ["reportingComponent", "reportingInstance"] {
        pod_spec::set(event, field, "");
    }
    pod_spec::set(event, "source", json!({}));
}

/// Headings of both forms.
pub const COLUMNS: &str = "Last Seen, Type, Reason, Object, Subobject+, Source+, Message, First Seen+, Count+, Name+";

/// A row of an event.
pub fn cells(event: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let time = |fields: &[&Value]| {
        fields.iter().find_map(|f| f.as_str()).map_or_else(|| "<unknown>".to_owned(), |at| since(at, now))
    };
    let created = &event["metadata"]["creationTimestamp"];
    let last = time(&[&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"], created]);
    let first = time(&[&event["firstTimestamp"], &event["eventTime"], created]);
    let object = &event["involvedObject"];
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let source = event["source"]["component"].as_str().or(event["reportingComponent"].as_str()).unwrap_or_default();
    let count = event["series"]["count"].as_i64().or(event["count"].as_i64()).unwrap_or(1);
    vec![
        last.into(),
        text(&event["type"], ""),
        text(&event["reason"], ""),
        json!(format!("{kind}/{}", object["name"].as_str().unwrap_or_default())),
        text(&object["fieldPath"], ""),
        source.into(),
        event["message"].as_str().unwrap_or_default().trim().into(),
        first.into(),
        count.into(),
        event["metadata"]["name"].clone(),
    ]
}
