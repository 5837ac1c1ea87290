//! Into which parts an offer may be cut.
//!
//! A part is *allowed* if and only if it is the whole, or at least the minimum and a multiple of the step. A step of 0
//! allows any size. Official nodes publish this and never check it; here both sides do.

use super::{Amounts, Resource};

/// The least and the step of every resource (`policies.partitionability` of a flavor).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partitionability {
    /// The least that is sold.
    pub least: Amounts,
    /// What every part is a multiple of; 0 is any.
    pub step: Amounts,
}

impl Partitionability {
    /// Returns the smallest allowed part of `whole` that is at least `wanted`, or `None` if there is none.
    pub fn round_up(&self, resource: &Resource, wanted: u64, whole: u64) -> Option<u64> {
        let wanted = wanted.max(self.least.get(resource));
        let part = match self.step.get(resource) {
            0 => wanted,
            step => wanted.checked_next_multiple_of(step).unwrap_or(u64::MAX),
        };
        match part {
            part if part <= whole => Some(part),
            _ if wanted <= whole => Some(whole),
            _ => None,
        }
    }

    /// Returns the largest allowed part of `whole` that is at most `most`, or `None` if there is none.
    pub fn round_down(&self, resource: &Resource, most: u64, whole: u64) -> Option<u64> {
        if most >= whole {
            return Some(whole);
        }
        let part = match self.step.get(resource) {
            0 => most,
            step => most - most % step,
        };
        (part >= self.least.get(resource)).then_some(part)
    }

    /// Says whether exactly this may be cut from `whole`.
    pub fn allows(&self, resource: &Resource, part: u64, whole: u64) -> bool {
        self.round_up(resource, part, whole) == Some(part)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn partition(least: u64, step: u64) -> Partitionability {
        let amount = |cpu_milli| Amounts { cpu_milli, ..Amounts::default() };
        Partitionability { least: amount(least), step: amount(step) }
    }

    #[test]
    fn parts_are_multiples_or_the_whole() {
        let halves = partition(0, 500);
        assert_eq!(halves.round_up(&Resource::Cpu, 501, 4000), Some(1000));
        assert_eq!(halves.round_up(&Resource::Cpu, 500, 4000), Some(500));
        assert_eq!(halves.round_up(&Resource::Cpu, 3600, 3700), Some(3700), "the whole is a part");
        assert_eq!(halves.round_up(&Resource::Cpu, 3701, 3700), None);
        assert_eq!(partition(2000, 0).round_up(&Resource::Cpu, 1, 4000), Some(2000));
        assert_eq!(halves.round_down(&Resource::Cpu, 1999, 4000), Some(1500));
        assert_eq!(partition(2000, 500).round_down(&Resource::Cpu, 1999, 4000), None);
        assert!(!halves.allows(&Resource::Cpu, 750, 4000));
    }

    proptest! {
        #[test]
        fn a_rounded_part_is_allowed_and_enough(least in 0u64..50, step in 0u64..20, wanted in 0u64..100, whole in 0u64..100) {
            let partition = partition(least, step);
            if let Some(part) = partition.round_up(&Resource::Cpu, wanted, whole) {
                prop_assert!(part >= wanted && part <= whole && partition.allows(&Resource::Cpu, part, whole));
            } else {
                prop_assert!(wanted.max(least) > whole);
            }
        }
    }
}
