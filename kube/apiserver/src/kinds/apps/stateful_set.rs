//! Stateful sets: pods with names and volumes of their own.

use serde_json::{Value, json};

use crate::kinds::description::SCALE;
use crate::kinds::{Builtin, Description, Errors, pod_spec, workload};
use crate::status::FieldError;
use crate::table::{age, containers, count, images};

pub static KIND: Description = Description {
    short: &["sts"],
    categories: &["all"],
    has_status: true,
    counts: true,
    subresources: SCALE,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["apps", "v1", "StatefulSet", "statefulsets"])
};

const COLUMNS: &str = "Name, Ready, Age, Containers+, Images+";

fn default(set: &mut Value) {
    let spec = &mut set["spec"];
    pod_spec::set(spec, "podManagementPolicy", "OrderedReady");
    pod_spec::set(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    pod_spec::set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        pod_spec::set(strategy, "rollingUpdate", json!({}));
        pod_spec::set(&mut strategy["rollingUpdate"], "partition", 0);
    }
    pod_spec::set(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    for event in ["whenDeleted", "whenScaled"] {
        pod_spec::set(&mut spec["persistentVolumeClaimRetentionPolicy"], event, "Retain");
    }
    pod_spec::set(spec, "replicas", 1);
    pod_spec::set(spec, "revisionHistoryLimit", 10);
    for claim in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        pod_spec::set(claim, "apiVersion", "v1");
        pod_spec::set(claim, "kind", "PersistentVolumeClaim");
        pod_spec::set(claim, "spec", json!({}));
        pod_spec::set(&mut claim["spec"], "volumeMode", "Filesystem");
        pod_spec::set(claim, "status", json!({}));
        pod_spec::set(&mut claim["status"], "phase", "Pending");
    }
    workload::default_template(spec);
    pod_spec::set(set, "status", json!({}));
    pod_spec::set(&mut set["status"], "replicas", 0);
    pod_spec::set(&mut set["status"], "availableReplicas", 0);
}

fn validate(set: &Value, errors: &mut Errors) {
    let spec = &set["spec"];
    if !matches!(spec["podManagementPolicy"].as_str(), Some("OrderedReady" | "Parallel")) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid("spec.podManagementPolicy", &spec["podManagementPolicy"], why));
    }
    strategy(&spec["updateStrategy"], errors);
    for event in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][event];
        let field = format!("spec.persistentVolumeClaimRetentionPolicy.{event}");
        errors.one_of(policy, field, &["Retain", "Delete"]);
    }
    errors.nonnegative(&spec["replicas"], "spec.replicas");
    errors.nonnegative(&spec["minReadySeconds"], "spec.minReadySeconds");
    errors.nonnegative(&spec["ordinals"]["start"], "spec.ordinals.start");
    workload::selector(spec, "statefulset", errors);
    if workload::matches(spec) == Some(false) {
        workload::mismatch(spec, "spec.template", errors);
    }
    // Claims make volumes of the same names, which mounts may speak of.
    let mut template = spec["template"].clone();
    let claims = spec["volumeClaimTemplates"].as_array().into_iter().flatten();
    let mut volumes = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let names: Vec<Value> = claims.map(|claim| claim["metadata"]["name"].clone()).collect();
    volumes.retain(|volume| !names.contains(&volume["name"]));
    volumes.extend(names.into_iter().map(|name| json!({ "name": name, "emptyDir": {} })));
    template["spec"]["volumes"] = volumes.into();
    workload::template(&template, "spec.template", errors);
    workload::always(spec, "StatefulSet", errors);
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let all = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    workload::counts(&set["status"], &all, &parts, errors);
}

fn strategy(strategy: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.updateStrategy";
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("OnDelete") if rolling.is_object() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(format!("{PATH}.rollingUpdate"), rolling, why));
        }
        Some("OnDelete") => {}
        Some("RollingUpdate") => {
            errors.nonnegative(&rolling["partition"], format!("{PATH}.rollingUpdate.partition"));
            errors.number_or_percent(&rolling["maxUnavailable"], &format!("{PATH}.rollingUpdate.maxUnavailable"));
        }
        _ => errors.push(FieldError::invalid(PATH, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// What may be changed in a stateful set's spec.
const OPEN: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let fixed = |set: &Value| {
        let mut spec = set["spec"].as_object().cloned().unwrap_or_default();
        spec.retain(|field, _| !OPEN.contains(&field.as_str()));
        spec
    };
    if fixed(old) != fixed(new) {
        errors.push(FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    workload::collisions_grow(old, new, errors);
}

fn cells(set: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let pod = &set["spec"]["template"]["spec"];
    vec![
        set["metadata"]["name"].clone(),
        format!("{}/{}", count(&set["status"]["readyReplicas"]), count(&set["spec"]["replicas"])).into(),
        age(set, now),
        containers(pod),
        images(pod),
    ]
}
