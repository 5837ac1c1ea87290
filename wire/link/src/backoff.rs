//! How long to wait before dialling again. Pure.

use std::time::Duration;

use fluidos_identity::NodeId;

/// A peer that restarts is back within a second.
const FIRST: Duration = Duration::from_millis(100);
/// A peer that comes back after hours is found within this; a few packets in two seconds cost nothing.
const LAST: Duration = Duration::from_secs(2);
/// One of many that somebody announced, and that has never answered, announces itself or calls when it is there: a thousand of them cost
/// one dial in two seconds.
const SELDOM: Duration = Duration::from_secs(1800);
/// One of many that has answered before and is away for a minute.
const AWAY: Duration = Duration::from_secs(30);
/// Failures in a row that make a minute, or two where nothing is answered at all.
const MINUTE_OF_FAILURES: u32 = 30;

/// Whom a dial leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// An address that the owner has named.
    Named,
    /// One of many that were found, which has answered before.
    Met,
    /// One of many that were found, which has not answered yet.
    Found,
}

impl Whom {
    /// The same, once it has answered.
    pub(crate) fn met(self) -> Self {
        if self == Self::Found { Self::Met } else { self }
    }
}

/// What spreads the dials: nodes that all lost one peer do not dial it in one moment, and a node that found a thousand at once does not dial all
/// of them in one.
pub(crate) fn seed(own: &NodeId, expected: Option<&NodeId>) -> u8 {
    let first = |id: &NodeId| id.public_key()[0];
    first(own) ^ expected.map_or(0, first)
}

/// Returns the wait before the next dial after `failures` of them in a row. `seed` spreads dials over a quarter of the wait.
pub(crate) fn wait_before_dial(failures: u32, whom: Whom, seed: u8) -> Duration {
    // Who never answers is left alone sooner: six dials in the first two minutes.
    let (longest, growth) = match whom {
        Whom::Found => (SELDOM, 2),
        Whom::Met if failures > MINUTE_OF_FAILURES => (AWAY, 1),
        Whom::Named | Whom::Met => (LAST, 1),
    };
    let wait = FIRST.saturating_mul(1 << (growth * failures.saturating_sub(1).min(10))).min(longest);
    wait - wait / 4 * u32::from(seed) / 255
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let waits = |whom: Whom| {
            [1, 2, 3, 5, 6, 11, 30, 31, u32::MAX].map(|failures| wait_before_dial(failures, whom, 0).as_millis())
        };
        assert_eq!(waits(Whom::Named), [100, 200, 400, 1600, 2000, 2000, 2000, 2000, 2000]);
        assert_eq!(waits(Whom::Met), [100, 200, 400, 1600, 2000, 2000, 2000, 30_000, 30_000]);
        assert_eq!(waits(Whom::Found), [100, 400, 1600, 25_600, 102_400, 1_800_000, 1_800_000, 1_800_000, 1_800_000]);
        assert_eq!(wait_before_dial(7, Whom::Named, 255).as_millis(), 1500);
    }

    #[test]
    fn neither_many_at_one_nor_one_at_many_dial_in_one_moment() {
        let keys: Vec<NodeId> =
            (0..100).map(|seed| fluidos_identity::NodeKey::from_seed([seed; 32]).unwrap().id()).collect();
        let waits = |seeds: Vec<u8>| {
            let waits = seeds.into_iter().map(|seed| wait_before_dial(6, Whom::Found, seed));
            waits.collect::<std::collections::BTreeSet<Duration>>().len()
        };
        let (one, many) = (&keys[0], &keys[1..]);
        assert!(waits(many.iter().map(|peer| seed(one, Some(peer))).collect()) > 50);
        assert!(waits(many.iter().map(|own| seed(own, Some(one))).collect()) > 50);
        assert!(waits(many.iter().map(|own| seed(own, None)).collect()) > 50);
    }
}
