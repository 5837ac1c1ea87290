//! What is refused of a pod's volumes.

use serde_json::{Value, json};

use crate::kinds::rules::{self, Check, Rule, check, unique};
use crate::kinds::validate::{Errors, NameRule};
use crate::status::FieldError;

const ONE: &str = "may not specify more than 1 volume type";
const TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// The least that a token of a volume lives, seconds.
const TOKEN_LIFE: i64 = 600;

/// One volume, below itself.
const RULES: &[Rule] = &[
    Rule("hostPath.path", Check::Required("")),
    Rule("hostPath.path", Check::Says(rules::no_backsteps)),
    Rule("hostPath.type", Check::OneOf(TYPES)),
    Rule("secret|configMap|projected|downwardAPI.defaultMode", Check::Says(rules::mode)),
    Rule("secret.secretName", Check::Required("")),
    Rule("configMap.name", Check::Required("")),
    Rule("secret|configMap.items[].key|path", Check::Required("")),
    Rule("secret|configMap.items[].path", Check::Says(rules::descending)),
    Rule("secret|configMap|downwardAPI.items[].mode", Check::Says(rules::mode)),
    Rule("persistentVolumeClaim.claimName", Check::Required("")),
    Rule("nfs.server|path", Check::Required("")),
    Rule("csi.driver", Check::Required("")),
    Rule("projected.sources[].secret|configMap.name", Check::Required("")),
    Rule("projected.sources[].secret|configMap.items[].key|path", Check::Required("")),
    Rule("projected.sources[].serviceAccountToken.path", Check::Required("")),
];

const ITEM: &[Rule] = &[Rule("path", Check::Required("")), Rule("path", Check::Says(rules::descending))];

/// Judges the volumes of a spec; their names.
pub fn validate<'a>(spec: &'a Value, path: &str, errors: &mut Errors) -> Vec<&'a str> {
    let volumes = &spec["volumes"];
    for (i, volume) in volumes.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.volumes[{i}]");
        errors.named(&volume["name"], &format!("{path}.name"), NameRule::Label);
        let sources =
            volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        for (source, _) in sources.skip(1) {
            errors.push(FieldError::forbidden(format!("{path}.{source}"), ONE));
        }
        check(RULES, volume, &path, errors);
        for item in volume["downwardAPI"]["items"].as_array().into_iter().flatten() {
            check(ITEM, item, &format!("{path}.downwardAPI"), errors); // upstream leaves out which
            field(&item["fieldRef"], FIELDS, &format!("{path}.downwardAPI.fieldRef"), errors);
        }
        projected(spec, &volume["projected"]["sources"], &path, errors);
    }
    unique(
        volumes,
        |volume| volume["name"].as_str(),
        |i, volume| errors.push(FieldError::duplicate(format!("{path}.volumes[{i}].name"), &volume["name"])),
    );
    volumes.as_array().into_iter().flatten().filter_map(|volume| volume["name"].as_str()).collect()
}

fn projected(spec: &Value, sources: &Value, path: &str, errors: &mut Errors) {
    for (i, source) in sources.as_array().into_iter().flatten().enumerate() {
        if source.as_object().is_some_and(|source| source.values().filter(|value| !value.is_null()).count() > 1) {
            errors.push(FieldError::forbidden(format!("{path}.projected.sources[{i}]"), ONE));
        }
        let token = &source["serviceAccountToken"];
        let at = format!("{path}.projected.sources[{i}].serviceAccountToken");
        if token.is_object() && spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            let why = "must not be specified when serviceAccountName is not set";
            errors.push(FieldError::forbidden(at.clone(), why));
        }
        if token["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < TOKEN_LIFE) {
            let why = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(format!("{at}.expirationSeconds"), &token["expirationSeconds"], why));
        }
    }
}

/// Fields of a pod that a file may show.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Judges the path to a field of the pod: one of `known`, or one label or annotation.
pub fn field(reference: &Value, known: &[&str], path: &str, errors: &mut Errors) {
    let Some(wanted) = reference["fieldPath"].as_str() else {
        if reference.is_object() {
            errors.push(FieldError::required(format!("{path}.fieldPath"), ""));
        }
        return;
    };
    let (map, key) = wanted.split_once('[').unwrap_or((wanted, ""));
    let entry = key.strip_prefix('\'').and_then(|key| key.strip_suffix("']"));
    let at = format!("{path}.fieldPath");
    if matches!(map, "metadata.annotations" | "metadata.labels") && !key.is_empty() {
        if !entry.is_some_and(crate::kinds::is_qualified_name) {
            errors.push(FieldError::invalid(at, &json!(entry.unwrap_or(key)), crate::kinds::QUALIFIED_NAME));
        }
    } else if !known.contains(&wanted) && ALL_FIELDS.contains(&wanted) {
        errors.push(FieldError::not_supported(at, &json!(wanted), known));
    } else if !known.contains(&wanted) {
        let why = format!("error converting fieldPath: field label not supported: {wanted}");
        errors.push(FieldError::invalid(at, &json!(wanted), &why));
    }
}

/// Fields of a pod that something may point at.
const ALL_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
