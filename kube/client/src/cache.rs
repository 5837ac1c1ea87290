//! The shared copy of one kind, and all copies of a process.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::StreamExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String);

/// All objects of one kind (that the API handle and selector see), kept current. Clones share the copy; the
/// watch ends with the last clone. Objects come without `managedFields`.
pub struct Cache<K> {
    objects: Arc<RwLock<BTreeMap<Key, Arc<K>>>>,
    generation: watch::Receiver<u64>,
    _watch: Arc<AbortOnDrop>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), generation: self.generation.clone(), _watch: self._watch.clone() }
    }
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts to list and watch everything that `api` sees.
    pub fn start(api: Api<K>) -> Self {
        Self::start_with(api, watcher::Config::default())
    }

    /// Starts to list and watch what `api` and the selectors of `config` see.
    pub fn start_with(api: Api<K>, config: watcher::Config) -> Self {
        Self::start_on(&Handle::current(), api, config)
    }

    fn start_on(runtime: &Handle, api: Api<K>, config: watcher::Config) -> Self {
        let objects = Arc::new(RwLock::new(BTreeMap::new()));
        let (sender, generation) = watch::channel(0);
        let task = runtime.spawn(follow(api, config, objects.clone(), sender));
        Self { objects, generation, _watch: Arc::new(AbortOnDrop(task)) }
    }

    /// Returns after the first complete list.
    pub async fn synced(&self) {
        let mut generation = self.generation.clone();
        // The sender lives as long as the task, and the task as long as this handle.
        let _ = generation.wait_for(|generation| *generation > 0).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.generation.borrow() > 0
    }

    /// The object of this name; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().values().cloned().collect()
    }

    /// All objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = (namespace.to_owned(), String::new());
        self.read().range(start..).take_while(|((ns, _), _)| ns == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// How often something has changed: what was read of the copy holds as long as this is the same.
    pub fn version(&self) -> u64 {
        *self.generation.borrow()
    }

    /// A counter that grows with each change: 0 before the first list. `changed().await` wakes once for any
    /// number of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The copies of one process, each kind and namespace once, whoever asks: a change is decoded once, however many rooms look at it.
/// Clones are the same copies; a watch that was begun goes on until the last clone is gone.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    /// Where changes are followed, whoever asks first.
    runtime: Handle,
    started: Arc<Mutex<Started>>,
}

impl Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

/// Caches by the type of their objects and their namespace, `None` for all.
type Started = HashMap<(TypeId, Option<String>), Box<dyn Any + Send>>;

impl Caches {
    /// Reads with the rights of `client`. Changes are followed by the tokio runtime inside which it must be called.
    pub fn new(client: Client) -> Self {
        Self { client, runtime: Handle::current(), started: Arc::default() }
    }

    /// All objects of a kind, in all namespaces if it has some.
    pub fn all<K>(&self) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.once(None, || Api::all(self.client.clone()))
    }

    /// All objects of a kind in one namespace.
    pub fn namespaced<K>(&self, namespace: &str) -> Cache<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.once(Some(namespace), || Api::namespaced(self.client.clone(), namespace))
    }

    /// What the rooms of a process share beside copies, each type once, made by who asks first.
    pub fn share<T: Clone + Send + 'static>(&self, make: impl FnOnce() -> T) -> T {
        // Nothing panics between two states of the map.
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<T>(), None);
        if let Some(shared) = started.get(&key).and_then(|shared| shared.downcast_ref::<T>()) {
            return shared.clone();
        }
        let made = make();
        started.insert(key, Box::new(made.clone()));
        made
    }

    fn once<K>(&self, namespace: Option<&str>, api: impl FnOnce() -> Api<K>) -> Cache<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        // Nothing panics between two states of the map.
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<K>(), namespace.map(str::to_owned));
        if let Some(cache) = started.get(&key).and_then(|cache| cache.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::start_on(&self.runtime, api(), watcher::Config::default());
        started.insert(key, Box::new(cache.clone()));
        cache
    }
}

