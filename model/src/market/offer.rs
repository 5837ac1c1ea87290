//! What a seller offers, and how much of it a selector buys.
//!
//! | filter | buys |
//! |---|---|
//! | Match | its value, if that part may be cut |
//! | Range with `min` | the smallest allowed part from `min` on, at most `max` |
//! | Range with only `max` | the largest allowed part up to `max` |
//! | none | the whole amount; of an extended resource, none of it |

use super::{Amounts, Features, K8SliceSelector, Partitionability, Quantity, QuantityFilter, Resource};

/// A K8Slice on offer: what is free of it and what is known about the place.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Offer {
    /// Name of the flavor.
    pub flavor: String,
    /// `amd64`, `arm64`; empty if unknown.
    pub architecture: String,
    /// What can be bought.
    pub whole: Amounts,
    /// Into which parts.
    pub partition: Partitionability,
    /// Where it is, as its owner says.
    pub location: Location,
    /// The plan that it is, `OFFER/PLAN`; empty if it is none.
    pub plan: String,
    /// What is special about it, as its owner says.
    pub features: Features,
}

/// A place as its owner describes it. All texts, all optional, as in the official kinds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Location {
    /// Degrees north.
    pub latitude: String,
    /// Degrees east.
    pub longitude: String,
    /// Country.
    pub country: String,
    /// City.
    pub city: String,
    /// Anything else.
    pub additional_notes: String,
}

impl Location {
    /// Returns the texts that are given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let all = [&self.city, &self.country, &self.additional_notes, &self.latitude, &self.longitude];
        all.into_iter().map(|text| text.trim()).filter(|text| !text.is_empty())
    }
}

/// How what could be bought stands to what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the variants are their own words
pub enum Fit {
    Exact,
    Less,
    More,
}

/// Why an offer is not what is asked for: what was seen and what was needed.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("{subject}: {observed} offered, needed {needed}")]
pub struct Mismatch {
    /// `cpu`, `architecture`, …
    pub subject: String,
    /// What the offer has.
    pub observed: String,
    /// What was asked for.
    pub needed: String,
}

impl Offer {
    /// Returns how much of this offer the selector buys.
    ///
    /// # Errors
    /// The first [`Mismatch`]; an offer that has one is not for this buyer.
    pub fn amounts_for(&self, selector: &K8SliceSelector) -> Result<Amounts, Mismatch> {
        if let Some(filter) = selector.architecture.as_ref().filter(|filter| !filter.accepts(&self.architecture)) {
            let observed = if self.architecture.is_empty() { "?" } else { &self.architecture };
            let (observed, needed) = (observed.to_owned(), filter.to_string());
            return Err(Mismatch { subject: "architecture".into(), observed, needed });
        }
        if let Some(filter) = selector.plan.as_ref().filter(|filter| !filter.accepts(&self.plan)) {
            let observed = if self.plan.is_empty() { "none" } else { &self.plan };
            return Err(Mismatch { subject: "plan".into(), observed: observed.to_owned(), needed: filter.to_string() });
        }
        let mut amounts = Amounts::default();
        for resource in self.whole.resources_with(&selector.named()) {
            amounts.set(&resource, self.part(&resource, selector.quantity(&resource))?);
        }
        Ok(amounts)
    }

    /// Returns how much of this offer comes nearest to what the selector asks for, and how it stands to it: what it buys, or less
    /// where there is not enough.
    ///
    /// # Errors
    /// The [`Mismatch`] where nothing of it would help.
    pub fn nearest(&self, selector: &K8SliceSelector) -> Result<(Fit, Amounts), Mismatch> {
        let wanted = selector.wanted();
        let mismatch = match self.amounts_for(selector) {
            Ok(amounts) => {
                let mut asked = selector.quantities.iter().map(|(resource, _)| resource);
                let more = asked.any(|resource| amounts.get(resource) > wanted.get(resource));
                return Ok((if more { Fit::More } else { Fit::Exact }, amounts));
            }
            Err(mismatch) if matches!(mismatch.subject.as_str(), "architecture" | "plan") => return Err(mismatch),
            Err(mismatch) => mismatch,
        };
        let mut amounts = Amounts::default();
        for resource in self.whole.resources_with(&selector.named()) {
            let part = match (self.part(&resource, selector.quantity(&resource)), wanted.get(&resource)) {
                (Ok(part), _) => part,
                (Err(_), wanted) => {
                    let part = self.partition.round_down(&resource, wanted, self.whole.get(&resource));
                    // More than was wanted is no part of it, and nothing helps nobody.
                    part.filter(|part| (1..=wanted).contains(part)).ok_or_else(|| mismatch.clone())?
                }
            };
            amounts.set(&resource, part);
        }
        Ok((Fit::Less, amounts))
    }

