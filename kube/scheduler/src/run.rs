//! The loop: caches in, bindings, conditions and events out.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use serde_json::{Value, json};
use substrate_client::{Access, Cache};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::act::{self, Done, Failed, Writer};
use crate::filters::Failure;
use crate::guarantee::Guarantee;
use crate::preempt::{self, Plan, priority};
use crate::prepared::Prepared;
use crate::profile::Profile;
use crate::queue::{BackOff, Queue, uid};
use crate::schedule::{Choice, FitError, Kept, choose, fit_error};
use crate::storage::{Promise, Storage};
use crate::track::Tracker;
use crate::view::{View, has_ended, node_name};

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Options {
    /// How nodes are chosen for the pods of each `schedulerName` that it cares for.
    pub profiles: Vec<Profile>,
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
            profiles: vec![Profile::default()],
            back_off_first: Duration::from_secs(1),
            back_off_most: Duration::from_secs(10),
            retry_unchanged: Duration::from_secs(300),
            guarantees: None,
        }
    }
}

/// Requests on their way at a time: more does not make the API server faster, and each holds a pod.
const IN_FLIGHT_MAX: usize = 48;

/// Rounds are at least so far apart: each looks at everything, and in a burst one look at the sum of its changes does.
const APART: Duration = Duration::from_millis(10);
/// A round is made at least this often: far below `retry_unchanged`, and of no weight.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Schedules until dropped.
pub async fn run(access: impl Into<Access>, options: Options) {
    let Access { client, caches } = access.into();
    let pods: Cache<Pod> = caches.all();
    let nodes: Cache<Node> = caches.all();
    let namespaces: Cache<Namespace> = caches.all();
    let budgets: Cache<PodDisruptionBudget> = caches.all();
    let stored = Stored { claims: caches.all(), volumes: caches.all(), classes: caches.all(), seen: None };
    let mut guarantees = options.guarantees;
    tokio::join!(stored.claims.synced(), stored.volumes.synced(), stored.classes.synced());
    let mut storage_changes = [stored.claims.changes(), stored.volumes.changes(), stored.classes.changes()];
    tokio::join!(pods.synced(), nodes.synced(), namespaces.synced(), budgets.synced(), known(&mut guarantees));
    let (mut pod_changes, mut node_changes) = (pods.changes(), nodes.changes());
    let back_off =
        BackOff { first: options.back_off_first, most: options.back_off_most, unchanged: options.retry_unchanged };
    let (events, written) = act::events(client.clone());
    let mut tasks = JoinSet::new(); // ends with this
    tasks.spawn(written);
    let mut scheduler = Scheduler {
        client,
        events,
        queue: Queue::new(back_off),
        tracker: Tracker::default(),
        kept: Kept::default(),
        profiles: options.profiles.into_iter().map(Arc::new).collect(),
        budgets,
        stored,
        promising: BTreeSet::new(),
        assumed: BTreeMap::new(),
        nominated: BTreeMap::new(),
        kept_room: BTreeSet::new(),
        leaving: BTreeMap::new(),
        in_flight: JoinSet::new(),
    };
    loop {
        pod_changes.mark_unchanged();
        node_changes.mark_unchanged();
        storage_changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        if let Some(all) = guarantees.as_mut().and_then(|known| known.borrow_and_update().clone()) {
            scheduler.tracker.guarantee(all);
        }
        let next = scheduler.round(pods.list(), nodes.list(), namespaces.list()).await;
        let apart = tokio::time::Instant::now() + APART;
        // A pod that has just failed waits for a change; if none comes, the round after this pause finds it.
        let pause = next.map_or(PAUSE_MAX, |next| next.saturating_duration_since(Instant::now()).min(PAUSE_MAX));
        tokio::select! {
            // Dropping any of these loses nothing: changes stay marked, and a finished request stays in the set.
            _ = pod_changes.changed() => {}
            _ = node_changes.changed() => {}
            _ = futures::future::select_all(storage_changes.iter_mut().map(|one| Box::pin(one.changed()))) => {}
            () = change(&mut guarantees) => {}
            Some(done) = scheduler.in_flight.join_next() => scheduler.finished(done),
            () = tokio::time::sleep(pause) => {}
        }
        tokio::time::sleep_until(apart).await;
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

struct Stored {
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    /// How often each had changed when it was looked at.
    seen: Option<[u64; 3]>,
}

impl Stored {
    /// All of it, if something has changed.
    fn news(&mut self) -> Option<Storage> {
        let now = [self.claims.version(), self.volumes.version(), self.classes.version()];
        let news = self.seen.replace(now) != Some(now);
        news.then(|| Storage::new(self.claims.list(), self.volumes.list(), self.classes.list()))
    }
}

struct Scheduler {
    client: Client,
    events: act::Line,
    queue: Queue,
    tracker: Tracker,
    kept: Kept,
    profiles: Vec<Arc<Profile>>,
    /// Pods for which a node is chosen that are not seen bound yet, with the node.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    budgets: Cache<PodDisruptionBudget>,
    stored: Stored,
    /// Pods for whose claims something is being written.
    promising: BTreeSet<String>,
    /// Pods for which room is made, with the node, until that is seen in their status.
    nominated: BTreeMap<String, (Arc<Pod>, String)>,
    /// For whom room was kept where in the round before.
    kept_room: BTreeSet<(String, String)>,
    /// Whom such pods wait for, until it is seen that they leave.
    leaving: BTreeMap<String, Vec<Arc<Pod>>>,
    in_flight: JoinSet<Result<Done, Failed>>,
}

/// What becomes of a pod that fits nowhere.
enum Preemption {
    Planned(Plan),
    /// Others were told to leave.
    Begun,
    /// It may not ask for that, or waits for those who leave.
    Waits(&'static str),
    InVain(Option<String>),
}

impl Scheduler {
    /// Tries every pod whose turn it is. Answers when to come back if nothing changes.
    async fn round(
        &mut self,
        pods: Vec<Arc<Pod>>,
        nodes: Vec<Arc<Node>>,
        namespaces: Vec<Arc<Namespace>>,
    ) -> Option<Instant> {
        let by_uid: HashMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (uid(pod), pod)).collect();
        self.assumed
            .retain(|uid, _| by_uid.get(uid.as_str()).is_some_and(|pod| node_name(pod).is_none() && !has_ended(pod)));
        self.tracker.sync(&nodes, &namespaces, &pods, self.assumed.values());
        if let Some(storage) = self.stored.news() {
            self.tracker.store(storage);
        }
        let mut nominated = self.nominated(&pods, &by_uid);
        let cluster = self.tracker.generation();
        let (gated, waiting): (Vec<_>, Vec<_>) =
            pods.iter().filter(|pod| self.is_ours(pod)).cloned().partition(|pod| is_gated(pod));
        for pod in gated {
            if condition_of(&pod).is_none_or(|found| found["reason"] != "SchedulingGated") {
                self.report(
                    pod,
                    "SchedulingGated",
                    "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
                    None,
                )
                .await;
            }
        }
        let (ready, next) = self.queue.ready(waiting, cluster, Instant::now());
        for pod in ready {
            nominated.retain(|(other, _)| uid(other) != uid(&pod));
            match self.choose(&pod, &nominated) {
                Ok(choice) if self.waits(&pod) => {
                    // Not tried in vain: it is looked at again when its claims have changed.
                    self.nominated.insert(uid(&pod).to_owned(), (pod.clone(), choice.node.clone()));
                    nominated.push((pod.clone(), choice.node.clone()));
                    self.promise(&pod, &choice.node).await;
                }
                Ok(choice) => {
                    // Counted where it is now, not twice.
                    self.nominated.remove(uid(&pod));
                    self.tracker.place(&pod, &choice.node);
                    self.assumed.insert(uid(&pod).to_owned(), (pod.clone(), choice.node.clone()));
                    self.make_room().await;
                    let writer = self.writer(&pod);
                    self.in_flight.spawn(async move { writer.bind(&pod, &choice.node).await });
                }
                Err((mut error, failures)) => {
                    self.queue.failed(uid(&pod), Some(self.tracker.generation()), Instant::now());
                    let before = pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
                    let before = before.filter(|name| !name.is_empty());
                    match self.preempt(&pod, &failures, &nominated) {
                        Preemption::Planned(plan) => {
                            let node = plan.node.clone();
                            nominated.push((pod.clone(), node.clone()));
                            self.make_leave(&pod, plan, &nominated).await;
                            self.report(pod, "Unschedulable", error.to_string(), Some(node)).await;
                        }
                        // What it waits for is not seen yet.
                        Preemption::Begun => nominated.extend(before.map(|node| (pod, node))),
                        Preemption::Waits(words) => {
                            error.preemption = Some(words.to_owned());
                            nominated.extend(before.clone().map(|node| (pod.clone(), node)));
                            self.report(pod, "Unschedulable", error.to_string(), before).await;
                        }
                        Preemption::InVain(words) => {
                            error.preemption = words;
                            self.report(pod, "Unschedulable", error.to_string(), None).await;
                        }
                    }
                }
            }
        }
        next
    }

    fn waits(&mut self, pod: &Pod) -> bool {
        let profile = profile_of(&self.profiles, pod);
        self.kept.of(self.tracker.view(), pod, &profile).wants.needs.waits()
    }

    /// Promises volumes to the claims of a pod that will be on this node; its room is kept until they are bound.
    async fn promise(&mut self, pod: &Arc<Pod>, node: &str) {
        let profile = profile_of(&self.profiles, pod);
        let view = self.tracker.view();
        let needs = &self.kept.of(view, pod, &profile).wants.needs;
        let promises = view.node(node).and_then(|node| needs.promises(node)).unwrap_or_default();
        let open: Vec<Promise> = promises.into_iter().filter(Promise::is_open).collect();
        if open.is_empty() || !self.promising.insert(uid(pod).to_owned()) {
            return;
        }
        self.make_room().await;
        let (writer, pod, node) = (self.writer(pod), pod.clone(), node.to_owned());
        self.in_flight.spawn(async move { writer.promise(&pod, &node, &open).await });
    }

    /// Pods that wait for room on a node.
    fn nominated(&mut self, pods: &[Arc<Pod>], by_uid: &HashMap<&str, &Arc<Pod>>) -> Vec<(Arc<Pod>, String)> {
        let waits =
            |pod: &Pod| node_name(pod).is_none() && !has_ended(pod) && pod.metadata.deletion_timestamp.is_none();
        let seen = |pod: &Pod| pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
        self.nominated.retain(|uid, _| by_uid.get(uid.as_str()).is_some_and(|pod| waits(pod) && seen(pod).is_none()));
        let stays = |victim: &Arc<Pod>| {
            by_uid
                .get(uid(victim))
                .is_some_and(|known| known.metadata.deletion_timestamp.is_none() && !has_ended(known))
        };
        self.leaving.retain(|pod, victims| {
            victims.retain(stays);
            !victims.is_empty() && by_uid.contains_key(pod.as_str())
        });
        let told = pods.iter().filter(|pod| waits(pod) && !self.assumed.contains_key(uid(pod)));
        let told = told.filter_map(|pod| Some((pod.clone(), seen(pod).filter(|name| !name.is_empty())?)));
        let all: Vec<(Arc<Pod>, String)> = self.nominated.values().cloned().chain(told).collect();
        let keys = all.iter().map(|(pod, node)| (uid(pod).to_owned(), node.clone())).collect();
        let before = std::mem::replace(&mut self.kept_room, keys);
        if !before.is_subset(&self.kept_room) {
            self.tracker.room_was_given_up();
        }
        all
    }

    /// Counts pods that are at least as important and wait for room on nodes as if they were there, and what that is good for.
    fn with<T>(
        &mut self,
        pod: &Pod,
        nominated: &[(Arc<Pod>, String)],
        look: impl FnOnce(&mut View, &mut Prepared) -> T,
    ) -> T {
        let first: Vec<_> = nominated.iter().filter(|(other, _)| priority(other) >= priority(pod)).collect();
        let profile = profile_of(&self.profiles, pod);
        let view = self.tracker.view_mut();
        first.iter().for_each(|(other, node)| view.assume(other.clone(), node));
        let prepared = self.kept.of(view, pod, &profile);
        let seen = look(view, prepared);
        first.iter().for_each(|(other, node)| view.forget(other, node));
        seen
    }

    fn choose(&mut self, pod: &Pod, nominated: &[(Arc<Pod>, String)]) -> Result<Choice, (FitError, Vec<Failure>)> {
        // With those that will be there and without them: what follows from their being there is not sure yet.
        let mask: Vec<Option<Failure>> = match nominated.iter().any(|(other, _)| priority(other) >= priority(pod)) {
            false => Vec::new(),
            true => self.with(pod, nominated, |view, prepared| {
                let judge = prepared.judge();
                (0..view.len()).map(|at| judge.failure(view, at)).collect()
            }),
        };
        let profile = profile_of(&self.profiles, pod);
        let wish = self.nominated.get(uid(pod)).map(|(_, node)| node.clone());
        let view = self.tracker.view();
        let prepared = self.kept.of(view, pod, &profile);
        choose(view, pod, prepared, &mask, wish.as_deref())
            .map_err(|failures| (fit_error(view, prepared, failures.clone()), failures))
    }

    fn preempt(&mut self, pod: &Pod, failures: &[Failure], nominated: &[(Arc<Pod>, String)]) -> Preemption {
        if failures.is_empty() || !profile_of(&self.profiles, pod).asks("DefaultPreemption") {
            return Preemption::InVain(None);
        }
        if self.leaving.contains_key(uid(pod)) {
            return Preemption::Begun;
        }
        if let Some(words) = preempt::ineligible(self.tracker.view(), pod) {
            return Preemption::Waits(words);
        }
        let budgets = self.budgets.list();
        let plan = self.with(pod, nominated, |view, prepared| preempt::plan(view, prepared, pod, failures, &budgets));
        plan.map_or_else(|words| Preemption::InVain(Some(words)), Preemption::Planned)
    }

    async fn make_leave(&mut self, pod: &Arc<Pod>, plan: Plan, nominated: &[(Arc<Pod>, String)]) {
        self.nominated.insert(uid(pod).to_owned(), (pod.clone(), plan.node.clone()));
        self.leaving.insert(uid(pod).to_owned(), plan.victims.clone());
        let less = nominated.iter().filter(|(other, node)| *node == plan.node && priority(other) < priority(pod));
        let less: Vec<Arc<Pod>> = less.map(|(other, _)| other.clone()).collect();
        self.make_room().await;
        let (writer, pod) = (self.writer(pod), pod.clone());
        self.in_flight.spawn(async move { writer.preempt(&pod, &plan, &less).await });
    }

    /// What writes in the name that the pod has given.
    fn writer(&self, pod: &Pod) -> Writer {
        Writer { client: self.client.clone(), name: scheduler_of(pod).to_owned(), events: self.events.clone() }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let named = scheduler_of(pod);
        self.profiles.iter().any(|profile| profile.name == named)
            && node_name(pod).is_none()
            && !has_ended(pod)
            && pod.metadata.deletion_timestamp.is_none()
            && !self.assumed.contains_key(uid(pod))
    }

    /// Writes the condition and where room is made, and an event unless a gate is the reason, if they say something new.
    async fn report(&mut self, pod: Arc<Pod>, reason: &'static str, message: String, nominated: Option<String>) {
        let same = condition_of(&pod).is_some_and(|found| found["reason"] == reason && found["message"] == message);
        let before = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_ref());
        if same && before == nominated.as_ref() {
            return;
        }
        self.make_room().await;
        let writer = self.writer(&pod);
        self.in_flight.spawn(async move {
            writer.report(&pod, reason, &message, nominated.as_deref()).await;
            Ok(Done::Written)
        });
    }

    async fn make_room(&mut self) {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            if let Some(done) = self.in_flight.join_next().await {
                self.finished(done);
            }
        }
    }

    fn finished(&mut self, done: Result<Result<Done, Failed>, tokio::task::JoinError>) {
        match done {
            Ok(Ok(Done::Written)) => {}
            Ok(Ok(Done::Promised(uid))) => {
                self.promising.remove(&uid);
            }
            Ok(Err(failed)) => {
                self.assumed.remove(&failed.uid);
                self.nominated.remove(&failed.uid);
                self.leaving.remove(&failed.uid);
                self.promising.remove(&failed.uid);
                self.queue.failed(&failed.uid, None, Instant::now());
            }
            Err(error) => warn!(%error, "a scheduling task ended"),
        }
    }
}

fn scheduler_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler")
}

fn profile_of(profiles: &[Arc<Profile>], pod: &Pod) -> Arc<Profile> {
    let found = profiles.iter().find(|profile| profile.name == scheduler_of(pod));
    found.cloned().unwrap_or_default()
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
