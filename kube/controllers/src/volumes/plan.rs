//! What to do for claims and volumes. No effects.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use substrate_client::volumes::{claims_of, is_for, smallest};

use crate::objects::{has_ended, name, uid};

pub(crate) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub(crate) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The scheduler has chosen a node for the pod that uses it.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// What is to be done for one claim.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ClaimPlan {
    /// Whether its protection is put on or taken off.
    pub protect: Option<bool>,
    /// The volume that is to name it; then the claim names the volume.
    pub bind: Option<Arc<PersistentVolume>>,
    /// The phase, if another is written.
    pub phase: Option<&'static str>,
    /// Why it waits: reason and words.
    pub waits: Option<(&'static str, String)>,
}

/// What is to be done for one volume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumePlan {
    pub protect: Option<bool>,
    /// The phase and the message, if others are written.
    pub phase: Option<(&'static str, Option<String>)>,
}

/// Whether a class binds at once.
pub(crate) type Immediate<'a> = &'a dyn Fn(&str) -> bool;

/// The plan for a claim; `pods` are those of its namespace.
pub(crate) fn plan_claim(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    pods: &[Arc<Pod>],
    immediate: Immediate<'_>,
) -> ClaimPlan {
    let mut plan = ClaimPlan {
        protect: protection(&claim.metadata, CLAIM_PROTECTION, is_used(claim, pods)),
        ..ClaimPlan::default()
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let say = |wanted: &'static str| (phase != wanted).then_some(wanted);
    if let Some(wanted) = spec.volume_name.as_deref().filter(|wanted| !wanted.is_empty()) {
        match volumes.iter().find(|volume| name(&volume.metadata) == wanted) {
            // Only a claim that was bound can have lost something.
            None => plan.phase = say(if phase == "Bound" || phase == "Lost" { "Lost" } else { "Pending" }),
            Some(volume) if is_for(volume, claim) == Some(true) && phase == "Bound" => {}
            Some(volume) if is_for(volume, claim) != Some(false) => plan.bind = Some(volume.clone()),
            Some(_) => plan.phase = say(if phase == "Bound" || phase == "Lost" { "Lost" } else { "Pending" }),
        }
        return plan;
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let class = spec.storage_class_name.clone().unwrap_or_default();
    let promised = volumes.iter().find(|volume| is_for(volume, claim) == Some(true));
    let chosen = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(SELECTED_NODE));
    if promised.is_none() && !class.is_empty() && !immediate(&class) && !chosen {
        let words = "waiting for first consumer to be created before binding";
        plan.waits = Some(("WaitForFirstConsumer", words.to_owned()));
    } else if let Some(volume) = promised.or_else(|| smallest(claim, volumes.iter())).cloned() {
        plan.bind = Some(volume);
        return plan;
    } else if class.is_empty() {
        let words = "no persistent volumes available for this claim and no storage class is set";
        plan.waits = Some(("FailedBinding", words.to_owned()));
    } else {
        let words = format!("no persistent volume of class {class:?} fits, and nobody here makes one");
        plan.waits = Some(("ExternalProvisioning", words));
    }
    plan.phase = say("Pending");
    plan
}

/// The plan for a volume; `claims` are all.
pub(crate) fn plan_volume(volume: &PersistentVolume, claims: &[Arc<PersistentVolumeClaim>]) -> VolumePlan {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let wanted: (&'static str, Option<String>) = match &spec.claim_ref {
        None => ("Available", None),
        // Kept for a claim that does not exist yet.
        Some(reference) if reference.uid.is_none() => ("Available", None),
        Some(reference) => match claims.iter().find(|claim| Some(uid(&claim.metadata)) == reference.uid.as_deref()) {
            Some(_) => ("Bound", None),
            None if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") => {
                ("Failed", Some("volumes are not recycled here; delete the volume and make it anew".to_owned()))
            }
            None => ("Released", None),
        },
    };
    let bound = wanted.0 == "Bound";
    let differs = status.phase.as_deref() != Some(wanted.0) || status.message != wanted.1;
    VolumePlan { protect: protection(&volume.metadata, VOLUME_PROTECTION, bound), phase: differs.then_some(wanted) }
}

/// Puts protection on what stays, takes it off what goes and is not used.
fn protection(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    finalizer: &str,
    used: bool,
) -> Option<bool> {
    let has = metadata.finalizers.iter().flatten().any(|found| found == finalizer);
    match metadata.deletion_timestamp {
        None => (!has).then_some(true),
        Some(_) => (has && !used).then_some(false),
    }
}

/// Whether a pod that is not over uses the claim.
fn is_used(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> bool {
    let title = name(&claim.metadata);
    pods.iter().filter(|pod| !has_ended(pod)).any(|pod| claims_of(pod).any(|found| found == title))
}

/// How a volume names its claim.
pub(crate) fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests;
