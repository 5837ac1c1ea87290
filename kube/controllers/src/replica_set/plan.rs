//! What to do for one ReplicaSet. No effects.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::objects::{available_at, has_ended, is_active, is_ready};
use crate::pods::{Claim, claim};
use crate::rank::expendable;

/// All that is to be done for one ReplicaSet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub claim: Claim,
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    /// If it differs from what is written.
    pub status: Option<ReplicaSetStatus>,
    /// When a pod will count as available.
    pub wake: Option<Duration>,
}

/// As many as kube-controller-manager makes or removes in one go.
const BURST_MAX: usize = 500;

/// The plan for a ReplicaSet. `candidates` are the pods of its namespace; `settled` says that all that was done for it
/// before is seen in them, without which nothing is created or deleted.
pub(crate) fn plan(set: &ReplicaSet, candidates: &[Arc<Pod>], settled: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let leaving = set.metadata.deletion_timestamp.is_some();
    plan.claim = claim(&set.metadata, &spec.selector, candidates, |_| true);
    let own = &plan.claim.own;
    let active: Vec<Arc<Pod>> = own.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if settled && !leaving {
        plan.create = wanted.saturating_sub(active.len()).min(BURST_MAX);
        plan.delete = expendable(&active, active.len().saturating_sub(wanted).min(BURST_MAX), now);
    }
    let (status, wake) = status(set, own, &active, now);
    plan.wake = wake;
    plan.status = (set.status.as_ref() != Some(&status)).then_some(status);
    plan
}

fn status(
    set: &ReplicaSet,
    own: &[Arc<Pod>],
    active: &[Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.and_then(|template| template.metadata?.labels).unwrap_or_default();
    let labeled = |pod: &Pod| {
        template
            .iter()
            .all(|(key, value)| pod.metadata.labels.as_ref().is_some_and(|labels| labels.get(key) == Some(value)))
    };
    let count = |pods: usize| i32::try_from(pods).unwrap_or(i32::MAX);
    let mut available = 0;
    let mut wake: Option<Duration> = None;
    for at in active.iter().filter_map(|pod| available_at(pod, min_ready)) {
        if at <= now {
            available += 1;
        } else {
            let after = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            wake = Some(wake.map_or(after, |wake| wake.min(after)));
        }
    }
    let leaving = own.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && !has_ended(pod)).count();
    let old = set.status.clone().unwrap_or_default();
    let kept: Vec<ReplicaSetCondition> = old.conditions.into_iter().flatten().collect();
    // A failure is over when the number is right.
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let kept: Vec<ReplicaSetCondition> =
        kept.into_iter().filter(|c| c.type_ != "ReplicaFailure" || active.len() != wanted).collect();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(|pod| labeled(pod)).count())),
        ready_replicas: Some(count(active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: Some(available),
        terminating_replicas: Some(count(leaving)),
        observed_generation: set.metadata.generation,
        conditions: Some(kept).filter(|kept| !kept.is_empty()),
    };
    (normal(status), wake)
}

/// Zeros are not written, so that an answer of the API server compares equal.
fn normal(mut status: ReplicaSetStatus) -> ReplicaSetStatus {
    for field in [
        &mut status.fully_labeled_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.terminating_replicas,
    ] {
        *field = field.filter(|count| *count != 0);
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn set(more: Value) -> ReplicaSet {
        let mut set = json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "set", "generation": 3},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        });
        merge(&mut set, more);
        serde_json::from_value(set).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
            }
            (into, from) => *into = from,
        }
    }

    /// `name state`, where state lists: `ready`, `new` (ready now), `unbound`, `ended`, `leaving`, `orphan`, `other`, `relabeled`.
    fn pod(text: &str) -> Arc<Pod> {
        let (name, states) = text.split_once(' ').unwrap_or((text, ""));
        let has = |state: &str| states.split(' ').any(|found| found == state);
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": if has("relabeled") { "x" } else { "web" }}},
            "spec": {"containers": [], "nodeName": if has("unbound") { None } else { Some("n") }},
            "status": {"phase": if has("ended") { "Failed" } else { "Running" }},
        });
        if !has("orphan") {
            let owner = if has("other") { "someone" } else { "set" };
            pod["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": owner, "controller": true}]);
        }
        if has("leaving") {
            pod["metadata"]["deletionTimestamp"] = NOW.into();
        }
        if has("ready") || has("new") {
            let since = if has("new") { NOW } else { "2026-01-01T00:00:00Z" };
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn check(set: ReplicaSet, pods: &[&str], settled: bool, expected: Expect) {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let plan = plan(&set, &pods, settled, NOW.parse().unwrap());
        let names =
            |pods: &[Arc<Pod>]| pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>().join(",");
        let status = plan.status.map(|s| {
            let n = |count: Option<i32>| count.unwrap_or(0);
            format!(
                "{}/{}/{} leaving {} seen {:?}",
                s.replicas,
                n(s.ready_replicas),
                n(s.available_replicas),
                n(s.terminating_replicas),
                s.observed_generation
            )
        });
        expected.assert_eq(&format!(
            "adopt [{}] release [{}] create {} delete [{}] status {:?} wake {:?}",
            names(&plan.claim.adopt),
            names(&plan.claim.release),
            plan.create,
            names(&plan.delete),
            status,
            plan.wake
        ));
    }

    #[test]
    fn missing_pods_are_created_once() {
        let words =
            expect!["adopt [] release [] create 2 delete [] status Some(\"0/0/0 leaving 0 seen Some(3)\") wake None"];
        check(set(json!({})), &[], true, words);
        let words =
            expect!["adopt [] release [] create 0 delete [] status Some(\"0/0/0 leaving 0 seen Some(3)\") wake None"];
        check(set(json!({})), &[], false, words);
        check(
            set(json!({})),
            &["a ready", "b ended", "c leaving", "d other", "e relabeled"],
            true,
            expect!["adopt [] release [e] create 1 delete [] status Some(\"1/1/1 leaving 1 seen Some(3)\") wake None"],
        );
    }

    #[test]
    fn orphans_are_adopted_before_new_ones_are_made() {
        check(
            set(json!({})),
            &["a orphan", "b orphan ended"],
            true,
            expect!["adopt [a] release [] create 1 delete [] status Some(\"1/0/0 leaving 0 seen Some(3)\") wake None"],
        );
    }

    #[test]
    fn the_least_useful_go_first() {
        check(
            set(json!({"spec": {"replicas": 1}})),
            &["old ready", "young new", "slow", "waiting unbound"],
            true,
            expect![
                "adopt [] release [] create 0 delete [waiting,slow,young] status Some(\"4/2/2 leaving 0 seen Some(3)\") wake None"
            ],
        );
    }

    #[test]
    fn a_pod_is_available_only_after_a_while() {
        check(
            set(json!({"spec": {"minReadySeconds": 30}})),
            &["a ready", "b new"],
            true,
            expect![
                "adopt [] release [] create 0 delete [] status Some(\"2/2/1 leaving 0 seen Some(3)\") wake Some(30s)"
            ],
        );
    }

    #[test]
    fn nothing_to_say_is_not_said_and_a_leaving_set_does_nothing() {
        let status = json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "observedGeneration": 3});
        let words = expect!["adopt [] release [] create 0 delete [] status None wake None"];
        check(set(json!({"status": status})), &["a ready", "b ready"], true, words);
        check(
            set(json!({"metadata": {"deletionTimestamp": NOW}})),
            &["a ready", "b orphan", "c relabeled"],
            true,
            expect!["adopt [] release [] create 0 delete [] status Some(\"1/1/1 leaving 0 seen Some(3)\") wake None"],
        );
    }
}
