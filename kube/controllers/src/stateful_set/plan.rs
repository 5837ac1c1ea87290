//! What to do for one StatefulSet. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;

use super::claims::{self, Claims};
use super::pod::{available, is_leaving, is_well, lacking, new_pod, ordinal, phase, revision, runs, start};
use crate::history::{self, Owner, Revise};
use crate::objects::{controller_reference, has_ended, name};
use crate::pods::{Claim, claim};

/// All that is to be done for one StatefulSet, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// If it is open nothing else is planned.
    pub claim: Claim,
    /// If there is something nothing else is planned.
    pub revise: Option<Revise>,
    /// Claims that pods lack.
    pub provide: Vec<PersistentVolumeClaim>,
    /// Claims, with all owners that they are to have.
    pub disown: Vec<(Arc<PersistentVolumeClaim>, Vec<OwnerReference>)>,
    pub create: Vec<Pod>,
    /// Pods, with labels that they lack.
    pub label: Vec<(Arc<Pod>, BTreeMap<String, String>)>,
    pub delete: Vec<Arc<Pod>>,
    /// History beyond its limit.
    pub forget: Vec<Arc<ControllerRevision>>,
    /// If it differs from what is written.
    pub status: Option<StatefulSetStatus>,
    /// When a pod will count as available.
    pub wake: Option<Duration>,
}

/// The label of a revision's hash.
const HASH: &str = "controller.kubernetes.io/hash";

/// The plan for a StatefulSet. `candidates`, `revisions` and `claims` are those of its namespace; all that was done
/// before is seen in them.
pub(crate) fn plan(
    set: &StatefulSet,
    candidates: &[Arc<Pod>],
    revisions: &[Arc<ControllerRevision>],
    claims: &Claims,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let found = claim(&set.metadata, &spec.selector, candidates, |pod| ordinal(set, pod).is_some());
    if found.is_open() {
        plan.claim = found;
        return plan;
    }
    let old = set.status.clone().unwrap_or_default();
    let owner = Owner {
        metadata: &set.metadata,
        reference: controller_reference("apps/v1", "StatefulSet", &set.metadata),
        selector: &spec.selector,
        template: &spec.template,
        label: HASH,
        collisions: old.collision_count.unwrap_or(0),
    };
    let own = history::own(&owner, revisions);
    let update = match history::newest(&owner, &own, revisions) {
        Ok(update) => update,
        // Its revisions go before it does, and would be made again and again.
        Err(_) if set.metadata.deletion_timestamp.is_some() => return plan,
        Err(revise) => {
            plan.revise = Some(revise);
            return plan;
        }
    };
    let named = |one: &&Arc<ControllerRevision>| old.current_revision.as_deref() == Some(name(&one.metadata));
    let current = own.iter().find(named).unwrap_or(&update).clone();
    let mut view = View {
        set,
        spec,
        claims,
        current: history::template(&current).unwrap_or_else(|| spec.template.clone()),
        current_revision: name(&current.metadata).to_owned(),
        update_revision: name(&update.metadata).to_owned(),
        replicas: BTreeMap::new(),
        condemned: Vec::new(),
        now,
    };
    view.sort(&found.own);
    let mut status = view.status(&found.own, &old, &mut plan.wake);
    if set.metadata.deletion_timestamp.is_none() {
        view.steps(&mut plan, &mut status);
    }
    view.complete(&mut status);
    let mut live: std::collections::BTreeSet<String> =
        [&view.current_revision, &view.update_revision].into_iter().cloned().collect();
    live.extend(found.own.iter().map(|pod| revision(pod).to_owned()));
    plan.forget = history::surplus(&own, &live, HASH, spec.revision_history_limit);
    plan.status = (set.status.as_ref() != Some(&status)).then_some(status);
    plan
}

struct View<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    claims: &'a Claims,
    /// The template of the current revision.
    current: PodTemplateSpec,
    current_revision: String,
    update_revision: String,
    /// By ordinal; those that are wanted.
    replicas: BTreeMap<i32, Option<Arc<Pod>>>,
    /// Those that are not, the highest ordinal first.
    condemned: Vec<(i32, Arc<Pod>)>,
    now: Timestamp,
}

