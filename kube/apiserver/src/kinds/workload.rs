//! What kinds that run pods from a template share: defaults, the rules of template, selector and counts.

use serde_json::{Value, json};

use super::{Errors, pod_spec};
use crate::selector;
use crate::status::FieldError;

/// Fills in the pod template of a workload.
pub fn default_template(spec: &mut Value) {
    pod_spec::set(spec, "template", json!({}));
    pod_spec::set(&mut spec["template"], "metadata", json!({}));
    pod_spec::default(&mut spec["template"]["spec"]);
}

/// How a kind speaks of its selector.
#[derive(Clone, Copy)]
pub struct Words {
    /// As `deployment`.
    pub in_selector: &'static str,
    /// As `ReplicaSet`.
    pub in_deadline: &'static str,
}

/// Judges selector and template of pods that run for ever.
pub fn validate(spec: &Value, words: Words, errors: &mut Errors) {
    selector(spec, words.in_selector, errors);
    if matches(spec) == Some(false) {
        mismatch(spec, "spec.template", errors);
    }
    template(&spec["template"], "spec.template", errors);
    always(spec, words.in_deadline, errors);
}

/// Judges a selector that must not be empty.
pub fn selector(spec: &Value, word: &str, errors: &mut Errors) {
    let wanted = &spec["selector"];
    if wanted.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    }
    errors.label_selector(wanted, "spec.selector");
    if selector::Labels::from_object(wanted).is_ok_and(|parsed| parsed.is_empty()) {
        errors.push(FieldError::invalid("spec.selector", wanted, &format!("empty selector is invalid for {word}")));
    }
}

/// Whether the template has the labels that `spec.selector` asks for; `None` when nothing is asked, and a selector that
/// is not there selects nothing.
pub fn matches(spec: &Value) -> Option<bool> {
    if spec["selector"].is_null() {
        return Some(false);
    }
    let parsed = selector::Labels::from_object(&spec["selector"]).ok()?;
    if parsed.is_empty() { None } else { Some(parsed.matches(&spec["template"]["metadata"]["labels"])) }
}

/// Says that the template's labels are not those that are selected.
pub fn mismatch(spec: &Value, path: &str, errors: &mut Errors) {
    let labels = &spec["template"]["metadata"]["labels"];
    let why = "`selector` does not match template `labels`";
    errors.push(FieldError::invalid(format!("{path}.metadata.labels"), labels, why));
}

/// Judges a pod template (`ValidatePodTemplateSpec` upstream).
pub fn template(template: &Value, path: &str, errors: &mut Errors) {
    errors.labels(&template["metadata"]["labels"], &format!("{path}.labels"));
    pod_spec::validate(&template["spec"], &format!("{path}.spec"), errors);
    if template["spec"]["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.spec.ephemeralContainers"), why));
    }
}

/// Pods of these kinds restart always and have no deadline.
pub fn always(spec: &Value, word: &str, errors: &mut Errors) {
    let pod = &spec["template"]["spec"];
    if pod["restartPolicy"] != "Always" {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(field, &pod["restartPolicy"], &["Always"]));
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {word} is not Supported");
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", &why));
    }
}

/// Counts in a status: none is negative, and none of `parts` exceeds `replicas`.
pub fn counts(status: &Value, fields: &[&str], parts: &[&str], errors: &mut Errors) {
    errors.all_nonnegative(status, "status", fields);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    for part in parts {
        if count(part) > count("replicas") {
            let field = format!("status.{part}");
            errors.push(FieldError::invalid(field, &status[*part], "cannot be greater than status.replicas"));
        }
    }
    if parts.contains(&"availableReplicas")
        && parts.contains(&"readyReplicas")
        && count("availableReplicas") > count("readyReplicas")
    {
        let why = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid("status.availableReplicas", &status["availableReplicas"], why));
    }
}

/// A count of collisions only grows.
pub fn collisions_grow(old: &Value, new: &Value, errors: &mut Errors) {
    let count = |set: &Value| set["status"]["collisionCount"].as_i64().unwrap_or(0);
    if count(new) < count(old) {
        errors.push(FieldError::invalid("status.collisionCount", &json!(count(new)), "cannot be decremented"));
    }
}
