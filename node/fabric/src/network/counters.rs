//! What happened to packets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fluidos_identity::NodeId;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Not IPv4, with options, or not as long as it says.
    Malformed,
    /// Its source is not an address of the node that sent it.
    ForeignSource,
    /// Its destination is neither a pod nor a Service of this node; or, on the way out, of no peer under contract.
    ForeignDestination,
    /// It came from a peer without a live contract.
    NoContract,
    /// There is no link to the peer, or the link did not take it.
    LinkDown,
    /// The kernel did not take it.
    Device,
    /// It was to be carried on, and had been carried too often.
    Hops,
}

impl Dropped {
    const COUNT: usize = 7;
}

/// What has been counted since the start. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets given to links.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets taken from peers.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets carried on from one peer to another, who runs pods for it. They are counted neither as sent nor as received.
    pub relayed_packets: u64,
    /// Their bytes.
    pub relayed_bytes: u64,
    /// Of those sent or carried on: too long for one datagram, sent in two parts.
    pub parted_packets: u64,
    dropped_outgoing: [u64; Dropped::COUNT],
    dropped_incoming: [u64; Dropped::COUNT],
}

impl Counters {
    /// Packets from here that were dropped for this reason.
    pub fn dropped_outgoing(&self, why: Dropped) -> u64 {
        self.dropped_outgoing.get(why as usize).copied().unwrap_or(0)
    }

    /// Packets from peers that were dropped for this reason.
    pub fn dropped_incoming(&self, why: Dropped) -> u64 {
        self.dropped_incoming.get(why as usize).copied().unwrap_or(0)
    }
}

/// Bytes of IP packets that were exchanged with one peer since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PeerBytes {
    /// Given to its link.
    pub sent: u64,
    /// Taken from it.
    pub received: u64,
}

/// The counters while they count.
#[derive(Default)]
pub(super) struct Counting {
    /// Only of peers under contract, of which the table has as many as the node has live contracts.
    peers: Mutex<BTreeMap<NodeId, PeerBytes>>,
    pub(super) sent: Tally,
    pub(super) received: Tally,
    pub(super) relayed: Tally,
    pub(super) parted_packets: AtomicU64,
}

/// One direction.
#[derive(Default)]
pub(super) struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; Dropped::COUNT],
}

impl Tally {
    pub(super) fn count(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn drop(&self, why: Dropped, packets: u64) {
        if let Some(counter) = self.dropped.get(why as usize) {
            counter.fetch_add(packets, Ordering::Relaxed);
        }
    }
}

impl Counting {
    /// Adds to what was exchanged with a peer: once for each batch, not for each packet.
    pub(super) fn exchanged(&self, peer: NodeId, bytes: PeerBytes) {
        if bytes != PeerBytes::default() {
            let mut peers = self.peers();
            let sum = peers.entry(peer).or_default();
            sum.sent += bytes.sent;
            sum.received += bytes.received;
        }
    }

    pub(super) fn peer(&self, peer: &NodeId) -> PeerBytes {
        self.peers().get(peer).copied().unwrap_or_default()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, PeerBytes>> {
        // A sum is never half written.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            sent_packets: read(&self.sent.packets),
            sent_bytes: read(&self.sent.bytes),
            received_packets: read(&self.received.packets),
            received_bytes: read(&self.received.bytes),
            relayed_packets: read(&self.relayed.packets),
            relayed_bytes: read(&self.relayed.bytes),
            parted_packets: read(&self.parted_packets),
            dropped_outgoing: self.sent.dropped.each_ref().map(read),
            dropped_incoming: self.received.dropped.each_ref().map(read),
        }
    }
}
