//! Volume attachments: which volume is at which node.

use serde_json::{Value, json};

use crate::kinds::{Builtin, Description, Errors, NameRule, pod_spec};
use crate::status::FieldError;
use crate::table::{age, text};

pub static KIND: Description = Description {
    namespaced: false,
    has_status: true,
    idle: "there are no volume drivers",
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments"])
};

const COLUMNS: &str = "Name, Attacher, PV, Node, Attached:boolean, Age";

fn default(attachment: &mut Value) {
    pod_spec::set(attachment, "status", json!({}));
    pod_spec::set(&mut attachment["status"], "attached", false);
}

fn validate(attachment: &Value, errors: &mut Errors) {
    let spec = &attachment["spec"];
    errors.require(&spec["attacher"], "spec.attacher");
    for field in ["attacher", "nodeName"] {
        let name = spec[field].as_str().unwrap_or_default();
        for why in NameRule::Subdomain.judge(name) {
            errors.push(FieldError::invalid(format!("spec.{field}"), &json!(name), &why));
        }
    }
    let source = &spec["source"];
    match (source["inlineVolumeSpec"].is_object(), source["persistentVolumeName"].is_string()) {
        (false, false) => errors.push(FieldError::required(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )),
        (true, true) => errors.push(FieldError::forbidden(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )),
        _ => {}
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&old["spec"], &new["spec"], "spec");
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        object["metadata"]["name"].clone(),
        text(&spec["attacher"], ""),
        text(&spec["source"]["persistentVolumeName"], ""),
        text(&spec["nodeName"], ""),
        (object["status"]["attached"] == json!(true)).into(),
        age(object, now),
    ]
}
