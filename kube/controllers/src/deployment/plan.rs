//! What to do next for one Deployment. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::rollout::{self, Limits, Sized, replicas};
use super::status::{is_complete, status};
use super::template::{self, REVISION, is_of_template, number};
use crate::objects::{controller_of, has_ended, selects, uid};

/// All that is to be done for one Deployment.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// ReplicaSets that nobody manages. Nothing else is planned before they are counted.
    pub adopt: Vec<Arc<ReplicaSet>>,
    pub create: Option<ReplicaSet>,
    /// Sizes that change.
    pub scale: Vec<Sized>,
    /// Annotations that the new ReplicaSet lacks.
    pub annotate: Option<(Arc<ReplicaSet>, BTreeMap<String, String>)>,
    /// History beyond its limit.
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment's revision, if it is written otherwise.
    pub revision: Option<i64>,
    /// If it differs from what is written.
    pub status: Option<DeploymentStatus>,
    pub wake: Option<Duration>,
}

/// The plan for a Deployment; `sets` and `pods` are those of its namespace.
pub(crate) fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let limits = Limits::of(deployment);
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    let selected = |set: &ReplicaSet| selector.is_some_and(|selector| selects(selector, set.metadata.labels.as_ref()));
    if deployment.metadata.deletion_timestamp.is_none() {
        let free = |set: &&Arc<ReplicaSet>| {
            controller_of(&set.metadata).is_none() && set.metadata.deletion_timestamp.is_none() && selected(set)
        };
        plan.adopt = sets.iter().filter(free).cloned().collect();
        if !plan.adopt.is_empty() {
            return plan;
        }
    }
    let own = |set: &&Arc<ReplicaSet>| {
        controller_of(&set.metadata).is_some_and(|owner| owner.uid == uid(&deployment.metadata))
    };
    let mut sets: Vec<Arc<ReplicaSet>> = sets.iter().filter(own).cloned().collect();
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
    let new = sets.iter().find(|set| is_of_template(set, deployment)).cloned();
    let old: Vec<Arc<ReplicaSet>> = sets
        .iter()
        .filter(|set| new.as_ref().is_none_or(|new| uid(&new.metadata) != uid(&set.metadata)))
        .cloned()
        .collect();
    if deployment.metadata.deletion_timestamp.is_none() {
        let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
        sizes(&mut plan, deployment, limits, new.as_ref(), &old, pods, paused);
    }
    let created = plan.create.as_ref().map(|set| rollout::title(set).to_owned());
    let (status, wake) = status(deployment, new.as_ref(), created.as_deref(), &sets, now);
    if deployment.metadata.deletion_timestamp.is_none() && is_complete(deployment, &status) {
        plan.delete = beyond_history(deployment, &old);
    }
    plan.wake = wake;
    plan.status = (deployment.status.as_ref() != Some(&status)).then_some(status);
    plan
}

fn sizes(
    plan: &mut Plan,
    deployment: &Deployment,
    limits: Limits,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    paused: bool,
) {
    let latest_old = old.iter().filter_map(|set| number(&set.metadata, REVISION)).max().unwrap_or(0);
    let own = new.and_then(|set| number(&set.metadata, REVISION)).unwrap_or(0);
    let revision = if own > latest_old { own } else { latest_old + 1 };
    let mut old: Vec<Sized> = old.iter().cloned().map(Sized::new).collect();
    let all: Vec<Arc<ReplicaSet>> = new.into_iter().cloned().chain(old.iter().map(|sized| sized.set.clone())).collect();
    let resized = rollout::is_resized(limits, &all);
    if paused || resized {
        let mut active: Vec<Sized> = all.into_iter().filter(|set| replicas(set) > 0).map(Sized::new).collect();
        match active.as_mut_slice() {
            [] => active.extend(new.cloned().map(|set| Sized { size: limits.replicas, set })),
            [only] => only.size = limits.replicas,
            several if !limits.recreate => rollout::share(limits, several),
            _ => {}
        }
        // The annotation has to be brought up to date even where the size stays.
        plan.scale = active.into_iter().filter(|sized| sized.size != replicas(&sized.set) || resized).collect();
        return;
    }
    if new.is_some_and(|set| {
        number(&deployment.metadata, REVISION) != Some(revision) && set.metadata.deletion_timestamp.is_none()
    }) {
        plan.revision = Some(revision);
    }
    if limits.recreate {
        old.iter_mut().for_each(|sized| sized.size = 0);
        let running = pods.iter().any(|pod| {
            let owner = controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
            !has_ended(pod) && old.iter().any(|sized| owner == Some(uid(&sized.set.metadata)))
        });
        plan.scale = changed(old.clone());
        if !plan.scale.is_empty() || running {
            return;
        }
    }
    match new {
        None => {
            let total = old.iter().map(|sized| sized.size).sum();
            let size = if limits.recreate { limits.replicas } else { rollout::grown(limits, 0, total) };
            plan.create = Some(template::new_set(deployment, size, revision));
        }
        Some(set) => {
            let wanted = template::annotations(deployment, revision);
            let has = set.metadata.annotations.clone().unwrap_or_default();
            let missing: BTreeMap<String, String> =
                wanted.into_iter().filter(|(key, value)| has.get(key) != Some(value)).collect();
            plan.annotate = (!missing.is_empty()).then(|| (set.clone(), missing));
            let mut new = Sized::new(set.clone());
            if limits.recreate {
                new.size = limits.replicas;
            } else {
                rollout::roll(limits, &mut new, &mut old);
            }
            old.insert(0, new);
            plan.scale.extend(changed(old));
        }
    }
}

fn changed(sets: Vec<Sized>) -> Vec<Sized> {
    sets.into_iter().filter(|sized| sized.size != replicas(&sized.set)).collect()
}

fn beyond_history(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let idle = |set: &&Arc<ReplicaSet>| {
        let status = set.status.clone().unwrap_or_default();
        replicas(set) == 0 && status.replicas == 0 && set.metadata.deletion_timestamp.is_none()
    };
    let mut idle: Vec<Arc<ReplicaSet>> = old.iter().filter(idle).cloned().collect();
    idle.sort_by_key(|set| number(&set.metadata, REVISION).unwrap_or(0));
    let count = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    idle.truncate(count);
    idle
}

#[cfg(test)]
mod tests;
