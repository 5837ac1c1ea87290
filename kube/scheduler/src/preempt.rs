//! Preemption: whom to take away so that a pod of higher priority fits. No effects.
//!
//! ```text
//!  nodes where leaving helps ─▶ all of lower priority leave ─▶ does it fit? ─▶ who need not leave stays ─▶ a candidate
//!                                                                  of all candidates the one that hurts least
//! ```
//! A *victim* is a pod that has to leave. What is tried is done to the view and undone. Pods that use what is guaranteed to them are victims
//! of nobody else: what is kept for buyers is not taken away.
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use substrate_client::lookup::label_selector_matches;

use crate::filters::Failure;
use crate::prepared::Prepared;
use crate::queue::uid;
use crate::schedule::histogram;
use crate::view::View;

/// Candidates that are enough to choose from, or a tenth of the nodes if that is more: as kube-scheduler.
const CANDIDATES: usize = 100;

/// Where a pod will fit when these have left.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub node: String,
    pub victims: Vec<Arc<Pod>>,
}

struct Candidate {
    plan: Plan,
    /// Victims that a disruption budget would have kept.
    violations: usize,
}

pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// A pod that has not started yet is the latest.
fn started(pod: &Pod) -> Timestamp {
    pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(Timestamp::MAX, |time| time.0)
}

/// Why nobody leaves for this pod now.
pub(crate) fn ineligible(view: &View, pod: &Pod) -> Option<&'static str> {
    if pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let leaving = |other: &Arc<Pod>| other.metadata.deletion_timestamp.is_some() && priority(other) < priority(pod);
    let waits = nominated.and_then(|name| view.node(name)).is_some_and(|node| node.pods.iter().any(leaving));
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The plan for a pod that fits nowhere, and why: one failure for each node.
///
/// # Errors
/// It would not help, in kube-scheduler's words.
pub(crate) fn plan(
    view: &mut View,
    prepared: &mut Prepared,
    pod: &Pod,
    failures: &[Failure],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Plan, String> {
    prepared.catch_up(view);
    let mut hasher = DefaultHasher::new();
    uid(pod).hash(&mut hasher);
    let all = failures.len();
    // Not all begin at the same node.
    let offset = usize::try_from(hasher.finish() % all.max(1) as u64).unwrap_or(0);
    let enough = CANDIDATES.max(all / 10);
    let (mut candidates, mut reasons) = (Vec::new(), Vec::new());
    for at in (0..all).map(|at| (at + offset) % all) {
        if failures[at].lasts {
            reasons.push("Preemption is not helpful for scheduling".to_owned());
            continue;
        }
        match candidate(view, prepared, pod, at, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(failure) => reasons.extend(failure.reasons),
        }
        if candidates.len() >= enough {
            break;
        }
    }
    let least = candidates.into_iter().min_by_key(|candidate| {
        let victims = &candidate.plan.victims;
        let highest = victims.iter().map(|pod| priority(pod)).max();
        // Each counts, however low its priority.
        let sum: i64 = victims.iter().map(|pod| i64::from(priority(pod)) + (1 << 31)).sum();
        let first = victims.iter().filter(|pod| Some(priority(pod)) == highest).map(|pod| started(pod)).min();
        (candidate.violations, highest, sum, victims.len(), Reverse(first))
    });
    let words = || format!("0/{all} nodes are available: {}.", histogram(reasons.iter()));
    least.map(|candidate| candidate.plan).ok_or_else(words)
}

fn candidate(
    view: &mut View,
    prepared: &mut Prepared,
    pod: &Pod,
    at: usize,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Candidate, Failure> {
    let node = view.all()[at].name().to_owned();
    let lower = |other: &&Arc<Pod>| priority(other) < priority(pod) && !view.guarantees().protects(other, pod);
    let mut lower: Vec<Arc<Pod>> = view.all()[at].pods.iter().filter(lower).cloned().collect();
    if lower.is_empty() {
        return Err(Failure::lasting("No preemption victims found for incoming pod"));
    }
    lower.sort_by_cached_key(|pod| (Reverse(priority(pod)), started(pod), uid(pod).to_owned()));
    lower.iter().for_each(|other| view.forget(other, &node));
    prepared.catch_up(view);
    let failure = prepared.judge().failure(view, at);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let broken = violated(&lower, budgets);
    // Those whom a budget keeps may stay first, then the more important ones.
    let order = |kept: bool| lower.iter().zip(&broken).filter(move |(_, broken)| **broken == kept);
    for (other, broken) in order(true).chain(order(false)) {
        view.assume(other.clone(), &node);
        if failure.is_some() {
            continue;
        }
        prepared.catch_up(view);
        if prepared.judge().failure(view, at).is_some() {
            view.forget(other, &node);
            prepared.catch_up(view);
            victims.push(other.clone());
            violations += usize::from(*broken);
        }
    }
    victims.iter().for_each(|other| view.assume(other.clone(), &node));
    prepared.catch_up(view);
    failure.map_or(Ok(Candidate { plan: Plan { node, victims }, violations }), Err)
}

/// Whose leaving, one after the other, a budget does not allow.
fn violated(pods: &[Arc<Pod>], budgets: &[Arc<PodDisruptionBudget>]) -> Vec<bool> {
    let mut left: BTreeMap<usize, i32> = BTreeMap::new();
    let mut violates = |pod: &Arc<Pod>| {
        let mut violated = false;
        for (at, budget) in budgets.iter().enumerate() {
            let status = budget.status.clone().unwrap_or_default();
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let empty = selector.is_none_or(|selector| *selector == Default::default());
            let gone = status.disrupted_pods.iter().flatten().any(|(name, _)| Some(name) == pod.metadata.name.as_ref());
            let selected = label_selector_matches(selector, pod.metadata.labels.as_ref());
            if empty || gone || !selected || budget.metadata.namespace != pod.metadata.namespace {
                continue;
            }
            let left = left.entry(at).or_insert(status.disruptions_allowed);
            *left -= 1;
            violated |= *left < 0;
        }
        violated
    };
    pods.iter().map(&mut violates).collect()
}

#[cfg(test)]
mod tests;
