//! Carries the plans of Jobs out.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use substrate_client::Cache;

use super::condition::finished;
use super::count::{Backoff, FINALIZER, is_tracked};
use super::plan::{Plan, plan};
use crate::expectations::Written;
use crate::objects::{controller_of, name, namespace, uid};
use crate::pods::{PodControl, by_namespace};
use crate::work::{Next, Rounds};

/// Keeps all Jobs until dropped.
pub(crate) async fn run(client: Client, jobs: Cache<Job>, pods: Cache<Pod>) {
    let control = PodControl::new(client, "job-controller", "batch/v1", "Job").with_finalizer(FINALIZER);
    let mut actor = Actor { control, written: Written::default(), backoff: BTreeMap::new() };
    let mut rounds = Rounds::begin(vec![jobs.changes(), pods.changes()]).await;
    loop {
        let next = actor.round(&jobs.list(), &pods.list()).await;
        rounds.wait(next).await;
    }
}

struct Actor {
    control: PodControl,
    written: Written,
    backoff: BTreeMap<String, Backoff>,
}

impl Actor {
    async fn round(&mut self, jobs: &[Arc<Job>], pods: &[Arc<Pod>]) -> Next {
        self.control.settle(pods);
        let by_uid: BTreeMap<&str, &Arc<Job>> = jobs.iter().map(|job| (uid(&job.metadata), job)).collect();
        self.written.retain(|uid| by_uid.contains_key(uid));
        self.backoff.retain(|uid, _| by_uid.get(uid.as_str()).is_some_and(|job| finished(job).is_none()));
        let sorted = by_namespace(pods);
        let mut next = Next::default();
        for job in jobs {
            let seen = self.written.seen(&job.metadata, Instant::now());
            if !seen || !self.control.expectations.met(uid(&job.metadata)) {
                next.wake_in(Some(crate::expectations::PATIENCE));
                continue;
            }
            let candidates = sorted.get(namespace(&job.metadata)).map(Vec::as_slice).unwrap_or_default();
            let backoff = self.backoff.get(uid(&job.metadata)).copied().unwrap_or_default();
            let plan = plan(job, candidates, backoff, Timestamp::now());
            next.wake_in(plan.wake);
            let result = self.carry_out(job, plan).await;
            next.judge("Job", &job.metadata, result);
        }
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            if is_left(pod, &by_uid) {
                let result = self.let_go(pod).await;
                next.judge("Pod", &pod.metadata, result);
            }
        }
        next
    }

    async fn carry_out(&mut self, job: &Job, plan: Plan) -> Result<(), kube::Error> {
        self.control.claim(&job.metadata, &plan.claim).await?;
        for pod in &plan.changes.delete {
            self.control.delete(&job.metadata, pod).await?;
        }
        let mut refused = None;
        let mut status = plan.status;
        for (made, pod) in plan.changes.create.iter().enumerate() {
            if let Err(error) = self.control.create(&job.metadata, pod).await {
                // The next would be refused for the same reason. Those that were not made are not active.
                let missing = i32::try_from(plan.changes.create.len() - made).unwrap_or(i32::MAX);
                if let Some(status) = &mut status {
                    status.active = status.active.map(|active| active - missing).filter(|active| *active != 0);
                }
                refused = Some(error);
                break;
            }
        }
        if let Some(status) = status {
            self.write_status(job, status).await?;
        }
        if plan.backoff != Backoff::default() {
            self.backoff.insert(uid(&job.metadata).to_owned(), plan.backoff);
        } else {
            self.backoff.remove(uid(&job.metadata));
        }
        for pod in &plan.release {
            self.control.release_finalizer(&job.metadata, pod).await?;
        }
        for (kind, reason, message) in &plan.events {
            self.control.event(&job.metadata, *kind, reason, message).await;
        }
        refused.map_or(Ok(()), Err)
    }

    /// The whole status, of exactly the Job that it was made from: nothing is counted twice.
    async fn write_status(&mut self, job: &Job, status: JobStatus) -> Result<(), kube::Error> {
        let jobs: Api<Job> = Api::namespaced(self.control.client.clone(), namespace(&job.metadata));
        let wanted = Job { metadata: job.metadata.clone(), spec: job.spec.clone(), status: Some(status) };
        let written = jobs.replace_status(name(&job.metadata), &PostParams::default(), &wanted).await?;
        self.written.note(&written.metadata, Instant::now());
        Ok(())
    }

    /// Lets a pod go that no Job will count. The view may be behind, so it is asked once more.
    async fn let_go(&self, pod: &Pod) -> Result<(), kube::Error> {
        if let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job") {
            let jobs: Api<Job> = Api::namespaced(self.control.client.clone(), namespace(&pod.metadata));
            let found = jobs.get_opt(&owner.name).await?;
            if found.is_some_and(|job| uid(&job.metadata) == owner.uid && finished(&job).is_none()) {
                return Ok(());
            }
        }
        self.control.release_finalizer(&pod.metadata, pod).await
    }
}

/// Whether a pod waits to be counted by nobody.
fn is_left(pod: &Pod, jobs: &BTreeMap<&str, &Arc<Job>>) -> bool {
    match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == "Job" => jobs.get(owner.uid.as_str()).is_none_or(|job| finished(job).is_some()),
        // Another controller's, or nobody's; one that may be adopted is adopted in this round.
        Some(_) => true,
        None => pod.metadata.deletion_timestamp.is_some(),
    }
}
