//! From contracts to peers, as a pure function.

use std::collections::{BTreeMap, btree_map};

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Contract, FlavorType, NodeIdentity, Phase};
use jiff::Timestamp;
use kube::ResourceExt as _;
use substrate_network::{Cidr, FabricAccess, FabricRoute};

/// This node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) id: NodeId,
    pub(super) prefix: Cidr,
    pub(super) pods: Cidr,
    pub(super) services: Cidr,
}

/// A peer that packets are exchanged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key.
    pub id: NodeId,
    /// Where its pods and Services are.
    pub prefix: Cidr,
    /// What it may reach here: the whole cluster if this node's pods run there, else only what it runs here.
    pub access: FabricAccess,
}

/// A peer under contract that packets are not exchanged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its key.
    pub peer: NodeId,
    /// The prefix that it claims.
    pub prefix: Cidr,
    /// Why it does not get it.
    pub reason: String,
}

/// What of a live contract matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Agreement {
    /// When it was made (RFC 3339 in the object); contracts without are the youngest.
    pub(super) since: Timestamp,
    pub(super) peer: NodeId,
    /// Where its addresses are.
    pub(super) prefix: Cidr,
    /// This node's pods run there: it buys capacity. Who sells it a service has nothing to reach here.
    pub(super) buys: bool,
}

/// The live contracts of this node.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) agreements: Vec<Agreement>,
}

/// Who packets are exchanged with.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) peers: Vec<Peer>,
    pub(super) refused: Vec<Refused>,
}

impl View {
    /// A contract is live if and only if it is active, not being ended, and its time is not over.
    pub(super) fn new<'a>(
        own: &Own,
        speakers: &Speakers,
        contracts: impl Iterator<Item = &'a Contract>,
        now: Timestamp,
    ) -> Self {
        let agreement = |contract: &Contract| {
            let active = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Active);
            let until = contract.spec.expiration_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
            if !active || contract.metadata.deletion_timestamp.is_some() || until.is_some_and(|until| until <= now) {
                return None;
            }
            let party = |party| did(party).map(|named| speakers.current(&named));
            let (buyer, seller) = (party(&contract.spec.buyer)?, party(&contract.spec.seller)?);
            let prefix = |peer| super::prefix(&speakers.first(peer));
            let since = contract.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
            match (buyer == own.id, seller == own.id) {
                (true, false) => {
                    let buys = contract.spec.flavor.spec.flavor_type.type_identifier != FlavorType::Service;
                    Some(Agreement { since, peer: seller, prefix: prefix(&seller), buys })
                }
                (false, true) => Some(Agreement { since, peer: buyer, prefix: prefix(&buyer), buys: false }),
                _ => None,
            }
        };
        Self { agreements: contracts.filter_map(agreement).collect() }
    }
}

/// Decides. A prefix is this node's own, else whose contract is the oldest: a newcomer takes nothing from anybody.
pub(super) fn plan(own: &Own, view: &View) -> Plan {
    let mut agreements = view.agreements.clone();
    agreements.sort();
    let mut holders: BTreeMap<Cidr, NodeId> = BTreeMap::from([(own.prefix, own.id)]);
    let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
    let mut refused: BTreeMap<NodeId, Refused> = BTreeMap::new();
    for Agreement { peer, prefix, buys, .. } in agreements {
        let holder = *holders.entry(prefix).or_insert(peer);
        if holder != peer {
            let reason = format!("{prefix}, where its addresses would be, belongs to {holder}");
            refused.insert(peer, Refused { peer, prefix, reason });
            continue;
        }
        let access = if buys { FabricAccess::Cluster } else { FabricAccess::Guests };
        match peers.entry(peer) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(Peer { id: peer, prefix, access });
            }
            btree_map::Entry::Occupied(mut entry) => entry.get_mut().access = access.max(entry.get().access),
        }
    }
    Plan { peers: peers.into_values().collect(), refused: refused.into_values().collect() }
}

impl Plan {
    /// What the kernel is told.
    pub(super) fn routes(&self, device: &str) -> Vec<FabricRoute> {
        let route = |peer: &Peer| FabricRoute { to: peer.prefix, device: device.to_owned(), access: peer.access };
        self.peers.iter().map(route).collect()
    }
}

/// The key of a party; official nodes have none and get no packets.
fn did(party: &NodeIdentity) -> Option<NodeId> {
    party.additional_information.as_ref()?.did.as_deref()?.parse().ok()
}
