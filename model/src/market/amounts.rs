//! How much of each resource: the vector that is offered, asked for, held and committed.

use std::collections::BTreeMap;
use std::fmt;

use super::{ExtendedResource, Quantity, QuantityError, Resource};

/// An amount of every resource that is traded. Absent is 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Pods.
    pub pods: u64,
    /// Bytes of ephemeral storage.
    pub storage_bytes: u64,
    /// Whole devices of what the cluster gives a name: GPUs, FPGAs, licences.
    pub extended: Extended,
}

/// How much there is of each extended resource. What has no name here is 0, or as much as can be counted in [`Amounts::UNLIMITED`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Extended {
    named: BTreeMap<ExtendedResource, u64>,
    rest: u64,
}

impl Extended {
    /// Nothing of any.
    pub const NONE: Self = Self { named: BTreeMap::new(), rest: 0 };

    /// Returns how much there is of one.
    pub fn get(&self, resource: &ExtendedResource) -> u64 {
        self.named.get(resource).copied().unwrap_or(self.rest)
    }

    /// Sets how much there is of one.
    pub fn set(&mut self, resource: ExtendedResource, amount: u64) {
        // One vector has one form: equal amounts are equal.
        if amount == self.rest {
            self.named.remove(&resource);
        } else {
            self.named.insert(resource, amount);
        }
    }

    /// Returns those that are named, in the order of their names, with how much there is.
    pub fn iter(&self) -> impl Iterator<Item = (&ExtendedResource, u64)> {
        self.named.iter().map(|(resource, amount)| (resource, *amount))
    }
}

impl Amounts {
    /// Limits that limit nothing.
    pub const UNLIMITED: Self = Self {
        cpu_milli: u64::MAX,
        memory_bytes: u64::MAX,
        pods: u64::MAX,
        storage_bytes: u64::MAX,
        extended: Extended { named: BTreeMap::new(), rest: u64::MAX },
    };

    /// Returns how much there is of one resource.
    pub fn get(&self, resource: &Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu_milli,
            Resource::Memory => self.memory_bytes,
            Resource::Pods => self.pods,
            Resource::Storage => self.storage_bytes,
            Resource::Extended(name) => self.extended.get(name),
        }
    }

    /// Sets how much there is of one resource.
    pub fn set(&mut self, resource: &Resource, amount: u64) {
        match resource {
            Resource::Cpu => self.cpu_milli = amount,
            Resource::Memory => self.memory_bytes = amount,
            Resource::Pods => self.pods = amount,
            Resource::Storage => self.storage_bytes = amount,
            Resource::Extended(name) => self.extended.set(name.clone(), amount),
        }
    }

    /// Returns every resource that has a name of its own and those that are named here, in the order in which reasons are told.
    pub fn resources(&self) -> impl Iterator<Item = Resource> {
        let extended = self.extended.named.keys().cloned().map(Resource::Extended);
        Resource::NATIVE.into_iter().chain(extended)
    }

    /// Returns the resources of both, each once.
    pub fn resources_with(&self, other: &Self) -> impl Iterator<Item = Resource> {
        let others = other.extended.named.keys().filter(|name| !self.extended.named.contains_key(name));
        self.resources().chain(others.cloned().map(Resource::Extended))
    }

    /// Returns what is asked for, from texts such as `("cpu", "250m")`.
    ///
    /// # Errors
    /// [`QuantityError`] if one of the texts is not a quantity.
    pub fn asked<'a>(texts: impl IntoIterator<Item = (Resource, &'a str)>) -> Result<Self, QuantityError> {
        let mut amounts = Self::default();
        for (resource, text) in texts {
            amounts.set(&resource, resource.asked(Quantity::parse(text)?));
        }
        Ok(amounts)
    }

    /// Returns the sum, or `None` beyond 64 bits.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.combine(other, u64::checked_add)
    }

    /// Returns the difference, or `None` if there is less than that.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.combine(other, u64::checked_sub)
    }

    /// Returns what is left, 0 where there is less than that.
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.combine(other, |here, there| Some(here.saturating_sub(there))).unwrap_or_default()
    }

    /// Returns of each resource what there is less of.
    pub fn least(&self, other: &Self) -> Self {
        self.combine(other, |here, there| Some(here.min(there))).unwrap_or_default()
    }

    /// Returns of each resource what there is more of.
    pub fn most(&self, other: &Self) -> Self {
        self.combine(other, |here, there| Some(here.max(there))).unwrap_or_default()
    }

    /// Returns the resources of which there is less here than `needed`, with what is here and what is needed.
    pub fn shortfalls(&self, needed: &Self) -> Vec<(Resource, u64, u64)> {
        let all = self.resources_with(needed).map(|resource| {
            let (here, needed) = (self.get(&resource), needed.get(&resource));
            (resource, here, needed)
        });
        all.filter(|(_, here, needed)| here < needed).collect()
    }

    /// Returns what is missing here of what is `needed`, in words: `cpu: 1 free, needed 2`; `state` is what the amounts here are (`free`,
    /// `bought`). `None` if nothing is.
    pub fn lack(&self, needed: &Self, state: &str) -> Option<String> {
        let short = self.shortfalls(needed);
        let told = |(resource, here, needed): &(Resource, u64, u64)| {
            format!("{}: {} {state}, needed {}", resource.name(), resource.text(*here), resource.text(*needed))
        };
        (!short.is_empty()).then(|| short.iter().map(told).collect::<Vec<_>>().join(", "))
    }

    /// Says whether `needed` fits into this.
    pub fn holds(&self, needed: &Self) -> bool {
        self.resources_with(needed).all(|resource| self.get(&resource) >= needed.get(&resource))
    }

    /// Says whether there is nothing of anything.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what an operation makes of each amount.
    pub fn map(&self, operation: impl Fn(u64) -> u64) -> Self {
        let rest = operation(self.extended.rest);
        let mut result = Self { extended: Extended { rest, ..Extended::NONE }, ..Self::default() };
        self.resources().for_each(|resource| result.set(&resource, operation(self.get(&resource))));
        result
    }

    fn combine(&self, other: &Self, operation: fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let rest = operation(self.extended.rest, other.extended.rest)?;
        let mut result = Self { extended: Extended { rest, ..Extended::NONE }, ..Self::default() };
        for resource in self.resources_with(other) {
            result.set(&resource, operation(self.get(&resource), other.get(&resource))?);
        }
        Some(result)
    }
}

