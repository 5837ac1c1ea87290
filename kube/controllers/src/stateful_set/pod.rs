//! The pods of a StatefulSet: their names, and what else tells them apart. No effects.
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use k8s_openapi::jiff::Timestamp;

use super::claims;
use crate::history::POD_REVISION;
use crate::objects::{available_at, controller_reference, is_ready, name};
use crate::pods::from_template;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod by its name; `None` if it is not one of the set's.
pub(crate) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let number = name(&pod.metadata).strip_prefix(name(&set.metadata))?.strip_prefix('-')?;
    // `web-01` is not how a set writes it.
    let plain = number == "0" || !number.starts_with(['0', '+', '-']);
    plain.then(|| number.parse().ok()).flatten()
}

/// The first ordinal.
pub(crate) fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).max(0)
}

/// The labels and the place that the pod of an ordinal has whatever its template.
fn identity(set: &StatefulSet, ordinal: i32) -> BTreeMap<String, String> {
    let title = format!("{}-{ordinal}", name(&set.metadata));
    [(POD_NAME.to_owned(), title), (POD_INDEX.to_owned(), ordinal.to_string())].into()
}

/// Labels that a pod should have and has not.
pub(crate) fn lacking(set: &StatefulSet, pod: &Pod, ordinal: i32) -> BTreeMap<String, String> {
    let has =
        |key: &str, value: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(key)).is_some_and(|v| v == value);
    identity(set, ordinal).into_iter().filter(|(key, value)| !has(key, value)).collect()
}

/// The pod of an ordinal, of this template.
pub(crate) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let owner = controller_reference("apps/v1", "StatefulSet", &set.metadata);
    let mut pod = from_template(template, &set.metadata, owner);
    let title = format!("{}-{ordinal}", name(&set.metadata));
    pod.metadata.name = Some(title.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity(set, ordinal));
    labels.insert(POD_REVISION.to_owned(), revision.to_owned());
    let spec = set.spec.clone().unwrap_or_default();
    let of = pod.spec.get_or_insert_default();
    of.hostname = Some(title);
    of.subdomain = spec.service_name.filter(|service| !service.is_empty());
    for template in spec.volume_claim_templates.iter().flatten() {
        let volumes = of.volumes.get_or_insert_default();
        let volume = name(&template.metadata);
        // A claim of the set comes before a volume of the template.
        volumes.retain(|found| found.name != volume);
        volumes.push(Volume {
            name: volume.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claims::claim_name(set, template, ordinal),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
    }
    pod
}

/// The revision that a pod says it is of.
pub(crate) fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_REVISION)).map_or("", String::as_str)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(crate) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn runs(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

pub(crate) fn is_well(pod: &Pod) -> bool {
    runs(pod) && !is_leaving(pod)
}

/// When a pod that runs counts as available.
pub(crate) fn available(pod: &Pod, spec: &StatefulSetSpec) -> Option<Timestamp> {
    runs(pod).then(|| available_at(pod, spec.min_ready_seconds.unwrap_or(0))).flatten()
}
