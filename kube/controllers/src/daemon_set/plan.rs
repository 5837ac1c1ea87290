//! What to do for one DaemonSet. No effects.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use super::node::{node_of, pod_for, suits};
use super::status::{Limits, hash_of, is_available, status};
use crate::history::{self, Owner, POD_REVISION, Revise};
use crate::objects::{controller_reference, is_ready, name};
use crate::pods::{Claim, claim};
use crate::recorder::Kind;

/// All that is to be done for one DaemonSet, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// If it is open nothing else is planned.
    pub claim: Claim,
    /// If there is something nothing else is planned.
    pub revise: Option<Revise>,
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<Pod>,
    /// Nodes whose daemon has failed and is made anew now.
    pub failed: Vec<String>,
    pub events: Vec<(Kind, &'static str, String)>,
    /// History beyond its limit.
    pub forget: Vec<Arc<ControllerRevision>>,
    /// If it differs from what is written.
    pub status: Option<DaemonSetStatus>,
    pub wake: Option<Duration>,
}

/// A node with the daemons on it or for it.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Whether there is such a node.
    pub exists: bool,
    pub should_run: bool,
    pub may_run: bool,
    /// The oldest first.
    pub pods: Vec<Arc<Pod>>,
}

/// As many as kube-controller-manager makes or removes in one go.
const BURST_MAX: usize = 250;

/// Until when a node whose daemons fail is let alone.
pub(crate) type Pauses = BTreeMap<String, Timestamp>;

/// The plan for a DaemonSet. `candidates` and `revisions` are those of its namespace; all that was done before is seen in them.
pub(crate) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    candidates: &[Arc<Pod>],
    revisions: &[Arc<ControllerRevision>],
    pauses: &Pauses,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let found = claim(&set.metadata, &spec.selector, candidates, |_| true);
    if found.is_open() {
        plan.claim = found;
        return plan;
    }
    let owner = Owner {
        metadata: &set.metadata,
        reference: controller_reference("apps/v1", "DaemonSet", &set.metadata),
        selector: &spec.selector,
        template: &spec.template,
        label: POD_REVISION,
        collisions: set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0),
    };
    let own = history::own(&owner, revisions);
    let newest = match history::newest(&owner, &own, revisions) {
        Ok(newest) => newest,
        Err(revise) => {
            plan.revise = Some(revise);
            return plan;
        }
    };
    let labels = newest.metadata.labels.as_ref();
    let hash = labels.and_then(|labels| labels.get(POD_REVISION)).cloned().unwrap_or_default();
    let places = places(spec, nodes, &found.own);
    let view = View { set, spec, places: &places, hash: &hash, pauses, now };
    view.manage(&mut plan);
    let rolls = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    // First every node has what it lacks, and nothing that it should not have.
    if rolls && plan.create.is_empty() && plan.delete.is_empty() {
        view.roll(&mut plan);
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    let live: BTreeSet<String> =
        found.own.iter().map(|pod| hash_of(pod).to_owned()).chain([name(&newest.metadata).to_owned()]).collect();
    plan.forget = history::surplus(&own, &live, POD_REVISION, spec.revision_history_limit);
    let (status, wake) = status(set, spec, &places, &hash, now);
    plan.wake = [plan.wake, wake].into_iter().flatten().min();
    plan.status = (set.status.as_ref() != Some(&status)).then_some(status);
    plan
}

fn places(spec: &DaemonSetSpec, nodes: &[Arc<Node>], own: &[Arc<Pod>]) -> BTreeMap<String, Place> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for node in nodes {
        let (should_run, may_run) = suits(spec, node);
        let place = Place { exists: true, should_run, may_run, pods: Vec::new() };
        places.insert(name(&node.metadata).to_owned(), place);
    }
    for pod in own {
        if let Some(node) = node_of(pod) {
            places.entry(node).or_default().pods.push(pod.clone());
        }
    }
    for place in places.values_mut() {
        place.pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
    }
    places
}

struct View<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    places: &'a BTreeMap<String, Place>,
    hash: &'a str,
    pauses: &'a Pauses,
    now: Timestamp,
}

