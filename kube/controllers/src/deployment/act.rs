//! Carries the plans of Deployments out.
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tracing::{debug, warn};

use super::plan::{Plan, plan};
use super::rollout::{Sized, replicas};
use super::template::{self, REVISION, is_of_template};
use crate::objects::{controller_of, controller_reference, name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Caches, Next, Rounds};

/// Keeps all Deployments until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let recorder = Recorder { client: client.clone(), component: "deployment-controller" };
    let actor = Actor { client, recorder };
    let changes = vec![caches.deployments.changes(), caches.replica_sets.changes(), caches.pods.changes()];
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let next = actor.round(&caches).await;
        rounds.wait(next).await;
    }
}

struct Actor {
    client: Client,
    recorder: Recorder,
}

impl Actor {
    async fn round(&self, caches: &Caches) -> Next {
        let mut next = Next::default();
        for deployment in caches.deployments.list() {
            let sets: Vec<Arc<ReplicaSet>> = caches.replica_sets.list_in(namespace(&deployment.metadata));
            // Only `Recreate` looks at pods.
            let pods: Vec<Arc<Pod>> = caches.pods.list_in(namespace(&deployment.metadata));
            let plan = plan(&deployment, &sets, &pods, Timestamp::now());
            next.wake_in(plan.wake);
            match self.carry_out(&deployment, plan).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    debug!(deployment = name(&deployment.metadata), status.message, "planned from an older view");
                    next.failed = true;
                }
                Err(error) => {
                    let deployment = format!("{}/{}", namespace(&deployment.metadata), name(&deployment.metadata));
                    warn!(deployment, %error, "will be tried again");
                    next.failed = true;
                }
            }
        }
        next
    }

    async fn carry_out(&self, deployment: &Deployment, plan: Plan) -> Result<(), kube::Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace(&deployment.metadata));
        for set in &plan.adopt {
            let owner = controller_reference("apps/v1", "Deployment", &deployment.metadata);
            let version = set.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": [owner]}});
            sets.patch(name(&set.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        if let Some(set) = &plan.create {
            self.create(deployment, &sets, set).await?;
        }
        if let Some((set, annotations)) = &plan.annotate {
            let version = set.metadata.resource_version.clone();
            let patch = json!({"metadata": {"annotations": annotations, "resourceVersion": version}});
            let patched = sets.patch(name(&set.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
            // What follows was planned from the version before.
            if plan.scale.iter().any(|sized| uid(&sized.set.metadata) == uid(&patched.metadata)) {
                return self.write_status(deployment, plan.status).await;
            }
        }
        for sized in &plan.scale {
            self.scale(deployment, &sets, sized).await?;
        }
        for set in &plan.delete {
            let same = Preconditions {
                uid: set.metadata.uid.clone(),
                resource_version: set.metadata.resource_version.clone(),
            };
            let parameters = DeleteParams::background().preconditions(same);
            sets.delete(name(&set.metadata), &parameters).await?;
        }
        if let Some(revision) = plan.revision {
            let patch = json!({"metadata": {"annotations": {REVISION: revision.to_string()}}});
            let patch = Patch::Merge(patch);
            self.deployments(deployment).patch(name(&deployment.metadata), &PatchParams::default(), &patch).await?;
        }
        self.write_status(deployment, plan.status).await
    }

    fn deployments(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace(&deployment.metadata))
    }

    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), kube::Error> {
        match sets.create(&PostParams::default(), set).await {
            Ok(_) => {
                let message = format!("Scaled up replica set {} from 0 to {}", name(&set.metadata), replicas(set));
                self.event(deployment, &message).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = sets.get(name(&set.metadata)).await?;
                let ours = controller_of(&found.metadata).is_some_and(|owner| owner.uid == uid(&deployment.metadata));
                if ours && is_of_template(&found, deployment) {
                    // Made before; the view has not shown it yet.
                    return Ok(());
                }
                // Another template has the same short name: the next try hashes to another one.
                let count = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
                let patch = Patch::Merge(json!({"status": {"collisionCount": count}}));
                let deployments = self.deployments(deployment);
                deployments.patch_status(name(&deployment.metadata), &PatchParams::default(), &patch).await?;
                Err(kube::Error::Api(status))
            }
            Err(error) => Err(error),
        }
    }

    async fn scale(&self, deployment: &Deployment, sets: &Api<ReplicaSet>, sized: &Sized) -> Result<(), kube::Error> {
        let set = &sized.set;
        let before = replicas(set);
        let patch = json!({
            // With the version, a view that is behind cannot scale twice.
            "metadata": {
                "resourceVersion": set.metadata.resource_version,
                "annotations": template::size_annotations(deployment),
            },
            "spec": {"replicas": sized.size},
        });
        sets.patch(name(&set.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
        if before != sized.size {
            let direction = if sized.size > before { "up" } else { "down" };
            let title = name(&set.metadata);
            self.event(deployment, &format!("Scaled {direction} replica set {title} from {before} to {}", sized.size))
                .await;
        }
        Ok(())
    }

    async fn write_status(&self, deployment: &Deployment, status: Option<DeploymentStatus>) -> Result<(), kube::Error> {
        let Some(status) = status else { return Ok(()) };
        // Numbers that are nothing have to be said, or the patch would leave the old ones.
        let patch = json!({"status": {
            "observedGeneration": status.observed_generation, "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas, "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas, "unavailableReplicas": status.unavailable_replicas,
            "terminatingReplicas": status.terminating_replicas, "conditions": status.conditions,
        }});
        let deployments = self.deployments(deployment);
        deployments.patch_status(name(&deployment.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn event(&self, deployment: &Deployment, message: &str) {
        let of = ("apps/v1", "Deployment", &deployment.metadata);
        self.recorder.event(of, Kind::Normal, "ScalingReplicaSet", message).await;
    }
}