impl View<'_> {
    fn sort(&mut self, own: &[Arc<Pod>]) {
        let first = start(self.spec);
        let count = self.spec.replicas.unwrap_or(1).max(0);
        self.replicas = (first..first.saturating_add(count)).map(|ordinal| (ordinal, None)).collect();
        for pod in own {
            let Some(number) = ordinal(self.set, pod) else { continue };
            match self.replicas.get_mut(&number) {
                Some(place) => *place = Some(pod.clone()),
                None => self.condemned.push((number, pod.clone())),
            }
        }
        self.condemned.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    }

    fn is_in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        available(pod, self.spec).is_some_and(|at| at <= self.now)
    }

    fn strategy(&self) -> (bool, i32) {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
        (strategy.type_.as_deref() == Some("OnDelete"), partition.max(0))
    }

    fn status(&self, own: &[Arc<Pod>], old: &StatefulSetStatus, wake: &mut Option<Duration>) -> StatefulSetStatus {
        let count =
            |is: &dyn Fn(&Pod) -> bool| i32::try_from(own.iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX);
        let of = |wanted: &str| count(&|pod| !is_leaving(pod) && revision(pod) == wanted);
        let some = |count: i32| Some(count).filter(|count| *count != 0);
        for at in own.iter().filter_map(|pod| available(pod, self.spec)).filter(|at| *at > self.now) {
            let after = Duration::try_from(at.duration_since(self.now)).unwrap_or_default();
            *wake = Some(wake.map_or(after, |wake| wake.min(after)));
        }
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&|_| true),
            ready_replicas: some(count(&runs)),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: some(of(&self.current_revision)),
            updated_replicas: some(of(&self.update_revision)),
            current_revision: Some(self.current_revision.clone()),
            update_revision: Some(self.update_revision.clone()),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions.clone(),
        }
    }

    /// Makes what is missing, removes what is too much, and replaces what is old: in order, one when the others are well.
    fn steps(&self, plan: &mut Plan, status: &mut StatefulSetStatus) {
        for (number, pod) in &self.replicas {
            if self.replica(*number, pod.as_ref(), plan) {
                return;
            }
        }
        for (number, pod) in &self.condemned {
            plan.disown.extend(claims::disowned(self.set, pod, *number, true, self.claims));
        }
        // A pod goes with its claim only if that says so before.
        if plan.disown.is_empty() && !self.condemn(plan) {
            self.replace(plan, status);
        }
    }

    /// One that is wanted. Answers whether nothing else is to be done now.
    fn replica(&self, number: i32, pod: Option<&Arc<Pod>>, plan: &mut Plan) -> bool {
        let Some(pod) = pod else {
            if claims::is_stale(self.set, number, self.claims) {
                return true;
            }
            plan.provide.extend(claims::missing(self.set, number, self.claims));
            let (on_delete, partition) = self.strategy();
            let current = !on_delete && number < start(self.spec).saturating_add(partition);
            plan.create.push(if current {
                new_pod(self.set, &self.current, &self.current_revision, number)
            } else {
                new_pod(self.set, &self.spec.template, &self.update_revision, number)
            });
            return self.is_in_order();
        };
        if has_ended(pod) {
            // The next is made when it is gone.
            if !is_leaving(pod) {
                plan.delete.push(pod.clone());
            }
            return true;
        }
        if phase(pod) == "Pending" {
            plan.provide.extend(claims::missing(self.set, number, self.claims));
        }
        if self.is_in_order() && (is_leaving(pod) || !self.is_available(pod)) {
            return true;
        }
        let labels = lacking(self.set, pod, number);
        if !labels.is_empty() {
            plan.label.push((pod.clone(), labels));
        }
        plan.disown.extend(claims::disowned(self.set, pod, number, false, self.claims));
        false
    }

    /// Removes those that are not wanted. Answers whether nothing else is to be done now.
    fn condemn(&self, plan: &mut Plan) -> bool {
        let wanted = self.replicas.values().flatten();
        let mut all = wanted.chain(self.condemned.iter().rev().map(|(_, pod)| pod));
        let first_unwell = all.find(|pod| !is_well(pod)).map(|pod| name(&pod.metadata));
        for (_, pod) in &self.condemned {
            if is_leaving(pod) {
                if self.is_in_order() {
                    return true;
                }
                continue;
            }
            // One that is not well goes only if no other is unwell before it.
            if self.is_in_order() && !self.is_available(pod) && first_unwell != Some(name(&pod.metadata)) {
                return true;
            }
            plan.delete.push(pod.clone());
            if self.is_in_order() {
                return true;
            }
        }
        false
    }

    /// Removes the last pod that is of another revision, if those after it are well.
    fn replace(&self, plan: &mut Plan, status: &mut StatefulSetStatus) {
        let (on_delete, partition) = self.strategy();
        if on_delete {
            return;
        }
        let least = start(self.spec).saturating_add(partition);
        for (_, pod) in self.replicas.range(least..).rev() {
            // What is not there yet is made of the new one.
            let Some(pod) = pod else { return };
            if revision(pod) != self.update_revision && !is_leaving(pod) {
                plan.delete.push(pod.clone());
                if revision(pod) == self.current_revision {
                    status.current_replicas = status.current_replicas.map(|n| n - 1).filter(|n| *n != 0);
                }
                return;
            }
            if !is_well(pod) {
                return;
            }
        }
    }

    /// The new revision is the current one when all pods are of it.
    fn complete(&self, status: &mut StatefulSetStatus) {
        let (on_delete, _) = self.strategy();
        let all = |count: Option<i32>| count.unwrap_or(0) == status.replicas;
        let settled = status.replicas == self.spec.replicas.unwrap_or(1);
        if !on_delete && settled && all(status.updated_replicas) && all(status.ready_replicas) {
            status.current_replicas = status.updated_replicas;
            status.current_revision = status.update_revision.clone();
        }
    }
}

#[cfg(test)]
mod tests;
