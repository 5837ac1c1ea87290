//! Jobs: pods that are to succeed.

use serde_json::{Value, json};

use super::pod_policies;
use crate::kinds::{Builtin, Description, Errors, pod_spec, workload};
use crate::object::{child, meta};
use crate::selector::Labels;
use crate::status::FieldError;
use crate::table::{age, containers, count, images, list, selector};

pub static KIND: Description = Description {
    categories: &["all"],
    has_status: true,
    counts: true,
    rules: Builtin {
        default,
        prepare: |job, old, _| {
            let unlabelled = job["spec"]["template"]["metadata"]["labels"].is_null();
            generate_selector(job, old);
            if !unlabelled {
                take_labels(job);
            }
        },
        validate,
        validate_update,
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of(["batch", "v1", "Job", "jobs"])
};

const COLUMNS: &str = "Name, Status, Completions, Duration, Age, Containers+, Images+, Selector+";

/// Labels of the pods of a job: the names of today, and those from before they had a prefix.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// Indexes of an indexed job (`maxParallelismForIndexedJob`, `maxJobBackoffLimitPerIndex…` upstream).
const INDEXES_MAX: i64 = 100_000;

fn default(job: &mut Value) {
    default_spec(&mut job["spec"]);
    pod_spec::set(job, "status", json!({}));
}

/// Fills in the spec of a job.
fn default_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        pod_spec::set(spec, "completions", 1);
    }
    pod_spec::set(spec, "parallelism", 1);
    let retries = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i64::from(i32::MAX) };
    pod_spec::set(spec, "backoffLimit", retries);
    pod_spec::set(spec, "completionMode", "NonIndexed");
    pod_spec::set(spec, "suspend", false);
    pod_spec::set(spec, "manualSelector", false);
    let replaced = if spec["podFailurePolicy"].is_object() { "Failed" } else { "TerminatingOrFailed" };
    pod_spec::set(spec, "podReplacementPolicy", replaced);
    default_pods(spec);
}

/// Fills in what says how pods of a job are made and judged.
fn default_pods(spec: &mut Value) {
    let rules = spec.get_mut("podFailurePolicy").and_then(|p| p.get_mut("rules")).and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let patterns = rule.get_mut("onPodConditions").and_then(Value::as_array_mut);
        patterns.into_iter().flatten().for_each(|pattern| pod_spec::set(pattern, "status", "True"));
    }
    workload::default_template(spec);
}

/// A job without labels has those of its pods.
fn take_labels(job: &mut Value) {
    if job["metadata"]["labels"].as_object().is_none_or(serde_json::Map::is_empty) {
        job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"].clone();
    }
}

/// Gives a new job a selector that selects its own pods alone, and its pods the labels for it.
fn generate_selector(job: &mut Value, old: Option<&Value>) {
    if old.is_some() || job["spec"]["manualSelector"] == json!(true) {
        return;
    }
    let (uid, name) = (meta(job, "uid").to_owned(), meta(job, "name").to_owned());
    let metadata = child(&mut job["spec"]["template"], "metadata");
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            pod_spec::set(labels, key, value.as_str());
        }
    }
    let wanted = child(&mut job["spec"], "selector").entry("matchLabels").or_insert_with(|| json!({}));
    if wanted["controller-uid"].is_null() {
        pod_spec::set(wanted, UID_LABELS[0], uid);
    }
    if let Some(map) = wanted.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

fn validate(job: &Value, errors: &mut Errors) {
    let spec = &job["spec"];
    generated_selector(job, errors);
    validate_spec(spec, "spec", errors);
    if spec["selector"].is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        errors.label_selector(&spec["selector"], "spec.selector");
    }
    if workload::matches(spec) == Some(false) {
        workload::mismatch(spec, "spec.template", errors);
    }
    let counts = ["active", "succeeded", "failed", "ready", "terminating"];
    errors.all_nonnegative(&job["status"], "status", &counts);
}

