//! Carries the plans of ReplicaSets out, and of ReplicationControllers, which are ReplicaSets by another name.
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::Cache;

use super::plan::{Plan, plan};
use crate::objects::{name, namespace, uid};
use crate::pods::{PodControl, by_namespace, from_template};
use crate::work::{Next, Rounds};

/// Keeps all ReplicaSets until dropped.
pub(crate) async fn run(client: Client, sets: Cache<ReplicaSet>, pods: Cache<Pod>) {
    let control = PodControl::new(client, "replicaset-controller", "apps/v1", "ReplicaSet");
    let mut actor = Actor { control, legacy: false };
    let mut rounds = Rounds::begin(vec![sets.changes(), pods.changes()]).await;
    loop {
        let next = actor.round(sets.list(), pods.list()).await;
        rounds.wait(next).await;
    }
}

/// Keeps all ReplicationControllers until dropped.
pub(crate) async fn run_legacy(client: Client, sets: Cache<ReplicationController>, pods: Cache<Pod>) {
    let control = PodControl::new(client, "replication-controller", "v1", "ReplicationController");
    let mut actor = Actor { control, legacy: true };
    let mut rounds = Rounds::begin(vec![sets.changes(), pods.changes()]).await;
    loop {
        let next = actor.round(sets.list().iter().map(|set| Arc::new(as_set(set))).collect(), pods.list()).await;
        rounds.wait(next).await;
    }
}

/// A ReplicationController in the words of today.
fn as_set(set: &ReplicationController) -> ReplicaSet {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone();
    let condition = |c: k8s_openapi::api::core::v1::ReplicationControllerCondition| ReplicaSetCondition {
        type_: c.type_,
        status: c.status,
        reason: c.reason,
        message: c.message,
        last_transition_time: c.last_transition_time,
    };
    ReplicaSet {
        metadata: set.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        }),
        status: status.map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| list.into_iter().map(condition).collect()),
        }),
    }
}

struct Actor {
    control: PodControl,
    /// Whether they are ReplicationControllers.
    legacy: bool,
}

impl Actor {
    async fn round(&mut self, sets: Vec<Arc<ReplicaSet>>, pods: Vec<Arc<Pod>>) -> Next {
        self.control.settle(&pods);
        let sorted = by_namespace(&pods);
        let mut next = Next::default();
        for set in sets {
            let candidates = sorted.get(namespace(&set.metadata)).map(Vec::as_slice).unwrap_or_default();
            let settled = self.control.expectations.met(uid(&set.metadata));
            let mut plan = plan(&set, candidates, settled, Timestamp::now());
            if self.legacy {
                plan = without_terminating(&set, plan);
            }
            next.wake_in(plan.wake);
            let result = self.carry_out(&set, plan).await;
            next.judge("ReplicaSet", &set.metadata, result);
        }
        next.wake_in(self.control.expectations.wake());
        next
    }

    async fn carry_out(&mut self, set: &ReplicaSet, plan: Plan) -> Result<(), kube::Error> {
        self.control.claim(&set.metadata, &plan.claim).await?;
        let mut refused = None;
        for _ in 0..plan.create {
            if let Err(error) = self.control.create(&set.metadata, &self.pod_of(set)).await {
                // The next would be refused for the same reason.
                refused = Some(error);
                break;
            }
        }
        for pod in &plan.delete {
            self.control.delete(&set.metadata, pod).await?;
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
        // Numbers that are nothing have to be said, or the patch would leave the old ones.
        let mut patch = json!({
            "replicas": status.replicas, "fullyLabeledReplicas": status.fully_labeled_replicas,
            "readyReplicas": status.ready_replicas, "availableReplicas": status.available_replicas,
            "observedGeneration": status.observed_generation, "conditions": status.conditions,
        });
        let (client, home, title) = (self.control.client.clone(), namespace(&set.metadata), name(&set.metadata));
        let parameters = PatchParams::default();
        let answer = if self.legacy {
            let sets: Api<ReplicationController> = Api::namespaced(client, home);
            sets.patch_status(title, &parameters, &Patch::Merge(json!({"status": patch}))).await.map(|_| ())
        } else {
            if let Some(fields) = patch.as_object_mut() {
                fields.insert("terminatingReplicas".to_owned(), json!(status.terminating_replicas));
            }
            let sets: Api<ReplicaSet> = Api::namespaced(client, home);
            sets.patch_status(title, &parameters, &Patch::Merge(json!({"status": patch}))).await.map(|_| ())
        };
        match answer {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other,
        }
    }

    /// A pod from the set's template; the API server completes its name.
    fn pod_of(&self, set: &ReplicaSet) -> Pod {
        let template = set.spec.clone().unwrap_or_default().template.unwrap_or_default();
        let mut pod = from_template(&template, &set.metadata, self.control.owned_by(&set.metadata));
        pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
        pod
    }
}

/// A ReplicationController does not count pods on their way out.
fn without_terminating(set: &ReplicaSet, mut plan: Plan) -> Plan {
    if let Some(status) = &mut plan.status {
        status.terminating_replicas = None;
    }
    plan.status = plan.status.filter(|status| set.status.as_ref() != Some(status));
    plan
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
