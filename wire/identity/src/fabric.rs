//! Where the pods of a node live: addresses that follow from its key, so that nobody has to hand them out.
//!
//! There are 1,024 blocks of /20 in 100.64.0.0/10 (RFC 6598), so keys do meet: with 12 nodes in one fabric about once in
//! sixteen. A prefix that another key holds is refused by whoever sees both, and the next attempt gives the next one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use crate::NodeId;

/// The addresses of one node's pods: an IPv4 block and an IPv6 block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FabricPrefix {
    /// First address of a /20 inside 100.64.0.0/10.
    pub v4: Ipv4Addr,
    /// First address of a /64 inside fd00::/8 (RFC 4193).
    pub v6: Ipv6Addr,
}

impl FabricPrefix {
    /// Length of the IPv4 prefix in bits: 4,094 pods, more than a machine runs.
    pub const V4_BITS: u8 = 20;
    /// Length of the IPv6 prefix in bits.
    pub const V6_BITS: u8 = 64;

    /// Number of the first address behind the pods' (a /21): those of pods that others run for this node begin here, its stand-ins.
    pub const STAND_INS: u32 = 0x800;
    /// Number of the first stand-in that is not of a pod but of a service that others run and this node sells on (a /24).
    pub const SERVICE_STAND_INS: u32 = 0xe00;
    /// Number of the first address of its Services (the last /24).
    pub const SERVICES: u32 = 0xf00;

    /// Says whether the IPv4 address stands for a pod that this node has another run.
    pub fn is_stand_in(&self, address: Ipv4Addr) -> bool {
        self.holds_v4(address) && (Self::STAND_INS..Self::SERVICES).contains(&(address.to_bits() & 0xfff))
    }

    /// Returns the IPv4 block as `a.b.c.d/20`.
    pub fn v4_cidr(&self) -> String {
        format!("{}/{}", self.v4, Self::V4_BITS)
    }

    /// Returns the IPv6 block as `fd…::/64`.
    pub fn v6_cidr(&self) -> String {
        format!("{}/{}", self.v6, Self::V6_BITS)
    }

    /// Says whether the IPv4 address is of this node.
    pub fn holds_v4(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.v4.to_bits()) >> (32 - Self::V4_BITS) == 0
    }

    /// Says whether the IPv6 address is of this node.
    pub fn holds_v6(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.v6.to_bits()) >> (128 - Self::V6_BITS) == 0
    }
}

impl fmt::Display for FabricPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.v4_cidr(), self.v6_cidr())
    }
}

/// Returns the prefix of a node. `attempt` counts from 0 and goes up when somebody else holds the one before.
pub fn fabric_prefix(node: &NodeId, attempt: u32) -> FabricPrefix {
    let mut hash = Sha256::new();
    hash.update(b"fluidos fabric prefix v1");
    hash.update(node.public_key());
    hash.update(attempt.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let block = u32::from(u16::from_be_bytes([hash[0], hash[1]])) % 1024;
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() | (block << (32 - FabricPrefix::V4_BITS)));
    let mut v6 = [0; 16];
    v6[0] = 0xfd;
    v6[1..8].copy_from_slice(&hash[2..9]);
    FabricPrefix { v4, v6: v6.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use crate::NodeKey;

    #[test]
    fn every_prefix_is_inside_its_range_and_aligned() {
        let id = NodeKey::from_seed([3; 32]).unwrap().id();
        for attempt in 0..2000 {
            let prefix = fabric_prefix(&id, attempt);
            assert_eq!(prefix.v4.to_bits() >> 22, Ipv4Addr::new(100, 64, 0, 0).to_bits() >> 22, "{prefix}");
            assert_eq!(prefix.v4.to_bits() & 0xfff, 0, "{prefix}");
            assert!(prefix.v6.is_unique_local() && prefix.v6.to_bits() as u64 == 0, "{prefix}");
            assert!(prefix.holds_v4(Ipv4Addr::from_bits(prefix.v4.to_bits() + 4095)));
            assert!(!prefix.holds_v4(Ipv4Addr::from_bits(prefix.v4.to_bits() + 4096)));
            let at = |number: u32| prefix.is_stand_in(Ipv4Addr::from_bits(prefix.v4.to_bits() + number));
            assert!(at(0x800) && at(0xeff) && !at(0x7ff) && !at(0xf00) && !at(0x1900));
            assert!(prefix.holds_v6(Ipv6Addr::from_bits(prefix.v6.to_bits() + 1)));
            assert!(!prefix.holds_v6(Ipv6Addr::from_bits(prefix.v6.to_bits() + (1 << 64))));
        }
    }

    #[test]
    fn the_next_attempt_is_another_prefix_and_the_same_one_is_the_same() {
        let id = NodeKey::from_seed([3; 32]).unwrap().id();
        assert_eq!(fabric_prefix(&id, 0), fabric_prefix(&id, 0));
        assert_ne!(fabric_prefix(&id, 0), fabric_prefix(&id, 1));
        // Golden: nodes of different versions must agree.
        assert_eq!(fabric_prefix(&id, 0).to_string(), "100.125.80.0/20 fd06:9440:25fe:5068::/64");
    }
}