fn generated_selector(job: &Value, errors: &mut Errors) {
    let spec = &job["spec"];
    if spec["manualSelector"] == json!(true) || spec["selector"].is_null() {
        return;
    }
    let mut expected = json!({});
    for (keys, value) in [(UID_LABELS, &job["metadata"]["uid"]), (NAME_LABELS, &job["metadata"]["name"])] {
        for key in keys {
            expected[key] = value.clone();
            let field = "spec.template.metadata.labels";
            let labels = &spec["template"]["metadata"]["labels"];
            match labels.get(key) {
                None => {
                    let why = format!("must be '{}'", value.as_str().unwrap_or_default());
                    errors.push(FieldError::required(format!("{field}[{key}]"), &why));
                }
                Some(found) if found != value => {
                    let why = format!("must be '{}'", value.as_str().unwrap_or_default());
                    errors.push(FieldError::invalid(format!("{field}[{key}]"), found, &why));
                }
                Some(_) => {}
            }
        }
    }
    if Labels::from_object(&spec["selector"]).is_ok_and(|wanted| !wanted.matches(&expected)) {
        errors.push(FieldError::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
}

/// Judges the spec of a job, but for its selector.
fn validate_spec(spec: &Value, path: &str, errors: &mut Errors) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    errors.all_nonnegative(spec, path, &counts);
    let at = |field: &str| format!("{path}.{field}");
    let indexed = spec["completionMode"] == "Indexed";
    if !indexed {
        if !spec["backoffLimitPerIndex"].is_null() {
            let why = "requires indexed completion mode";
            errors.push(FieldError::invalid(at("backoffLimitPerIndex"), &spec["backoffLimitPerIndex"], why));
        }
        if !spec["maxFailedIndexes"].is_null() {
            let why = "requires indexed completion mode";
            errors.push(FieldError::invalid(at("maxFailedIndexes"), &spec["maxFailedIndexes"], why));
        }
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.push(FieldError::required(at("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    errors.one_of(&spec["completionMode"], at("completionMode"), &["NonIndexed", "Indexed"]);
    if indexed {
        if spec["completions"].is_null() {
            errors.push(FieldError::required(at("completions"), "when completion mode is Indexed"));
        }
        if count(&spec["parallelism"]) > INDEXES_MAX {
            let why = format!("must be less than or equal to {INDEXES_MAX} when completion mode is Indexed");
            errors.push(FieldError::invalid(at("parallelism"), &spec["parallelism"], &why));
        }
        if count(&spec["maxFailedIndexes"]) > count(&spec["completions"]) {
            let why = "must be less than or equal to completions";
            errors.push(FieldError::invalid(at("maxFailedIndexes"), &spec["maxFailedIndexes"], why));
        }
    }
    pod_policies::failure(spec, path, errors);
    pod_policies::success(spec, path, errors);
    let replacement: &[&str] =
        if spec["podFailurePolicy"].is_object() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.one_of(&spec["podReplacementPolicy"], at("podReplacementPolicy"), replacement);
    workload::template(&spec["template"], &at("template"), errors);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let field = at("template.spec.restartPolicy");
    match policy.as_str() {
        None | Some("" | "Always") => {
            errors.push(FieldError::required(field, "valid values: \"OnFailure\", \"Never\""));
        }
        Some("OnFailure") if spec["podFailurePolicy"].is_object() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(field, policy, why));
        }
        Some("OnFailure" | "Never") => {}
        Some(_) => errors.push(FieldError::not_supported(field, policy, &["OnFailure", "Never"])),
    }
}

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (&old["spec"], &new["spec"]);
    // An indexed job may grow and shrink when parallelism goes along.
    let elastic = after["completionMode"] == "Indexed"
        && before["completions"] != after["completions"]
        && after["completions"] == after["parallelism"];
    if !elastic {
        errors.immutable(&before["completions"], &after["completions"], "spec.completions");
    }
    errors.immutable(&before["selector"], &after["selector"], "spec.selector");
    let fixed = |template: &Value| {
        let mut template = template.clone();
        // Before it has run, a suspended job may still be told where to.
        if before["suspend"] == json!(true) && old["status"]["startTime"].is_null() {
            for part in ["labels", "annotations"] {
                template["metadata"][part] = Value::Null;
            }
            for part in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                template["spec"][part] = Value::Null;
            }
        }
        template
    };
    if fixed(&before["template"]) != fixed(&after["template"]) {
        errors.push(FieldError::invalid("spec.template", &after["template"], "field is immutable"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.immutable(&before[field], &after[field], &format!("spec.{field}"));
    }
}

/// Fills in the job that a cron job makes: its pods only, the rest when the job is made.
pub fn default_template(template: &mut Value) {
    child(template, "metadata");
    default_pods(&mut template["spec"]);
}

/// Judges the job that a cron job makes.
pub fn validate_template(template: &Value, path: &str, errors: &mut Errors) {
    let spec = &template["spec"];
    validate_spec(spec, &format!("{path}.spec"), errors);
    if !spec["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(format!("{path}.spec.selector"), &spec["selector"], why));
    }
    if spec["manualSelector"] == json!(true) {
        let field = format!("{path}.spec.manualSelector");
        errors.push(FieldError::not_supported(field, &spec["manualSelector"], &["nil", "false"]));
    }
}

fn cells(job: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let succeeded = count(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), count(&spec["parallelism"])) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let pod = &spec["template"]["spec"];
    vec![
        job["metadata"]["name"].clone(),
        phase(job).into(),
        completions.into(),
        duration(status, now).into(),
        age(job, now),
        containers(pod),
        images(pod),
        selector(&spec["selector"]),
    ]
}

/// The STATUS column (`printJob` upstream).
fn phase(job: &Value) -> &'static str {
    let is = |kind: &str| list(&job["status"]["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if crate::object::is_deleting(job) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn duration(status: &Value, now: jiff::Timestamp) -> String {
    let time = |field: &str| status[field].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    match (status["startTime"].as_str(), time("completionTime")) {
        (None, _) => String::new(),
        (Some(began), ended) => crate::table::since(began, ended.unwrap_or(now)),
    }
}
