//! What is worked out for a pod, kept up to date, and used again for its equals.
//!
//! ```text
//!  Pod, View ──▶ Prepared ──▶ why not here, for each node       one row for each node: its own filters and scores
//!     a pod came to node 7 ──▶ row 7, and the tallies           tallies: what is counted in each topology
//! ```
//! Pods of one set are *equal*: what filters and scores look at is the same. The first pays for a look at all nodes, the next ones for the
//! nodes where something has changed since (as KEP-5598 does). What is kept is never another answer: a test compares with anew.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use substrate_client::volumes::claims_of;

use crate::filters::{self, Affinities, Failure, Filter, Spreads, Wants};
use crate::guarantee::Kept;
use crate::profile::Profile;
use crate::scores::Scorer;
use crate::view::{NodeInfo, View};

pub(crate) struct Prepared {
    pod: Pod,
    profile: Arc<Profile>,
    /// Of the view, when it was looked at last.
    structure: u64,
    sequence: u64,
    filters: Vec<Filter>,
    pub wants: Wants,
    /// Pods that use a claim of this one that one pod alone may use.
    users: i64,
    scorer: Scorer,
    pub rows: Rows,
    kept: Kept,
    hard: Spreads,
    pub soft: Spreads,
    pub affinities: Affinities,
}

/// What follows from each node and its pods alone.
#[derive(Default)]
pub(crate) struct Rows {
    failures: Vec<Option<Failure>>,
    /// The weighted sum of those scores that are not measured against other nodes.
    pub own: Vec<i64>,
    /// Unwanted taints.
    pub taints: Vec<i64>,
    /// Weights of preferred node affinities.
    pub preferred: Vec<i64>,
}

/// A choice in which each node passes or not; made of what is needed once for all nodes.
pub(crate) struct Judge<'a> {
    prepared: &'a Prepared,
    fewest: Vec<i64>,
    /// Only rows say something.
    plain: bool,
    /// The pod may be the first of its group.
    first: bool,
}

/// What of a pod decides where it can go. Equal pods have equal shapes.
pub(crate) fn shape(pod: &Pod) -> Pod {
    let container = |known: &Container| Container {
        image: known.image.clone(),
        ports: known.ports.clone(),
        resources: known.resources.clone(),
        restart_policy: known.restart_policy.clone(),
        ..Container::default()
    };
    let used = |claim_name: String| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, ..Default::default() }),
        ..Volume::default()
    };
    let spec = pod.spec.as_ref().map(|spec| PodSpec {
        affinity: spec.affinity.clone(),
        containers: spec.containers.iter().map(container).collect(),
        host_network: spec.host_network,
        init_containers: spec.init_containers.as_ref().map(|all| all.iter().map(container).collect()),
        node_name: spec.node_name.clone(),
        node_selector: spec.node_selector.clone(),
        overhead: spec.overhead.clone(),
        resources: spec.resources.clone(),
        tolerations: spec.tolerations.clone(),
        topology_spread_constraints: spec.topology_spread_constraints.clone(),
        volumes: Some(claims_of(pod).map(used).collect()),
        ..PodSpec::default()
    });
    let metadata = ObjectMeta {
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        owner_references: pod.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec, status: None }
}

impl Prepared {
    pub fn new(view: &View, pod: Pod, profile: Arc<Profile>) -> Prepared {
        let on = |plugin: &str| profile.asks(plugin);
        let filters = filters::OF_ONE_NODE.iter().filter(|(name, _)| on(name)).map(|(_, filter)| *filter).collect();
        let spreads = on("PodTopologySpread");
        let soft = profile.weight("PodTopologySpread") != 0;
        let of = |on: bool, when| if on { Spreads::new(view, &pod, &profile, when) } else { Spreads::default() };
        let mut prepared = Prepared {
            structure: view.structure(),
            sequence: view.sequence(),
            filters,
            wants: Wants::new(view, &pod),
            users: 0,
            scorer: Scorer::new(view, &pod, &profile),
            rows: Rows::default(),
            kept: Kept::new(view, &pod),
            hard: of(spreads, "DoNotSchedule"),
            soft: of(soft, "ScheduleAnyway"),
            affinities: Affinities::new(view, &pod, &profile),
            pod,
            profile,
        };
        view.nodes().for_each(|node| prepared.push(node));
        if !prepared.wants.needs.exclusive.is_empty() && prepared.profile.asks("VolumeRestrictions") {
            view.nodes().flat_map(|node| &node.pods).for_each(|other| prepared.count_user(other, 1));
        }
        prepared
    }

