//! Links: who is called, and what its link tells of a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use fluidos_identity::NodeId;
use fluidos_link::{DialStatus, PeerInfo};
use fluidos_model::kinds::{KnownClusterLink, KnownClusterSource, LinkState, names};
use jiff::Timestamp;
use kube::ResourceExt;

use super::Manager;
use crate::{ATTRIBUTE_FEATURES, ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, Sighting, Source, act, plan};

/// A round trip that changed less than this is not written: every write wakes all who watch.
const ROUND_TRIP_STEP: f64 = 0.2;

impl Manager {
    /// A link proves a key: it is a sighting, too.
    pub(super) async fn up(&mut self, peer: &PeerInfo) {
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
        self.unlinked.remove(&peer.id);
        self.write_link(&peer.id, LinkState::Up, String::new()).await;
    }

    /// What a node says of itself on its link; `link` is where it was called, if it was.
    pub(super) async fn introduced(&mut self, peer: &PeerInfo, source: Source, link: Option<SocketAddr>) {
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
            offers: None,
        };
        self.sighted(&sighting).await;
    }

    /// Who called us before our own call to the address that the owner has named led to it is who is named: that call has proven its key,
    /// and one of the two links is enough.
    pub(super) async fn lead(&mut self) {
        if self.named.is_empty() {
            return;
        }
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
    pub(super) fn is_of_another(&self, address: &SocketAddr, id: &NodeId) -> bool {
        let text = address.to_string();
        self.known.list().iter().any(|known| {
            let there = known.spec.endpoints.iter().any(|endpoints| endpoints.link.contains(&text));
            known.spec.source == Some(KnownClusterSource::Static)
                && (known.spec.address == text || there)
                && known.spec.did.as_deref().and_then(|did| did.parse().ok()).is_some_and(|other: NodeId| other != *id)
        })
    }

    pub(super) async fn down(&mut self, peer: &NodeId, reason: String) {
        if self.options.links.get(peer).is_some() {
            return;
        }
        // It was heard until now, by the link. From now on it has the time of a node that was just announced; who sees that the link is
        // down sees that time, too.
        if let Some(known) = self.entry(peer) {
            if self.gone.contains(&peer.tag()) {
                self.end(&known).await;
            } else {
                self.unlinked.insert(*peer, Instant::now());
                let (client, name) = (&self.options.client, known.name_any());
                if let Err(error) = act::heard(client, &name, known.spec.source, plan::EXPIRY).await {
                    tracing::warn!(%error, "a KnownCluster could not be written");
                }
            }
        }
        self.write_link(peer, LinkState::Down, reason).await;
    }

    pub(super) async fn write_link(&mut self, peer: &NodeId, state: LinkState, message: String) {
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
    pub(super) async fn refresh(&mut self) {
        for peer in self.options.links.peers() {
            self.write_link(&peer.id, LinkState::Up, String::new()).await;
        }
        for known in self.known.list() {
            let said_up = known.status.as_ref().and_then(|s| s.link.as_ref()).is_some_and(|l| l.state == LinkState::Up);
            if !said_up {
                continue;
            }
            let Some(id) = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else { continue };
            if self.options.links.get(&id).is_none() {
                self.written.remove(&id);
                self.write_link(&id, LinkState::Down, "no link".into()).await;
            }
        }
    }

    /// Whether links of IPv6 can be dialled: the socket is one of IPv6, which on Linux carries IPv4, too.
    pub(super) fn speaks_both(&self) -> bool {
        self.options.links.local_address().is_ok_and(|address| address.is_ipv6())
    }

    /// Looks up the addresses that the owner named; a name may lead elsewhere later.
    pub(super) async fn resolve(&mut self) {
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

    /// Who has something new to say may answer now, though it never did before.
    pub(super) fn call_again(&self, sighting: &Sighting) {
        if self.options.links.get(&sighting.id).is_some() {
            return;
        }
        let ips = std::iter::once(sighting.rear.ip()).chain(sighting.further.iter().copied());
        for address in
            sighting.link.into_iter().flat_map(|link| ips.clone().map(move |ip| SocketAddr::new(ip, link.port())))
        {
            if self.dialled.get(&address) == Some(&Some(sighting.id)) {
                self.options.links.undial(address);
                self.options.links.dial(address, Some(sighting.id));
            }
        }
    }

    /// Calls everybody who is known and should be called, and nobody else.
    pub(super) fn dial(&mut self) {
        let both = self.speaks_both();
        let mut wanted: BTreeMap<SocketAddr, Option<NodeId>> = BTreeMap::new();
        // With another key than before, this node is not whom others expect where they call: it calls them.
        let is_new_here = self.options.speakers.has_predecessors(&self.own);
        for known in self.known.list() {
            // Who called us is called back only if it is named or announced: it may be behind a translator.
            if known.spec.source == Some(KnownClusterSource::Inbound) && !is_new_here {
                continue;
            }
            // An official node has no link.
            if known.spec.plain {
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
