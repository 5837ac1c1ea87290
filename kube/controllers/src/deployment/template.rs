//! Templates, their hashes, and the annotations that tie ReplicaSets to a Deployment. No effects.
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rollout::Limits;
use crate::hash;
use crate::objects::{controller_reference, name};

/// Label by which pods of different templates are told apart.
pub(crate) const HASH: &str = "pod-template-hash";
/// Counts the templates that a Deployment has had.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// What the Deployment wanted when the ReplicaSet was scaled last; another number means that it has been scaled.
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub(crate) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that say nothing about its ReplicaSets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision-history",
    "deprecated.deployment.rollback.to",
    REVISION,
    DESIRED,
    MAXIMUM,
];

/// Whether a ReplicaSet is of the Deployment's template now.
pub(crate) fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let plain = |template: Option<&PodTemplateSpec>| {
        let mut template = template.cloned().unwrap_or_default();
        if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.remove(HASH);
        }
        template
    };
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let found = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    plain(wanted) == plain(found)
}

/// A number of a ReplicaSet's or Deployment's annotations.
pub(crate) fn number(metadata: &ObjectMeta, key: &str) -> Option<i64> {
    metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The ReplicaSet for the template now.
pub(crate) fn new_set(deployment: &Deployment, replicas: i32, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::short(&spec.template, collisions.unwrap_or(0));
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH.to_owned(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template.clone();
    let of = template.metadata.get_or_insert_default();
    of.labels = with_hash(of.labels.take());
    let labels = of.labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels = with_hash(selector.match_labels.take());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations(deployment, revision)),
            owner_references: Some(vec![controller_reference("apps/v1", "Deployment", &deployment.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The annotations that the new ReplicaSet is to have.
pub(crate) fn annotations(deployment: &Deployment, revision: i64) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(size_annotations(deployment));
    annotations
}

/// Those of the annotations that say what size was wanted.
pub(crate) fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let limits = Limits::of(deployment);
    let most = limits.replicas.saturating_add(limits.surge);
    [(DESIRED, limits.replicas), (MAXIMUM, most)].map(|(key, count)| (key.to_owned(), count.to_string())).into()
}
