//! What the scheduler writes: bindings, conditions, events, and who has to leave.
//!
//! Events wait in a line of their own, so that no binding waits for one: as upstream's broadcaster, what finds the line full is left out, and
//! counted.
use std::sync::{Arc, LazyLock};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use prometheus::IntCounter;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use substrate_client::Brief;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::preempt::Plan;
use crate::queue::uid;
use crate::storage::{Promise, SELECTED_NODE};

/// Events that wait to be written, of some 600 bytes each; upstream's broadcaster keeps 1,000.
const EVENTS_WAITING_MAX: usize = 5_000;
/// Events that are written at once: fewer than bindings, which others wait for.
const EVENTS_AT_ONCE: usize = 8;

static LEFT_OUT: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Events of the scheduler that were left out because too many waited to be written.";
    prometheus::register_int_counter!("substrate_scheduler_events_dropped_total", help).ok()
});

/// A namespace and the text of an event.
pub(crate) type Line = mpsc::Sender<(String, Box<RawValue>)>;

/// The line of events, and what writes them in its order until the last sender is gone.
pub(crate) fn events(client: Client) -> (Line, impl Future<Output = ()>) {
    LazyLock::force(&LEFT_OUT); // none is counted, too
    let (sender, mut line) = mpsc::channel::<(String, Box<RawValue>)>(EVENTS_WAITING_MAX);
    let next = futures::stream::poll_fn(move |context| line.poll_recv(context));
    let written = next.for_each_concurrent(EVENTS_AT_ONCE, move |(namespace, event)| {
        let events = Brief::namespaced::<Event>(&client, &namespace);
        async move {
            if let Err(error) = events.create(&event).await {
                debug!(event = event.get(), %error, "event not written");
            }
        }
    });
    (sender, written)
}

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
    pub events: Line,
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
                self.event(pod, "Normal", "Scheduled", &message);
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
            self.event(pod, "Warning", "FailedScheduling", message);
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
            self.event(victim, "Normal", "Preempted", &message);
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

    /// Events are a courtesy: nobody waits for one.
    fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
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
        let told = serde_json::value::to_raw_value(&event)
            .is_ok_and(|event| self.events.try_send((namespace.to_owned(), event)).is_ok());
        if let Some(count) = LEFT_OUT.as_ref().filter(|_| !told) {
            count.inc();
        }
    }
}

fn now() -> String {
    // Kubernetes writes whole seconds.
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[tokio::test]
    async fn what_finds_the_line_full_is_counted() {
        // Nothing is written here, so nobody listens there.
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let (events, _written) = events(client.clone());
        let writer = Writer { client, name: "flt".into(), events };
        let left_out = || LEFT_OUT.as_ref().unwrap().get();
        for _ in 0..EVENTS_WAITING_MAX {
            writer.event(&Pod::default(), "Normal", "Scheduled", "");
        }
        assert_eq!(left_out(), 0);
        writer.event(&Pod::default(), "Normal", "Scheduled", "");
        assert_eq!(left_out(), 1);
    }
}
