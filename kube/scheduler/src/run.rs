//! The loop: caches in, bindings, conditions and events out.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use substrate_client::{Access, Cache};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::guarantee::Guarantee;
use crate::profile::Profile;
use crate::queue::{BackOff, Queue, uid};
use crate::schedule::{Kept, choose, fit_error};
use crate::track::Tracker;
use crate::view::{has_ended, node_name};

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `schedulerName` of the pods that it cares for.
    pub name: String,
    /// Wait after a pod's first failure; doubled after each further one.
    pub back_off_first: Duration,
    /// The longest such wait.
    pub back_off_most: Duration,
    /// A pod that did not fit is tried again after this time even if nothing has changed.
    pub retry_unchanged: Duration,
    /// What is kept for pods that are not there yet; nothing is scheduled before that is known. `None` keeps nothing.
    pub guarantees: Option<Guaranteed>,
}

/// What is guaranteed, as soon as it is known.
pub type Guaranteed = watch::Receiver<Option<Arc<[Guarantee]>>>;

impl Default for Options {
    /// The values of kube-scheduler.
    fn default() -> Options {
        Options {
            name: "default-scheduler".to_owned(),
            back_off_first: Duration::from_secs(1),
            back_off_most: Duration::from_secs(10),
            retry_unchanged: Duration::from_secs(300),
            guarantees: None,
        }
    }
}

/// Requests on their way at a time: more does not make the API server faster, and each holds a pod.
const IN_FLIGHT_MAX: usize = 32;

