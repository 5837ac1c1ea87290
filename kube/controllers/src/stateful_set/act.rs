//! Carries the plans of StatefulSets out.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::{Cache, Caches};

use super::claims::Claims;
use super::plan::{Plan, plan};
use crate::expectations::{PATIENCE, Written};
use crate::objects::{name, namespace, uid};
use crate::pods::{PodControl, by_namespace};
use crate::recorder::Kind;
use crate::revisions::{Revised, forget, revise};
use crate::work::{Next, Rounds};

/// Keeps all StatefulSets until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (sets, pods) = (caches.all::<StatefulSet>(), caches.all::<Pod>());
    let revisions = caches.all::<ControllerRevision>();
    let control = PodControl::new(client, "statefulset-controller", "apps/v1", "StatefulSet");
    let mut actor = Actor { control, written: Written::default(), revisions: revisions.clone(), claims: None };
    let changes = || vec![sets.changes(), pods.changes(), revisions.changes()];
    let mut rounds = Rounds::begin(changes()).await;
    loop {
        let sets = sets.list();
        if actor.claims.is_none() && sets.iter().any(|set| has_claims(set)) {
            // Most sets have none, and then nobody has to know all claims of the cluster.
            let claims = caches.all::<PersistentVolumeClaim>();
            let mut watched = changes();
            watched.push(claims.changes());
            actor.claims = Some(claims);
            rounds = Rounds::begin(watched).await;
        }
        let next = actor.round(&sets, &pods.list()).await;
        rounds.wait(next).await;
    }
}

fn has_claims(set: &StatefulSet) -> bool {
    set.spec.as_ref().is_some_and(|spec| spec.volume_claim_templates.iter().flatten().next().is_some())
}

struct Actor {
    control: PodControl,
    written: Written,
    revisions: Cache<ControllerRevision>,
    claims: Option<Cache<PersistentVolumeClaim>>,
}

impl Actor {
    async fn round(&mut self, sets: &[Arc<StatefulSet>], pods: &[Arc<Pod>]) -> Next {
        self.control.settle(pods);
        let there: BTreeSet<&str> = sets.iter().map(|set| uid(&set.metadata)).collect();
        self.written.retain(|uid| there.contains(uid));
        let sorted = by_namespace(pods);
        let mut next = Next::default();
        for set in sets {
            let seen = self.written.seen(&set.metadata, Instant::now());
            if !seen || !self.control.expectations.met(uid(&set.metadata)) {
                next.wake_in(Some(PATIENCE));
                continue;
            }
            let home = namespace(&set.metadata);
            let candidates = sorted.get(home).map(Vec::as_slice).unwrap_or_default();
            let claims: Claims = match &self.claims {
                Some(claims) if has_claims(set) => {
                    claims.list_in(home).into_iter().map(|claim| (name(&claim.metadata).to_owned(), claim)).collect()
                }
                _ => Claims::new(),
            };
            let plan = plan(set, candidates, &self.revisions.list_in(home), &claims, Timestamp::now());
            next.wake_in(plan.wake);
            let result = self.carry_out(set, plan).await;
            next.judge("StatefulSet", &set.metadata, result);
        }
        next
    }

    async fn carry_out(&mut self, set: &StatefulSet, plan: Plan) -> Result<(), kube::Error> {
        let owner = self.control.owned_by(&set.metadata);
        self.control.claim(&set.metadata, &plan.claim).await?;
        if let Some(wanted) = &plan.revise
            && revise(&self.control.client, &set.metadata, &owner, wanted).await? == Revised::Collided
        {
            return self.count_collision(set).await;
        }
        self.claims(set, &plan).await?;
        for (pod, labels) in &plan.label {
            let pods: Api<Pod> = Api::namespaced(self.control.client.clone(), namespace(&set.metadata));
            let patch = json!({"metadata": {"uid": uid(&pod.metadata), "labels": labels}});
            pods.patch(name(&pod.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let mut refused = None;
        for pod in &plan.create {
            match self.control.create(&set.metadata, pod).await {
                Ok(_) => {}
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        for pod in &plan.delete {
            self.control.delete(&set.metadata, pod).await?;
        }
        forget(&self.control.client, &set.metadata, &plan.forget).await?;
        if let Some(status) = plan.status {
            self.write_status(set, status).await?;
        }
        refused.map_or(Ok(()), Err)
    }

    async fn claims(&self, set: &StatefulSet, plan: &Plan) -> Result<(), kube::Error> {
        let home = namespace(&set.metadata);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.control.client.clone(), home);
        for claim in &plan.provide {
            match claims.create(&PostParams::default(), claim).await {
                Ok(_) => {
                    let message = format!(
                        "create Claim {} in StatefulSet {} success",
                        name(&claim.metadata),
                        name(&set.metadata)
                    );
                    self.control.event(&set.metadata, Kind::Normal, "SuccessfulCreate", &message).await;
                }
                // Made before; the view has not shown it yet.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    let message = format!(
                        "create Claim {} in StatefulSet {} failed error: {error}",
                        name(&claim.metadata),
                        name(&set.metadata)
                    );
                    self.control.event(&set.metadata, Kind::Warning, "FailedCreate", &message).await;
                    return Err(error);
                }
            }
        }
        for (claim, owners) in &plan.disown {
            // With the version: somebody else may have changed the owners.
            let version = claim.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
            claims.patch(name(&claim.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(())
    }

    async fn count_collision(&mut self, set: &StatefulSet) -> Result<(), kube::Error> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(set, status).await
    }

    async fn write_status(&mut self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), kube::Error> {
        let sets: Api<StatefulSet> = Api::namespaced(self.control.client.clone(), namespace(&set.metadata));
        let wanted = StatefulSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(status) };
        let written = sets.replace_status(name(&set.metadata), &PostParams::default(), &wanted).await?;
        self.written.note(&written.metadata, Instant::now());
        Ok(())
    }
}
