//! What a budget allows. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::objects::{controller_of, is_ready, name, selects};

/// What is written and said.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// If it differs from what is written.
    pub status: Option<PodDisruptionBudgetStatus>,
    /// Why nothing could be counted.
    pub failure: Option<String>,
    /// Pods that an eviction was to take away and that are still there.
    pub kept: Vec<String>,
    pub wake: Option<Duration>,
}

/// A pod that an eviction has taken counts as gone for so long, until it is seen to go.
const DELETION_S: i64 = 120;

/// The plan for a budget. `candidates` are the pods of its namespace, `size_of` answers how many pods a manager wants and who
/// manages that.
pub(crate) fn plan(
    budget: &PodDisruptionBudget,
    candidates: &[Arc<Pod>],
    size_of: &dyn Fn(&OwnerReference) -> Option<(String, i32)>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &budget.spec else { return plan };
    let selector = spec.selector.as_ref();
    let chosen = |pod: &&Arc<Pod>| selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()));
    let pods: Vec<&Arc<Pod>> = candidates.iter().filter(chosen).collect();
    let old = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus { observed_generation: budget.metadata.generation, ..old.clone() };
    let disrupted = disrupted(&pods, &old, now, &mut plan);
    match expected(spec, &pods, size_of) {
        Ok((expected, desired)) => {
            let gone =
                |pod: &Pod| pod.metadata.deletion_timestamp.is_some() || disrupted.contains_key(name(&pod.metadata));
            status.expected_pods = expected;
            status.desired_healthy = desired;
            status.current_healthy = number(pods.iter().filter(|pod| !gone(pod) && is_ready(pod)).count());
            let spare = status.current_healthy - desired;
            status.disruptions_allowed = if expected > 0 { spare.max(0) } else { 0 };
            let (word, reason) =
                if status.disruptions_allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            say(&mut status, budget, word, reason, "", now);
        }
        Err(failure) => {
            // What cannot be counted may not be disturbed.
            status.disruptions_allowed = 0;
            say(&mut status, budget, "False", "SyncFailed", &failure, now);
            plan.failure = Some(failure);
        }
    }
    status.disrupted_pods = Some(disrupted).filter(|pods| !pods.is_empty());
    plan.status = (budget.status.as_ref() != Some(&status)).then_some(status);
    plan
}

/// Pods that evictions have taken and that have not been seen to go.
fn disrupted(
    pods: &[&Arc<Pod>],
    old: &PodDisruptionBudgetStatus,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut still = BTreeMap::new();
    for (title, at) in old.disrupted_pods.iter().flatten() {
        let Some(pod) = pods.iter().find(|pod| name(&pod.metadata) == title) else { continue };
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let left = SignedDuration::from_secs(DELETION_S) - now.duration_since(at.0);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            None => plan.kept.push(title.clone()),
            Some(left) => {
                plan.wake = Some(plan.wake.map_or(left, |wake| wake.min(left)));
                still.insert(title.clone(), at.clone());
            }
        }
    }
    still
}

/// How many pods there should be, and how many of them have to be well.
fn expected(
    spec: &PodDisruptionBudgetSpec,
    pods: &[&Arc<Pod>],
    size_of: &dyn Fn(&OwnerReference) -> Option<(String, i32)>,
) -> Result<(i32, i32), String> {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = managed(pods, size_of)?;
            Ok((expected, (expected - share(most, expected)).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((number(pods.len()), *least)),
        (None, Some(least)) => {
            let expected = managed(pods, size_of)?;
            Ok((expected, share(least, expected)))
        }
        (None, None) => Ok((number(pods.len()), 0)),
    }
}

/// The sum of what the managers of these pods want. A pod that nobody manages counts for nothing.
fn managed(pods: &[&Arc<Pod>], size_of: &dyn Fn(&OwnerReference) -> Option<(String, i32)>) -> Result<i32, String> {
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        let Some((uid, size)) = size_of(owner) else {
            return Err(format!("found no controllers for pod {:?}", name(&pod.metadata)));
        };
        sizes.insert(uid, size);
    }
    Ok(sizes.values().fold(0, |sum, size| sum.saturating_add(*size)))
}

/// A number, or a part in per cent, rounded up.
fn share(value: &IntOrString, of: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            i32::try_from((i64::from(of) * percent.clamp(0, 100) + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn say(
    status: &mut PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    word: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().find(|found| found.type_ == "DisruptionAllowed").cloned();
    let since = before.filter(|found| found.status == word).map_or(Time(now), |found| found.last_transition_time);
    conditions.retain(|found| found.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
}

#[cfg(test)]
mod tests;
