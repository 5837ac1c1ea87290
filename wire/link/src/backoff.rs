//! How long to wait before dialling again. Pure.

use std::time::Duration;

/// A peer that restarts is back within a second.
const FIRST: Duration = Duration::from_millis(100);
/// A peer that comes back after hours is found within this; a few packets in two seconds cost nothing.
const LAST: Duration = Duration::from_secs(2);

/// Returns the wait before the next dial after `failures` of them in a row. `seed` spreads nodes that all lost the same
/// peer over a quarter of the wait.
pub(crate) fn wait_before_dial(failures: u32, seed: u8) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST);
    doubled - doubled / 4 * u32::from(seed) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let waits: Vec<u128> =
            [1, 2, 3, 5, 6, u32::MAX].map(|failures| wait_before_dial(failures, 0).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 1600, 2000, 2000]);
        assert_eq!(wait_before_dial(7, 255).as_millis(), 1500);
    }
}
