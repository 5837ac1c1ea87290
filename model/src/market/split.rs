//! What is bought in parts from several sellers.
//!
//! A *unit* is the least that is of use: the largest pod of a workload. A *part* is a whole number of units, of one seller. So
//! whatever the parts are, as many units as were asked for have a place somewhere, and none is cut in two.
//!
//! ```text
//!   3 pods of 1 CPU ─▶ unit: cpu 1, pods 1 ─▶ 3 units     grid: 1500m free ─▶ 1 unit, cloud: 2500m free ─▶ 2 units
//! ```

use super::{Amounts, K8SliceSelector, Mismatch, Offer, Quantity, QuantityFilter, Resource};

/// Parts of one purchase: each is a contract, a virtual node, and a hold that must stand until all others do.
pub const PARTS_MAX: usize = 8;

/// How a purchase may be split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// What every part is a whole number of.
    pub unit: Amounts,
    /// How many parts at most.
    pub most: usize,
}

/// Why something cannot be split as it is said. Its writer must correct it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum SplitError {
    /// A filter that says more than a sum.
    #[error("split: filter {resource} needs a Range with `min` alone: what is bought in parts has no exact size")]
    Filter {
        /// Of which resource.
        resource: String,
    },
    /// The unit and the filters are about different things.
    #[error("split.unit.{resource} is {observed}, needed {needed}")]
    Unit {
        /// Of which resource.
        resource: String,
        /// What it says.
        observed: String,
        /// What is needed.
        needed: &'static str,
    },
    /// Too many or too few parts.
    #[error("split.most is {observed}, needed 2 to {PARTS_MAX}")]
    Most {
        /// What it says.
        observed: usize,
    },
}

impl Split {
    /// Checks that a selector can be split so.
    ///
    /// # Errors
    /// [`SplitError`] names the field and what it needs.
    pub fn check(&self, selector: &K8SliceSelector) -> Result<(), SplitError> {
        if !(2..=PARTS_MAX).contains(&self.most) {
            return Err(SplitError::Most { observed: self.most });
        }
        for resource in self.unit.resources_with(&selector.named()) {
            let (name, unit) = (resource.name().to_owned(), self.unit.get(&resource));
            let differs =
                |needed| Err(SplitError::Unit { resource: name.clone(), observed: resource.text(unit), needed });
            match selector.quantity(&resource) {
                Some(QuantityFilter::Range { min: Some(_), max: None }) if unit == 0 => {
                    return differs("more than 0: there is a filter for it");
                }
                Some(QuantityFilter::Range { min: Some(_), max: None }) => {}
                Some(_) => return Err(SplitError::Filter { resource: name }),
                None if unit != 0 => return differs("a filter for it, or nothing"),
                None => {}
            }
        }
        if self.unit.is_zero() {
            return Err(SplitError::Unit {
                resource: "cpu".into(),
                observed: "0".into(),
                needed: "a filter and a unit",
            });
        }
        Ok(())
    }

    /// Returns how many units make up what is asked for.
    pub fn units(&self, selector: &K8SliceSelector) -> u64 {
        let wanted = selector.wanted();
        let of = |resource: Resource| wanted.get(&resource).div_ceil(self.unit.get(&resource).max(1));
        self.unit.resources().filter(|resource| self.unit.get(resource) != 0).map(of).max().unwrap_or(0)
    }

    /// Returns the filters of a part of so many units.
    pub fn part(&self, selector: &K8SliceSelector, units: u64) -> K8SliceSelector {
        let mut part = selector.clone();
        for (resource, filter) in &mut part.quantities {
            let amount = self.unit.get(resource).saturating_mul(units);
            let least = match resource {
                Resource::Cpu => Quantity::from_milli(amount),
                _ => Quantity::from_units(amount),
            };
            *filter = QuantityFilter::Range { min: Some(least), max: None };
        }
        part
    }

