//! Garbage, counted per peer, and silence for those that send too much of it. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;

/// One broken frame may be a fault; these many in a minute are an attack or a broken peer.
const STRIKES_MAX: u32 = 8;
/// For how long strikes count, and for how long a peer is not listened to then.
const SILENCE: Duration = Duration::from_secs(60);
/// Entries of 64 bytes. Keys are free, so the table must not grow with them.
const PEERS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Strikes {
    peers: HashMap<NodeId, Entry>,
}

#[derive(Debug)]
struct Entry {
    count: u32,
    first: Instant,
    silent_until: Option<Instant>,
}

impl Strikes {
    /// Counts garbage of a peer; returns whether it is not listened to from now on.
    pub(crate) fn strike(&mut self, peer: NodeId, now: Instant) -> bool {
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, entry| now.saturating_duration_since(entry.first) <= SILENCE);
        }
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            // Thousands of keys with garbage within a minute: each is refused by itself, none is remembered.
            return true;
        }
        let entry = self.peers.entry(peer).or_insert(Entry { count: 0, first: now, silent_until: None });
        if now.saturating_duration_since(entry.first) > SILENCE {
            (entry.count, entry.first) = (0, now);
        }
        entry.count += 1;
        let silenced = entry.count >= STRIKES_MAX;
        if silenced {
            (entry.count, entry.silent_until) = (0, Some(now + SILENCE));
        }
        silenced
    }

    /// Says whether a peer is not listened to now.
    pub(crate) fn is_silenced(&self, peer: &NodeId, now: Instant) -> bool {
        self.peers.get(peer).and_then(|entry| entry.silent_until).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::NodeKey;

    use super::*;

    #[test]
    fn garbage_silences_its_sender_for_a_while() {
        let peer = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap().id();
        let (mut strikes, start) = (Strikes::default(), Instant::now());
        assert!((1..STRIKES_MAX).all(|_| !strikes.strike(peer(1), start)));
        assert!(!strikes.is_silenced(&peer(1), start));
        assert!(strikes.strike(peer(1), start));
        assert!(strikes.is_silenced(&peer(1), start) && !strikes.is_silenced(&peer(2), start));
        assert!(!strikes.is_silenced(&peer(1), start + SILENCE));
    }
}
