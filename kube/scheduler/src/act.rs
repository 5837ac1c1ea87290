//! What the scheduler writes: bindings, conditions, events, and who has to leave.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::preempt::Plan;
use crate::queue::uid;
use crate::storage::{Promise, SELECTED_NODE};

/// What was written.
pub(crate) enum Done {
    Written,
    /// Promises to the claims of the pod of this identity.
    Promised(String),
}

/// A binding, a preemption or a promise that was not made.
pub(crate) struct Failed {
    pub uid: String,
}

#[derive(Clone)]
pub(crate) struct Writer {
    pub client: Client,
    pub name: String,
}

impl Writer {
    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    pub async fn bind(&self, pod: &Pod, node: &str) -> Result<Done, Failed> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            // With the identity, a pod of the same name that took its place is not bound by mistake.
            "metadata": {"name": name, "namespace": namespace, "uid": uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let bound: Result<Value, kube::Error> =
            self.pods(pod).create_subresource("binding", name, &PostParams::default(), &binding).await;
        match bound {
            Ok(_) => {
                debug!(pod = %format_args!("{namespace}/{name}"), node, "bound");
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.event(pod, "Normal", "Scheduled", &message).await;
                Ok(Done::Written)
            }
            Err(error) => {
                warn!(pod = %format_args!("{namespace}/{name}"), node, %error, "not bound; will be tried again");
                Err(Failed { uid: uid(pod).to_owned() })
            }
        }
    }

    pub async fn report(&self, pod: &Pod, reason: &str, message: &str, nominated: Option<&str>) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": now(),
        });
        // Merged by type: conditions of others stay. With the identity a new pod of the same name refuses it.
        let patch = json!({"metadata": {"uid": uid(pod)}, "status": {"conditions": [condition], "nominatedNodeName": nominated}});
        let patched = self.pods(pod).patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            // The pod is tried again and says the same then.
            warn!(pod = name, %error, "condition not written");
        }
        if reason == "Unschedulable" {
            self.event(pod, "Warning", "FailedScheduling", message).await;
        }
    }

    /// Promises volumes to claims, each with the volume's version: of two that want it one gets it. Where there is none yet, the claim is
    /// told the node for who makes it.
    pub async fn promise(&self, pod: &Pod, node: &str, promises: &[Promise]) -> Result<Done, Failed> {
        for promise in promises {
            if let Err(error) = self.promise_one(node, promise).await {
                warn!(pod = pod.metadata.name, %error, "volume not promised; will be tried again");
                return Err(Failed { uid: uid(pod).to_owned() });
            }
        }
        Ok(Done::Promised(uid(pod).to_owned()))
    }

    async fn promise_one(&self, node: &str, Promise { claim, volume }: &Promise) -> Result<(), kube::Error> {
        let of = |object: &Option<String>| object.clone().unwrap_or_default();
        let Some(volume) = volume else {
            let metadata = json!({"uid": claim.metadata.uid, "annotations": {SELECTED_NODE: node}});
            let claims: Api<PersistentVolumeClaim> =
                Api::namespaced(self.client.clone(), &of(&claim.metadata.namespace));
            let patch = Patch::Merge(json!({"metadata": metadata}));
            return claims.patch(&of(&claim.metadata.name), &PatchParams::default(), &patch).await.map(|_| ());
        };
        let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.metadata.name,
            "namespace": claim.metadata.namespace, "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version});
        let annotations = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
        let metadata = json!({"resourceVersion": volume.metadata.resource_version, "annotations": annotations});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"claimRef": reference}}));
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        volumes.patch(&of(&volume.metadata.name), &PatchParams::default(), &patch).await.map(|_| ())
    }

    /// Makes the victims leave, each with its grace, and those wait elsewhere that waited for this room and are less important.
    pub async fn preempt(&self, pod: &Pod, plan: &Plan, less_important: &[Arc<Pod>]) -> Result<Done, Failed> {
        let message = format!("Preempted by pod {} on node {}", uid(pod), plan.node);
        for victim in &plan.victims {
            if let Err(error) = self.evict(victim).await {
                let name = victim.metadata.name.as_deref().unwrap_or_default();
                warn!(pod = name, %error, "not preempted; will be tried again");
                return Err(Failed { uid: uid(pod).to_owned() });
            }
            self.event(victim, "Normal", "Preempted", &message).await;
        }
        for other in less_important {
            let patch = json!({"metadata": {"uid": uid(other)}, "status": {"nominatedNodeName": null}});
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let patched = self.pods(other).patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            if let Err(error) = patched {
                // It is found out when it is tried again.
                debug!(pod = name, %error, "still waits for room that another gets");
            }
        }
        Ok(Done::Written)
    }

    /// Who is gone already has left.
    async fn evict(&self, victim: &Pod) -> Result<(), kube::Error> {
        let name = victim.metadata.name.as_deref().unwrap_or_default();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", self.name),
            "lastTransitionTime": now(),
        });
        let patch = json!({"metadata": {"uid": uid(victim)}, "status": {"conditions": [condition]}});
        let preconditions = Preconditions { uid: victim.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let pods = self.pods(victim);
        let told = pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ());
        let gone = match told {
            Ok(()) => pods.delete(name, &parameters).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match gone {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other,
        }
    }

    /// Events are a courtesy: one that cannot be written is only logged.
    async fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let stamp = k8s_openapi::jiff::Timestamp::now();
        let event = json!({
            "metadata": {"name": format!("{name}.{:x}", stamp.as_nanosecond()), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": uid(pod),
                "resourceVersion": pod.metadata.resource_version,
            },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now(), "lastTimestamp": now(),
            "source": {"component": self.name}, "reportingComponent": self.name, "reportingInstance": "",
        });
        let event: Event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(error) => return warn!(%error, "event not made"),
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            debug!(pod = name, %error, "event not written");
        }
    }
}

fn now() -> String {
    // Kubernetes writes whole seconds.
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