    /// Returns the most units that an offer has room for, at most `units`, and what they buy of it.
    ///
    /// # Errors
    /// The [`Mismatch`] where it has no room for one.
    pub fn most_of(&self, offer: &Offer, selector: &K8SliceSelector, units: u64) -> Result<(u64, Amounts), Mismatch> {
        let room = |resource: Resource| offer.whole.get(&resource) / self.unit.get(&resource).max(1);
        let room = self.unit.resources().filter(|resource| self.unit.get(resource) != 0).map(room).min().unwrap_or(0);
        let units = room.min(units).max(1);
        Ok((units, offer.amounts_for(&self.part(selector, units))?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Partitionability;
    use super::*;

    fn selector(cpu: &str, pods: u32) -> K8SliceSelector {
        let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
        K8SliceSelector::from_json(&json!({"cpuFilter": range(cpu), "podsFilter": range(&pods.to_string())})).unwrap()
    }

    fn split(cpu_milli: u64) -> Split {
        Split { unit: Amounts { cpu_milli, pods: 1, ..Amounts::default() }, most: 8 }
    }

    fn offer(cpu_milli: u64, step: u64) -> Offer {
        let whole = Amounts { cpu_milli, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
        let step = Amounts { cpu_milli: step, ..Amounts::default() };
        Offer { whole, partition: Partitionability { least: Amounts::default(), step }, ..Offer::default() }
    }

    #[test]
    fn a_part_is_a_whole_number_of_units() {
        let asked = selector("3", 3);
        assert_eq!(split(1000).units(&asked), 3);
        assert_eq!(split(1500).units(&asked), 3, "as many as there are pods, though two would have the CPUs");
        let most = |cpu_milli, step| {
            let most = split(1000).most_of(&offer(cpu_milli, step), &asked, 3);
            most.map(|(units, amounts)| format!("{units}: {amounts}")).map_err(|mismatch| mismatch.to_string())
        };
        assert_eq!(most(2500, 1).unwrap(), "2: cpu 2, memory 1Gi, pods 2");
        assert_eq!(most(9000, 1).unwrap(), "3: cpu 3, memory 1Gi, pods 3", "no more than is asked for");
        assert_eq!(most(2500, 1500).unwrap(), "2: cpu 2500m, memory 1Gi, pods 2", "the seller's blocks count, too");
        assert_eq!(most(900, 1).unwrap_err(), "cpu: 900m (at least 0, in steps of 1m) offered, needed at least 1");
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        let check = |split: Split, selector: &K8SliceSelector| split.check(selector).unwrap_err().to_string();
        split(1000).check(&selector("3", 3)).unwrap();
        let exact =
            K8SliceSelector::from_json(&json!({"cpuFilter": {"name": "Match", "data": {"value": "3"}}})).unwrap();
        assert!(check(split(1000), &exact).starts_with("split: filter cpu needs a Range with `min` alone"));
        let no_pods = Split { unit: Amounts { cpu_milli: 1000, ..Amounts::default() }, most: 8 };
        assert_eq!(
            check(no_pods, &selector("3", 3)),
            "split.unit.pods is 0, needed more than 0: there is a filter for it"
        );
        let memory = Amounts { memory_bytes: 1 << 20, ..split(1000).unit };
        let unasked = check(Split { unit: memory, most: 8 }, &selector("3", 3));
        assert_eq!(unasked, "split.unit.memory is 1Mi, needed a filter for it, or nothing");
        assert_eq!(check(Split { most: 9, ..split(1000) }, &selector("3", 3)), "split.most is 9, needed 2 to 8");
        let nothing = Split { unit: Amounts::default(), most: 8 };
        assert!(check(nothing, &K8SliceSelector::default()).contains("needed a filter and a unit"));
    }

    proptest! {
        #[test]
        fn parts_of_all_units_hold_what_is_asked_for(cpu in 1u64..5000, unit in 1u64..2000, pods in 1u32..20, first in 0u64..20) {
            let asked = selector(&format!("{cpu}m"), pods);
            let (split, units) = (split(unit), split(unit).units(&asked));
            let first = first.min(units);
            let buys = |units: u64| {
                let room = Offer { whole: Amounts { cpu_milli: 1 << 40, pods: 1 << 20, ..Amounts::default() }, ..Offer::default() };
                if units == 0 { return Amounts::default() }
                room.amounts_for(&split.part(&asked, units)).unwrap()
            };
            let sum = buys(first).checked_add(&buys(units - first)).unwrap();
            prop_assert!(sum.holds(&asked.wanted()), "{sum} for {}", asked.wanted());
        }
    }
}
