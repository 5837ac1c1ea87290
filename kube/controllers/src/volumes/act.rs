//! Binds, protects and says so.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::Caches;

use super::plan::{CLAIM_PROTECTION, ClaimPlan, VOLUME_PROTECTION, VolumePlan, plan_claim, plan_volume, reference};
use crate::objects::{name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Next, Rounds};

/// Says that this controller has chosen.
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// Binds and protects until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (claims, volumes) = (caches.all::<PersistentVolumeClaim>(), caches.all::<PersistentVolume>());
    let (classes, pods) = (caches.all::<StorageClass>(), caches.all::<Pod>());
    let recorder = Recorder { client: client.clone(), component: "persistentvolume-controller" };
    let mut binder = Binder { client, recorder, said: BTreeMap::new() };
    let changes = vec![claims.changes(), volumes.changes(), classes.changes(), pods.changes()];
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let mut next = Next::default();
        let immediate = |title: &str| {
            let class = classes.get("", title);
            class.is_none_or(|class| class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"))
        };
        let mut free = volumes.list();
        let all = claims.list();
        binder.said.retain(|known, _| all.iter().any(|claim| uid(&claim.metadata) == known));
        for claim in &all {
            let plan = plan_claim(claim, &free, &pods.list_in(namespace(&claim.metadata)), &immediate);
            if let Some(taken) = &plan.bind {
                // No other claim of this round gets it.
                free.retain(|volume| uid(&volume.metadata) != uid(&taken.metadata));
            }
            let result = binder.claim(claim, plan).await;
            next.judge("PersistentVolumeClaim", &claim.metadata, result);
        }
        for volume in volumes.list() {
            let result = binder.volume(&volume, plan_volume(&volume, &all)).await;
            next.judge("PersistentVolume", &volume.metadata, result);
        }
        rounds.wait(next).await;
    }
}

struct Binder {
    client: Client,
    recorder: Recorder,
    /// Why each claim waits, as it was said.
    said: BTreeMap<String, String>,
}

impl Binder {
    async fn claim(&mut self, claim: &Arc<PersistentVolumeClaim>, plan: ClaimPlan) -> Result<(), kube::Error> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace(&claim.metadata));
        let (title, parameters) = (name(&claim.metadata), PatchParams::default());
        if let Some(on) = plan.protect {
            let patch = protection(claim.metadata.uid.as_ref(), CLAIM_PROTECTION, on);
            claims.patch(title, &parameters, &patch).await?;
        }
        if let Some((reason, message)) = plan.waits {
            let before = self.said.insert(uid(&claim.metadata).to_owned(), message.clone());
            if before.as_ref() != Some(&message) {
                let of = ("v1", "PersistentVolumeClaim", &claim.metadata);
                self.recorder.event(of, Kind::Normal, reason, &message).await;
            }
        }
        if let Some(volume) = plan.bind {
            self.bind(claim, &volume).await?;
        } else if let Some(phase) = plan.phase {
            let patch = Patch::Merge(json!({"status": {"phase": phase}}));
            claims.patch_status(title, &parameters, &patch).await?;
        }
        Ok(())
    }

    /// The volume first, with its version: of two that want it one gets it.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let parameters = PatchParams::default();
        let spec = volume.spec.clone().unwrap_or_default();
        let named = spec.claim_ref.as_ref().and_then(|found| found.uid.clone());
        if named != claim.metadata.uid {
            let annotations = spec.claim_ref.is_none().then(|| json!({BY_CONTROLLER: "yes"}));
            let metadata = json!({"resourceVersion": volume.metadata.resource_version, "annotations": annotations});
            let patch = json!({"metadata": metadata, "spec": {"claimRef": reference(claim)}});
            volumes.patch(name(&volume.metadata), &parameters, &Patch::Merge(patch)).await?;
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace(&claim.metadata));
        let chosen = claim.spec.as_ref().is_none_or(|spec| spec.volume_name.as_ref().is_none_or(String::is_empty));
        let mut annotations = json!({COMPLETED: "yes"});
        if let (true, Some(map)) = (chosen, annotations.as_object_mut()) {
            map.insert(BY_CONTROLLER.to_owned(), json!("yes"));
        }
        let patch = json!({"metadata": {"uid": claim.metadata.uid, "annotations": annotations}, "spec": {"volumeName": name(&volume.metadata)}});
        claims.patch(name(&claim.metadata), &parameters, &Patch::Merge(patch)).await?;
        let status = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity});
        let patch = Patch::Merge(json!({"status": status}));
        claims.patch_status(name(&claim.metadata), &parameters, &patch).await.map(|_| ())
    }

    async fn volume(&self, volume: &PersistentVolume, plan: VolumePlan) -> Result<(), kube::Error> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let (title, parameters) = (name(&volume.metadata), PatchParams::default());
        if let Some(on) = plan.protect {
            let patch = protection(volume.metadata.uid.as_ref(), VOLUME_PROTECTION, on);
            volumes.patch(title, &parameters, &patch).await?;
        }
        if let Some((phase, message)) = plan.phase {
            let patch = Patch::Merge(json!({"status": {"phase": phase, "message": message}}));
            match volumes.patch_status(title, &parameters, &patch).await {
                // It went with its protection.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }
}

fn protection(uid: Option<&String>, finalizer: &str, on: bool) -> Patch<serde_json::Value> {
    Patch::Strategic(if on {
        json!({"metadata": {"uid": uid, "finalizers": [finalizer]}})
    } else {
        json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}})
    })
}