    /// Checks that exactly these amounts may be cut from the offer: what a seller does with every reservation.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn allows(&self, amounts: &Amounts) -> Result<(), Mismatch> {
        if amounts.is_zero() {
            return Err(Mismatch { subject: "amounts".into(), observed: "nothing".into(), needed: "something".into() });
        }
        for resource in self.whole.resources_with(amounts) {
            let (wanted, whole) = (amounts.get(&resource), self.whole.get(&resource));
            // what nobody asked for is not cut: no device, no storage
            if wanted == 0 && !matches!(resource, Resource::Cpu | Resource::Memory | Resource::Pods) {
                continue;
            }
            if !self.partition.allows(&resource, wanted, whole) {
                return Err(self.mismatch(&resource, resource.text(wanted)));
            }
        }
        Ok(())
    }

    fn part(&self, resource: &Resource, filter: Option<&QuantityFilter>) -> Result<u64, Mismatch> {
        let whole = self.whole.get(resource);
        let part = match filter {
            // Devices that nobody asked for are left to others, unless the package has them.
            None if matches!(resource, Resource::Extended(_)) => self.partition.round_up(resource, 0, whole),
            None => Some(whole),
            Some(QuantityFilter::Match(value)) => {
                let wanted = resource.asked(*value);
                Some(wanted).filter(|part| self.partition.allows(resource, *part, whole))
            }
            Some(QuantityFilter::Range { min: Some(min), max }) => {
                let most = max.map_or(u64::MAX, |max| resource.offered(max));
                let part = self.partition.round_up(resource, resource.asked(*min), whole);
                part.filter(|part| *part <= most)
            }
            Some(QuantityFilter::Range { min: None, max }) => {
                let most = max.map_or(u64::MAX, |max| resource.offered(max));
                self.partition.round_down(resource, most, whole)
            }
        };
        part.ok_or_else(|| self.mismatch(resource, needed_text(filter)))
    }

    fn mismatch(&self, resource: &Resource, needed: String) -> Mismatch {
        let mut observed = resource.text(self.whole.get(resource));
        let (least, step) = (self.partition.least.get(resource), self.partition.step.get(resource));
        if least != 0 || step != 0 {
            observed += &format!(" (at least {}, in steps of {})", resource.text(least), resource.text(step));
        }
        Mismatch { subject: resource.name().to_owned(), observed, needed }
    }
}

