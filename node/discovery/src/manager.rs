//! The manager: sightings in, KnownClusters and dialled links out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluidos_identity::{NodeId, NodeKey};
use fluidos_link::{Event, Links, PeerInfo};
use fluidos_model::kinds::{KnownCluster, KnownClusterLink, KnownClusterSource, LinkState, names};
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use substrate_client::Cache;
use tokio::sync::{broadcast, mpsc};

use crate::mdns::{Announcement, Heard, Mdns};
use crate::plan::{self, Action, Trust};
use crate::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Sighting, Source, act};

/// What was heard and not yet looked at. A flood waits in the kernel and is dropped there.
const HEARD_MAX: usize = 256;
/// How often round trips are written, names resolved again, and what is over removed.
const TICK: Duration = Duration::from_secs(5);
/// The copy of what is known follows a write within milliseconds.
const COPY_TIMEOUT: Duration = Duration::from_secs(2);
/// Rejections that can be looked at.
const REJECTED_MAX: usize = 64;
/// A round trip that changed less than this is not written: every write wakes all who watch.
const ROUND_TRIP_STEP: f64 = 0.2;

/// What discovery is told.
pub struct Options {
    /// Writes KnownClusters.
    pub client: Client,
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
    /// Who may receive workloads.
    pub trust: Trust,
}

/// What can be asked of running discovery.
#[derive(Clone, Default)]
pub struct Handle {
    rejected: Arc<Mutex<VecDeque<(Timestamp, String, String)>>>,
}

impl Handle {
    /// The last announcements that were not taken: when, whose, why.
    pub fn rejected(&self) -> Vec<(Timestamp, String, String)> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn reject(&self, who: String, why: String) {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        if rejected.back().is_some_and(|(_, w, y)| (w, y) == (&who, &why)) {
            return;
        }
        tracing::debug!(who, why, "announcement not taken");
        if rejected.len() == REJECTED_MAX {
            rejected.pop_front();
        }
        rejected.push_back((Timestamp::now(), who, why));
    }
}

struct Manager {
    options: Options,
    own: NodeId,
    handle: Handle,
    known: Cache<KnownCluster>,
    /// What the owner named, resolved.
    named: BTreeMap<SocketAddr, String>,
    /// What is dialled, and for whom.
    dialled: BTreeMap<SocketAddr, Option<NodeId>>,
    written: BTreeMap<NodeId, KnownClusterLink>,
    /// Tags of nodes that said good-bye and have not been heard since. Bounded by what is known.
    gone: BTreeSet<String>,
}

