//! Putting it together: options in, a handle out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine_images::ImageStore;
use fluidos_identity::{FabricPrefix, NodeId, NodeKey, Speakers};
use fluidos_link::Links;
use fluidos_model::kinds::{Allocation, Contract, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use kube::{Client, ResourceExt as _};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_client::{Cache, Caches};
use substrate_kubelet::ImageSource;
use tokio::sync::watch;

use crate::deal::Deal;
use crate::twins::{self, Origin};
use crate::{Error, frames, images, measured, reflection, streams, virtual_node};

/// Answers which prefix a peer holds, or `None` while nobody knows.
pub type PrefixOf = Arc<dyn Fn(&NodeId) -> Option<FabricPrefix> + Send + Sync>;

/// Says whether a workload of a consumer, from this namespace of it, may begin to run here, or why not in words that the
/// consumer may read.
pub type Admit = Arc<dyn Fn(&NodeId, &str) -> Result<(), String> + Send + Sync>;

/// What a fabric is started with.
#[derive(Clone)]
pub struct Options {
    /// Its client, with its own user.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: Caches,
    /// This node.
    pub key: Arc<NodeKey>,
    /// Its links.
    pub links: Links,
    /// The name of this machine's Node: no virtual node gets it, even if there is no such Node.
    pub node_name: String,
    /// Who reaches the machines of pods: virtual nodes are added, and twins are reached through it.
    pub proxies: NodeProxies,
    /// Where images are that this node gives to its providers; without it none are given.
    pub images: Option<ImageStore>,
    /// The cluster DNS, as twins of this node's pods reach it.
    pub dns_address: Ipv4Addr,
    /// The domain of this cluster's names, as `cluster.local`.
    pub cluster_domain: String,
    /// Where the pods of a peer are: addresses that it reports are believed only there.
    pub prefix_of: PrefixOf,
    /// Who may run what here; `None` is everybody who has a contract.
    pub admit: Option<Admit>,
    /// Which key speaks for whom now.
    pub speakers: Speakers,
}

/// The fabric of a node. Cheap to clone.
#[derive(Clone)]
pub struct Fabric {
    pub(crate) shared: Arc<Shared>,
}

/// What all rooms of the fabric share.
pub(crate) struct Shared {
    pub client: Client,
    pub key: Arc<NodeKey>,
    pub links: Links,
    pub node_name: String,
    pub proxies: NodeProxies,
    pub images: Option<ImageStore>,
    pub dns_address: Ipv4Addr,
    pub cluster_domain: String,
    pub prefix_of: PrefixOf,
    pub admit: Option<Admit>,
    pub speakers: Speakers,
    /// When this process started, in milliseconds since 1970.
    started: u64,
    /// Epochs of contracts whose provider had seen a later one. By contract: a provider that lies harms its own only.
    epochs: Mutex<BTreeMap<String, u64>>,
    sequence: AtomicU64,
    pub contracts: Cache<Contract>,
    pub allocations: Cache<Allocation>,
    /// What is promised here: who yields is read from it.
    pub books: fluidos_ledger::View,
    pub nodes: Cache<Node>,
    pub pods: Cache<Pod>,
    pub namespaces: Cache<Namespace>,
    pub config_maps: Cache<ConfigMap>,
    pub secrets: Cache<Secret>,
    pub services: Cache<Service>,
    /// Contracts whose provider has said Ready on the stream that is open, with why what it sold is not there, if it is not.
    pub ready: watch::Sender<BTreeMap<String, Option<String>>>,
    /// What consumers have confirmed since this process started: uids of their pods by contract.
    confirmed: Mutex<BTreeMap<String, BTreeSet<String>>>,
    confirmations: watch::Sender<u64>,
    /// Contracts whose consumer has said since this process started what it wants.
    begun: Mutex<BTreeSet<String>>,
    /// Who gives a stand-in does so alone until the twin that has it is written.
    pub standing_in: tokio::sync::Mutex<()>,
    pub providing: twins::Providing,
    pub yielding: twins::Yielding,
}

impl Fabric {
    /// Starts to watch, and answers peers from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Somebody else answers for one of the stream kinds on these links.
    pub fn start(options: Options) -> Result<Self, Error> {
        let client = options.client;
        let caches = options.caches;
        let shared = Arc::new(Shared {
            started: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0),
            epochs: Mutex::default(),
            sequence: AtomicU64::new(0),
            contracts: caches.namespaced(names::NAMESPACE),
            allocations: caches.namespaced(names::NAMESPACE),
            books: fluidos_ledger::View::shared(&caches),
            nodes: caches.all(),
            pods: caches.all(),
            namespaces: caches.all(),
            config_maps: caches.all(),
            secrets: caches.all(),
            services: caches.all(),
            ready: watch::Sender::new(BTreeMap::new()),
            confirmed: Mutex::default(),
            confirmations: watch::Sender::new(0),
            begun: Mutex::default(),
            standing_in: tokio::sync::Mutex::default(),
            providing: twins::Providing::default(),
            yielding: twins::Yielding::default(),
            client,
            key: options.key,
            links: options.links,
            node_name: options.node_name,
            proxies: options.proxies,
            images: options.images,
            dns_address: options.dns_address,
            cluster_domain: options.cluster_domain,
            prefix_of: options.prefix_of,
            admit: options.admit,
            speakers: options.speakers,
        });
        shared.links.handle(frames::DESIRED, Arc::new(twins::Handler(shared.clone())))?;
        streams::serve(&shared)?;
        images::serve(&shared)?;
        Ok(Self { shared })
    }

    /// Works for ever.
    pub async fn run(self) {
        let shared = &self.shared;
        shared.synced().await;
        tokio::join!(
            virtual_node::run(shared.clone()),
            reflection::run(shared.clone()),
            twins::run(shared.clone()),
            measured::run(shared.clone())
        );
    }

    /// Says whether this pod may be started: twins only after their consumer has confirmed them since this process
    /// started; every other pod always.
    pub fn is_confirmed(&self, pod: &Pod) -> bool {
        match (pod.labels().get(names::LABEL_CONTRACT), Origin::of(pod)) {
            (Some(contract), Some(origin)) => {
                self.shared.confirmed().get(contract).is_some_and(|uids| uids.contains(&origin.uid))
            }
            (None, None) => true,
            _ => false,
        }
    }

    /// A counter that grows whenever [`Fabric::is_confirmed`] may answer otherwise than before.
    pub fn confirmations(&self) -> watch::Receiver<u64> {
        self.shared.confirmed_changes()
    }

    /// Where the kubelet finds images of twins.
    pub fn image_source(&self) -> Arc<dyn ImageSource> {
        Arc::new(images::PeerImages(self.shared.clone()))
    }
}

