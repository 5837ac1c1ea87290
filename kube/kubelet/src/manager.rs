//! Which pods belong on this machine: watches the API, gives every pod its worker, and looks after leftovers.
//!
//! ```text
//! start: pods in the API ∩ here → their workers join them again
//!        here, not in the API  → stopped at once       ─▶ "recovered" ─▶ the Node may be Ready
//!        in the API, deleted   → their workers end them
//! ```
//!
//! Static pods have their workers without the API; of the API's pods those that show them (mirrors) have none.

mod statics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::Shared;
use crate::eviction::Evicted;
use crate::pod::worker::{self, Input};
use crate::static_pods::{Mirrors, Said, Statics, is_own, shown};

/// Pods that were deleted while we were away end within their grace, which is over by then; one that does not is hung
/// in the kernel, and must not keep the machine from the rest of its work for ever.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether the place of a static pod is free.
const AGAIN: Duration = Duration::from_millis(500);

/// The pods that have a worker, for those who ask about them.
pub(crate) type Pods = watch::Receiver<BTreeMap<String, Arc<Pod>>>;

struct Worker {
    input: watch::Sender<Input>,
    task: JoinHandle<()>,
}

pub(crate) struct Manager {
    shared: Arc<Shared>,
    workers: BTreeMap<String, Worker>,
    pods: watch::Sender<BTreeMap<String, Arc<Pod>>>,
    recovered: watch::Sender<bool>,
    /// Uids seen since the watch began anew.
    fresh: Option<BTreeSet<String>>,
    statics: watch::Receiver<Said>,
    /// Static pods that have a worker, or wait until the one before them has ended.
    own: Statics,
    mirrors: watch::Sender<Mirrors>,
    evictions: mpsc::Receiver<Evicted>,
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.workers.values().for_each(|w| w.task.abort());
    }
}

impl Manager {
    pub fn new(
        shared: Arc<Shared>,
        recovered: watch::Sender<bool>,
        (statics, evictions): (watch::Receiver<Said>, mpsc::Receiver<Evicted>),
    ) -> (Self, Pods, watch::Receiver<Mirrors>) {
        let (pods, receiver) = watch::channel(BTreeMap::new());
        let (mirrors, seen) = watch::channel(None);
        let (workers, own) = (BTreeMap::new(), Statics::new());
        (Self { shared, workers, pods, recovered, fresh: None, statics, own, mirrors, evictions }, receiver, seen)
    }

