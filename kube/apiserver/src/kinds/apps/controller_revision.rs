//! Controller revisions: what a stateful or daemon set was like before. They never change.

use serde_json::Value;

use crate::kinds::{Builtin, Description, Errors};
use crate::status::FieldError;
use crate::table::{age, list};

pub static KIND: Description = Description {
    rules: Builtin {
        validate,
        validate_update: |old, new, errors| errors.immutable(&old["data"], &new["data"], "data"),
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["apps", "v1", "ControllerRevision", "controllerrevisions"])
};

const COLUMNS: &str = "Name, Controller, Revision, Age";

fn validate(revision: &Value, errors: &mut Errors) {
    if revision["data"].is_null() {
        errors.push(FieldError::required("data", "data is mandatory"));
    }
    errors.nonnegative(&revision["revision"], "revision");
}

fn cells(revision: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let owner = list(&revision["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true);
    let controller = owner.map_or_else(|| "<none>".to_owned(), shown);
    vec![revision["metadata"]["name"].clone(), controller.into(), revision["revision"].clone(), age(revision, now)]
}

/// `statefulset.apps/web`.
fn shown(owner: &Value) -> String {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", text("kind").to_lowercase(), text("name"))
}
