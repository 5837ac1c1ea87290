//! How long to wait before dialling again. Pure.

use std::time::Duration;

/// A peer that restarts is back within a second.
const FIRST: Duration = Duration::from_millis(100);
/// A peer that comes back after hours is found within this; a few packets in two seconds cost nothing.
const LAST: Duration = Duration::from_secs(2);
/// One of many that somebody announced, and that has not answered for a minute, announces itself or calls when it is back:
/// a thousand of them cost some thirty packets a second.
const SELDOM: Duration = Duration::from_secs(30);
/// Failures in a row that make a minute.
const MINUTE_OF_FAILURES: u32 = 30;

/// Returns the wait before the next dial after `failures` of them in a row. `one_of_many` tells that it was found, not
/// named by the owner. `seed` spreads nodes that all lost the same peer over a quarter of the wait.
pub(crate) fn wait_before_dial(failures: u32, one_of_many: bool, seed: u8) -> Duration {
    let wait = if one_of_many && failures > MINUTE_OF_FAILURES {
        SELDOM
    } else {
        FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST)
    };
    wait - wait / 4 * u32::from(seed) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let waits = |one_of_many: bool| {
            [1, 2, 3, 5, 6, 30, 31, u32::MAX].map(|failures| wait_before_dial(failures, one_of_many, 0).as_millis())
        };
        assert_eq!(waits(false), [100, 200, 400, 1600, 2000, 2000, 2000, 2000]);
        assert_eq!(waits(true), [100, 200, 400, 1600, 2000, 2000, 30_000, 30_000]);
        assert_eq!(wait_before_dial(7, false, 255).as_millis(), 1500);
    }
}