fn needed_text(filter: Option<&QuantityFilter>) -> String {
    let text = |quantity: &Option<Quantity>| quantity.map_or_else(String::new, |quantity| quantity.to_string());
    match filter {
        None => "anything".into(),
        Some(QuantityFilter::Match(value)) => format!("exactly {value}"),
        Some(QuantityFilter::Range { min, max: None }) => format!("at least {}", text(min)),
        Some(QuantityFilter::Range { min: None, max }) => format!("at most {}", text(max)),
        Some(QuantityFilter::Range { min, max }) => format!("{} to {}", text(min), text(max)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn offer() -> Offer {
        let whole = Amounts { cpu_milli: 4000, memory_bytes: 8 << 30, pods: 110, ..Amounts::default() };
        let step = Amounts { cpu_milli: 500, memory_bytes: 100 << 20, ..Amounts::default() };
        let partition = Partitionability { least: Amounts::default(), step };
        Offer { architecture: "amd64".into(), whole, partition, ..Offer::default() }
    }

    fn check(filters: Value, expected: &str) {
        let selector = K8SliceSelector::from_json(&filters).unwrap();
        let observed = offer().amounts_for(&selector).map_or_else(|error| error.to_string(), |a| a.to_string());
        assert_eq!(observed, expected, "{filters}");
    }

    #[test]
    fn filters_decide_how_much_is_bought() {
        check(Value::Null, "cpu 4, memory 8Gi, pods 110");
        check(json!({"cpuFilter": {"name": "Range", "data": {"min": "750m"}}}), "cpu 1, memory 8Gi, pods 110");
        check(json!({"memoryFilter": {"name": "Range", "data": {"min": "1Gi"}}}), "cpu 4, memory 1100Mi, pods 110");
        check(json!({"cpuFilter": {"name": "Range", "data": {"max": "1800m"}}}), "cpu 1500m, memory 8Gi, pods 110");
        check(json!({"podsFilter": {"name": "Match", "data": {"value": 10}}}), "cpu 4, memory 8Gi, pods 10");
    }

    #[test]
    fn a_mismatch_says_what_was_seen_and_what_was_needed() {
        check(
            json!({"cpuFilter": {"name": "Range", "data": {"min": 5}}}),
            "cpu: 4 (at least 0, in steps of 500m) offered, needed at least 5",
        );
        check(
            json!({"cpuFilter": {"name": "Range", "data": {"min": "600m", "max": "900m"}}}),
            "cpu: 4 (at least 0, in steps of 500m) offered, needed 600m to 900m",
        );
        check(
            json!({"cpuFilter": {"name": "Match", "data": {"value": "750m"}}}),
            "cpu: 4 (at least 0, in steps of 500m) offered, needed exactly 750m",
        );
        check(
            json!({"architectureFilter": {"name": "Match", "data": {"value": "arm64"}}}),
            "architecture: amd64 offered, needed arm64",
        );
        check(
            json!({"podsFilter": {"name": "Match", "data": {"value": 111}}}),
            "pods: 110 offered, needed exactly 111",
        );
    }

    #[test]
    fn the_nearest_is_told_where_there_is_not_enough() {
        let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
        for (filters, expected) in [
            (
                json!({"cpuFilter": range("1"), "memoryFilter": range("100Mi"), "podsFilter": range("5")}),
                "Exact cpu 1, memory 100Mi, pods 5",
            ),
            (
                json!({"cpuFilter": range("750m"), "memoryFilter": range("100Mi"), "podsFilter": range("5")}),
                "More cpu 1, memory 100Mi, pods 5",
            ),
            (
                json!({"cpuFilter": range("6"), "memoryFilter": range("100Mi"), "podsFilter": range("5")}),
                "Less cpu 4, memory 100Mi, pods 5",
            ),
            (json!({"cpuFilter": {"name": "Match", "data": {"value": "750m"}}}), "Less cpu 500m, memory 8Gi, pods 110"),
            (
                json!({"cpuFilter": {"name": "Match", "data": {"value": "100m"}}}),
                "cpu: 4 (at least 0, in steps of 500m) offered, needed exactly 100m",
            ),
            (
                json!({"architectureFilter": {"name": "Match", "data": {"value": "arm64"}}}),
                "architecture: amd64 offered, needed arm64",
            ),
        ] {
            let selector = K8SliceSelector::from_json(&filters).unwrap();
            let observed = offer().nearest(&selector);
            let observed = observed.map_or_else(|error| error.to_string(), |(fit, it)| format!("{fit:?} {it}"));
            assert_eq!(observed, expected, "{filters}");
        }
        let empty = Offer { whole: Amounts::default(), ..offer() };
        let selector = K8SliceSelector::from_json(&json!({"cpuFilter": range("1")})).unwrap();
        assert!(empty.nearest(&selector).is_err(), "nothing helps nobody");
    }

    #[test]
    fn a_seller_checks_what_it_is_asked_for() {
        let wanted = |cpu_milli, pods| Amounts { cpu_milli, memory_bytes: 100 << 20, pods, ..Amounts::default() };
        assert_eq!(offer().allows(&wanted(500, 1)), Ok(()));
        assert!(offer().allows(&wanted(501, 1)).is_err());
        assert!(offer().allows(&wanted(500, 111)).is_err());
        assert!(offer().allows(&Amounts::default()).is_err());
        let mut devices = wanted(500, 1);
        devices.set(&Resource::GPU, 1);
        assert_eq!(offer().allows(&devices).unwrap_err().to_string(), "nvidia.com/gpu: 0 offered, needed 1");
        let offer = Offer { whole: Amounts { extended: devices.extended.clone(), ..offer().whole }, ..offer() };
        assert_eq!(offer.allows(&devices), Ok(()));
        assert_eq!(offer.allows(&wanted(500, 1)), Ok(()), "who wants none gets none");
    }

    #[test]
    fn devices_are_bought_by_who_asks_for_them() {
        let mut offer = offer();
        offer.whole.set(&Resource::GPU, 1);
        let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
        let bought = |filters: Value| {
            let selector = K8SliceSelector::from_json(&filters).unwrap();
            offer.nearest(&selector).map_or_else(|error| error.to_string(), |(fit, it)| format!("{fit:?} {it}"))
        };
        let cpu = range("500m");
        assert_eq!(
            bought(json!({"cpuFilter": cpu, "memoryFilter": range("1000Mi"), "podsFilter": range("1")})),
            "Exact cpu 500m, memory 1000Mi, pods 1"
        );
        assert_eq!(
            bought(
                json!({"cpuFilter": cpu, "memoryFilter": range("1000Mi"), "podsFilter": range("1"), "gpuFilter": range("1")})
            ),
            "Exact cpu 500m, memory 1000Mi, pods 1, nvidia.com/gpu 1"
        );
        assert_eq!(
            bought(
                json!({"cpuFilter": cpu, "memoryFilter": range("1000Mi"), "podsFilter": range("1"), "gpuFilter": range("2")})
            ),
            "Less cpu 500m, memory 1000Mi, pods 1, nvidia.com/gpu 1"
        );
        let fpga = json!({"cpuFilter": cpu, "extendedResourceFilters": {"example.com/fpga": range("1")}});
        assert_eq!(bought(fpga), "example.com/fpga: 0 offered, needed at least 1");
        // A package has what it has.
        let whole = Partitionability { least: offer.whole.clone(), step: Amounts::default() };
        let package = Offer { partition: whole, ..offer.clone() };
        assert_eq!(package.amounts_for(&K8SliceSelector::default()).unwrap(), offer.whole);
    }
}
