//! Which pods to try now, and in which order. No effects; time is an argument.
//!
//! A pod that did not fit is tried again when the cluster is no longer what it was, but not before its back-off is over,
//! and after a long time in any case.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

/// How long to wait before a pod is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    /// After the first failure; doubled after each further one.
    pub first: Duration,
    /// At most.
    pub most: Duration,
    /// Without any change in the cluster.
    pub unchanged: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    failures: u32,
    at: Instant,
    /// What the cluster looked like; `None` if that was not the reason.
    cluster: Option<u64>,
}

/// The attempts so far, by the pods' identities.
#[derive(Debug)]
pub(crate) struct Queue {
    back_off: BackOff,
    attempts: BTreeMap<String, Attempt>,
}

impl Queue {
    pub fn new(back_off: BackOff) -> Queue {
        Queue { back_off, attempts: BTreeMap::new() }
    }

    /// Those of the waiting pods that are to be tried now, the most important first and of those the oldest, and when to
    /// ask again if nothing changes. Forgets pods that do not wait any more.
    pub fn ready(&mut self, waiting: Vec<Arc<Pod>>, cluster: u64, now: Instant) -> (Vec<Arc<Pod>>, Option<Instant>) {
        let known: BTreeSet<&str> = waiting.iter().map(|pod| uid(pod)).collect();
        self.attempts.retain(|uid, _| known.contains(uid.as_str()));
        let mut next: Option<Instant> = None;
        let mut ready: Vec<Arc<Pod>> = Vec::new();
        for pod in waiting {
            let at = self.attempts.get(uid(&pod)).map(|attempt| self.due(attempt, cluster));
            match at {
                Some(at) if at > now => next = Some(next.map_or(at, |next| next.min(at))),
                _ => ready.push(pod),
            }
        }
        ready.sort_by_cached_key(|pod| {
            let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            let created = pod.metadata.creation_timestamp.clone();
            (Reverse(priority), created, pod.metadata.namespace.clone(), pod.metadata.name.clone())
        });
        (ready, next)
    }

    fn due(&self, attempt: &Attempt, cluster: u64) -> Instant {
        let doubled = self.back_off.first.saturating_mul(1 << attempt.failures.saturating_sub(1).min(16));
        let changed = attempt.cluster != Some(cluster);
        attempt.at + if changed { doubled.min(self.back_off.most) } else { self.back_off.unchanged }
    }

    /// A pod was tried in vain. `cluster` is what the choice was made from; `None` if the choice was not the trouble.
    pub fn failed(&mut self, uid: &str, cluster: Option<u64>, now: Instant) {
        let attempt = self.attempts.entry(uid.to_owned()).or_insert(Attempt { failures: 0, at: now, cluster });
        *attempt = Attempt { failures: attempt.failures.saturating_add(1), at: now, cluster };
    }
}

/// The pod's identity.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32, created: &str) -> Arc<Pod> {
        let metadata = json!({"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{created}Z")});
        Arc::new(
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "priority": priority}}))
                .unwrap(),
        )
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| uid(pod)).collect()
    }

    fn queue() -> Queue {
        let seconds = Duration::from_secs;
        Queue::new(BackOff { first: seconds(1), most: seconds(10), unchanged: seconds(300) })
    }

    #[test]
    fn the_important_come_first_then_the_old() {
        let waiting = vec![pod("young", 0, "02"), pod("old", 0, "01"), pod("vip", 1000, "03")];
        let (ready, next) = queue().ready(waiting, 1, Instant::now());
        assert_eq!(names(&ready), ["vip", "old", "young"]);
        assert_eq!(next, None);
    }

    #[test]
    fn a_failure_waits_for_a_change_and_for_its_back_off() {
        let mut queue = queue();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let waiting = || vec![pod("a", 0, "01")];
        queue.failed("a", Some(1), start);
        assert_eq!(queue.ready(waiting(), 1, after(299)), (vec![], Some(after(300))), "nothing has changed");
        assert_eq!(names(&queue.ready(waiting(), 1, after(300)).0), ["a"]);
        assert_eq!(queue.ready(waiting(), 2, start), (vec![], Some(after(1))), "changed, too early");
        assert_eq!(names(&queue.ready(waiting(), 2, after(1)).0), ["a"]);
        for _ in 0..40 {
            queue.failed("a", None, start);
        }
        assert_eq!(queue.ready(waiting(), 2, start).1, Some(after(10)), "doubled up to the most");
        queue.ready(vec![], 2, start);
        assert_eq!(names(&queue.ready(waiting(), 2, start).0), ["a"], "forgotten with the pod");
    }
}
