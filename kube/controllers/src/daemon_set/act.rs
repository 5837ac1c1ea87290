//! Carries the plans of DaemonSets out.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, Client};
use substrate_client::{Cache, Caches};

use super::plan::{Pauses, Plan, plan};
use crate::expectations::{PATIENCE, Written};
use crate::objects::{name, namespace, uid};
use crate::pods::{PodControl, by_namespace};
use crate::revisions::{Revised, forget, revise};
use crate::work::{Next, Rounds};

/// How long a node whose daemon fails is let alone, first and at most: as kube-controller-manager does.
const PAUSE_FIRST_S: i64 = 1;
const PAUSE_MOST_S: i64 = 900;

/// Keeps all DaemonSets until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (sets, pods) = (caches.all::<DaemonSet>(), caches.all::<Pod>());
    let (nodes, revisions) = (caches.all::<Node>(), caches.all::<ControllerRevision>());
    let control = PodControl::new(client, "daemonset-controller", "apps/v1", "DaemonSet");
    let changes = vec![sets.changes(), pods.changes(), nodes.changes(), revisions.changes()];
    let mut actor = Actor { control, written: Written::default(), revisions, pauses: BTreeMap::new() };
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let next = actor.round(&sets.list(), &nodes.list(), &pods.list()).await;
        rounds.wait(next).await;
    }
}

struct Actor {
    control: PodControl,
    written: Written,
    revisions: Cache<ControllerRevision>,
    /// Per set and node: until when, and how long the last pause was.
    pauses: BTreeMap<String, BTreeMap<String, (Timestamp, i64)>>,
}

impl Actor {
    async fn round(&mut self, sets: &[Arc<DaemonSet>], nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Next {
        self.control.settle(pods);
        let there: BTreeSet<&str> = sets.iter().map(|set| uid(&set.metadata)).collect();
        self.written.retain(|uid| there.contains(uid));
        self.pauses.retain(|uid, _| there.contains(uid.as_str()));
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
            let now = Timestamp::now();
            let known = self.pauses.entry(uid(&set.metadata).to_owned()).or_default();
            // One that has been well for twice its pause begins anew.
            known.retain(|_, (until, length)| now.duration_since(*until).as_secs() < *length * 2);
            let pauses: Pauses = known.iter().map(|(node, (until, _))| (node.clone(), *until)).collect();
            let plan = plan(set, nodes, candidates, &self.revisions.list_in(home), &pauses, now);
            next.wake_in(plan.wake);
            let result = self.carry_out(set, plan, now).await;
            next.judge("DaemonSet", &set.metadata, result);
        }
        next
    }

    async fn carry_out(&mut self, set: &DaemonSet, plan: Plan, now: Timestamp) -> Result<(), kube::Error> {
        let owner = self.control.owned_by(&set.metadata);
        self.control.claim(&set.metadata, &plan.claim).await?;
        if let Some(wanted) = &plan.revise
            && revise(&self.control.client, &set.metadata, &owner, wanted).await? == Revised::Collided
        {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            return self.write_status(set, status).await;
        }
        for (kind, reason, message) in &plan.events {
            self.control.event(&set.metadata, *kind, reason, message).await;
        }
        let pauses = self.pauses.entry(uid(&set.metadata).to_owned()).or_default();
        for node in &plan.failed {
            let length = pauses.get(node).map_or(PAUSE_FIRST_S, |(_, length)| (length * 2).min(PAUSE_MOST_S));
            let until = now.saturating_add(SignedDuration::from_secs(length)).unwrap_or(Timestamp::MAX);
            pauses.insert(node.clone(), (until, length));
        }
        for pod in &plan.delete {
            self.control.delete(&set.metadata, pod).await?;
        }
        let mut refused = None;
        for pod in &plan.create {
            if let Err(error) = self.control.create(&set.metadata, pod).await {
                refused = Some(error);
                break;
            }
        }
        forget(&self.control.client, &set.metadata, &plan.forget).await?;
        if let Some(status) = plan.status {
            self.write_status(set, status).await?;
        }
        refused.map_or(Ok(()), Err)
    }

    async fn write_status(&mut self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), kube::Error> {
        let sets: Api<DaemonSet> = Api::namespaced(self.control.client.clone(), namespace(&set.metadata));
        let wanted = DaemonSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(status) };
        let written = sets.replace_status(name(&set.metadata), &PostParams::default(), &wanted).await?;
        self.written.note(&written.metadata, Instant::now());
        Ok(())
    }
}