impl View<'_> {
    fn limits(&self) -> Limits {
        Limits::of(self.spec, self.places.values().filter(|place| place.should_run).count())
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec, self.now)
    }

    fn create(&self, plan: &mut Plan, node: &str) {
        plan.create.push(pod_for(self.set, self.spec, node, self.hash));
    }

    /// Node by node: what it lacks, and what it has too much of.
    fn manage(&self, plan: &mut Plan) {
        let surges = self.limits().surge > 0;
        for (node, place) in self.places {
            let staying = || place.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            if !place.may_run {
                // One that is bound to a node that is gone is cleared away by others.
                let unbound = |pod: &Pod| pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
                plan.delete.extend(staying().filter(|pod| place.exists || unbound(pod)).cloned());
                continue;
            }
            if place.pods.is_empty() {
                if place.should_run {
                    self.create(plan, node);
                }
                continue;
            }
            let mut running: Vec<&Arc<Pod>> = Vec::new();
            for pod in staying() {
                match phase(pod) {
                    "Failed" => self.failed(plan, node, pod),
                    "Succeeded" => {
                        let message =
                            format!("Found succeeded daemon pod {} on node {node}, will try to delete it", title(pod));
                        plan.events.push((Kind::Normal, "SucceededDaemonPod", message));
                        plan.delete.push(pod.clone());
                    }
                    _ => running.push(pod),
                }
            }
            if !surges {
                plan.delete.extend(running.into_iter().skip(1).cloned());
            } else if running.is_empty() {
                let all_leave = staying().next().is_none();
                if place.should_run && all_leave {
                    self.create(plan, node);
                }
            } else {
                self.prune(plan, &running);
            }
        }
    }

    /// One that has failed is made anew, later and later.
    fn failed(&self, plan: &mut Plan, node: &str, pod: &Arc<Pod>) {
        if let Some(until) = self.pauses.get(node).filter(|until| **until > self.now) {
            let left = Duration::try_from(until.duration_since(self.now)).unwrap_or_default();
            plan.wake = Some(plan.wake.map_or(left, |wake| wake.min(left)));
            return;
        }
        let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", title(pod));
        plan.events.push((Kind::Warning, "FailedDaemonPod", message));
        plan.failed.push(node.to_owned());
        plan.delete.push(pod.clone());
    }

    /// While it is replaced a node has an old one that is ready and a new one that is not; nobody else.
    fn prune(&self, plan: &mut Plan, running: &[&Arc<Pod>]) {
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            running.iter().copied().partition(|pod| hash_of(pod) == self.hash);
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            plan.delete.push((*old).clone());
        }
    }

    /// Replaces daemons of other revisions, so many at a time.
    fn roll(&self, plan: &mut Plan) {
        let limits = self.limits();
        if limits.surge == 0 { self.roll_down(plan, limits.unavailable) } else { self.roll_beside(plan, limits.surge) }
    }

    /// An old one goes before the new one is made.
    fn roll_down(&self, plan: &mut Plan, unavailable: usize) {
        let mut missing = 0;
        let (mut allowed, mut candidates) = (Vec::new(), Vec::new());
        for place in self.places.values().filter(|place| place.should_run) {
            let staying: Vec<&Arc<Pod>> =
                place.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
            let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
                staying.into_iter().partition(|pod| hash_of(pod) == self.hash);
            match (new.first(), old.first()) {
                (None, None) => missing += 1,
                // Being replaced: it is missing until the new one is there.
                (Some(new), _) => missing += usize::from(!self.is_available(new)),
                // It serves nobody, so nobody misses it.
                (None, Some(old)) if !self.is_available(old) => {
                    missing += 1;
                    allowed.push((*old).clone());
                }
                (None, Some(old)) => candidates.push((*old).clone()),
            }
        }
        let left = unavailable.saturating_sub(missing);
        plan.delete.extend(allowed.into_iter().chain(candidates.into_iter().take(left)));
    }

    /// A new one is made beside the old one, which goes when it is available.
    fn roll_beside(&self, plan: &mut Plan, surge: usize) {
        let (mut beside, mut allowed, mut candidates) = (0, Vec::new(), Vec::new());
        for (node, place) in self.places.iter().filter(|(_, place)| place.should_run) {
            let staying = place.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = staying.partition(|pod| hash_of(pod) == self.hash);
            match (new.first(), old.first()) {
                (Some(new), _) => beside += usize::from(!self.is_available(new)),
                (None, Some(old)) if !self.is_available(old) => allowed.push(node),
                (None, Some(_)) => candidates.push(node),
                (None, None) => {}
            }
        }
        let left = surge.saturating_sub(beside);
        for node in allowed.into_iter().chain(candidates.into_iter().take(left)) {
            self.create(plan, node);
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn title(pod: &Pod) -> String {
    format!("{}/{}", crate::objects::namespace(&pod.metadata), name(&pod.metadata))
}

#[cfg(test)]
mod tests;