/// What a room has of the API: a client with rights of its own to write, and the copies to read that all rooms of the process share.
#[derive(Clone)]
pub struct Access {
    /// Writes, as the room.
    pub client: Client,
    /// Reads, for all rooms.
    pub caches: Caches,
}

impl From<Client> for Access {
    /// With copies that nobody shares.
    fn from(client: Client) -> Self {
        Self { caches: Caches::new(client.clone()), client }
    }
}

async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    objects: Arc<RwLock<BTreeMap<Key, Arc<K>>>>,
    generation: watch::Sender<u64>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    // Who manages which field is half of many an object, and no room reads it. Who writes an object without them leaves them as they are.
    let bare = |object: &mut K| object.meta_mut().managed_fields = None;
    let mut events = std::pin::pin!(watcher::watcher(api, config).modify(bare).default_backoff());
    // A new list is gathered aside, so that nobody sees half of it.
    let mut relist: BTreeMap<Key, Arc<K>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let write = || objects.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Ok(Event::Init) => relist.clear(),
            Ok(Event::InitApply(object)) => {
                relist.insert(key(&object), Arc::new(object));
            }
            Ok(Event::InitDone) => {
                *write() = std::mem::take(&mut relist);
                generation.send_modify(|n| *n += 1);
            }
            Ok(Event::Apply(object)) => {
                write().insert(key(&object), Arc::new(object));
                generation.send_modify(|n| *n += 1);
            }
            Ok(Event::Delete(object)) => {
                write().remove(&key(&object));
                generation.send_modify(|n| *n += 1);
            }
            Err(error) => tracing::debug!(%error, "watch interrupted; it is resumed with back-off"),
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http_body_util::Full;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::client::Body;

    use super::*;

    /// An API with nothing in it, which counts lists and never tells of a change.
    fn api(lists: Arc<AtomicU32>) -> Client {
        api_of(lists, "")
    }

    fn api_of(lists: Arc<AtomicU32>, items: &'static str) -> Client {
        crate::in_process(tower::service_fn(move |request: http::Request<Body>| {
            let lists = lists.clone();
            async move {
                if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                    std::future::pending::<()>().await;
                }
                lists.fetch_add(1, Ordering::Relaxed);
                let head = r#""apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"}"#;
                let list = format!("{{{head},\"items\":[{items}]}}");
                Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(list))))
            }
        }))
    }

    #[tokio::test]
    async fn a_kind_is_listed_once_for_all_rooms() {
        let lists = Arc::new(AtomicU32::new(0));
        let ours = Access::from(api(lists.clone()));
        let theirs = ours.clone();
        let (one, other) = (ours.caches.all::<Pod>(), theirs.caches.all::<Pod>());
        tokio::join!(one.synced(), other.synced());
        assert!(Arc::ptr_eq(&one.objects, &other.objects));
        assert_eq!(lists.load(Ordering::Relaxed), 1);
        // Another namespace and another kind are other copies.
        let (part, kind) = (theirs.caches.namespaced::<Pod>("default"), ours.caches.all::<ConfigMap>());
        tokio::join!(part.synced(), kind.synced());
        assert_eq!(lists.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn nobody_keeps_who_manages_what() {
        let map = r#"{"metadata":{"name":"m","namespace":"n","managedFields":[{"manager":"flt"}]},"data":{"a":"b"}}"#;
        let maps = Caches::new(api_of(Arc::default(), map)).all::<ConfigMap>();
        maps.synced().await;
        let map = maps.get("n", "m").unwrap();
        assert_eq!((map.data.is_some(), &map.metadata.managed_fields), (true, &None));
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_last_who_reads() {
        let caches = Caches::new(api(Arc::default()));
        let pods = caches.all::<Pod>();
        pods.synced().await;
        let mut changes = pods.changes();
        drop(pods);
        assert!(changes.has_changed().is_ok(), "the copies of the process still hold it");
        drop(caches);
        let ended = async { while changes.changed().await.is_ok() {} };
        tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.unwrap();
    }
}