    /// Whether it is of pods of this shape.
    pub fn is_of(&self, shape: &Pod, profile: &Arc<Profile>) -> bool {
        self.pod == *shape && Arc::ptr_eq(&self.profile, profile)
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Looks at what has changed since it was looked at last.
    pub fn catch_up(&mut self, view: &View) {
        let changes = (self.structure == view.structure()).then(|| view.since(self.sequence)).flatten();
        let Some(changes) = changes else {
            *self = Prepared::new(view, std::mem::take(&mut self.pod), self.profile.clone());
            return;
        };
        let mut touched: Vec<usize> = Vec::new();
        for change in changes {
            self.hard.count(change);
            if !self.wants.needs.exclusive.is_empty() && self.profile.asks("VolumeRestrictions") {
                self.count_user(&change.pod, change.by);
            }
            self.soft.count(change);
            self.affinities.count(view, change);
            touched.push(change.node);
        }
        self.sequence = view.sequence();
        if touched.is_empty() {
            return;
        }
        touched.sort_unstable();
        touched.dedup();
        for at in touched {
            let (failure, own, _, _) = self.row(&view.all()[at]);
            // Taints and preferences are of the node itself.
            (self.rows.failures[at], self.rows.own[at]) = (failure, own);
        }
        self.kept = Kept::new(view, &self.pod);
    }

    fn row(&self, node: &NodeInfo) -> (Option<Failure>, i64, i64, i64) {
        let mut all = self.filters.iter();
        let failure = filters::left_out(&self.wants, node)
            .or_else(|| all.find_map(|filter| filter(&self.wants, &self.pod, node)));
        let (own, taints, preferred) = self.scorer.row(&self.pod, &self.wants.requests, node);
        (failure, own, taints, preferred)
    }

    fn count_user(&mut self, other: &Pod, by: i64) {
        let exclusive = &self.wants.needs.exclusive;
        let same = other.metadata.namespace == self.pod.metadata.namespace;
        if same && claims_of(other).any(|name| exclusive.contains(&name)) {
            self.users += by;
        }
    }

    fn push(&mut self, node: &NodeInfo) {
        let (failure, own, taints, preferred) = self.row(node);
        self.rows.failures.push(failure);
        self.rows.own.push(own);
        self.rows.taints.push(taints);
        self.rows.preferred.push(preferred);
    }

    /// Why no node at all would do.
    pub fn refused(&self) -> Option<String> {
        self.wants.refused()
    }

    pub fn judge(&self) -> Judge<'_> {
        let plain = self.users == 0 && self.hard.all.is_empty() && self.affinities.is_empty() && self.kept.is_empty();
        Judge { prepared: self, fewest: self.hard.fewest(), plain, first: self.affinities.is_first() }
    }
}

impl Judge<'_> {
    /// Whether no filter speaks: what is asked of thousands of nodes, without words.
    pub fn passes(&self, view: &View, at: usize) -> bool {
        let prepared = self.prepared;
        prepared.rows.failures[at].is_none()
            && (self.plain
                || (prepared.users == 0
                    && (prepared.kept.is_empty() || prepared.kept.failure(&view.all()[at]).is_none())
                    && prepared.hard.passes(at, &self.fewest)
                    && prepared.affinities.passes(at, self.first)))
    }

    /// The reasons of the first filter that does not let the pod onto the node, in kube-scheduler's order and words.
    pub fn failure(&self, view: &View, at: usize) -> Option<Failure> {
        let prepared = self.prepared;
        if let Some(known) = &prepared.rows.failures[at] {
            return Some(known.clone());
        }
        if prepared.users > 0 {
            let words = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Some(Failure::new(words));
        }
        let kept = prepared.kept.failure(&view.all()[at]).map(Failure::new);
        let first = self.first;
        kept.or_else(|| prepared.hard.failure(at, &self.fewest)).or_else(|| prepared.affinities.failure(at, first))
    }
}

#[cfg(test)]
mod tests;
