//! The manager: sightings in, KnownClusters and dialled links out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_link::{DialStatus, Event, Links, PeerInfo};
use fluidos_model::kinds::{
    Contract, DiscoveryPolicy, DiscoveryPolicyStatus, KnownCluster, KnownClusterLink, KnownClusterSource, LinkState,
    MulticastState, MulticastStatus, NodeIdentity, Rating, names,
};
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use substrate_client::Cache;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::catalog::{self, Card, Follower, Listing, Told};
use crate::mdns::{self, Announcement, Heard, Mdns};
use crate::plan::{self, Action, Rules, Trust};
use crate::policy::{self, Policies};
use crate::status::Handle;
use crate::{ATTRIBUTE_FEATURES, ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, Sighting, Source, act};

/// What was heard and not yet looked at. A flood waits in the kernel and is dropped there.
const HEARD_MAX: usize = 256;
/// How often round trips are written, names resolved again, and what is over removed.
const TICK: Duration = Duration::from_secs(5);
/// The copy of what is known follows a write within milliseconds.
const COPY_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// Where else to announce and to look.
    pub catalogs: catalog::Options,
    /// Who may receive workloads.
    pub trust: Trust,
    /// What this node says of itself.
    pub features: Features,
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
    /// Tags of nodes that said good-bye and have not been heard since. Bounded by what is known.
    gone: BTreeSet<String>,
}

/// Runs discovery until dropped.
///
/// # Errors
/// [`crate::mdns::Error`] at once when multicast DNS cannot be had.
pub async fn run(options: Options, handle: Handle) -> Result<(), crate::mdns::Error> {
    let (sender, mut heard) = mpsc::channel(HEARD_MAX);
    let mdns = if options.mdns { Some(Mdns::start(sender.clone())?) } else { None };
    let mut events = options.links.events();
    let known = Cache::start(act::api(&options.client));
    let rules = Cache::start(act::policies(&options.client));
    let contracts = Cache::start(kube::Api::namespaced(options.client.clone(), names::NAMESPACE));
    let ratings = Cache::<Rating>::start(kube::Api::namespaced(options.client.clone(), names::NAMESPACE));
    tokio::join!(known.synced(), rules.synced(), contracts.synced(), ratings.synced());
    let (mut changes, mut rule_changes, mut rating_changes) = (known.changes(), rules.changes(), ratings.changes());
    let own = options.key.id();
    let (told, listener) = watch::channel(Told::default());
    let (list_sender, mut lists) = mpsc::channel(catalog::CATALOGS_MAX);
    let followers = follow(&options, &handle, &listener, &list_sender);
    drop(listener);
    let mut brokers = JoinSet::new();
    brokers.spawn(crate::brokers::tell(options.client.clone()));
    let mut manager = Manager {
        options,
        own,
        handle,
        known,
        rules,
        contracts,
        ratings,
        policies: Policies::default(),
        told,
        lists: vec![None; followers.len()],
        mdns,
        announced: None,
        named: BTreeMap::new(),
        dialled: BTreeMap::new(),
        written: BTreeMap::new(),
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
                }
                // Its own first words, by a cable on which it has no address that others reach.
                Heard::Refused(who, _) if who == mdns::instance(&own.tag()) => {}
                Heard::Refused(who, why) => {
                    manager.handle.hear(&who);
                    manager.handle.reject(&who, &why, Timestamp::now());
                }
                Heard::Gone(tag) => manager.said_good_bye(tag).await,
            },
            Some(listing) = lists.recv() => manager.listed(listing).await,
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
                manager.tell().await;
            }
            _ = rating_changes.changed() => {
                manager.refilter().await;
                manager.tell().await;
            }
            _ = tick.tick() => {
                manager.resolve().await;
                manager.lead().await;
                manager.refresh().await;
                manager.expire().await;
                manager.compare().await;
                manager.dial();
                manager.tell().await;
            }
        }
    }
}

