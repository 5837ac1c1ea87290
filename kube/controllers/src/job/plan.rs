//! What to do for one Job. No effects.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::condition::{Outcome, SUSPENDED, finished, set};
use super::count::{Backoff, View, is_tracked, number, phase};
use super::manage::{Changes, changes};
use super::policy::{Failure, is_enough, judge};
use crate::objects::{is_ready, uid};
use crate::pods::{Claim, claim};
use crate::recorder::Kind;

/// All that is to be done for one Job, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// If it is open nothing else is planned.
    pub claim: Claim,
    pub changes: Changes,
    /// If it differs from what is written.
    pub status: Option<JobStatus>,
    /// Pods that the status names now, or that nobody will count.
    pub release: Vec<Arc<Pod>>,
    /// What the next pod will wait by, when the status is written.
    pub backoff: Backoff,
    pub events: Vec<(Kind, String, String)>,
    pub wake: Option<Duration>,
}

/// So many pods are named in a status at a time: upstream's bound, and 20 KiB.
const UNCOUNTED_MAX: usize = 500;
/// Who manages Jobs that say nothing about it.
const MANAGER: &str = "kubernetes.io/job-controller";

/// The plan for a Job. `candidates` are the pods of its namespace; all that was done before is seen in both.
pub(crate) fn plan(job: &Job, candidates: &[Arc<Pod>], backoff: Backoff, now: Timestamp) -> Plan {
    let mut plan = Plan { backoff, ..Plan::default() };
    let Some(spec) = &job.spec else { return plan };
    let Some(selector) = &spec.selector else { return plan };
    if spec.managed_by.as_deref().is_some_and(|by| by != MANAGER) || finished(job).is_some() {
        return plan;
    }
    let found = claim(&job.metadata, selector, candidates, |_| true);
    if found.is_open() {
        plan.claim = found;
        return plan;
    }
    let view = View::of(job, spec, found.own, backoff);
    plan.backoff = view.backoff;
    let mut status = view.old.clone();
    if status.start_time.is_none() && !view.is_suspended() {
        status.start_time = Some(Time(now));
    }
    let (mut outcome, wake) = outcome(&view, status.start_time.as_ref(), now);
    plan.wake = wake;
    if outcome.is_some() {
        plan.changes.delete = view.active.clone();
    } else {
        if job.metadata.deletion_timestamp.is_none() {
            plan.changes = changes(&view, now);
        }
        let active = view.active.len() + plan.changes.create.len() - plan.changes.delete.len();
        let enough = match spec.completions {
            None => view.succeeded > 0,
            Some(completions) => view.succeeded >= completions,
        };
        if enough && active == 0 {
            outcome = Some(Outcome::new(true, "CompletionsReached", "Reached expected number of succeeded pods"));
        } else if job.metadata.deletion_timestamp.is_none() {
            suspend(&view, &mut status, &mut plan.events, now);
        }
    }
    plan.wake = [plan.wake, plan.changes.wake].into_iter().flatten().min();
    sizes(&view, &plan.changes, &mut status);
    track(&view, outcome.as_ref(), &mut status, &mut plan.release);
    if let Some(outcome) = outcome {
        end(&view, &plan.release, &outcome, &mut status, &mut plan.events, now);
    }
    plan.status = (job.status.as_ref() != Some(&status)).then_some(status);
    plan
}

