//! What a Deployment says about itself. No effects.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::rollout::{Limits, available, replicas, title};

/// The status, and when it will change by time alone. `created` says that the new ReplicaSet is being made now.
pub(crate) fn status(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    created: Option<&str>,
    sets: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let limits = Limits::of(deployment);
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let has = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let total_available = sum(available);
    let wanted = sum(replicas);
    let some = |count: i32| Some(count).filter(|count| *count != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(has)),
        updated_replicas: some(new.map_or(0, |set| has(set))),
        ready_replicas: some(sum(|set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: some(total_available),
        unavailable_replicas: some((wanted - total_available).max(0)),
        terminating_replicas: some(sum(|set| set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let conditions = status.conditions.get_or_insert_default();
    if total_available >= limits.min_available() {
        set(conditions, now, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        let message = "Deployment does not have minimum availability.";
        set(conditions, now, "Available", "False", "MinimumReplicasUnavailable", message);
    }
    let failure = new.and_then(|set| {
        let mut conditions = set.status.as_ref()?.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == "ReplicaFailure").cloned()
    });
    match failure {
        Some(found) => {
            let (reason, message) = (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
            set(conditions, now, "ReplicaFailure", "True", &reason, &message);
        }
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    let wake = progress(deployment, new, created, &old, &mut status, now);
    (status, wake)
}

/// Whether all pods are of the template now, and available.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let limits = Limits::of(deployment);
    let all = |count: Option<i32>| count.unwrap_or(0) == limits.replicas;
    all(status.updated_replicas) && all(status.replicas) && all(status.available_replicas)
}

fn progress(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    created: Option<&str>,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    const KIND: &str = "Progressing";
    let spec = deployment.spec.clone().unwrap_or_default();
    let complete = is_complete(deployment, status);
    let said = old.conditions.iter().flatten().find(|condition| condition.type_ == KIND).cloned();
    let reason = said.as_ref().and_then(|condition| condition.reason.clone()).unwrap_or_default();
    let before = old.clone();
    let moved = {
        let count = |status: &DeploymentStatus, of: fn(&DeploymentStatus) -> Option<i32>| of(status).unwrap_or(0);
        let grew = |of: fn(&DeploymentStatus) -> Option<i32>| count(status, of) > count(&before, of);
        let old_pods = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
        grew(|s| s.updated_replicas)
            || grew(|s| s.ready_replicas)
            || grew(|s| s.available_replicas)
            || old_pods(status) < old_pods(&before)
    };
    let conditions = status.conditions.get_or_insert_default();
    if spec.paused.unwrap_or(false) {
        set(conditions, now, KIND, "Unknown", "DeploymentPaused", "Deployment is paused");
        return None;
    }
    if let Some(name) = created {
        set(conditions, now, KIND, "True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}"));
        return deadline_after(spec.progress_deadline_seconds, now, now);
    }
    let name = new.map(|set| title(set))?;
    if reason == "DeploymentPaused" {
        set(conditions, now, KIND, "Unknown", "DeploymentResumed", "Deployment is resumed");
        return deadline_after(spec.progress_deadline_seconds, now, now);
    }
    if complete {
        let message = format!("ReplicaSet {name:?} has successfully progressed.");
        set(conditions, now, KIND, "True", "NewReplicaSetAvailable", &message);
        return None;
    }
    // A complete Deployment that loses a pod or is scaled does not begin to progress again.
    let template_changed =
        said.as_ref().and_then(|c| c.message.as_ref()).is_none_or(|text| !text.contains(&format!("{name:?}")));
    if reason == "NewReplicaSetAvailable" && !template_changed {
        return None;
    }
    if said.is_none() || template_changed {
        set(conditions, now, KIND, "True", "FoundNewReplicaSet", &format!("Found new replica set {name:?}"));
        return deadline_after(spec.progress_deadline_seconds, now, now);
    }
    let since = said.and_then(|condition| condition.last_update_time).map_or(now, |time| time.0);
    if moved {
        let message = format!("ReplicaSet {name:?} is progressing.");
        conditions.retain(|condition| condition.type_ != KIND || condition.status == "True");
        set(conditions, now, KIND, "True", "ReplicaSetUpdated", &message);
        // Every step begins the deadline anew.
        if let Some(found) = conditions.iter_mut().find(|condition| condition.type_ == KIND) {
            found.last_update_time = Some(Time(now));
        }
        return deadline_after(spec.progress_deadline_seconds, now, now);
    }
    let left = deadline_after(spec.progress_deadline_seconds, since, now);
    if left == Some(Duration::ZERO) {
        let message = format!("ReplicaSet {name:?} has timed out progressing.");
        set(conditions, now, KIND, "False", "ProgressDeadlineExceeded", &message);
        return None;
    }
    left
}

/// How long until the deadline; zero when it is over, `None` without one.
fn deadline_after(deadline_s: Option<i32>, since: Timestamp, now: Timestamp) -> Option<Duration> {
    // The API server's default is 600; the greatest number means never.
    let deadline_s = deadline_s.unwrap_or(600);
    if deadline_s == i32::MAX {
        return None;
    }
    let left = SignedDuration::from_secs(i64::from(deadline_s)) - now.duration_since(since);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

/// Sets a condition; one that says the same already is left with its times.
fn set(
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let found = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let mut transition = Time(now);
    if let Some(found) = &found {
        if found.status == status
            && found.reason.as_deref() == Some(reason)
            && found.message.as_deref() == Some(message)
        {
            return;
        }
        if found.status == status {
            transition = found.last_transition_time.clone().unwrap_or(transition);
        }
    }
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    };
    match found {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}
