//! Watches all kinds and carries the plan out.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::Pace;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use super::graph::{Graph, Object};
use super::plan::{Plan, Propagation, plan};
use crate::in_use::InUse;
use crate::kinds::{Kind, discover};

/// Kinds are looked up again this often; a new CustomResourceDefinition is noticed at once.
const DISCOVER_EVERY: Duration = Duration::from_secs(60);
/// A definition is served a moment after it is written.
const DISCOVER_SOON: Duration = Duration::from_millis(300);
/// Changes waiting to be put into the graph; a watcher that is ahead waits.
const CHANGES_MAX: usize = 1024;
/// Identities known to be absent. Each costs about 60 bytes; with more they are forgotten and asked for again.
const ABSENT_MAX: usize = 10_000;
/// Changes of one cause come together.
const BURST: Duration = Duration::from_millis(10);
/// After something could not be done; doubled each time up to the most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(30);

type KindKey = (String, String);

enum Change {
    Reset(KindKey, Vec<Object>),
    Apply(Object),
    Delete(String),
}

/// Collects until dropped.
pub(crate) async fn run(client: Client, in_use: InUse) {
    let (sender, mut changes) = mpsc::channel(CHANGES_MAX);
    let mut collector = Collector {
        client,
        sender,
        in_use,
        graph: Graph::default(),
        absent: BTreeSet::new(),
        kinds: BTreeMap::new(),
        watches: JoinSet::new(),
    };
    let mut retry = RETRY_FIRST;
    let mut discover_at = Instant::now();
    let mut plan_at: Option<Instant> = None;
    let mut pace = Pace::default();
    loop {
        let now = Instant::now();
        if discover_at <= now {
            let known = collector.discover().await;
            discover_at = Instant::now() + if known { DISCOVER_EVERY } else { retry };
            plan_at = plan_at.or(Some(now));
        }
        if plan_at.is_some_and(|at| at <= now) {
            pace.begin().await;
            let done = collector.round().await;
            pace.end();
            retry = if done { RETRY_FIRST } else { (retry * 2).min(RETRY_MOST) };
            plan_at = (!done).then(|| Instant::now() + retry);
        }
        let wake = plan_at.map_or(discover_at, |at| at.min(discover_at));
        // Dropping the wait loses nothing: what is not received stays in the channel.
        let pause = wake.saturating_duration_since(Instant::now());
        if let Ok(Some(change)) = tokio::time::timeout(pause, changes.recv()).await {
            let mut redefined = collector.note(change);
            while let Ok(change) = changes.try_recv() {
                redefined |= collector.note(change);
            }
            if redefined {
                discover_at = discover_at.min(Instant::now() + DISCOVER_SOON);
            }
            let soon = Instant::now() + BURST;
            plan_at = Some(plan_at.map_or(soon, |at| at.min(soon)));
        }
    }
}

struct Watched {
    kind: Kind,
    listed: bool,
    task: AbortHandle,
}

struct Collector {
    client: Client,
    sender: mpsc::Sender<Change>,
    in_use: InUse,
    graph: Graph,
    absent: BTreeSet<String>,
    kinds: BTreeMap<KindKey, Watched>,
    watches: JoinSet<()>,
}

fn key(resource: &ApiResource) -> KindKey {
    (resource.api_version.clone(), resource.kind.clone())
}

