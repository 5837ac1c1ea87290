//! What pods may have in a namespace (admission plug-in PodSecurity, KEP-2579): labels of the namespace say it.
//!
//! | label `pod-security.kubernetes.io/…` | pods | what makes pods |
//! |---|---|---|
//! | `enforce` | are refused | |
//! | `warn` | come with a warning | comes with a warning |
//! | `audit` | are noted in the audit log | is noted there |
//!
//! Who raises `enforce` is told of the pods that are there and would no longer be taken.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;
use substrate_pod_security::{Level, check};

use super::{Operation, Request, all};
use crate::audit;
use crate::object::meta;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::verbs::read::decoded;
use crate::warnings;

/// Pods of a namespace whose level is raised that are looked at (as upstream).
const PODS_MAX: usize = 3000;
const LABEL: &str = "pod-security.kubernetes.io/";
/// What makes pods, and where their specification stands in it.
const MAKERS: &[(&str, &str, &str)] = &[
    ("", "replicationcontrollers", "/spec/template/spec"),
    ("", "podtemplates", "/template/spec"),
    ("apps", "deployments", "/spec/template/spec"),
    ("apps", "replicasets", "/spec/template/spec"),
    ("apps", "statefulsets", "/spec/template/spec"),
    ("apps", "daemonsets", "/spec/template/spec"),
    ("batch", "jobs", "/spec/template/spec"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template/spec"),
];

/// Refuses a pod that its namespace does not take, warns of one that it should not have and notes it, and refuses labels that mean nothing.
pub(super) fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if request.is_namespace() && request.subresource.is_empty() {
        labels(request, object)?;
        return tell_of_pods(server, request, object);
    }
    let place = match (request.group, request.plural, request.subresource) {
        ("", "pods", "" | "ephemeralcontainers") => "/spec",
        (group, plural, "") => match MAKERS.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) {
            Some((_, _, place)) => place,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let Some(spec) = object.pointer(place) else { return Ok(()) };
    let same = request.old.and_then(|old| old.pointer(place)).is_some_and(|old| old == spec);
    let Some(namespace) = namespace(server, request.namespace)?.filter(|_| !same) else { return Ok(()) };
    let levels = ["enforce", "warn", "audit"].map(|mode| level(&namespace, mode));
    if levels.iter().all(Option::is_none) {
        return Ok(());
    }
    let spec: PodSpec = serde_json::from_value(spec.clone()).map_err(Status::internal)?;
    if let Some((level, version)) = levels[0].as_ref().filter(|_| place == "/spec") {
        audit::note(format!("{LABEL}enforce-policy"), format!("{level:?}:{version}").to_lowercase());
    }
    let [enforce, warn, noted] =
        levels.map(|level| level.and_then(|(level, version)| check(level, &version, &spec).err()));
    let would = |why: String| Some(format!("would violate{}", why.strip_prefix("violates")?));
    if let Some(why) = noted.and_then(would) {
        audit::note(format!("{LABEL}audit-violations"), why);
    }
    if let Some(why) = enforce.filter(|_| place == "/spec") {
        return Err(Status::forbidden(request.group, request.plural, request.name, &why));
    }
    warn.and_then(would).into_iter().for_each(warnings::tell);
    Ok(())
}

fn namespace(server: &ApiServer, name: &str) -> Result<Option<Value>, Status> {
    let kind = server.inner.registry.get("", "v1", "namespaces").ok_or_else(Status::no_resource)?;
    server.inner.store.get(&kind.key("", name)).map(|entry| decoded(&kind, &entry)).transpose()
}

/// The level of a mode and the version that goes with it, if it asks for anything. A word that is no level, which can have been written
/// before this server judged it, is the strictest.
fn level(namespace: &Value, mode: &str) -> Option<(Level, String)> {
    let labels = &namespace["metadata"]["labels"];
    let word = labels[format!("{LABEL}{mode}")].as_str()?;
    let version = labels[format!("{LABEL}{mode}-version")].as_str().unwrap_or("latest");
    let level = Level::parse(word).unwrap_or(Level::Restricted);
    (level != Level::Privileged).then(|| (level, version.to_owned()))
}

/// Warns of pods that would no longer be taken, in upstream's words: those that have the same against them in one line.
fn tell_of_pods(server: &ApiServer, request: &Request<'_>, namespace: &Value) -> Result<(), Status> {
    let (Some(old), Some((new, version))) = (request.old, level(namespace, "enforce")) else { return Ok(()) };
    if level(old, "enforce").is_some_and(|(old, before)| before == version && old >= new) {
        return Ok(());
    }
    let pods = all(server, ("", "v1", "pods"), request.name)?;
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_MAX) {
        let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).map_err(Status::internal)?;
        if let Err(why) = check(new, &version, &spec) {
            found.entry(reasons(&why)).or_insert((meta(pod, "name"), 0)).1 += 1;
        }
    }
    if pods.len() > PODS_MAX {
        let count = pods.len();
        warnings::tell(format!(
            "new PodSecurity enforce level only checked against the first {PODS_MAX} of {count} existing pods"
        ));
    }
    if !found.is_empty() {
        let (name, new) = (request.name, format!("{new:?}").to_lowercase());
        warnings::tell(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{new}:{version}\""
        ));
    }
    let mut lines: Vec<String> = found
        .iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(warnings::tell);
    Ok(())
}

/// What is wrong with a pod, without what stands in brackets: which of its parts.
fn reasons(why: &str) -> String {
    let mut depth = 0;
    let found = why.split_once("\": ").map_or(why, |(_, found)| found).chars();
    let outside = found.filter(|c| {
        depth += i32::from(*c == '(');
        let is_outside = depth == 0;
        depth -= i32::from(*c == ')');
        is_outside
    });
    outside.collect::<String>().replace(" ,", ",").trim_end().to_owned()
}

fn labels(request: &Request<'_>, namespace: &Value) -> Result<(), Status> {
    let labels = &namespace["metadata"]["labels"];
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let (level, version) = (format!("{LABEL}{mode}"), format!("{LABEL}{mode}-version"));
        let at = |label: &str| format!("metadata.labels[{label}]");
        if labels[&level].as_str().is_some_and(|word| Level::parse(word).is_none()) {
            errors.push(FieldError::invalid(
                at(&level),
                &labels[&level],
                "must be one of privileged, baseline, restricted",
            ));
        }
        if labels[&version].as_str().is_some_and(|word| !is_version(word)) {
            let needed = "must be \"latest\" or \"v1.x\"";
            errors.push(FieldError::invalid(at(&version), &labels[&version], needed));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Namespace", request.name, &errors)) }
}

fn is_version(word: &str) -> bool {
    let minor = word.strip_prefix("v1.").unwrap_or_default();
    word == "latest" || (!minor.is_empty() && minor.len() <= 4 && minor.bytes().all(|b| b.is_ascii_digit()))
}
