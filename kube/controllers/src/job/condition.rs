//! What a Job says about itself. No effects.
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(crate) const COMPLETE: &str = "Complete";
pub(crate) const FAILED: &str = "Failed";
pub(crate) const SUSPENDED: &str = "Suspended";
/// It will be `Complete` when its pods are gone.
pub(crate) const SUCCESS: &str = "SuccessCriteriaMet";
/// It will be `Failed` when its pods are gone.
pub(crate) const FAILURE: &str = "FailureTarget";

/// How a Job ends, said before it has ended and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

impl Outcome {
    pub fn new(succeeded: bool, reason: &str, message: &str) -> Outcome {
        Outcome { succeeded, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// What the Job has said of its end already.
    pub fn said(conditions: &[JobCondition]) -> Option<Outcome> {
        let of = |kind: &str| conditions.iter().find(|found| found.type_ == kind && found.status == "True");
        let outcome = |succeeded: bool| {
            move |found: &JobCondition| Outcome {
                succeeded,
                reason: found.reason.clone().unwrap_or_default(),
                message: found.message.clone().unwrap_or_default(),
            }
        };
        of(SUCCESS).map(outcome(true)).or_else(|| of(FAILURE).map(outcome(false)))
    }

    /// The condition that announces it.
    pub fn target(&self) -> &'static str {
        if self.succeeded { SUCCESS } else { FAILURE }
    }

    /// The condition that ends the Job.
    pub fn terminal(&self) -> &'static str {
        if self.succeeded { COMPLETE } else { FAILED }
    }
}

/// Sets a condition and answers whether it says something else now. One that is not there is not said to be `False`.
pub(crate) fn set(
    conditions: &mut Vec<JobCondition>,
    now: Timestamp,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
) -> bool {
    let word = if status { "True" } else { "False" };
    let wanted = JobCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|found| found.type_ == kind) {
        Some(found) if found.status == word && found.reason == wanted.reason && found.message == wanted.message => {
            false
        }
        Some(found) => {
            *found = wanted;
            true
        }
        None if !status => false,
        None => {
            conditions.push(wanted);
            true
        }
    }
}

/// The condition that says that the Job is over.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|found| matches!(found.type_.as_str(), COMPLETE | FAILED) && found.status == "True")
}

/// When the Job was over, and whether it has succeeded.
pub(crate) fn finished_at(job: &Job) -> Option<(Timestamp, bool)> {
    let condition = finished(job)?;
    let at = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some((at, condition.type_ == COMPLETE))
}
