//! Jobs that are over and have asked to be cleared away: `ttlSecondsAfterFinished`.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use substrate_client::Cache;

use crate::job::finished_at;
use crate::objects::{name, namespace};
use crate::work::{Next, Rounds};

/// Clears away until dropped.
pub(crate) async fn run(client: Client, jobs: Cache<Job>) {
    let mut rounds = Rounds::begin(vec![jobs.changes()]).await;
    loop {
        let (expired, wake) = expired(&jobs.list(), Timestamp::now());
        let mut next = Next { wake, failed: false };
        for job in expired {
            // Exactly as it was seen: somebody may have changed their mind.
            let same = Preconditions {
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
            };
            let api: Api<Job> = Api::namespaced(client.clone(), namespace(&job.metadata));
            let result = api.delete(name(&job.metadata), &DeleteParams::foreground().preconditions(same)).await;
            next.judge("Job", &job.metadata, result.map(|_| ()));
        }
        rounds.wait(next).await;
    }
}

/// Jobs whose time is over, and how long until the next.
fn expired(jobs: &[Arc<Job>], now: Timestamp) -> (Vec<Arc<Job>>, Option<Duration>) {
    let (mut over, mut wake) = (Vec::new(), None::<Duration>);
    for job in jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
        let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let (Some(ttl), Some((at, _))) = (ttl, finished_at(job)) else { continue };
        let left = SignedDuration::from_secs(i64::from(ttl)) - now.duration_since(at);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            None => over.push(job.clone()),
            Some(left) => wake = Some(wake.map_or(left, |wake| wake.min(left))),
        }
    }
    (over, wake)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_is_over_for_long_enough_goes() {
        let job = |name: &str, ttl: Value, kind: &str, at: &str| -> Arc<Job> {
            let conditions =
                json!([{"type": kind, "status": "True", "lastTransitionTime": format!("2026-01-01T00:00:{at}Z")}]);
            let spec = json!({"ttlSecondsAfterFinished": ttl, "template": {}});
            let job = json!({"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}});
            Arc::new(serde_json::from_value(job).unwrap())
        };
        let jobs = [
            job("old", 10.into(), "Complete", "00"),
            job("failed", 10.into(), "Failed", "00"),
            job("young", 10.into(), "Complete", "05"),
            job("kept", Value::Null, "Complete", "00"),
            job("runs", 0.into(), "Suspended", "00"),
            job("at once", 0.into(), "Complete", "10"),
        ];
        let (over, wake) = expired(&jobs, "2026-01-01T00:00:10Z".parse().unwrap());
        let names: Vec<&str> = over.iter().map(|job| name(&job.metadata)).collect();
        assert_eq!((names, wake), (vec!["old", "failed", "at once"], Some(Duration::from_secs(5))));
    }
}
