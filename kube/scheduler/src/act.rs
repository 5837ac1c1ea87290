//! What the scheduler writes: bindings, conditions, events, and who has to leave.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::preempt::Plan;
use crate::queue::uid;

/// A binding or a preemption that was not made.
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

    pub async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Failed> {
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
                Ok(())
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

    /// Makes the victims leave, each with its grace, and those wait elsewhere that waited for this room and are less important.
    pub async fn preempt(&self, pod: &Pod, plan: &Plan, less_important: &[Arc<Pod>]) -> Result<(), Failed> {
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
        Ok(())
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
