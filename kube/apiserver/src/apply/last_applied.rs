//! What `kubectl apply` of old noted in an annotation, and how an object comes from it to server-side apply.
//!
//! kubectl's own applies may take what the annotation says and nobody has changed since: it was said by the same command. The
//! annotation of an object that has one is kept up to date, so that one can go back.

use serde_json::Value;

use super::compare;
use super::fields::{self, Node};
use super::managers::Writer;
use crate::object::{child, metadata};
use crate::schema::View;

/// Who alone is treated so.
pub const KUBECTL: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes of an annotation that is kept (`TotalAnnotationSizeLimitB` upstream).
const BYTES_MAX: usize = 256 * 1024;

fn of(object: &Value) -> Option<Value> {
    serde_json::from_str(object["metadata"]["annotations"][ANNOTATION].as_str()?).ok()
}

/// Takes out of `conflicts` what the annotation says of `live` and is still so.
pub fn allow(live: &Value, view: View<'_>, conflicts: &mut Vec<(String, Node)>) {
    let Some(said) = of(live) else { return };
    let mut allowed = compare::set(&said, view);
    fields::subtract(&mut allowed, &compare::compare(live, &said, view).changed);
    conflicts.retain_mut(|(_, set)| {
        fields::subtract(set, &allowed);
        !set.is_empty()
    });
}

/// Writes into the annotation what was applied now, if there is one.
pub fn keep(live: &Value, object: &mut Value, said: &Value, writer: &Writer<'_>) {
    if writer.name != KUBECTL || !live["metadata"]["annotations"][ANNOTATION].is_string() {
        return;
    }
    let mut said = said.clone();
    if let Some(Value::Object(annotations)) = metadata(&mut said).get_mut("annotations") {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{said}\n");
    let annotations = child(&mut object["metadata"], "annotations");
    if text.len() > BYTES_MAX {
        annotations.remove(ANNOTATION); // as upstream: what does not fit is not half there
    } else {
        annotations.insert(ANNOTATION.into(), text.into());
    }
}
