//! Who sends and gets what: a look-up or two per packet.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use fluidos_identity::{FabricPrefix, NodeId};
use substrate_network::Cidr;

use super::counters::Dropped;
use super::packet::Addresses;
use super::plan::{Own, Peer, Plan, Relay, Via};
use super::relay::Change;

/// The peers under contract by their prefix. Empty until contracts are known: then nothing is taken or sent.
#[derive(Default)]
pub(super) struct Table {
    peers: Vec<Peer>,
    by_block: HashMap<u32, NodeId>,
    blocks: HashMap<NodeId, u32>,
    own: Vec<Cidr>,
    own_prefix: Option<Cidr>,
    /// Guests here whose owner stands behind their consumer, by address.
    vias: HashMap<Ipv4Addr, Via>,
    /// Pods that others run for consumers of this node, by the address that the consumer knows, and by provider and their own.
    by_stand_in: HashMap<Ipv4Addr, Relay>,
    by_pod: HashMap<(NodeId, Ipv4Addr), Relay>,
}

/// What becomes of a packet of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is for this node.
    Here,
    /// It goes on to another, changed.
    On(NodeId, Change),
}

impl Table {
    pub(super) fn new(own: &Own, plan: &Plan) -> Self {
        let peers = &plan.peers;
        let mut by_pod = HashMap::new();
        for relay in &plan.relays {
            // Of two that are told to have one address, the first has it: the provider errs, and its own consumer suffers.
            by_pod.entry((relay.provider, relay.pod)).or_insert(*relay);
        }
        Self {
            peers: peers.clone(),
            by_block: peers.iter().map(|peer| (block(peer.prefix.network()), peer.id)).collect(),
            blocks: peers.iter().map(|peer| (peer.id, block(peer.prefix.network()))).collect(),
            own: vec![own.pods, own.services],
            own_prefix: Some(own.prefix),
            vias: plan.vias.iter().map(|via| (via.pod, *via)).collect(),
            by_stand_in: plan.relays.iter().map(|relay| (relay.stand_in, *relay)).collect(),
            by_pod,
        }
    }

    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(super) fn knows(&self, peer: &NodeId) -> bool {
        self.blocks.contains_key(peer)
    }

    /// Says to whom a packet of this node goes.
    pub(super) fn outgoing(&self, packet: Addresses) -> Result<NodeId, Dropped> {
        // What the peer would drop is not sent.
        if !self.own_prefix.is_some_and(|prefix| prefix.contains(packet.source)) {
            return Err(Dropped::ForeignSource);
        }
        if let Some(via) = self.vias.get(&packet.source) {
            // Its home may be a peer of this node, too, who knows nothing of this pod.
            return if via.home.contains(packet.destination) {
                Ok(via.consumer)
            } else {
                Err(Dropped::ForeignDestination)
            };
        }
        self.by_block.get(&block(packet.destination)).copied().ok_or(Dropped::ForeignDestination)
    }

    /// Says whether a packet of a peer is taken, and what becomes of it.
    pub(super) fn incoming(&self, peer: &NodeId, packet: Addresses) -> Result<Taken, Dropped> {
        let prefix = self.blocks.get(peer).ok_or(Dropped::NoContract)?;
        if let Some(relay) = self.by_stand_in.get(&packet.destination) {
            // For a pod that another runs: from its owner, by its consumer.
            return match (relay.consumer == *peer, relay.home.contains(packet.source)) {
                (true, true) => Ok(Taken::On(relay.provider, Change::Destination(relay.pod))),
                (true, false) => Err(Dropped::ForeignSource),
                (false, _) => Err(Dropped::ForeignDestination),
            };
        }
        let via = self.vias.get(&packet.destination);
        if via.is_some_and(|via| via.consumer != *peer) {
            return Err(Dropped::ForeignDestination);
        }
        if block(packet.source) != *prefix {
            // Of one who stands behind this peer, for his own pod.
            return match via {
                Some(via) if via.home.contains(packet.source) => Ok(Taken::Here),
                _ => Err(Dropped::ForeignSource),
            };
        }
        if let Some(relay) = self.by_pod.get(&(*peer, packet.source)) {
            // Of a pod that runs there for a consumer: to its owner, and to nothing of this node.
            return match relay.home.contains(packet.destination) {
                true => Ok(Taken::On(relay.consumer, Change::Source(relay.stand_in))),
                false => Err(Dropped::ForeignDestination),
            };
        }
        let ours = self.own.iter().any(|range| range.contains(packet.destination));
        if ours { Ok(Taken::Here) } else { Err(Dropped::ForeignDestination) }
    }
}

/// The number of an address's /20.
fn block(address: Ipv4Addr) -> u32 {
    address.to_bits() >> (32 - FabricPrefix::V4_BITS)
}
