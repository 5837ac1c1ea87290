//! Who is listened to: a token bucket per peer, and silence for those that send garbage. Pure: time is an argument.
//!
//! A peer is its key; one without a key is its address, so that nobody's garbage silences somebody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;

/// A discovery asks every peer once in some seconds; a purchase is three requests.
const TOKENS_PER_SECOND: f64 = 20.0;
/// A node that starts asks for everything at once.
const TOKENS_MAX: f64 = 40.0;
/// One mistake is a mistake; these many in a minute are an attack or a broken peer.
const STRIKES_MAX: u32 = 8;
/// For how long strikes count, and for how long a peer is not listened to then.
const SILENCE: Duration = Duration::from_secs(60);
/// Entries of about 100 bytes. When it is full, those that have been quiet longest are forgotten.
const PEERS_MAX: usize = 4096;

/// Under which name a peer is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Who {
    Node(NodeId),
    Address(IpAddr),
    Nobody,
}

#[derive(Debug)]
struct Entry {
    tokens: f64,
    seen: Instant,
    strikes: u32,
    first_strike: Instant,
    silent_until: Option<Instant>,
}

/// Counts requests and garbage.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    peers: HashMap<Who, Entry>,
}

impl Guard {
    /// Takes one request of a peer.
    ///
    /// # Errors
    /// A sentence that says for how long it is not listened to.
    pub(crate) fn admit(&mut self, who: Who, now: Instant) -> Result<(), String> {
        let entry = self.entry(who, now);
        if let Some(until) = entry.silent_until.filter(|until| *until > now) {
            let seconds = until.saturating_duration_since(now).as_secs() + 1;
            return Err(format!("{STRIKES_MAX} malformed requests: not listened to for another {seconds} s"));
        }
        let elapsed = now.saturating_duration_since(entry.seen).as_secs_f64();
        entry.tokens = (entry.tokens + elapsed * TOKENS_PER_SECOND).min(TOKENS_MAX);
        entry.seen = now;
        if entry.tokens < 1.0 {
            return Err(format!("more than {TOKENS_PER_SECOND} requests a second"));
        }
        entry.tokens -= 1.0;
        Ok(())
    }

    /// Counts garbage of a peer; returns whether it is not listened to from now on.
    pub(crate) fn strike(&mut self, who: Who, now: Instant) -> bool {
        let entry = self.entry(who, now);
        if now.saturating_duration_since(entry.first_strike) > SILENCE {
            (entry.strikes, entry.first_strike) = (0, now);
        }
        entry.strikes += 1;
        let silenced = entry.strikes >= STRIKES_MAX;
        if silenced {
            (entry.strikes, entry.silent_until) = (0, Some(now + SILENCE));
        }
        silenced
    }

    fn entry(&mut self, who: Who, now: Instant) -> &mut Entry {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&who) {
            self.forget(now);
        }
        let fresh = Entry { tokens: TOKENS_MAX, seen: now, strikes: 0, first_strike: now, silent_until: None };
        self.peers.entry(who).or_insert(fresh)
    }

    /// Makes room: the quieter half goes, silenced ones last.
    fn forget(&mut self, now: Instant) {
        let mut order: Vec<(bool, Instant, Who)> = self
            .peers
            .iter()
            .map(|(who, entry)| (entry.silent_until.is_some_and(|until| until > now), entry.seen, *who))
            .collect();
        order.sort_by_key(|(silenced, seen, _)| (*silenced, *seen));
        for (_, _, who) in order.into_iter().take(PEERS_MAX / 2) {
            self.peers.remove(&who);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn a_flood_is_cut_and_recovers() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        let admitted = (0..100).filter(|_| guard.admit(Who::Nobody, start).is_ok()).count();
        assert_eq!(admitted, 40);
        let later = start + Duration::from_millis(500);
        let admitted = (0..100).filter(|_| guard.admit(Who::Nobody, later).is_ok()).count();
        assert_eq!(admitted, 10);
    }

    #[test]
    fn garbage_silences_its_sender_only_and_for_a_while() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        let sender = Who::Address("192.0.2.1".parse().unwrap());
        let silenced: Vec<bool> = (0..STRIKES_MAX).map(|_| guard.strike(sender, start)).collect();
        assert_eq!(silenced.iter().filter(|silenced| **silenced).count(), 1);
        assert!(guard.admit(sender, start).unwrap_err().contains("60 s") || guard.admit(sender, start).is_err());
        assert!(guard.admit(Who::Nobody, start).is_ok());
        assert!(guard.admit(sender, start + SILENCE).is_ok());
    }

    #[test]
    fn old_mistakes_are_forgiven() {
        let (mut guard, mut now) = (Guard::default(), Instant::now());
        for _ in 0..STRIKES_MAX * 2 {
            assert!(!guard.strike(Who::Nobody, now));
            now += Duration::from_secs(20);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        for index in 0..3 * PEERS_MAX as u32 {
            let who = Who::Address(IpAddr::V4(std::net::Ipv4Addr::from_bits(index)));
            let _ = guard.admit(who, start + Duration::from_millis(u64::from(index)));
        }
        assert!(guard.peers.len() <= PEERS_MAX);
    }
}
