//! The manager: sightings in, KnownClusters and dialled links out.
//!
//! What a thousand nodes that go on as before cost is one look at each in a minute and one write in half an hour: every write of a
//! KnownCluster wakes all rooms that watch them.

mod calls;
mod rules;
mod sightings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_link::{Event, Links};
use fluidos_model::kinds::{
    Contract, DiscoveryPolicy, KnownCluster, KnownClusterLink, KnownClusterOffer, PeeringCandidate, Rating, names,
};
use jiff::Timestamp;
use kube::Client;
use substrate_client::{Cache, Caches};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::catalog::{self, Card, Follower, News, Told};
use crate::mdns::{self, Heard, Mdns};
use crate::plan::Trust;
use crate::policy::Policies;
use crate::status::Handle;
use crate::{Features, Sighting};

/// What was heard and not yet looked at. A flood waits in the kernel and is dropped there.
const HEARD_MAX: usize = 256;
/// How often round trips are written and names resolved again, and all nodes are looked at if one of them has changed.
const TICK: Duration = Duration::from_secs(5);
/// How often all are looked at though none has changed, unless the time of one is over before.
const LOOK: Duration = Duration::from_secs(60);

/// What discovery is told.
pub struct Options {
    /// Writes KnownClusters.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: Caches,
    /// This node's key.
    pub key: Arc<NodeKey>,
    /// This node's name.
    pub name: String,
    /// The owner's domain.
    pub domain: String,
    /// The links, on which known nodes are called.
    pub links: Links,
    /// Port of this node's REAR.
    pub rear_port: u16,
    /// Port on which this node accepts links.
    pub link_port: u16,
    /// Addresses that the owner named, as `HOST:PORT`.
    pub peers: Vec<String>,
    /// Whether to announce and listen on the LAN.
    pub mdns: bool,
    /// Where else to announce and to look.
    pub catalogs: catalog::Options,
    /// Who may receive workloads.
    pub trust: Trust,
    /// What this node says of itself.
    pub features: Features,
    /// What is sold here, as an unknown buyer would be told.
    pub offers: watch::Receiver<Vec<KnownClusterOffer>>,
    /// Which key speaks for whom now.
    pub speakers: Speakers,
}

struct Manager {
    options: Options,
    own: NodeId,
    handle: Handle,
    known: Cache<KnownCluster>,
    rules: Cache<DiscoveryPolicy>,
    contracts: Cache<Contract>,
    ratings: Cache<Rating>,
    candidates: Cache<PeeringCandidate>,
    /// How often candidates had changed when they were looked at.
    asked_at: u64,
    /// What sellers have told Solvers.
    asked: BTreeMap<NodeId, Vec<KnownClusterOffer>>,
    policies: Policies,
    /// To those that follow catalogs.
    told: watch::Sender<Told>,
    /// What each catalog listed last; `None`: it was not read yet.
    lists: Vec<Option<BTreeMap<NodeId, Sighting>>>,
    mdns: Option<Mdns>,
    /// What is announced now: whether, and with which features.
    announced: Option<(bool, Features)>,
    /// What the owner named, resolved.
    named: BTreeMap<SocketAddr, String>,
    /// What is dialled, and for whom.
    dialled: BTreeMap<SocketAddr, Option<NodeId>>,
    written: BTreeMap<NodeId, KnownClusterLink>,
    /// What multicast says is there, by tag. Bounded as what it keeps.
    present: BTreeMap<String, Sighting>,
    /// Since when there is no link any more. Bounded by what was linked in the last minutes.
    unlinked: BTreeMap<NodeId, Instant>,
    /// How often nodes had changed when all of them were looked at, and when that is done again.
    looked_at: u64,
    look_at: Instant,
    started: Instant,
    /// Tags of nodes that said good-bye and have not been heard since. Bounded by what is known.
    gone: BTreeSet<String>,
}