impl Collector {
    /// Begins to watch kinds that are new and ends with those that are gone.
    async fn discover(&mut self) -> bool {
        let found = match discover(&self.client).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "kinds not found; will be tried again");
                return false;
            }
        };
        let found: BTreeMap<KindKey, Kind> =
            found.into_iter().filter(|kind| kind.watchable).map(|kind| (key(&kind.resource), kind)).collect();
        let gone: Vec<KindKey> = self.kinds.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(watched) = self.kinds.remove(&key) {
                watched.task.abort();
            }
            self.graph.reset(&key, Vec::new());
        }
        while self.watches.try_join_next().is_some() {}
        for (key, kind) in found {
            if !self.kinds.contains_key(&key) {
                let api = Api::all_with(self.client.clone(), &kind.resource);
                let task = self.watches.spawn(follow(api, key.clone(), self.sender.clone()));
                self.kinds.insert(key, Watched { kind, listed: false, task });
            }
        }
        true
    }

    /// A pod that waits to be counted by a Job needs somebody to let it go, also when there is no Job any more.
    fn note_tracked(&self, object: &Object) {
        if object.has_finalizer(crate::job::FINALIZER) {
            self.in_use.note("batch/v1", "Job");
        }
    }

    /// Puts a change into the graph. Answers whether there may be other kinds now.
    fn note(&mut self, change: Change) -> bool {
        const DEFINITION: &str = "CustomResourceDefinition";
        match change {
            Change::Reset(key, objects) => {
                let redefined = key.1 == DEFINITION;
                // A watch that was ended in between may still have something to say.
                if let Some(watched) = self.kinds.get_mut(&key) {
                    watched.listed = true;
                    if !objects.is_empty() {
                        self.in_use.note(&key.0, &key.1);
                    }
                    objects.iter().for_each(|object| self.note_tracked(object));
                    self.graph.reset(&key, objects);
                }
                redefined
            }
            Change::Apply(object) => {
                let redefined = object.kind.1 == DEFINITION;
                if self.kinds.contains_key(&object.kind) {
                    self.in_use.note(&object.kind.0, &object.kind.1);
                    self.note_tracked(&object);
                    self.graph.apply(object);
                }
                redefined
            }
            Change::Delete(uid) => {
                let redefined = self.graph.get(&uid).is_some_and(|object| object.kind.1 == DEFINITION);
                // Seen to go: nobody has to be asked.
                self.remember_absent(uid.clone());
                self.graph.delete(&uid);
                redefined
            }
        }
    }

    fn remember_absent(&mut self, uid: String) {
        if self.absent.len() >= ABSENT_MAX {
            self.absent.clear();
        }
        self.absent.insert(uid);
    }

    /// Plans and acts. Answers whether all was done.
    async fn round(&mut self) -> bool {
        let complete = !self.kinds.is_empty() && self.kinds.values().all(|watched| watched.listed);
        let mut plan = plan(&self.graph, &self.absent, complete);
        let mut done = true;
        if !plan.ask.is_empty() {
            let mut learned = false;
            for (owner, namespace) in std::mem::take(&mut plan.ask) {
                match self.exists(&owner, &namespace).await {
                    Ok(true) => done = false,
                    Ok(false) => {
                        learned = true;
                        self.remember_absent(owner.uid);
                    }
                    Err(error) => {
                        debug!(kind = owner.kind, name = owner.name, %error, "not known whether it exists");
                        done = false;
                    }
                }
            }
            if learned {
                plan = super::plan::plan(&self.graph, &self.absent, complete);
            }
        }
        if let Err(error) = self.carry_out(plan).await {
            warn!(%error, "will be tried again");
            done = false;
        }
        done
    }

    fn api(&self, kind: &KindKey, namespace: &str) -> Option<Api<DynamicObject>> {
        let kind = &self.kinds.get(kind)?.kind;
        Some(match kind.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            false => Api::all_with(self.client.clone(), &kind.resource),
        })
    }

    /// Asks whether an owner exists. A kind that nobody serves (any more) is an error: it may come back.
    async fn exists(&self, owner: &OwnerReference, namespace: &str) -> Result<bool, kube::Error> {
        let key = (owner.api_version.clone(), owner.kind.clone());
        // The owner may be named in another version of its group than the one watched.
        let group =
            |api_version: &str| api_version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        let same = |known: &&KindKey| known.1 == key.1 && group(&known.0) == group(&key.0);
        let known = self.kinds.keys().find(|known| **known == key).or_else(|| self.kinds.keys().find(same));
        let Some(api) = known.and_then(|known| self.api(known, namespace)) else {
            let message = format!("no kind {} in {}", owner.kind, owner.api_version);
            return Err(kube::Error::Service(message.into()));
        };
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_ref() == Some(&owner.uid)))
    }

    async fn carry_out(&self, plan: Plan) -> Result<(), kube::Error> {
        for (object, propagation) in plan.delete {
            let Some(api) = self.api(&object.kind, &object.namespace) else { continue };
            debug!(kind = object.kind.1, namespace = object.namespace, name = object.name, ?propagation, "garbage");
            let parameters = DeleteParams {
                propagation_policy: Some(match propagation {
                    Propagation::Background => PropagationPolicy::Background,
                    Propagation::Foreground => PropagationPolicy::Foreground,
                    Propagation::Orphan => PropagationPolicy::Orphan,
                }),
                // Judged by this version: an owner that was added since saves it.
                preconditions: Some(Preconditions {
                    uid: Some(object.uid.clone()),
                    resource_version: object.version.clone(),
                }),
                ..DeleteParams::default()
            };
            settled(api.delete(&object.name, &parameters).await.map(|_| ()))?;
        }
        for (object, owners) in plan.strip {
            let mut kept = object.owners.clone();
            kept.retain(|owner| !owners.contains(&owner.uid));
            self.patch(&object, json!({"ownerReferences": or_none(kept)})).await?;
        }
        for (object, finalizer) in plan.release {
            let mut kept = object.finalizers.clone();
            kept.retain(|found| found != finalizer);
            self.patch(&object, json!({"finalizers": or_none(kept)})).await?;
        }
        Ok(())
    }

    /// Merges into the metadata of exactly this version.
    async fn patch(&self, object: &Object, mut metadata: serde_json::Value) -> Result<(), kube::Error> {
        let Some(api) = self.api(&object.kind, &object.namespace) else { return Ok(()) };
        metadata["uid"] = object.uid.clone().into();
        metadata["resourceVersion"] = object.version.clone().into();
        let patch = Patch::Merge(json!({"metadata": metadata}));
        settled(api.patch_metadata(&object.name, &PatchParams::default(), &patch).await.map(|_| ()))
    }
}

/// An empty list is taken away, not kept.
fn or_none<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// What has gone or changed since the view comes again with its change.
fn settled(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other,
    }
}

async fn follow(api: Api<PartialObjectMeta<DynamicObject>>, kind: KindKey, changes: mpsc::Sender<Change>) {
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let mut list = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                list.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                list.push(Object::new(kind.clone(), &object.metadata));
                continue;
            }
            Ok(Event::InitDone) => Change::Reset(kind.clone(), std::mem::take(&mut list)),
            Ok(Event::Apply(object)) => Change::Apply(Object::new(kind.clone(), &object.metadata)),
            Ok(Event::Delete(object)) => Change::Delete(object.metadata.uid.unwrap_or_default()),
            Err(error) => {
                debug!(kind = kind.1, %error, "watch interrupted; it is resumed with back-off");
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}
