//! Events: what happened to a pod, in the words that people search for.
//!
//! The same event again raises the count of the earlier one, so that a crash loop is one line and not a thousand.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use crate::pod::status::whole_second;

/// Events waiting to be written: a burst of a hundred pods starting is four hundred; more are dropped and logged.
const QUEUE: usize = 512;
/// Earlier events remembered for counting; beyond it a repeated event is written anew.
const REMEMBERED: usize = 1024;
/// What the API server would cut off anyway.
const MESSAGE_MAX: usize = 1024;

/// Writes events in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Said>);

struct Said {
    object: ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(String, String, &'static str, String);

impl Recorder {
    /// Starts the task that writes; it ends with the last recorder.
    pub fn start(client: kube::Client, node: &str) -> Self {
        let (send, receive) = mpsc::channel(QUEUE);
        let node = node.to_owned();
        tokio::spawn(write_all(client, node, receive));
        Self(send)
    }

    /// Something went as it should.
    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: String) {
        self.say(pod, container, false, reason, message);
    }

    /// The node itself runs into something.
    pub fn of_node(&self, node: &str, reason: &'static str, message: String) {
        let name = Some(node.to_owned());
        let kind = Some("Node".to_owned());
        self.send(
            ObjectReference { kind, uid: name.clone(), name, ..ObjectReference::default() },
            true,
            reason,
            message,
        );
    }

    /// Something did not.
    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: String) {
        self.say(pod, container, true, reason, message);
    }

    fn say(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &'static str, message: String) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|c| format!("spec.{}{{{c}}}", list_of(pod, c))),
        };
        self.send(object, warning, reason, message);
    }

    fn send(&self, object: ObjectReference, warning: bool, reason: &'static str, mut message: String) {
        if message.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX).rev().find(|n| message.is_char_boundary(*n)).unwrap_or(0);
            message.truncate(end);
        }
        tracing::debug!(object = object.name, reason, message, "event");
        if self.0.try_send(Said { object, warning, reason, message, at: Timestamp::now() }).is_err() {
            tracing::warn!(reason, "an event was dropped: too many are waiting");
        }
    }
}

/// The list of the pod's spec that a container is in.
fn list_of(pod: &Pod, container: &str) -> &'static str {
    if crate::pod::init(pod).any(|c| c.name == container) {
        "initContainers"
    } else if crate::pod::ephemeral(pod).any(|c| c.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    }
}

async fn write_all(client: kube::Client, node: String, mut receive: mpsc::Receiver<Said>) {
    let mut known: HashMap<Key, (String, i32)> = HashMap::new();
    while let Some(said) = receive.recv().await {
        let uid = said.object.uid.clone().unwrap_or_default();
        let key = Key(uid, said.object.field_path.clone().unwrap_or_default(), said.reason, said.message.clone());
        // What is in no namespace has its events in this one.
        let namespace = said.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some((name, count)) = known.get_mut(&key) {
            *count = count.saturating_add(1);
            let patch = serde_json::json!({"count": *count, "lastTimestamp": Time(whole_second(said.at))});
            if api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.is_ok() {
                continue;
            }
        }
        let event = event(&node, &said);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, (name, 1));
            }
            // The namespace may be going away with the pod; an event is not worth more than a line.
            Err(e) => tracing::debug!(reason = said.reason, "write an event: {e}"),
        }
    }
}

fn event(node: &str, said: &Said) -> Event {
    let name = said.object.name.clone().unwrap_or_default();
    let at = Some(Time(whole_second(said.at)));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", said.at.as_nanosecond())),
            namespace: said.object.namespace.clone().or_else(|| Some("default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: said.object.clone(),
        type_: Some(if said.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(said.reason.to_owned()),
        message: Some(said.message.clone()),
        first_timestamp: at.clone(),
        last_timestamp: at,
        count: Some(1),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