/// A round is made at least this often: far below `retry_unchanged`, and of no weight.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Schedules until dropped.
pub async fn run(access: impl Into<Access>, options: Options) {
    let Access { client, caches } = access.into();
    let pods: Cache<Pod> = caches.all();
    let nodes: Cache<Node> = caches.all();
    let namespaces: Cache<Namespace> = caches.all();
    let mut guarantees = options.guarantees;
    tokio::join!(pods.synced(), nodes.synced(), namespaces.synced(), known(&mut guarantees));
    let (mut pod_changes, mut node_changes) = (pods.changes(), nodes.changes());
    let back_off =
        BackOff { first: options.back_off_first, most: options.back_off_most, unchanged: options.retry_unchanged };
    let mut scheduler = Scheduler {
        writer: Writer { client, name: options.name },
        queue: Queue::new(back_off),
        tracker: Tracker::default(),
        kept: Kept::default(),
        profile: Arc::new(Profile::default()),
        assumed: BTreeMap::new(),
        in_flight: JoinSet::new(),
    };
    loop {
        pod_changes.mark_unchanged();
        node_changes.mark_unchanged();
        if let Some(all) = guarantees.as_mut().and_then(|known| known.borrow_and_update().clone()) {
            scheduler.tracker.guarantee(all);
        }
        let next = scheduler.round(pods.list(), nodes.list(), namespaces.list()).await;
        // A pod that has just failed waits for a change; if none comes, the round after this pause finds it.
        let pause = next.map_or(PAUSE_MAX, |next| next.saturating_duration_since(Instant::now()).min(PAUSE_MAX));
        tokio::select! {
            // Dropping any of these loses nothing: changes stay marked, and a finished request stays in the set.
            _ = pod_changes.changed() => {}
            _ = node_changes.changed() => {}
            () = change(&mut guarantees) => {}
            Some(done) = scheduler.in_flight.join_next() => scheduler.finished(done),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits until it is known what is guaranteed.
async fn known(guarantees: &mut Option<Guaranteed>) {
    if let Some(known) = guarantees
        && known.wait_for(Option::is_some).await.is_err()
    {
        warn!("nobody says any more what is guaranteed: nothing is kept");
    }
}

/// Waits for another guarantee, or one less; for ever where nobody tells.
async fn change(guarantees: &mut Option<Guaranteed>) {
    let told = match guarantees {
        Some(known) => known.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

struct Scheduler {
    writer: Writer,
    queue: Queue,
    tracker: Tracker,
    kept: Kept,
    profile: Arc<Profile>,
    /// Pods for which a node is chosen that are not seen bound yet, with the node.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    in_flight: JoinSet<Result<(), Failed>>,
}

/// A binding that was not made.
struct Failed {
    uid: String,
}

impl Scheduler {
    /// Tries every pod whose turn it is. Answers when to come back if nothing changes.
    async fn round(
        &mut self,
        pods: Vec<Arc<Pod>>,
        nodes: Vec<Arc<Node>>,
        namespaces: Vec<Arc<Namespace>>,
    ) -> Option<Instant> {
        let by_uid: BTreeMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (uid(pod), pod)).collect();
        self.assumed
            .retain(|uid, _| by_uid.get(uid.as_str()).is_some_and(|pod| node_name(pod).is_none() && !has_ended(pod)));
        self.tracker.sync(&nodes, &namespaces, &pods, self.assumed.values());
        let cluster = self.tracker.generation();
        let (gated, waiting): (Vec<_>, Vec<_>) =
            pods.iter().filter(|pod| self.is_ours(pod)).cloned().partition(|pod| is_gated(pod));
        for pod in gated {
            if condition_of(&pod).is_none_or(|found| found["reason"] != "SchedulingGated") {
                self.report(
                    pod,
                    "SchedulingGated",
                    "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
                )
                .await;
            }
        }
        let (ready, next) = self.queue.ready(waiting, cluster, Instant::now());
        for pod in ready {
            let view = self.tracker.view();
            let prepared = self.kept.of(view, &pod, &self.profile);
            match choose(view, &pod, prepared, &[]).map_err(|failures| fit_error(view, prepared, failures)) {
                Ok(choice) => {
                    self.tracker.assume(pod.clone(), &choice.node);
                    self.assumed.insert(uid(&pod).to_owned(), (pod.clone(), choice.node.clone()));
                    self.make_room().await;
                    let writer = self.writer.clone();
                    self.in_flight.spawn(async move { writer.bind(&pod, &choice.node).await });
                }
                Err(error) => {
                    self.queue.failed(uid(&pod), Some(self.tracker.generation()), Instant::now());
                    self.report(pod, "Unschedulable", error.to_string()).await;
                }
            }
        }
        next
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let named = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        named == self.writer.name
            && node_name(pod).is_none()
            && !has_ended(pod)
            && pod.metadata.deletion_timestamp.is_none()
            && !self.assumed.contains_key(uid(pod))
    }

    /// Writes the condition, and an event unless a gate is the reason, if they say something new.
    async fn report(&mut self, pod: Arc<Pod>, reason: &'static str, message: String) {
        let same = condition_of(&pod).is_some_and(|found| found["reason"] == reason && found["message"] == message);
        if same {
            return;
        }
        self.make_room().await;
        let writer = self.writer.clone();
        self.in_flight.spawn(async move {
            writer.report(&pod, reason, &message).await;
            Ok(())
        });
    }

    async fn make_room(&mut self) {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            if let Some(done) = self.in_flight.join_next().await {
                self.finished(done);
            }
        }
    }

    fn finished(&mut self, done: Result<Result<(), Failed>, tokio::task::JoinError>) {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => {
                self.assumed.remove(&failed.uid);
                self.queue.failed(&failed.uid, None, Instant::now());
            }
            Err(error) => warn!(%error, "a scheduling task ended"),
        }
    }
}

#[derive(Clone)]
struct Writer {
    client: Client,
    name: String,
}

impl Writer {
    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Failed> {
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

    async fn report(&self, pod: &Pod, reason: &str, message: &str) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": now(),
        });
        // Merged by type: conditions of others stay. With the identity a new pod of the same name refuses it.
        let patch = json!({"metadata": {"uid": uid(pod)}, "status": {"conditions": [condition]}});
        let patched = self.pods(pod).patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            // The pod is tried again and says the same then.
            warn!(pod = name, %error, "condition not written");
        }
        if reason == "Unschedulable" {
            self.event(pod, "Warning", "FailedScheduling", message).await;
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

fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
}

/// The pod's condition `PodScheduled`.
fn condition_of(pod: &Pod) -> Option<Value> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.type_ == "PodScheduled")?;
    Some(json!({"reason": condition.reason, "message": condition.message}))
}
