//! Who sends and gets what: one look-up per packet.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use fluidos_identity::{FabricPrefix, NodeId};
use substrate_network::Cidr;

use super::counters::Dropped;
use super::packet::Addresses;
use super::plan::{Own, Peer};

/// The peers under contract by their prefix. Empty until contracts are known: then nothing is taken or sent.
#[derive(Default)]
pub(super) struct Table {
    peers: Vec<Peer>,
    by_block: HashMap<u32, NodeId>,
    blocks: HashMap<NodeId, u32>,
    own: Vec<Cidr>,
    own_prefix: Option<Cidr>,
}

impl Table {
    pub(super) fn new(own: &Own, peers: &[Peer]) -> Self {
        Self {
            peers: peers.to_vec(),
            by_block: peers.iter().map(|peer| (block(peer.prefix.network()), peer.id)).collect(),
            blocks: peers.iter().map(|peer| (peer.id, block(peer.prefix.network()))).collect(),
            own: vec![own.pods, own.services],
            own_prefix: Some(own.prefix),
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
        self.by_block.get(&block(packet.destination)).copied().ok_or(Dropped::ForeignDestination)
    }

    /// Says whether a packet of a peer is taken.
    pub(super) fn incoming(&self, peer: &NodeId, packet: Addresses) -> Result<(), Dropped> {
        let prefix = self.blocks.get(peer).ok_or(Dropped::NoContract)?;
        if block(packet.source) != *prefix {
            return Err(Dropped::ForeignSource);
        }
        let ours = self.own.iter().any(|range| range.contains(packet.destination));
        if ours { Ok(()) } else { Err(Dropped::ForeignDestination) }
    }
}

/// The number of an address's /20.
fn block(address: Ipv4Addr) -> u32 {
    address.to_bits() >> (32 - FabricPrefix::V4_BITS)
}