impl Shared {
    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.contracts.synced(),
            self.allocations.synced(),
            self.books.synced(),
            self.nodes.synced(),
            self.pods.synced(),
            self.namespaces.synced(),
            self.config_maps.synced(),
            self.secrets.synced(),
            self.services.synced(),
        );
    }

    /// Returns the next number of what this node wants.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the epoch of what is wanted under a contract: when this process started, or later.
    pub(crate) fn epoch(&self, contract: &str) -> u64 {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.get(contract).map_or(self.started, |later| self.started.max(*later))
    }

    /// The provider has accepted this epoch before: our clock has gone back, as on a device without one of its own.
    pub(crate) fn go_on_after(&self, contract: &str, newest: u64) {
        let later = self.epoch(contract).max(newest.saturating_add(1));
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).insert(contract.into(), later);
    }

    /// Forgets epochs of contracts that are not there any more.
    pub(crate) fn keep_epochs(&self, keep: impl Fn(&str) -> bool) {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).retain(|contract, _| keep(contract));
    }

    /// Returns the live deal of this name between the two.
    ///
    /// # Errors
    /// [`Error::NoContract`] says what is wrong with it.
    pub(crate) fn live_deal(&self, contract: &str, buyer: NodeId, seller: NodeId) -> Result<Deal, Error> {
        let none = |reason: String| Error::NoContract { contract: frames::cut(contract, 63), reason };
        let found = self.contracts.get(names::NAMESPACE, contract).ok_or_else(|| none("there is none".into()))?;
        let deal = Deal::of(&found, &self.speakers).map_err(&none)?;
        if deal.buyer != buyer || deal.seller != seller {
            return Err(none("it is between others".into()));
        }
        if !deal.is_live(Timestamp::now()) {
            return Err(none("it has ended".into()));
        }
        Ok(deal)
    }

    /// Takes note that the consumer wants these.
    pub(crate) fn confirm<'a>(&self, contract: &str, uids: impl IntoIterator<Item = &'a String>) {
        self.confirmed().entry(contract.into()).or_default().extend(uids.into_iter().cloned());
        self.confirmations.send_modify(|n| *n += 1);
    }

    /// Takes note that it wants no others than these.
    pub(crate) fn confirm_only(&self, contract: &str, uids: BTreeSet<String>) {
        if uids.is_empty() {
            self.confirmed().remove(contract)
        } else {
            self.confirmed().insert(contract.into(), uids)
        };
        self.confirmations.send_modify(|n| *n += 1);
    }

    /// Takes note that the consumer of a contract has begun to say what it wants.
    pub(crate) fn begin(&self, contract: &str) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(contract.into());
    }

    /// Says whether it has.
    pub(crate) fn has_begun(&self, contract: &str) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).contains(contract)
    }

    pub(crate) fn confirmed_changes(&self) -> watch::Receiver<u64> {
        self.confirmations.subscribe()
    }

    /// Forgets what was confirmed under contracts that are not live.
    pub(crate) fn confirm_under(&self, live: &BTreeSet<String>) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).retain(|contract| live.contains(contract));
        let mut confirmed = self.confirmed();
        let before = confirmed.len();
        confirmed.retain(|contract, _| live.contains(contract));
        if confirmed.len() != before {
            self.confirmations.send_modify(|n| *n += 1);
        }
    }

    fn confirmed(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
