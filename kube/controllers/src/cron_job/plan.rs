//! What to do for one CronJob. No effects.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use substrate_client::schedule::Schedule;

use super::schedule::next;

use crate::job::finished_at;
use crate::objects::{controller_of, controller_reference, name, uid};
use crate::recorder::Kind;

/// All that is to be done for one CronJob, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// History beyond its limits.
    pub delete: Vec<Arc<Job>>,
    /// Active Jobs that the new one replaces.
    pub replace: Vec<ObjectReference>,
    /// The Job of a time that is due, and the time.
    pub create: Option<(Job, Timestamp)>,
    /// Without what is created; if it differs from what is written.
    pub status: Option<CronJobStatus>,
    pub events: Vec<(Kind, &'static str, String)>,
    pub wake: Option<Duration>,
}

/// The time of a Job, as its CronJob meant it.
const TIME: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// With more missed times a clock is wrong, or the schedule not meant so.
const MISSED_MAX: i64 = 100;

/// Jobs of a CronJob among those of its namespace.
pub(crate) fn own(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let is_own = |job: &&Arc<Job>| controller_of(&job.metadata).is_some_and(|owner| owner.uid == uid(&cron.metadata));
    jobs.iter().filter(is_own).cloned().collect()
}

/// The plan for a CronJob with its own Jobs. `gone` are Jobs in its status that the API server has said do not exist.
pub(crate) fn plan(cron: &CronJob, own: &[Arc<Job>], gone: &BTreeSet<String>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &cron.spec else { return plan };
    let mut status = cron.status.clone().unwrap_or_default();
    let active = keep_books(own, gone, &mut status, &mut plan.events);
    if cron.metadata.deletion_timestamp.is_none() {
        history(spec, own, &active, &mut plan);
        if spec.suspend != Some(true) {
            due(cron, spec, &status, &active, now, &mut plan);
        }
    }
    status.active = Some(active).filter(|active| !active.is_empty());
    plan.status = (cron.status.as_ref() != Some(&status)).then_some(status);
    plan
}

/// What has become of the Jobs. Answers those that are active still.
fn keep_books(
    own: &[Arc<Job>],
    gone: &BTreeSet<String>,
    status: &mut CronJobStatus,
    events: &mut Vec<(Kind, &'static str, String)>,
) -> Vec<ObjectReference> {
    let mut active = status.active.clone().unwrap_or_default();
    for job in own {
        let (title, found) =
            (name(&job.metadata), active.iter().position(|one| one.uid.as_deref() == Some(uid(&job.metadata))));
        match (finished_at(job), found) {
            (Some((_, succeeded)), Some(place)) => {
                active.remove(place);
                let condition = if succeeded { "Complete" } else { "Failed" };
                events.push((
                    Kind::Normal,
                    "SawCompletedJob",
                    format!("Saw completed job: {title}, condition: {condition}"),
                ));
            }
            (None, None) => {
                // Made by hand (`kubectl create job --from`): it is not counted.
                let message = format!("Saw a job that the controller did not create or forgot: {title}");
                events.push((Kind::Warning, "UnexpectedJob", message));
            }
            _ => {}
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if let (Some((_, true)), Some(at)) = (finished_at(job), completed)
            && status.last_successful_time.as_ref().is_none_or(|last| at.0 > last.0)
        {
            status.last_successful_time = Some(at);
        }
    }
    active.retain(|one| {
        let is_gone = one.uid.as_ref().is_some_and(|uid| gone.contains(uid));
        if is_gone {
            let title = one.name.clone().unwrap_or_default();
            events.push((Kind::Normal, "MissingJob", format!("Active job went missing: {title}")));
        }
        !is_gone
    });
    active
}

/// How a Job is named among the active ones.
pub(crate) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn history(spec: &CronJobSpec, own: &[Arc<Job>], active: &[ObjectReference], plan: &mut Plan) {
    for (succeeded, limit) in [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)] {
        let Some(limit) = limit else { continue };
        let over = |job: &&Arc<Job>| {
            finished_at(job).is_some_and(|(_, found)| found == succeeded)
                && job.metadata.deletion_timestamp.is_none()
                && active.iter().all(|one| one.uid != job.metadata.uid)
        };
        let mut ended: Vec<Arc<Job>> = own.iter().filter(over).cloned().collect();
        ended.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.clone());
            (start, job.metadata.name.clone())
        });
        ended.truncate(ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0)));
        plan.delete.extend(ended);
    }
}

fn due(
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &CronJobStatus,
    active: &[ObjectReference],
    now: Timestamp,
    plan: &mut Plan,
) {
    let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
        None => TimeZone::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(error)) => {
            let zone = spec.time_zone.as_deref().unwrap_or_default();
            plan.events.push((Kind::Warning, "UnknownTimeZone", format!("invalid timeZone: {zone:?}: {error}")));
            return;
        }
    };
    let schedule = match spec.schedule.parse::<Schedule>() {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            plan.events.push((Kind::Warning, "UnparseableSchedule", message));
            return;
        }
    };
    let left = next(&schedule, now, &zone).map(|at| at.duration_since(now));
    plan.wake = left.and_then(|left| Duration::try_from(left).ok());
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut earliest = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if let Some(oldest) = deadline.and_then(|deadline| now.checked_sub(deadline).ok()) {
        earliest = earliest.max(oldest);
    }
    let Some((at, missed)) = most_recent(&schedule, &zone, earliest, now) else { return };
    if missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((Kind::Warning, "TooManyMissedTimes", message.to_owned()));
    }
    if deadline.is_some_and(|deadline| now.duration_since(at) > deadline) {
        let when = at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z");
        plan.events.push((Kind::Warning, "MissSchedule", format!("Missed scheduled time to start a job: {when}")));
        return;
    }
    let job = job_of(cron, spec, at, &zone);
    let known = active.iter().any(|one| one.name == job.metadata.name);
    if known || status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((Kind::Normal, "JobAlreadyActive", message.to_owned()));
            return;
        }
        Some("Replace") => plan.replace = active.to_vec(),
        _ => {}
    }
    plan.create = Some((job, at));
}

/// The last time between these two, and how many there were about.
fn most_recent(schedule: &Schedule, zone: &TimeZone, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, i64)> {
    let first = next(schedule, earliest, zone).filter(|first| *first <= now)?;
    let Some(second) = next(schedule, first, zone).filter(|second| *second <= now) else { return Some((first, 1)) };
    // Not one by one: a schedule of each minute may have been asleep for years.
    let between = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / between + 1;
    let near = SignedDuration::from_secs((missed - 2).max(0) * between);
    let mut last = second;
    let mut at = next(schedule, first.checked_add(near).ok()?, zone);
    while let Some(found) = at.filter(|at| *at <= now) {
        last = last.max(found);
        at = next(schedule, found, zone);
    }
    Some((last, missed))
}

/// The Job of a time. Its name counts minutes, as upstream's.
fn job_of(cron: &CronJob, spec: &CronJobSpec, at: Timestamp, zone: &TimeZone) -> Job {
    let of = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = of.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(TIME.to_owned(), local.replace("+00:00", "Z"));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name(&cron.metadata), at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: of.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference("batch/v1", "CronJob", &cron.metadata)]),
            creation_timestamp: Some(Time(at)),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