/// How the Job ends, if it does; and when to ask again.
fn outcome(view: &View<'_>, start: Option<&Time>, now: Timestamp) -> (Option<Outcome>, Option<Duration>) {
    let spec = view.spec;
    if let Some(said) = Outcome::said(view.old.conditions.as_deref().unwrap_or_default()) {
        return (Some(said), None);
    }
    let failed = |reason: &str, message: &str| (Some(Outcome::new(false, reason, message)), None);
    if spec.pod_failure_policy.is_some() {
        let lost = view.pods.iter().filter(|pod| view.has_failed(pod)).find_map(|pod| match judge(spec, pod) {
            Failure::FailsJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = lost {
            return failed("PodFailurePolicy", &message);
        }
    }
    // With a limit for each index there is none in all, unless it is said.
    let limit = spec.backoff_limit.unwrap_or(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    if view.failed > limit || is_restarted_too_often(view, limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let mut wake = None;
    let said = view.old.conditions.iter().flatten().any(|found| found.type_ == SUSPENDED && found.status == "True");
    let paused = view.is_suspended() || said;
    if let (Some(deadline_s), Some(start), false) = (spec.active_deadline_seconds, start, paused) {
        let left = SignedDuration::from_secs(deadline_s) - now.duration_since(start.0);
        wake = Duration::try_from(left).ok().filter(|left| !left.is_zero());
        if wake.is_none() {
            return failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
    }
    if spec.backoff_limit_per_index.is_some() {
        let (lost, completions) = (view.failed_indexes.total(), spec.completions.unwrap_or(0));
        if spec.max_failed_indexes.is_some_and(|most| lost > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", message);
        }
        if lost > 0 && lost + view.succeeded_indexes.total() >= completions {
            return failed("FailedIndexes", "Job has failed indexes");
        }
    }
    let enough = view
        .is_indexed()
        .then(|| is_enough(spec.success_policy.as_ref(), spec.completions.unwrap_or(0), &view.succeeded_indexes));
    (enough.flatten().map(|message| Outcome::new(true, "SuccessPolicy", &message)), wake)
}

/// Containers that are restarted in their pods count, too.
fn is_restarted_too_often(view: &View<'_>, limit: i32) -> bool {
    let policy = view.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let restarts = view.restarts();
    policy == Some("OnFailure") && if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn suspend(view: &View<'_>, status: &mut JobStatus, events: &mut Vec<(Kind, String, String)>, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let (reason, message) =
        if view.is_suspended() { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    if set(conditions, now, SUSPENDED, view.is_suspended(), reason, message) {
        let word = if view.is_suspended() { "Suspended" } else { "Resumed" };
        events.push((Kind::Normal, word.to_owned(), message.to_owned()));
        if !view.is_suspended() {
            // Time in which it was not to run is not held against it.
            status.start_time = Some(Time(now));
        }
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
}

fn sizes(view: &View<'_>, changes: &Changes, status: &mut JobStatus) {
    let going: BTreeSet<&str> = changes.delete.iter().map(|pod| uid(&pod.metadata)).collect();
    let staying = || view.active.iter().filter(|pod| !going.contains(uid(&pod.metadata)));
    status.active = some(staying().count() + changes.create.len());
    status.ready = Some(number(staying().filter(|pod| is_ready(pod)).count()));
    status.terminating = Some(number(view.terminating().len() + changes.delete.len()));
}

fn some(count: usize) -> Option<i32> {
    Some(number(count)).filter(|count| *count != 0)
}

/// Names those that have ended, and counts those that were named and have lost their finalizer.
fn track(view: &View<'_>, outcome: Option<&Outcome>, status: &mut JobStatus, release: &mut Vec<Arc<Pod>>) {
    let tracked: BTreeSet<&str> =
        view.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(&pod.metadata)).collect();
    let (succeeded, failed) = view.uncounted();
    let (mut succeeded, counted_succeeded): (BTreeSet<String>, BTreeSet<String>) =
        succeeded.into_iter().partition(|uid| tracked.contains(uid.as_str()));
    let (mut failed, counted_failed): (BTreeSet<String>, BTreeSet<String>) =
        failed.into_iter().partition(|uid| tracked.contains(uid.as_str()));
    status.succeeded = some(amount(status.succeeded) + counted_succeeded.len());
    status.failed = some(amount(status.failed) + counted_failed.len());
    let kept: BTreeSet<String> = view.replaceable().values().map(|pod| uid(&pod.metadata).to_owned()).collect();
    let lost = outcome.is_some_and(|outcome| !outcome.succeeded);
    let leaving = view.job.metadata.deletion_timestamp.is_some();
    for pod in view.pods.iter().filter(|pod| is_tracked(pod)) {
        if succeeded.len() + failed.len() + release.len() >= UNCOUNTED_MAX {
            break;
        }
        let (title, has_failed, has_succeeded) = (uid(&pod.metadata), view.has_failed(pod), phase(pod) == "Succeeded");
        if leaving || outcome.is_some() || has_succeeded || (has_failed && !kept.contains(title)) {
            release.push(pod.clone());
        }
        if has_succeeded && !failed.contains(title) {
            // Indexes are counted by themselves.
            if !view.is_indexed() {
                succeeded.insert(title.to_owned());
            }
        } else if (has_failed || lost)
            && !failed.contains(title)
            && view.is_countable(pod)
            && judge(view.spec, pod).counts()
        {
            failed.insert(title.to_owned());
        }
    }
    if view.is_indexed() {
        status.completed_indexes = Some(view.succeeded_indexes.to_string()).filter(|text| !text.is_empty());
        status.succeeded = Some(view.succeeded_indexes.total()).filter(|count| *count != 0);
        let limited = view.spec.backoff_limit_per_index.is_some();
        status.failed_indexes = limited.then(|| view.failed_indexes.to_string());
    }
    let list = |uids: BTreeSet<String>| Some(uids.into_iter().collect::<Vec<_>>()).filter(|uids| !uids.is_empty());
    status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { failed: list(failed), succeeded: list(succeeded) });
}

fn amount(count: Option<i32>) -> usize {
    usize::try_from(count.unwrap_or(0)).unwrap_or(0)
}

/// Says how it will end, and that it has when nothing runs and everything is counted.
fn end(
    view: &View<'_>,
    release: &[Arc<Pod>],
    outcome: &Outcome,
    status: &mut JobStatus,
    events: &mut Vec<(Kind, String, String)>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let (reason, message) = (outcome.reason.as_str(), outcome.message.as_str());
    set(conditions, now, outcome.target(), true, reason, message);
    let named = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let over = named.failed.is_none() && named.succeeded.is_none() && release.is_empty();
    if !over || status.terminating != Some(0) || !view.active.is_empty() {
        return;
    }
    set(conditions, now, outcome.terminal(), true, reason, message);
    if outcome.succeeded {
        status.completion_time = Some(Time(now));
        events.push((Kind::Normal, "Completed".to_owned(), "Job completed".to_owned()));
        if view.spec.completions.is_some_and(|completions| view.succeeded > completions) {
            let message = "Too many succeeded pods running after completion count reached";
            events.push((Kind::Warning, "TooManySucceededPods".to_owned(), message.to_owned()));
        }
    } else {
        events.push((Kind::Warning, reason.to_owned(), message.to_owned()));
    }
}

#[cfg(test)]
mod tests;