    /// Watches until dropped.
    pub async fn run(mut self) {
        let api: Api<Pod> = Api::all(self.shared.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.shared.node_name));
        let mut events = std::pin::pin!(kube::runtime::WatchStreamExt::default_backoff(watcher(api, config)));
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                // What was not taken stays: the stream, and what changed.
                event = events.next() => match event {
                    Some(event) => self.heard(event).await,
                    None => return,
                },
                Some((uid, why)) = self.evictions.recv() => {
                    if let Some(worker) = self.workers.get(&uid) {
                        worker.input.send_modify(|input| input.evicted = Some(why));
                    }
                }
                Ok(()) = self.statics.changed() => self.take_statics().await,
                _ = again.tick(), if self.waits() => self.start_statics(),
            }
        }
    }

    async fn heard(&mut self, event: Result<Event<Pod>, watcher::Error>) {
        match event {
            Ok(Event::Init) => {
                self.fresh = Some(BTreeSet::new());
            }
            Ok(Event::InitApply(pod)) => {
                if let (Some(fresh), Some(uid)) = (&mut self.fresh, &pod.metadata.uid) {
                    fresh.insert(uid.clone());
                }
                self.apply(pod);
            }
            Ok(Event::InitDone) => self.settle().await,
            Ok(Event::Apply(pod)) => self.apply(pod),
            Ok(Event::Delete(pod)) if shown(&pod).is_some() => {
                self.unshown(|mirror| mirror.metadata.uid == pod.metadata.uid)
            }
            Ok(Event::Delete(pod)) => self.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
            Err(e) => tracing::warn!(node = self.shared.node_name, "watch pods: {e}"),
        }
    }

    fn apply(&mut self, pod: Pod) {
        let here = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(self.shared.node_name.as_str());
        let Some(uid) = pod.metadata.uid.clone().filter(|uid| here && is_uid(uid)) else {
            tracing::warn!(pod = pod.metadata.name, "a pod of another node, or with a uid that is none, is not run");
            return;
        };
        let pod = Arc::new(pod);
        if shown(&pod).is_some() {
            return self.shows(pod);
        }
        self.give(&uid, Input { pod, gone: false, shown: None, evicted: None });
    }

    /// Gives a worker what it has to know; one that is not there begins.
    fn give(&mut self, uid: &str, input: Input) {
        self.workers.retain(|_, w| !w.task.is_finished());
        let pod = Arc::clone(&input.pod);
        match self.workers.get(uid) {
            Some(worker) => worker.input.send_modify(|old| *old = Input { evicted: old.evicted.take(), ..input }),
            None => {
                let (send, receive) = watch::channel(input);
                let task = worker::spawn(Arc::clone(&self.shared), receive, self.pods.subscribe());
                self.workers.insert(uid.to_owned(), Worker { input: send, task });
            }
        }
        self.pods.send_modify(|pods| drop(pods.insert(uid.to_owned(), pod)));
    }

    fn gone(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get(uid) {
            worker.input.send_modify(|input| input.gone = true);
        }
        self.pods.send_modify(|pods| drop(pods.remove(uid)));
    }

    /// The list is complete: what is here and not in it goes.
    async fn settle(&mut self) {
        let Some(mut fresh) = self.fresh.take() else { return };
        self.unshown(|mirror| mirror.metadata.uid.as_ref().is_none_or(|uid| !fresh.contains(uid)));
        fresh.extend(self.workers.keys().filter(|uid| is_own(uid)).cloned());
        let missing: Vec<String> = self.workers.keys().filter(|uid| !fresh.contains(*uid)).cloned().collect();
        missing.iter().for_each(|uid| self.gone(uid));
        if *self.recovered.borrow() {
            return;
        }
        // Of an earlier run's static pods the files know more; without files nobody does.
        let files = self.statics.has_changed().is_ok();
        for uid in leftovers(&self.shared, &fresh).await.into_iter().filter(|uid| !files || !is_own(uid)) {
            tracing::info!(uid, "a pod that is in the API no more is stopped");
            if let Err(why) = sweep_all(&self.shared, &uid).await {
                tracing::warn!(uid, "stop a leftover pod: {why}");
            }
        }
        let ending = self.ending();
        let workers: Vec<_> =
            self.workers.iter().filter(|(uid, _)| ending.contains(*uid)).map(|(uid, _)| uid.clone()).collect();
        let waited = tokio::time::timeout(RECOVERY_MAX, ended(&self.shared, &workers)).await;
        if waited.is_err() {
            tracing::warn!("deleted pods did not end within {} s", RECOVERY_MAX.as_secs());
        }
        self.recovered.send_replace(true);
    }

    fn ending(&self) -> BTreeSet<String> {
        let pods = self.pods.borrow();
        pods.iter().filter(|(_, p)| p.metadata.deletion_timestamp.is_some()).map(|(uid, _)| uid.clone()).collect()
    }
}

/// Waits until the runtime has nothing of these pods any more; each is looked at ten times a second.
async fn ended(shared: &Shared, uids: &[String]) {
    loop {
        let here = shared.runtime.list().await.unwrap_or_default();
        if !uids.iter().any(|uid| here.contains(uid)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Pods of which something is on this machine, and which the API does not have.
async fn leftovers(shared: &Shared, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut here: BTreeSet<String> = match shared.runtime.list().await {
        Ok(found) => found.into_iter().collect(),
        Err(e) => {
            tracing::warn!("list the pods of an earlier run: {e}");
            BTreeSet::new()
        }
    };
    if let Some(network) = &shared.network {
        here.extend(network.attached().await);
    }
    let dirs = std::fs::read_dir(shared.dir.join("pods")).into_iter().flatten().flatten();
    here.extend(dirs.filter_map(|e| e.file_name().into_string().ok()));
    here.into_iter().filter(|uid| !known.contains(uid)).collect()
}

/// Everything of a pod, its files too.
pub(crate) async fn sweep_all(shared: &Shared, uid: &str) -> Result<(), String> {
    worker::sweep(shared, uid).await?;
    worker::remove_dir(&shared.dir.join("pods").join(uid)).map_err(|e| e.to_string())
}

/// A uid becomes a directory's name: only what the API server makes is taken.
fn is_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
