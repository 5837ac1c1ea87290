//! Events as `events.k8s.io/v1` sees them. They are kept as those of the core group.

use serde_json::Value;

use crate::kinds::core::event;
use crate::kinds::description::Face;
use crate::kinds::{Builtin, Description, Errors};
use crate::object::child;
use crate::status::FieldError;

pub static KIND: Description = Description {
    short: &["ev"],
    face: Some(&FACE),
    rules: Builtin {
        validate,
        columns: event::COLUMNS,
        cells: |event, now| {
            let mut older = event.clone();
            rename(&mut older, false);
            event::cells(&older, now)
        },
        ..Builtin::USUAL
    },
    ..Description::of(["events.k8s.io", "v1", "Event", "events"])
};

static FACE: Face = Face {
    stored_as: ["", "v1", "Event", "events"],
    read: |event| rename(event, true),
    write: |event| rename(event, false),
};

/// Names in the core group, and here.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(event: &mut Value, newer: bool) {
    let Some(map) = event.as_object_mut() else { return };
    for (core, here) in NAMES {
        let (from, to) = if newer { (core, here) } else { (here, core) };
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    if !newer {
        child(event, "involvedObject"); // the older form always has one
    }
}

/// As upstream.
const ACTION_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

fn validate(event: &Value, errors: &mut Errors) {
    if event["eventTime"].is_null() {
        let about = Value::from(event["regarding"]["namespace"].as_str().unwrap_or_default());
        if about != event["metadata"]["namespace"] {
            errors.push(FieldError::invalid("involvedObject.namespace", &about, "does not match event.namespace"));
        }
        errors.push(FieldError::required("eventTime", ""));
    } else {
        for field in ["reportingController", "reportingInstance", "action", "reason"] {
            errors.require(&event[field], field);
        }
    }
    for (field, most) in
        [("reportingInstance", ACTION_MAX), ("action", ACTION_MAX), ("reason", ACTION_MAX), ("note", NOTE_MAX)]
    {
        if event[field].as_str().is_some_and(|text| text.len() > most) {
            errors.push(FieldError::invalid(field, &Value::from(""), &format!("can have at most {most} characters")));
        }
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        let shown = Value::from(event["type"].as_str().unwrap_or_default());
        errors.push(FieldError::invalid("type", &shown, "has invalid value: "));
    }
}
