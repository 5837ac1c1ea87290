//! What the pods of a Job have come to. No effects.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::indexes::{Indexes, index_of};
use super::policy::{Failure, judge, statuses};
use crate::objects::{condition, is_active, uid};

/// Keeps a pod until it is counted.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// How often the index of a pod had failed before it, as the policy counts.
pub(crate) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it had failed in ways that do not count.
pub(crate) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The first pause after a failure, and the longest: as kube-controller-manager waits.
const BACKOFF_FIRST_S: i64 = 10;
const BACKOFF_MOST_S: i64 = 600;

/// Failures since the last success, by which the next pod waits. In memory only, as upstream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub failures: u32,
    pub last: Option<Timestamp>,
}

impl Backoff {
    /// With these pods that have just ended.
    fn with(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Backoff {
        let success = succeeded.iter().map(|pod| ended_at(pod)).max();
        let mut next = if success.is_some() { Backoff::default() } else { self };
        for at in failed.iter().map(|pod| ended_at(pod)).filter(|at| success.is_none_or(|success| *at > success)) {
            next.failures += 1;
            next.last = Some(next.last.map_or(at, |last| last.max(at)));
        }
        next
    }

    /// How long the next pod has to wait; nothing if it has not.
    pub fn remaining(self, now: Timestamp) -> Option<Duration> {
        let last = self.last?;
        // 10 s doubled 6 times is above the most.
        let pause = (BACKOFF_FIRST_S << self.failures.saturating_sub(1).min(6)).min(BACKOFF_MOST_S);
        let left = SignedDuration::from_secs(pause) - now.duration_since(last);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}

/// A Job with its pods, looked at once.
pub(crate) struct View<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub old: JobStatus,
    pub pods: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    pub succeeded: i32,
    pub failed: i32,
    pub succeeded_indexes: Indexes,
    pub failed_indexes: Indexes,
    pub backoff: Backoff,
}

impl<'a> View<'a> {
    pub fn of(job: &'a Job, spec: &'a JobSpec, pods: Vec<Arc<Pod>>, backoff: Backoff) -> View<'a> {
        let old = job.status.clone().unwrap_or_default();
        let active = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let completions = spec.completions.unwrap_or(0);
        let mut view = View {
            job,
            spec,
            pods,
            active,
            succeeded: old.succeeded.unwrap_or(0),
            failed: old.failed.unwrap_or(0),
            succeeded_indexes: Indexes::parse(old.completed_indexes.as_deref().unwrap_or_default(), completions),
            failed_indexes: Indexes::parse(old.failed_indexes.as_deref().unwrap_or_default(), completions),
            backoff,
            old,
        };
        view.count();
        view
    }

    fn count(&mut self) {
        let (named_succeeded, named_failed) = self.uncounted();
        let fresh = |pod: &&Arc<Pod>, named: &BTreeSet<String>| {
            is_tracked(pod) && !named.contains(uid(&pod.metadata)) && self.is_countable(pod)
        };
        let pods = self.pods.iter();
        let succeeded: Vec<Arc<Pod>> =
            pods.clone().filter(|pod| fresh(pod, &named_succeeded) && phase(pod) == "Succeeded").cloned().collect();
        let failed: Vec<Arc<Pod>> =
            pods.filter(|pod| fresh(pod, &named_failed) && self.has_failed(pod)).cloned().collect();
        let counted = failed.iter().filter(|pod| judge(self.spec, pod).counts()).count();
        self.failed = self.failed.saturating_add(number(counted + named_failed.len()));
        self.succeeded = self.succeeded.saturating_add(number(succeeded.len() + named_succeeded.len()));
        if self.is_indexed() {
            let indexes: Vec<i32> = succeeded.iter().filter_map(|pod| self.index(pod)).collect();
            self.succeeded_indexes = self.succeeded_indexes.with(indexes);
            self.succeeded = self.succeeded_indexes.total();
        }
        if self.spec.backoff_limit_per_index.is_some() {
            let lost = self.pods.iter().filter(|pod| is_tracked(pod) && self.fails_index(pod));
            let lost: Vec<i32> = lost.filter_map(|pod| self.index(pod)).collect();
            let lost = lost.into_iter().filter(|index| !self.succeeded_indexes.has(*index));
            self.failed_indexes = self.failed_indexes.with(lost);
        }
        self.backoff = self.backoff.with(&succeeded, &failed);
    }

    /// The pods that the status names and does not count yet: succeeded, failed.
    pub fn uncounted(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let named = self.old.uncounted_terminated_pods.clone().unwrap_or_default();
        (named.succeeded.into_iter().flatten().collect(), named.failed.into_iter().flatten().collect())
    }

    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod, self.spec.completions.unwrap_or(0))
    }

    /// Whether a pod without a valid index would be one of none.
    pub fn is_countable(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.index(pod).is_some()
    }

    /// Whether a pod is replaced when it has ended only, not while it is on its way out.
    pub fn waits_for_the_end(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// Whether a pod has failed. One that is deleted has, unless the Job waits to see how it ends.
    pub fn has_failed(&self, pod: &Pod) -> bool {
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.waits_for_the_end() && pod.metadata.deletion_timestamp.is_some(),
        }
    }

    fn fails_index(&self, pod: &Pod) -> bool {
        let limit = self.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
        self.has_failed(pod)
            && match judge(self.spec, pod) {
                Failure::FailsIndex => true,
                failure => failure.counts() && annotation(pod, FAILURES) >= limit,
            }
    }

    /// The last failed pod of each index that is to be tried again: it is kept until its successor says how often the
    /// index has failed.
    pub fn replaceable(&self) -> BTreeMap<i32, Arc<Pod>> {
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        if self.spec.backoff_limit_per_index.is_none() {
            return last;
        }
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| self.index(pod)).collect();
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && self.has_failed(pod)) {
            let Some(index) = self.index(pod) else { continue };
            if active.contains(&index) || self.succeeded_indexes.has(index) || self.failed_indexes.has(index) {
                continue;
            }
            let rank = |pod: &Pod| (tries(pod), ended_at(pod));
            if last.get(&index).is_none_or(|before| rank(before) <= rank(pod)) {
                last.insert(index, pod.clone());
            }
        }
        last
    }

    /// Pods that are on their way out and have not ended.
    pub fn terminating(&self) -> Vec<&Arc<Pod>> {
        let leaving = |pod: &&Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_some() && !matches!(phase(pod), "Succeeded" | "Failed")
        };
        self.pods.iter().filter(leaving).collect()
    }

    /// How often containers of pods that run were started again.
    pub fn restarts(&self) -> i32 {
        let running = self.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        running.flat_map(|pod| statuses(pod)).map(|status| status.restart_count).fold(0, i32::saturating_add)
    }
}

/// Whether a pod waits to be counted.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|found| found == FINALIZER)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(crate) fn annotation(pod: &Pod, key: &str) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How often the index of a pod had been tried in vain before it.
pub(crate) fn tries(pod: &Pod) -> i32 {
    annotation(pod, FAILURES).saturating_add(annotation(pod, IGNORED))
}

/// When a pod ended: its last container; else when its deletion was asked for, or it ceased to be ready.
pub(crate) fn ended_at(pod: &Pod) -> Timestamp {
    let ends = statuses(pod).filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        at.checked_sub(grace).ok()
    };
    let ceased = || condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0);
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ends.map(|time| time.0).max().or_else(deleted).or_else(ceased).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A count for a status.
pub(crate) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