/// Runs discovery until dropped.
///
/// # Errors
/// [`crate::mdns::Error`] at once when multicast DNS cannot be had.
pub async fn run(options: Options, handle: Handle) -> Result<(), crate::mdns::Error> {
    let (sender, mut heard) = mpsc::channel(HEARD_MAX);
    let announcement = Announcement {
        key: &options.key,
        name: &options.name,
        domain: &options.domain,
        rear_port: options.rear_port,
        link_port: options.link_port,
    };
    let _mdns = if options.mdns { Some(Mdns::start(&announcement, sender.clone())?) } else { None };
    let mut events = options.links.events();
    let known = Cache::start(act::api(&options.client));
    known.synced().await;
    let mut changes = known.changes();
    let own = options.key.id();
    let mut manager = Manager {
        options,
        own,
        handle,
        known,
        named: BTreeMap::new(),
        dialled: BTreeMap::new(),
        written: BTreeMap::new(),
        gone: BTreeSet::new(),
    };
    for peer in manager.options.links.peers() {
        manager.up(&peer).await;
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        // Losing the race loses nothing: each of these keeps what it has not yet given.
        tokio::select! {
            Some(heard) = heard.recv() => match heard {
                Heard::Node(sighting) => manager.sighted(&sighting).await,
                Heard::Refused(who, why) => manager.handle.reject(who, why),
                Heard::Gone(tag) => manager.said_good_bye(tag).await,
            },
            event = events.recv() => match event {
                Ok(Event::Up(peer)) => manager.up(&peer).await,
                Ok(Event::Down { peer, reason, .. }) => manager.down(&peer, reason).await,
                Err(broadcast::error::RecvError::Lagged(_)) => manager.refresh().await,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = changes.changed() => manager.dial(),
            _ = tick.tick() => {
                manager.resolve().await;
                manager.refresh().await;
                manager.expire().await;
                manager.dial();
            }
        }
    }
}

impl Manager {
    fn entry(&self, id: &NodeId) -> Option<Arc<KnownCluster>> {
        let did = id.to_string();
        self.known
            .get(names::NAMESPACE, &names::known_cluster(&id.tag()))
            .or_else(|| self.known.list().into_iter().find(|k| k.spec.did.as_deref() == Some(&did)))
    }

    async fn sighted(&mut self, sighting: &Sighting) {
        self.gone.remove(&sighting.id.tag());
        // What a link and an announcement say of a new node at the same time must not both be a creation.
        if self.judge(sighting).await {
            self.judge(sighting).await;
        }
    }

    /// Does what a sighting asks for; `true` if somebody else made the entry meanwhile, and it is to be judged again.
    async fn judge(&mut self, sighting: &Sighting) -> bool {
        let known = self.entry(&sighting.id);
        let action =
            plan::sighting(sighting, &self.own, known.as_deref(), self.known.list().len(), &self.options.trust);
        let client = &self.options.client;
        let result = match action {
            Action::Create(spec, name) => match act::create(client, &name, *spec).await {
                Ok(created) => {
                    if created {
                        tracing::info!(name = sighting.name, did = %sighting.id, source = ?sighting.source, "a node was found");
                    }
                    self.seen(&name).await;
                    if created && self.written.remove(&sighting.id).is_some() {
                        // The entry is a new one, the link is not.
                        self.refresh().await;
                    }
                    return !created;
                }
                Err(error) => Err(error),
            },
            Action::Change(spec, name) => act::change(client, &name, &spec).await,
            Action::Heard(name) => act::heard(client, &name, known.and_then(|k| k.spec.source)).await,
            Action::Reject(why) => {
                if sighting.id != self.own {
                    self.handle.reject(format!("{} {}", shown(&sighting.name), sighting.id), why);
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a KnownCluster could not be written");
        }
        false
    }

    /// Waits until the copy of what is known has this entry.
    async fn seen(&self, name: &str) {
        let mut changes = self.known.changes();
        let there =
            async { while self.known.get(names::NAMESPACE, name).is_none() && changes.changed().await.is_ok() {} };
        // A copy that lags so long shows in the API server; the next sighting comes.
        let _ = tokio::time::timeout(COPY_TIMEOUT, there).await;
    }

    /// A good-bye is not signed. It ends only what no link shows to live, and who is there is found again within seconds.
    async fn said_good_bye(&mut self, tag: String) {
        let Some(known) = self.known.get(names::NAMESPACE, &names::known_cluster(&tag)) else { return };
        let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
        if known.spec.source != Some(KnownClusterSource::Multicast) {
            return;
        }
        self.gone.insert(tag);
        if id.is_none_or(|id| self.options.links.get(&id).is_none()) {
            self.end(&known).await;
        }
    }

    async fn end(&self, known: &KnownCluster) {
        if let Err(error) = act::gone(&self.options.client, &known.name_any()).await {
            tracing::warn!(%error, "a KnownCluster could not be written");
        }
    }

    /// A link proves a key: it is a sighting, too.
    async fn up(&mut self, peer: &PeerInfo) {
        let source = if self.named.contains_key(&peer.address) {
            Source::Static
        } else if peer.dialled {
            Source::Multicast
        } else {
            Source::Inbound
        };
        let port =
            |name: &str| peer.attributes.get(name).and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
        if let Some(rear_port) = port(ATTRIBUTE_REAR_PORT) {
            let known = self.entry(&peer.id);
            // A node that we called because an entry says so keeps that entry's source.
            if source != Source::Multicast || known.is_none() {
                let link = if peer.dialled {
                    Some(peer.address)
                } else {
                    port(ATTRIBUTE_LINK_PORT).map(|p| SocketAddr::new(peer.address.ip(), p))
                };
                let sighting = Sighting {
                    source: if source == Source::Multicast { Source::Inbound } else { source },
                    id: peer.id,
                    name: peer.name.clone(),
                    domain: peer.domain.clone(),
                    rear: SocketAddr::new(peer.address.ip(), rear_port),
                    link,
                };
                self.sighted(&sighting).await;
            }
        }
        self.write_link(&peer.id, LinkState::Up, String::new()).await;
    }

    async fn down(&mut self, peer: &NodeId, reason: String) {
        if self.options.links.get(peer).is_none() {
            self.write_link(peer, LinkState::Down, reason).await;
            // It was heard until now, by the link. From now on it has the time of a node that was just announced.
            if let Some(known) = self.entry(peer) {
                if self.gone.contains(&peer.tag()) {
                    self.end(&known).await;
                } else if let Err(error) = act::heard(&self.options.client, &known.name_any(), known.spec.source).await
                {
                    tracing::warn!(%error, "a KnownCluster could not be written");
                }
            }
        }
    }

    async fn write_link(&mut self, peer: &NodeId, state: LinkState, message: String) {
        let round_trip = self.options.links.get(peer).map(|session| session.stats().round_trip.as_micros() as u64);
        let before = self.written.get(peer);
        let steady = before.is_some_and(|b| {
            b.state == state
                && match (b.round_trip_micros, round_trip) {
                    (Some(a), Some(b)) => (a as f64 - b as f64).abs() <= a as f64 * ROUND_TRIP_STEP,
                    (a, b) => a == b,
                }
        });
        if steady {
            return;
        }
        let since =
            before.filter(|b| b.state == state).map_or_else(|| Timestamp::now().to_string(), |b| b.since.clone());
        let link = KnownClusterLink {
            state,
            since,
            round_trip_micros: round_trip,
            message: message.chars().take(256).collect(),
        };
        let name = self.entry(peer).map_or_else(|| names::known_cluster(&peer.tag()), |k| k.name_any());
        match act::link(&self.options.client, &name, &link).await {
            Ok(()) => {
                self.written.insert(*peer, link);
            }
            Err(error) => tracing::warn!(%error, name, "the state of a link could not be written"),
        }
    }

    /// Writes how every link stands; also after a restart, when objects tell of links that are gone.
    async fn refresh(&mut self) {
        for peer in self.options.links.peers() {
            self.write_link(&peer.id, LinkState::Up, String::new()).await;
        }
        for known in self.known.list() {
            let Some(id) = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else { continue };
            let said_up = known.status.as_ref().and_then(|s| s.link.as_ref()).is_some_and(|l| l.state == LinkState::Up);
            if self.options.links.get(&id).is_none() && said_up {
                self.written.remove(&id);
                self.write_link(&id, LinkState::Down, "no link".into()).await;
            }
        }
    }

    async fn expire(&mut self) {
        for known in self.known.list() {
            let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
            let linked = id.is_some_and(|id| self.options.links.get(&id).is_some());
            if plan::is_expired(&known, linked, Timestamp::now()) {
                tracing::info!(name = known.name_any(), "a node was not heard for long: forgotten");
                self.gone.retain(|tag| names::known_cluster(tag) != known.name_any());
                if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                    tracing::warn!(%error, "a KnownCluster could not be removed");
                }
            }
        }
    }

    /// Looks up the addresses that the owner named; a name may lead elsewhere later.
    async fn resolve(&mut self) {
        let mut named = BTreeMap::new();
        for peer in &self.options.peers {
            match tokio::net::lookup_host(peer).await {
                Ok(addresses) => named.extend(addresses.filter(SocketAddr::is_ipv4).take(1).map(|a| (a, peer.clone()))),
                Err(error) => tracing::warn!(peer, %error, "the address of a peer cannot be found; it is tried again"),
            }
        }
        if !named.is_empty() || self.options.peers.is_empty() {
            self.named = named;
        }
    }

    /// Calls everybody who is known and should be called, and nobody else.
    fn dial(&mut self) {
        let mut wanted: BTreeMap<SocketAddr, Option<NodeId>> = BTreeMap::new();
        for known in self.known.list() {
            // Who called us is called back only if it is named or announced: it may be behind a translator.
            if known.spec.source == Some(KnownClusterSource::Inbound) {
                continue;
            }
            let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
            let endpoints = known.spec.endpoints.iter().flat_map(|e| e.link.iter());
            // An entry that a user wrote has only the address; the link listens on the same port.
            let address = endpoints.chain([&known.spec.address]).find_map(|text| text.parse::<SocketAddr>().ok());
            if let Some(address) = address {
                wanted.insert(address, id);
            }
        }
        for address in self.named.keys() {
            wanted.entry(*address).or_insert(None);
        }
        for address in self.dialled.keys().filter(|address| !wanted.contains_key(address)) {
            self.options.links.undial(*address);
        }
        for (address, id) in wanted.iter().filter(|(address, id)| self.dialled.get(address) != Some(id)) {
            self.options.links.dial(*address, *id);
        }
        self.dialled = wanted;
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
