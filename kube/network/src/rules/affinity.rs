//! Which endpoint a client comes to, if it is to be always the same (`sessionAffinity: ClientIP`). No effects.
//!
//! ```text
//!  client ─ hash of its address ─▶ one of 256 parts ─▶ the endpoint that has the highest weight there
//! ```
//! Nothing is remembered: an endpoint that goes takes along its own parts only, one that comes takes a share of all others (rendezvous
//! hashing), and a restart of the node changes nothing. So there is no time after which a client may come to another endpoint.
use std::hash::{DefaultHasher, Hash, Hasher};

use engine_packets::Address;

/// Enough that 20 endpoints have about the same share, and a map of 3 KiB.
pub(super) const PARTS: u32 = 256;

/// The endpoint of each part.
pub(super) fn shares<A: Address>(endpoints: &[(A, u16)]) -> Vec<(u32, &(A, u16))> {
    // Of the same state each time, so the same endpoints have the same parts.
    let weight = |part: u32, endpoint: &(A, u16)| {
        let mut hasher = DefaultHasher::new();
        (part, endpoint).hash(&mut hasher);
        hasher.finish()
    };
    let heaviest = |part: u32| endpoints.iter().max_by_key(|endpoint| weight(part, endpoint));
    (0..PARTS).filter_map(|part| Some((part, heaviest(part)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_endpoint_that_goes_moves_its_own_clients_only() {
        let all: Vec<(Ipv4Addr, u16)> = (2..12).map(|last| (Ipv4Addr::new(10, 1, 0, last), 80)).collect();
        let before = shares(&all);
        assert_eq!(before.len(), 256);
        for endpoint in &all {
            let share = before.iter().filter(|(_, at)| *at == endpoint).count();
            assert!((10..=45).contains(&share), "{endpoint:?} has {share} of 256");
        }
        let left: Vec<(Ipv4Addr, u16)> = all[1..].to_vec();
        for ((part, before), (_, after)) in before.iter().zip(shares(&left)) {
            assert!(**before == all[0] || **before == *after, "part {part} went from {before:?} to {after:?}");
        }
    }
}
