//! Carries the plans of CronJobs out.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use substrate_client::Cache;

use super::plan::{Plan, own, plan, reference};
use crate::expectations::{PATIENCE, Written};
use crate::objects::{controller_of, name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Next, Rounds};

/// Keeps all CronJobs until dropped.
pub(crate) async fn run(client: Client, crons: Cache<CronJob>, jobs: Cache<Job>) {
    let recorder = Recorder { client: client.clone(), component: "cronjob-controller" };
    let mut actor = Actor { client, recorder, written: Written::default(), said: BTreeMap::new() };
    let mut rounds = Rounds::begin(vec![crons.changes(), jobs.changes()]).await;
    loop {
        let crons = crons.list();
        let there: BTreeSet<&str> = crons.iter().map(|cron| uid(&cron.metadata)).collect();
        actor.written.retain(|uid| there.contains(uid));
        actor.said.retain(|uid, _| there.contains(uid.as_str()));
        let mut next = Next::default();
        for cron in &crons {
            if !actor.written.seen(&cron.metadata, Instant::now()) {
                next.wake_in(Some(PATIENCE));
                continue;
            }
            let result = actor.round(cron, &jobs.list_in(namespace(&cron.metadata)), &mut next).await;
            next.judge("CronJob", &cron.metadata, result);
        }
        rounds.wait(next).await;
    }
}

struct Actor {
    client: Client,
    recorder: Recorder,
    written: Written,
    /// What each plan said last: what stays so is said once.
    said: BTreeMap<String, BTreeSet<String>>,
}

impl Actor {
    async fn round(&mut self, cron: &CronJob, jobs: &[Arc<Job>], next: &mut Next) -> Result<(), kube::Error> {
        let own = own(cron, jobs);
        let gone = self.gone(cron, &own).await?;
        let plan = plan(cron, &own, &gone, Timestamp::now());
        next.wake_in(plan.wake);
        self.carry_out(cron, plan).await
    }

    fn jobs(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), namespace(&cron.metadata))
    }

    /// Those in the status that do not exist: the view may only be behind, so each is asked for.
    async fn gone(&self, cron: &CronJob, own: &[Arc<Job>]) -> Result<BTreeSet<String>, kube::Error> {
        let mut gone = BTreeSet::new();
        for one in cron.status.iter().flat_map(|status| status.active.iter().flatten()) {
            let (Some(title), Some(uid)) = (&one.name, &one.uid) else { continue };
            if own.iter().all(|job| job.metadata.uid.as_ref() != Some(uid)) {
                let found = self.jobs(cron).get_opt(title).await?;
                if found.is_none_or(|job| job.metadata.uid.as_ref() != Some(uid)) {
                    gone.insert(uid.clone());
                }
            }
        }
        Ok(gone)
    }

    async fn carry_out(&mut self, cron: &CronJob, plan: Plan) -> Result<(), kube::Error> {
        for job in &plan.delete {
            self.delete(cron, name(&job.metadata), job.metadata.uid.clone()).await?;
        }
        for job in &plan.replace {
            self.delete(cron, job.name.as_deref().unwrap_or_default(), job.uid.clone()).await?;
        }
        let said: BTreeSet<String> = plan.events.iter().map(|(_, _, message)| message.clone()).collect();
        let before = self.said.insert(uid(&cron.metadata).to_owned(), said).unwrap_or_default();
        for (kind, reason, message) in plan.events.iter().filter(|(_, _, message)| !before.contains(message)) {
            self.event(cron, *kind, reason, message).await;
        }
        let mut status = plan.status;
        if let Some((job, at)) = &plan.create {
            let made = self.create(cron, job).await?;
            let status = status.get_or_insert_with(|| cron.status.clone().unwrap_or_default());
            note(status, made, &plan.replace, *at);
        }
        match status {
            Some(status) => self.write_status(cron, status).await,
            None => Ok(()),
        }
    }

    async fn create(&self, cron: &CronJob, job: &Job) -> Result<ObjectReference, kube::Error> {
        match self.jobs(cron).create(&PostParams::default(), job).await {
            Ok(made) => {
                self.event(cron, Kind::Normal, "SuccessfulCreate", &format!("Created job {}", name(&made.metadata)))
                    .await;
                Ok(reference(&made))
            }
            // Made before, and the status was not written: the name is the time.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.jobs(cron).get(name(&job.metadata)).await?;
                if controller_of(&found.metadata).is_some_and(|owner| owner.uid == uid(&cron.metadata)) {
                    return Ok(reference(&found));
                }
                Err(kube::Error::Api(status))
            }
            Err(error) => {
                self.event(cron, Kind::Warning, "FailedCreate", &format!("Error creating job: {error}")).await;
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &CronJob, title: &str, uid: Option<String>) -> Result<(), kube::Error> {
        let same = Preconditions { uid, resource_version: None };
        match self.jobs(cron).delete(title, &DeleteParams::background().preconditions(same)).await {
            Ok(_) => {
                self.event(cron, Kind::Normal, "SuccessfulDelete", &format!("Deleted job {title}")).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => {
                self.event(cron, Kind::Warning, "FailedDelete", &format!("Deleted job: {error}")).await;
                Err(error)
            }
        }
    }

    async fn write_status(&mut self, cron: &CronJob, status: CronJobStatus) -> Result<(), kube::Error> {
        let crons: Api<CronJob> = Api::namespaced(self.client.clone(), namespace(&cron.metadata));
        let wanted = CronJob { metadata: cron.metadata.clone(), spec: cron.spec.clone(), status: Some(status) };
        let written = crons.replace_status(name(&cron.metadata), &PostParams::default(), &wanted).await?;
        self.written.note(&written.metadata, Instant::now());
        Ok(())
    }

    async fn event(&self, cron: &CronJob, kind: Kind, reason: &str, message: &str) {
        self.recorder.event(("batch/v1", "CronJob", &cron.metadata), kind, reason, message).await;
    }
}

/// The new Job is active, those that it replaces are not.
fn note(status: &mut CronJobStatus, made: ObjectReference, replaced: &[ObjectReference], at: Timestamp) {
    let active = status.active.get_or_insert_default();
    active.retain(|one| one.uid != made.uid && replaced.iter().all(|other| other.uid != one.uid));
    active.push(made);
    status.last_schedule_time = Some(Time(at));
}
