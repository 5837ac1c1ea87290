//! Carries the plans of ReplicaSets out.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tracing::{debug, warn};

use super::plan::{Plan, plan};
use crate::expectations::Expectations;
use crate::objects::{controller_reference, is_active, name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Caches, Next, Rounds};

/// Keeps all ReplicaSets until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let recorder = Recorder { client: client.clone(), component: "replicaset-controller" };
    let mut actor = Actor { client, recorder, expectations: Expectations::default() };
    let mut rounds = Rounds::begin(vec![caches.replica_sets.changes(), caches.pods.changes()]).await;
    loop {
        let next = actor.round(caches.replica_sets.list(), caches.pods.list()).await;
        rounds.wait(next).await;
    }
}

struct Actor {
    client: Client,
    recorder: Recorder,
    expectations: Expectations,
}

impl Actor {
    async fn round(&mut self, sets: Vec<Arc<ReplicaSet>>, pods: Vec<Arc<Pod>>) -> Next {
        let by_uid: BTreeMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (uid(&pod.metadata), pod)).collect();
        let seen = |uid: &str| by_uid.contains_key(uid);
        let leaving = |uid: &str| by_uid.get(uid).is_none_or(|pod| !is_active(pod));
        self.expectations.settle(seen, leaving, Instant::now());
        let mut by_namespace: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in &pods {
            by_namespace.entry(namespace(&pod.metadata).to_owned()).or_default().push(pod.clone());
        }
        let mut next = Next::default();
        for set in sets {
            let candidates = by_namespace.get(namespace(&set.metadata)).map(Vec::as_slice).unwrap_or_default();
            let settled = self.expectations.met(uid(&set.metadata));
            let plan = plan(&set, candidates, settled, Timestamp::now());
            next.wake_in(plan.wake);
            if let Err(error) = self.carry_out(&set, plan).await {
                warn!(set = %format_args!("{}/{}", namespace(&set.metadata), name(&set.metadata)), %error, "will be tried again");
                next.failed = true;
            }
        }
        next.wake_in(self.expectations.wake());
        next
    }

    async fn carry_out(&mut self, set: &ReplicaSet, plan: Plan) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&set.metadata));
        let owner = controller_reference("apps/v1", "ReplicaSet", &set.metadata);
        for pod in &plan.adopt {
            let patch = json!({"metadata": {"uid": uid(&pod.metadata), "ownerReferences": [owner]}});
            pods.patch(name(&pod.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        for pod in &plan.release {
            let gone = json!({"$patch": "delete", "uid": uid(&set.metadata)});
            let patch = json!({"metadata": {"uid": uid(&pod.metadata), "ownerReferences": [gone]}});
            pods.patch(name(&pod.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        let mut refused = None;
        for _ in 0..plan.create {
            match pods.create(&PostParams::default(), &pod_of(set)).await {
                Ok(pod) => {
                    self.expectations.created(uid(&set.metadata), uid(&pod.metadata), Instant::now());
                    let message = format!("Created pod: {}", name(&pod.metadata));
                    self.event(set, Kind::Normal, "SuccessfulCreate", &message).await;
                }
                Err(error) => {
                    let message = format!("Error creating: {error}");
                    self.event(set, Kind::Warning, "FailedCreate", &message).await;
                    // The next would be refused for the same reason.
                    refused = Some(error);
                    break;
                }
            }
        }
        for pod in &plan.delete {
            let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            match pods.delete(name(&pod.metadata), &DeleteParams::default().preconditions(same)).await {
                Ok(_) => {
                    self.expectations.deleted(uid(&set.metadata), uid(&pod.metadata), Instant::now());
                    let message = format!("Deleted pod: {}", name(&pod.metadata));
                    self.event(set, Kind::Normal, "SuccessfulDelete", &message).await;
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                    debug!(pod = name(&pod.metadata), "gone already");
                }
                Err(error) => return Err(error),
            }
        }
        let status = match (&refused, plan.status) {
            (Some(error), status) => Some(with_failure(set, status, error)),
            (None, status) => status,
        };
        if let Some(status) = status {
            self.write_status(set, status).await?;
        }
        refused.map_or(Ok(()), Err)
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), kube::Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace(&set.metadata));
        // Numbers that are nothing have to be said, or the patch would leave the old ones.
        let patch = json!({"status": {
            "replicas": status.replicas, "fullyLabeledReplicas": status.fully_labeled_replicas,
            "readyReplicas": status.ready_replicas, "availableReplicas": status.available_replicas,
            "terminatingReplicas": status.terminating_replicas, "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        }});
        match sets.patch_status(name(&set.metadata), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn event(&self, set: &ReplicaSet, kind: Kind, reason: &str, message: &str) {
        self.recorder.event(("apps/v1", "ReplicaSet", &set.metadata), kind, reason, message).await;
    }
}

fn with_failure(set: &ReplicaSet, status: Option<ReplicaSetStatus>, error: &kube::Error) -> ReplicaSetStatus {
    let mut status = status.or_else(|| set.status.clone()).unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().all(|condition| condition.type_ != "ReplicaFailure") {
        conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some(error.to_string()),
            last_transition_time: Some(Time(Timestamp::now())),
        });
    }
    status
}

/// A pod from the set's template; the API server completes its name.
fn pod_of(set: &ReplicaSet) -> Pod {
    let template = set.spec.clone().unwrap_or_default().template.unwrap_or_default();
    let of = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", name(&set.metadata))),
        namespace: set.metadata.namespace.clone(),
        labels: of.labels,
        annotations: of.annotations,
        finalizers: of.finalizers,
        owner_references: Some(vec![controller_reference("apps/v1", "ReplicaSet", &set.metadata)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}
