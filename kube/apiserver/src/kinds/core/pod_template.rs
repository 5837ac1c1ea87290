//! Pod templates: what pods are made from.

use serde_json::Value;

use crate::kinds::workload;
use crate::kinds::{Builtin, Description, Errors};
use crate::table::{containers, images, pairs};

pub static KIND: Description = Description {
    counts: true,
    rules: Builtin { default: workload::default_template, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["", "v1", "PodTemplate", "podtemplates"])
};

const COLUMNS: &str = "Name, Containers, Images, Pod Labels";

fn validate(template: &Value, errors: &mut Errors) {
    workload::template(&template["template"], "template", errors);
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let _ = now;
    let template = &object["template"];
    vec![
        object["metadata"]["name"].clone(),
        containers(&template["spec"]),
        images(&template["spec"]),
        pairs(&template["metadata"]["labels"]),
    ]
}