/// Runs discovery until dropped.
///
/// # Errors
/// [`crate::mdns::Error`] at once when multicast DNS cannot be had.
pub async fn run(options: Options, handle: Handle) -> Result<(), crate::mdns::Error> {
    let (sender, mut heard) = mpsc::channel(HEARD_MAX);
    let mdns = if options.mdns { Some(Mdns::start(Some(sender.clone()))?) } else { None };
    let mut events = options.links.events();
    let caches = options.caches.clone();
    let known = caches.namespaced(names::NAMESPACE);
    let rules = caches.namespaced(names::NAMESPACE);
    let contracts = caches.namespaced(names::NAMESPACE);
    let ratings = caches.namespaced::<Rating>(names::NAMESPACE);
    let candidates = caches.namespaced::<PeeringCandidate>(names::NAMESPACE);
    tokio::join!(known.synced(), rules.synced(), contracts.synced(), ratings.synced(), candidates.synced());
    let mut offers = options.offers.clone();
    let (mut changes, mut rule_changes, mut rating_changes) = (known.changes(), rules.changes(), ratings.changes());
    let own = options.key.id();
    let (told, listener) = watch::channel(Told::default());
    let (list_sender, mut lists) = mpsc::channel(catalog::CATALOGS_MAX);
    let followers = follow(&options, &handle, &listener, &list_sender);
    drop(listener);
    let mut brokers = JoinSet::new();
    brokers.spawn(crate::brokers::tell(options.client.clone(), caches.namespaced(names::NAMESPACE)));
    let mut manager = Manager {
        options,
        own,
        handle,
        known,
        rules,
        contracts,
        ratings,
        candidates,
        asked_at: 0,
        asked: BTreeMap::new(),
        policies: Policies::default(),
        told,
        lists: vec![None; followers.len()],
        mdns,
        announced: None,
        named: BTreeMap::new(),
        dialled: BTreeMap::new(),
        written: BTreeMap::new(),
        present: BTreeMap::new(),
        unlinked: BTreeMap::new(),
        looked_at: 0,
        look_at: Instant::now(),
        started: Instant::now(),
        gone: BTreeSet::new(),
    };
    manager.obey().await;
    // Before anybody is looked at: who is up already may be one of these.
    manager.resolve().await;
    for peer in manager.options.links.peers() {
        manager.up(&peer).await;
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        // Losing the race loses nothing: each of these keeps what it has not yet given.
        tokio::select! {
            Some(heard) = heard.recv() => match heard {
                Heard::Node(sighting) => {
                    if sighting.id != own {
                        let instance = mdns::instance(&sighting.id.tag());
                        manager.handle.hear(&instance);
                        // Its first words may have come by a cable on which it has no address that others reach.
                        manager.handle.taken(&instance);
                    }
                    manager.sighted(&sighting).await;
                    manager.call_again(&sighting);
                }
                // Its own first words, by a cable on which it has no address that others reach.
                Heard::Refused(who, _) if who == mdns::instance(&own.tag()) => {}
                Heard::Refused(who, why) => {
                    manager.handle.hear(&who);
                    manager.handle.reject(&who, &why, Timestamp::now());
                }
                Heard::Gone(tag) => manager.said_good_bye(tag).await,
            },
            Some(news) = lists.recv() => match news {
                News::Listed(listing) => manager.listed(listing).await,
                News::Said(catalog, said) => manager.said(catalog, &said).await,
            },
            event = events.recv() => match event {
                Ok(Event::Up(peer)) => manager.up(&peer).await,
                Ok(Event::Down { peer, reason, .. }) => manager.down(&peer, reason).await,
                // Told by introductions.
                Ok(Event::Copies { .. }) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => manager.refresh().await,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = changes.changed() => manager.dial(),
            _ = rule_changes.changed() => {
                manager.obey().await;
                manager.refilter().await;
                manager.compare().await;
                manager.tell().await;
            }
            _ = rating_changes.changed() => {
                manager.refilter().await;
                manager.compare().await;
                manager.tell().await;
            }
            // Who would tell of other goods has gone: what was told stays.
            Ok(()) = offers.changed() => manager.obey().await,
            _ = tick.tick() => {
                manager.price().await;
                manager.resolve().await;
                manager.lead().await;
                manager.refresh().await;
                manager.look().await;
                manager.tell().await;
            }
        }
    }
}

/// Starts one follower for each catalog; they end with what is returned.
fn follow(options: &Options, handle: &Handle, told: &watch::Receiver<Told>, heard: &mpsc::Sender<News>) -> JoinSet<()> {
    let mut followers = JoinSet::new();
    let card = Arc::new(Card {
        key: options.key.clone(),
        name: options.name.clone(),
        domain: options.domain.clone(),
        rear_port: options.rear_port,
        link_port: options.link_port,
        options: options.catalogs.clone(),
    });
    for target in options.catalogs.targets.iter().take(catalog::CATALOGS_MAX).cloned() {
        match Follower::new((followers.len(), target), card.clone(), told.clone(), heard.clone()) {
            Ok(follower) => drop(followers.spawn(follower.run(handle.stopped()))),
            Err(error) => tracing::error!(%error, "a catalog cannot be followed"),
        }
    }
    followers
}
