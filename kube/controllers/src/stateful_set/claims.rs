//! The claims of a StatefulSet, and whose they are. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::objects::{name, uid};

/// Claims of a namespace by their names.
pub(crate) type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

/// The name of a claim: the template's, the set's and the ordinal.
pub(crate) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", name(&template.metadata), name(&set.metadata))
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

/// The claims of an ordinal that are not there.
pub(crate) fn missing(set: &StatefulSet, ordinal: i32, claims: &Claims) -> Vec<PersistentVolumeClaim> {
    let mut missing = Vec::new();
    for template in templates(set) {
        let title = claim_name(set, template, ordinal);
        if claims.contains_key(&title) {
            continue;
        }
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        labels.extend(selector.unwrap_or_default());
        let owner = (when(set).0).then(|| vec![of_set(set)]);
        missing.push(PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(title),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                owner_references: owner,
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        });
    }
    missing
}

/// Whether a claim of this ordinal is on its way out: the pod waits for the next one.
pub(crate) fn is_stale(set: &StatefulSet, ordinal: i32, claims: &Claims) -> bool {
    templates(set).any(|template| {
        let found = claims.get(&claim_name(set, template, ordinal));
        found.is_some_and(|claim| {
            claim.metadata.deletion_timestamp.is_some()
                || claim.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Pod")
        })
    })
}

/// Whether claims go with the set, and with a pod that is one too many.
fn when(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
    let policy = policy.unwrap_or_default();
    let goes = |word: Option<String>| word.as_deref() == Some("Delete");
    (goes(policy.when_deleted), goes(policy.when_scaled))
}

fn of_set(set: &StatefulSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: name(&set.metadata).to_owned(),
        uid: uid(&set.metadata).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn of_pod(pod: &Pod) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: name(&pod.metadata).to_owned(),
        uid: uid(&pod.metadata).to_owned(),
        ..OwnerReference::default()
    }
}

/// Claims of a pod whose owners are to be others: by the owners the collector knows with what they go. `condemned` says that the
/// pod is one too many.
pub(crate) fn disowned(
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i32,
    condemned: bool,
    claims: &Claims,
) -> Vec<(Arc<PersistentVolumeClaim>, Vec<OwnerReference>)> {
    let (with_set, with_pod) = when(set);
    let goes_with_pod = with_pod && condemned;
    let mut changes = Vec::new();
    for template in templates(set) {
        let Some(claim) = claims.get(&claim_name(set, template, ordinal)) else { continue };
        let has = claim.metadata.owner_references.clone().unwrap_or_default();
        let ours = |owner: &OwnerReference| owner.uid == uid(&set.metadata) || owner.kind == "Pod";
        let mut wanted: Vec<OwnerReference> = has.iter().filter(|owner| !ours(owner)).cloned().collect();
        if goes_with_pod {
            wanted.push(of_pod(pod));
        } else if with_set {
            wanted.push(of_set(set));
        }
        let same = |a: &[OwnerReference], b: &[OwnerReference]| {
            a.len() == b.len() && a.iter().all(|one| b.iter().any(|other| one.uid == other.uid))
        };
        if !same(&has, &wanted) && claim.metadata.deletion_timestamp.is_none() {
            changes.push((claim.clone(), wanted));
        }
    }
    changes
}
