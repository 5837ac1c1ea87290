//! What is read of a packet, and how one travels in datagrams.
//!
//! ```text
//!  payload of a datagram (behind the channel byte):
//!    4x …                      a whole IPv4 packet: its first half-byte is its version
//!    00 | id (2 bytes) | …     the first part of one that does not fit
//!    01 | id (2 bytes) | …     its second part
//! ```

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bytes::{BufMut as _, Bytes, BytesMut};
use fluidos_identity::NodeId;

use super::counters::Dropped;
use super::{CHANNEL, MTU};

/// Without options: those that steer a packet are nobody's to set here (RFC 7126 §4), and nothing needs the others.
const HEADER_BYTES: usize = 20;
/// Kind and id of a part.
const PART_HEADER_BYTES: usize = 3;
const PART_FIRST: u8 = 0;
const PART_SECOND: u8 = 1;

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
}

/// Reads the addresses of an IPv4 packet (RFC 791 §3.1) that is exactly as long as it says.
pub(super) fn addresses(packet: &[u8]) -> Result<Addresses, Dropped> {
    let header: &[u8; HEADER_BYTES] = packet.first_chunk().ok_or(Dropped::Malformed)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Version 4, five words of header.
    if header[0] != 0x45 || length != packet.len() || length > usize::from(MTU) {
        return Err(Dropped::Malformed);
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    Ok(Addresses { source: Ipv4Addr::new(a, b, c, d), destination: Ipv4Addr::new(e, f, g, h) })
}

/// Makes datagrams of packets. Their memory is taken in large pieces that go when the last datagram has been sent.
pub(super) struct Framer {
    memory: BytesMut,
    part_id: u16,
}

impl Framer {
    /// Some fifty packets: one allocation for as many.
    const PIECE_BYTES: usize = 64 << 10;

    pub(super) fn new() -> Self {
        Self { memory: BytesMut::new(), part_id: 0 }
    }

    fn frame(&mut self, head: &[u8], body: &[u8]) -> Bytes {
        let length = 1 + head.len() + body.len();
        if self.memory.capacity() < length {
            self.memory = BytesMut::with_capacity(Self::PIECE_BYTES.max(length));
        }
        self.memory.put_u8(CHANNEL);
        self.memory.put_slice(head);
        self.memory.put_slice(body);
        self.memory.split().freeze()
    }

    /// Returns the datagram of a packet, with its channel.
    pub(super) fn whole(&mut self, packet: &[u8]) -> Bytes {
        self.frame(&[], packet)
    }

    /// Returns the two datagrams of a packet that is too long for one.
    pub(super) fn parts(&mut self, packet: &[u8]) -> [Bytes; 2] {
        self.part_id = self.part_id.wrapping_add(1);
        let [high, low] = self.part_id.to_be_bytes();
        let (first, second) = packet.split_at(packet.len() / 2);
        [self.frame(&[PART_FIRST, high, low], first), self.frame(&[PART_SECOND, high, low], second)]
    }
}

/// Joins parts. Keeps one part for each peer: the other follows at once, or never.
#[derive(Default)]
pub(super) struct Joiner {
    waiting: HashMap<NodeId, Bytes>,
}

impl Joiner {
    /// Returns the packet that a payload is or completes; `None` if its other part has yet to come.
    pub(super) fn packet(&mut self, peer: NodeId, payload: Bytes) -> Result<Option<Bytes>, Dropped> {
        match payload.first().copied() {
            Some(PART_FIRST | PART_SECOND) => {}
            Some(_) => return Ok(Some(payload)),
            None => return Err(Dropped::Malformed),
        }
        if payload.len() <= PART_HEADER_BYTES || payload.len() > usize::from(MTU) {
            return Err(Dropped::Malformed);
        }
        let Some(other) = self.waiting.remove(&peer) else {
            self.waiting.insert(peer, payload);
            return Ok(None);
        };
        if other[1..PART_HEADER_BYTES] != payload[1..PART_HEADER_BYTES] || other[0] == payload[0] {
            // The one before lost its other part; this one may not have.
            self.waiting.insert(peer, payload);
            return Ok(None);
        }
        let (first, second) = if payload[0] == PART_SECOND { (&other, &payload) } else { (&payload, &other) };
        Ok(Some([&first[PART_HEADER_BYTES..], &second[PART_HEADER_BYTES..]].concat().into()))
    }

    /// Forgets peers that packets are not taken from any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.waiting.retain(|peer, _| keep(peer));
    }
}
