//! Chance that a test can repeat.

use std::time::Duration;

/// Numbers that follow from a seed (splitmix64): spread, not secret.
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between two others.
    pub(super) fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let share = (word >> 11) as f64 / (1u64 << 53) as f64;
        least + most.saturating_sub(least).mul_f64(share)
    }
}