/// Starts one follower for each catalog; they end with what is returned.
fn follow(
    options: &Options,
    handle: &Handle,
    told: &watch::Receiver<Told>,
    heard: &mpsc::Sender<Listing>,
) -> JoinSet<()> {
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

impl Manager {
    /// A catalog was read to its end.
    async fn listed(&mut self, listing: Listing) {
        let Listing { catalog, sightings, refused } = listing;
        for why in refused {
            self.handle.reject(&self.options.catalogs.targets[catalog].to_string(), &why, Timestamp::now());
        }
        let before = self.lists[catalog].replace(sightings.clone()).unwrap_or_default();
        for (id, sighting) in &sightings {
            if *id != self.own && before.get(id) != Some(sighting) {
                self.sighted(sighting).await;
            }
        }
        self.compare().await;
    }

    /// Takes again who is listed and was forgotten, and forgets who is listed no more. A catalog that is away says neither.
    async fn compare(&mut self) {
        let mut listed: BTreeMap<NodeId, Sighting> = BTreeMap::new();
        for list in self.lists.iter().flatten() {
            listed.extend(list.iter().map(|(id, sighting)| (*id, sighting.clone())));
        }
        for sighting in
            listed.values().filter(|sighting| self.entry(&sighting.id).is_none()).cloned().collect::<Vec<_>>()
        {
            let rating = self.rating(&sighting.id);
            let (trust, policies) = (&self.options.trust, &self.policies);
            let rules = Rules { own: self.own, trust, policies, rating: rating.as_deref() };
            // Why it is rejected was told when it was listed.
            if !matches!(plan::sighting(&sighting, None, self.known.list().len(), &rules), Action::Reject(_)) {
                self.sighted(&sighting).await;
            }
        }
        if self.lists.iter().any(Option::is_none) {
            return;
        }
        for known in self.known.list() {
            let did = known.spec.did.clone().unwrap_or_default();
            let id = did.parse::<NodeId>().ok();
            let stays = id.is_some_and(|id| listed.contains_key(&id) || self.options.links.get(&id).is_some());
            if known.spec.source == Some(KnownClusterSource::Catalog) && !stays && !self.is_bound(&did) {
                tracing::info!(name = known.name_any(), "a node is in no catalog any more: forgotten");
                if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                    tracing::warn!(%error, "a KnownCluster could not be removed");
                }
            }
        }
    }

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
        let rating = self.rating(&sighting.id);
        let (trust, policies) = (&self.options.trust, &self.policies);
        let rules = Rules { own: self.own, trust, policies, rating: rating.as_deref() };
        let action = plan::sighting(sighting, known.as_deref(), self.known.list().len(), &rules);
        let client = &self.options.client;
        let result = match action {
            Action::Create(spec, name) => match act::create(client, &name, *spec).await {
                Ok(created) => {
                    if created {
                        self.handle.taken(&who(&sighting.name, &sighting.id));
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
            Action::Change(spec, name) => act::change(client, &name, known.as_deref(), &spec).await,
            // It has no time that could be over, or nearer sources keep it.
            Action::Heard(_) if sighting.source == Source::Catalog => Ok(()),
            Action::Heard(name) => act::heard(client, &name, known.and_then(|k| k.spec.source)).await,
            Action::Reject(why) => {
                if sighting.id != self.own {
                    self.handle.reject(&who(&sighting.name, &sighting.id), &why, Timestamp::now());
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
        let source = if self.named.contains_key(&peer.address) && !self.is_of_another(&peer.address, &peer.id) {
            Source::Static
        } else if peer.dialled {
            Source::Multicast
        } else {
            Source::Inbound
        };
        let known = self.entry(&peer.id);
        // A node that we called because an entry says so keeps that entry's source.
        if source != Source::Multicast || known.is_none() {
            let link = peer.dialled.then_some(peer.address);
            let source = if source == Source::Multicast { Source::Inbound } else { source };
            self.introduced(peer, source, link).await;
        }
        self.write_link(&peer.id, LinkState::Up, String::new()).await;
    }

    /// What a node says of itself on its link; `link` is where it was called, if it was.
    async fn introduced(&mut self, peer: &PeerInfo, source: Source, link: Option<SocketAddr>) {
        let port =
            |name: &str| peer.attributes.get(name).and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
        let Some(rear_port) = port(ATTRIBUTE_REAR_PORT) else { return };
        let ip = link.unwrap_or(peer.address).ip();
        let sighting = Sighting {
            source,
            id: peer.id,
            name: peer.name.clone(),
            domain: peer.domain.clone(),
            rear: SocketAddr::new(ip, rear_port),
            link: link.or_else(|| port(ATTRIBUTE_LINK_PORT).map(|port| SocketAddr::new(ip, port))),
            further: Vec::new(),
            features: peer.attributes.get(ATTRIBUTE_FEATURES).and_then(|text| Features::parse(text).ok()),
        };
        self.sighted(&sighting).await;
    }

    /// Who called us before our own call to the address that the owner has named led to it is who is named: that call has proven its key,
    /// and one of the two links is enough.
    async fn lead(&mut self) {
        for (address, status) in self.options.links.dials() {
            let DialStatus::Up(id) = status else { continue };
            let inbound = self.entry(&id).is_some_and(|known| known.spec.source == Some(KnownClusterSource::Inbound));
            // A call that expects a key is answered by whatever link there is with it; one to a named address expects none.
            let named = self.named.contains_key(&address) && self.dialled.get(&address) == Some(&None);
            if !inbound || !named || self.is_of_another(&address, &id) {
                continue;
            }
            if let Some(session) = self.options.links.get(&id) {
                self.introduced(&session.peer().clone(), Source::Static, Some(address)).await;
            }
        }
    }

    /// Whether another node was found before at an address that the owner has named: who is there now takes its place only
    /// with a hand-over, which [`crate::introductions`] looks at.
    fn is_of_another(&self, address: &SocketAddr, id: &NodeId) -> bool {
        let text = address.to_string();
        self.known.list().iter().any(|known| {
            let there = known.spec.endpoints.iter().any(|endpoints| endpoints.link.contains(&text));
            known.spec.source == Some(KnownClusterSource::Static)
                && (known.spec.address == text || there)
                && known.spec.did.as_deref().and_then(|did| did.parse().ok()).is_some_and(|other: NodeId| other != *id)
        })
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

    /// Announces what policies let be told, and tells what is wrong with a policy.
    async fn obey(&mut self) {
        let objects = self.rules.list();
        self.policies = Policies::new(objects.iter().map(|policy| &**policy));
        let (told, wrong) = self.policies.told(&self.options.features);
        if let Err(error) = self.options.links.set_attribute(ATTRIBUTE_FEATURES, &told.to_string()) {
            tracing::warn!(%error, "features cannot be told on links");
        }
        let announce = self.policies.announces(KnownClusterSource::Catalog);
        self.told.send_if_modified(|now| {
            let fresh = Told { announce, features: told.clone() };
            let changed = *now != fresh;
            *now = fresh;
            changed
        });
        self.announce(told);
        for policy in objects.iter().filter(|policy| policy.name_any() != names::DISCOVERY_POLICY) {
            let message = policy::fault(&policy.spec).or_else(|| wrong.clone()).unwrap_or_default();
            if policy.status.as_ref().is_none_or(|status| status.message != message) {
                let status = DiscoveryPolicyStatus { message, ..Default::default() };
                self.write(&policy.name_any(), &status).await;
            }
        }
        let is_there = objects.iter().any(|policy| policy.name_any() == names::DISCOVERY_POLICY);
        if !is_there && let Err(error) = act::default_policy(&self.options.client).await {
            tracing::warn!(%error, "the DiscoveryPolicy default could not be made");
        }
    }

    fn announce(&mut self, told: Features) {
        let Some(mdns) = &mut self.mdns else { return };
        let wanted = (self.policies.announces(KnownClusterSource::Multicast), told);
        if self.announced.as_ref() == Some(&wanted) {
            return;
        }
        let announcement = Announcement {
            key: &self.options.key,
            name: &self.options.name,
            domain: &self.options.domain,
            rear_port: self.options.rear_port,
            link_port: self.options.link_port,
            features: &wanted.1,
        };
        match mdns.announce(wanted.0.then_some(&announcement)) {
            Ok(()) => self.announced = Some(wanted),
            Err(error) => tracing::warn!(%error, "this node cannot be announced"),
        }
    }

    /// Drops candidates that policies take no longer. A party of a contract stays until that ends.
    async fn refilter(&mut self) {
        for known in self.known.list() {
            let did = known.spec.did.clone().unwrap_or_default();
            let rating = did.parse().ok().and_then(|id| self.rating(&id));
            let refused = plan::refused(&known.spec, &self.policies, rating.as_deref());
            let Some(why) = refused.filter(|_| !self.is_bound(&did)) else { continue };
            let name = known.spec.name.clone().unwrap_or_default();
            self.handle.reject(&format!("{name} {did}"), &why, Timestamp::now());
            if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                tracing::warn!(%error, "a KnownCluster could not be removed");
            }
        }
    }

    /// What was seen of a node.
    fn rating(&self, id: &NodeId) -> Option<Arc<Rating>> {
        let rating = self.ratings.get(names::NAMESPACE, &names::known_cluster(&id.tag()))?;
        (rating.spec.did == id.to_string()).then_some(rating)
    }

    /// Whether there is a contract with this node.
    fn is_bound(&self, did: &str) -> bool {
        let Ok(id) = did.parse::<NodeId>() else { return false };
        let of = |party: &NodeIdentity| party.additional_information.as_ref()?.did.as_deref()?.parse::<NodeId>().ok();
        let is_it =
            |party: &NodeIdentity| of(party).is_some_and(|key| key == id || self.options.speakers.current(&key) == id);
        let contracts = self.contracts.list();
        contracts.iter().any(|c| [&c.spec.buyer, &c.spec.seller].into_iter().any(is_it))
    }

    /// Writes what discovery sees, if it has changed.
    async fn tell(&mut self) {
        let state = match (&self.mdns, &self.announced) {
            (None, _) => MulticastState::Off,
            (Some(_), Some((true, _))) => MulticastState::Announcing,
            (Some(_), _) => MulticastState::Listening,
        };
        let objects = self.rules.list();
        let Some(policy) = objects.iter().find(|policy| policy.name_any() == names::DISCOVERY_POLICY) else { return };
        let known = policy.status.as_ref().and_then(|status| status.multicast.as_ref()).map(|m| m.state);
        if !self.handle.is_due(Instant::now()) && known == Some(state) {
            return;
        }
        let (_, wrong) = self.policies.told(&self.options.features);
        let status = DiscoveryPolicyStatus {
            message: policy::fault(&policy.spec).or(wrong).unwrap_or_default(),
            multicast: Some(MulticastStatus { state, heard: self.handle.heard() }),
            rejected: self.handle.rejected(),
        };
        self.write(names::DISCOVERY_POLICY, &status).await;
    }

    async fn write(&self, policy: &str, status: &DiscoveryPolicyStatus) {
        if let Err(error) = act::policy_status(&self.options.client, policy, status).await {
            tracing::warn!(%error, policy, "the status of a DiscoveryPolicy could not be written");
        }
    }

    /// Whether links of IPv6 can be dialled: the socket is one of IPv6, which on Linux carries IPv4, too.
    fn speaks_both(&self) -> bool {
        self.options.links.local_address().is_ok_and(|address| address.is_ipv6())
    }

    /// Looks up the addresses that the owner named; a name may lead elsewhere later.
    async fn resolve(&mut self) {
        let (mut named, both) = (BTreeMap::new(), self.speaks_both());
        for peer in &self.options.peers {
            match tokio::net::lookup_host(peer).await {
                Ok(addresses) => {
                    let mut usable: Vec<SocketAddr> = addresses.filter(|a| both || a.is_ipv4()).collect();
                    usable.sort(); // IPv4 first
                    named.extend(usable.first().map(|address| (*address, peer.clone())));
                }
                Err(error) => tracing::warn!(peer, %error, "the address of a peer cannot be found; it is tried again"),
            }
        }
        if !named.is_empty() || self.options.peers.is_empty() {
            self.named = named;
        }
    }

    /// Calls everybody who is known and should be called, and nobody else.
    fn dial(&mut self) {
        let both = self.speaks_both();
        let mut wanted: BTreeMap<SocketAddr, Option<NodeId>> = BTreeMap::new();
        // With another key than before, this node is not whom others expect where they call: it calls them.
        let is_new_here = self.options.speakers.has_predecessors(&self.own);
        for known in self.known.list() {
            // Who called us is called back only if it is named or announced: it may be behind a translator.
            if known.spec.source == Some(KnownClusterSource::Inbound) && !is_new_here {
                continue;
            }
            let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
            let endpoints: Vec<&String> = known.spec.endpoints.iter().flat_map(|e| e.link.iter()).collect();
            // An entry that a user wrote has only the address; the link listens on the same port.
            let texts = if endpoints.is_empty() { vec![&known.spec.address] } else { endpoints };
            let addresses = texts.into_iter().filter_map(|text| text.parse::<SocketAddr>().ok());
            wanted.extend(addresses.filter(|a| both || a.is_ipv4()).map(|address| (address, id)));
        }
        for address in self.named.keys() {
            // The owner has named an address, and who is there may have another key by now.
            wanted.insert(*address, None);
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

/// How a node is named in lists of those that were not taken.
fn who(name: &str, id: &NodeId) -> String {
    format!("{} {id}", name.chars().take(64).collect::<String>())
}