/// Prints what is not 0: `cpu 500m, memory 1Gi, pods 10, example.com/fpga 1`.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.resources().filter(|resource| self.get(resource) != 0);
        let texts: Vec<_> = present.map(|r| format!("{} {}", r.name(), r.text(self.get(&r)))).collect();
        if texts.is_empty() { f.write_str("nothing") } else { f.write_str(&texts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn amounts_are_read_and_printed_exactly() {
        let fpga = Resource::parse("example.com/fpga").unwrap();
        let texts = [(Resource::Cpu, "0.25"), (Resource::Memory, "1.5Gi"), (Resource::Pods, "110"), (fpga, "2")];
        let amounts = Amounts::asked(texts).unwrap();
        assert_eq!(amounts.to_string(), "cpu 250m, memory 1536Mi, pods 110, example.com/fpga 2");
        assert_eq!(Amounts::default().to_string(), "nothing");
        assert_eq!(Resource::Cpu.asked(Quantity::parse("1n").unwrap()), 1, "asking rounds up");
        assert_eq!(Resource::Cpu.offered(Quantity::parse("1999999999n").unwrap()), 1999, "offering rounds down");
    }

    #[test]
    fn every_shortfall_is_named() {
        let here = Amounts { cpu_milli: 500, memory_bytes: 10, ..Amounts::default() };
        let needed = Amounts { cpu_milli: 1000, memory_bytes: 10, pods: 1, ..Amounts::default() };
        assert_eq!(here.shortfalls(&needed), [(Resource::Cpu, 500, 1000), (Resource::Pods, 0, 1)]);
        assert_eq!(here.lack(&needed, "free").unwrap(), "cpu: 500m free, needed 1, pods: 0 free, needed 1");
        assert_eq!(needed.lack(&here, "free"), None);
        assert_eq!(here.checked_sub(&needed), None);
        assert_eq!(here.saturating_sub(&needed), Amounts::default());
    }

    #[test]
    fn extended_resources_add_up_under_their_names() {
        let fpgas = |count| Amounts::asked([(Resource::parse("example.com/fpga").unwrap(), count)]).unwrap();
        let gpus = |count| Amounts::asked([(Resource::GPU, count)]).unwrap();
        let both = fpgas("3").checked_add(&gpus("1")).unwrap();
        assert_eq!(both.to_string(), "example.com/fpga 3, nvidia.com/gpu 1");
        assert_eq!(both.checked_sub(&fpgas("3")).unwrap(), gpus("1"), "nothing of one is as if it had no name");
        assert_eq!(fpgas("1").checked_sub(&gpus("1")), None);
        assert!(both.holds(&gpus("1")) && !both.holds(&gpus("2")) && !gpus("1").holds(&both));
        let short = gpus("9").shortfalls(&both);
        assert_eq!(short, [(Resource::parse("example.com/fpga").unwrap(), 0, 3)]);
        assert_eq!(
            (both.least(&gpus("4")), both.most(&gpus("4")).to_string()),
            (gpus("1"), "example.com/fpga 3, nvidia.com/gpu 4".into())
        );
    }

    #[test]
    fn what_limits_nothing_limits_no_extended_resource() {
        let fpga = Resource::parse("example.com/fpga").unwrap();
        let sold = Amounts::asked([(fpga.clone(), "7")]).unwrap();
        let left = Amounts::UNLIMITED.saturating_sub(&sold);
        assert_eq!((left.get(&fpga), left.get(&Resource::GPU)), (u64::MAX - 7, u64::MAX));
        assert_eq!(sold.least(&left), sold);
        let mut limit = Amounts::UNLIMITED;
        limit.set(&fpga, 0);
        assert_eq!(sold.least(&limit), Amounts::default(), "a written 0 limits");
    }
}
