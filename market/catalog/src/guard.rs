//! Who is listened to how often: token buckets for each key and each address. Pure: time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use fluidos_identity::NodeId;

/// A node asks twice a minute; one that starts reads a list of some dozen pages.
const OF_KEY: Rate = Rate { per_second: 10.0, burst: 64.0 };
/// Several nodes of one owner sit behind one address.
const OF_ADDRESS: Rate = Rate { per_second: 100.0, burst: 400.0 };
/// Buckets of about 60 bytes. When it is full, those that were quiet longest are forgotten: they are full again anyway.
const BUCKETS_MAX: usize = 8192;

#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// Counts requests.
#[derive(Default)]
pub(crate) struct Guard {
    keys: Buckets<NodeId>,
    addresses: Buckets<IpAddr>,
}

impl Guard {
    /// Takes one request.
    ///
    /// # Errors
    /// Why it is not listened to now.
    pub(crate) fn admit(&mut self, node: Option<NodeId>, origin: IpAddr, now: Instant) -> Result<(), String> {
        let too_many = |rate: Rate, of: &str| format!("more than {} requests a second of one {of}", rate.per_second);
        // The address first: somebody with many keys must not empty the buckets of each.
        if !self.addresses.take(origin, OF_ADDRESS, now) {
            return Err(too_many(OF_ADDRESS, "address"));
        }
        if node.is_some_and(|node| !self.keys.take(node, OF_KEY, now)) {
            return Err(too_many(OF_KEY, "key"));
        }
        Ok(())
    }
}

struct Buckets<K>(HashMap<K, (f64, Instant)>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Copy> Buckets<K> {
    fn take(&mut self, who: K, rate: Rate, now: Instant) -> bool {
        if self.0.len() >= BUCKETS_MAX && !self.0.contains_key(&who) {
            let mut seen: Vec<Instant> = self.0.values().map(|(_, seen)| *seen).collect();
            let (_, middle, _) = seen.select_nth_unstable(BUCKETS_MAX / 2);
            let middle = *middle;
            self.0.retain(|_, (_, seen)| *seen > middle);
        }
        let (tokens, seen) = self.0.entry(who).or_insert((rate.burst, now));
        let elapsed = now.saturating_duration_since(*seen).as_secs_f64();
        *tokens = (*tokens + elapsed * rate.per_second).min(rate.burst);
        *seen = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use fluidos_identity::NodeKey;

    use super::*;

    #[test]
    fn a_flood_is_cut_for_its_sender_and_recovers() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        let key = |seed| NodeKey::from_seed([seed; 32]).unwrap().id();
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut admitted = |node, origin, now| (0..1000).filter(|_| guard.admit(node, origin, now).is_ok()).count();
        assert_eq!(admitted(Some(key(1)), here, start), 64);
        assert_eq!(admitted(Some(key(2)), there, start), 64, "nobody else is cut");
        assert_eq!(admitted(Some(key(3)), here, start), 0, "another key does not help");
        assert_eq!(admitted(Some(key(3)), here, start + Duration::from_secs(1)), 64);
        assert_eq!(admitted(None, "192.0.2.3".parse().unwrap(), start), 400);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        for index in 0..3 * BUCKETS_MAX {
            buckets.take(index, OF_KEY, start + Duration::from_millis(index as u64));
        }
        assert!(buckets.0.len() <= BUCKETS_MAX);
    }
}
