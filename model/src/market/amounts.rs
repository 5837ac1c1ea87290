//! How much of each resource: the vector that is offered, asked for, held and committed.

use std::fmt;

use super::{Quantity, QuantityError};

/// An amount of every resource that is traded. Absent is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Pods.
    pub pods: u64,
    /// Bytes of ephemeral storage.
    pub storage_bytes: u64,
    /// Whole GPUs.
    pub gpus: u64,
}

/// One of the resources that are traded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Resource {
    /// CPU, counted in thousandths.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Pods.
    Pods,
    /// Ephemeral storage, in bytes.
    Storage,
    /// GPUs.
    Gpu,
}

impl Resource {
    /// Every resource, in the order in which reasons are told.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Pods, Self::Storage, Self::Gpu];

    /// Returns the name used in configurations and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pods => "pods",
            Self::Storage => "storage",
            Self::Gpu => "gpu",
        }
    }

    /// Returns what is asked for in this resource's own unit, a rest rounded up.
    pub fn asked(self, quantity: Quantity) -> u64 {
        match self {
            Self::Cpu => quantity.milli_ceil(),
            _ => quantity.units_ceil(),
        }
    }

    /// Returns what is offered in this resource's own unit, a rest dropped.
    pub fn offered(self, quantity: Quantity) -> u64 {
        match self {
            Self::Cpu => quantity.milli_floor(),
            _ => quantity.units_floor(),
        }
    }

    /// Returns an amount of this resource as a Kubernetes quantity: `1500m`, `2`, `512Mi`.
    pub fn text(self, amount: u64) -> String {
        match self {
            Self::Cpu => Quantity::from_milli(amount).to_string(),
            Self::Memory | Self::Storage => bytes_text(amount),
            Self::Pods | Self::Gpu => amount.to_string(),
        }
    }
}

fn bytes_text(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    match units.iter().find(|(_, bits)| bytes != 0 && bytes.is_multiple_of(1 << bits)) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits),
        None => bytes.to_string(),
    }
}

impl Amounts {
    /// Returns how much there is of one resource.
    pub fn get(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu_milli,
            Resource::Memory => self.memory_bytes,
            Resource::Pods => self.pods,
            Resource::Storage => self.storage_bytes,
            Resource::Gpu => self.gpus,
        }
    }

    /// Sets how much there is of one resource.
    pub fn set(&mut self, resource: Resource, amount: u64) {
        match resource {
            Resource::Cpu => self.cpu_milli = amount,
            Resource::Memory => self.memory_bytes = amount,
            Resource::Pods => self.pods = amount,
            Resource::Storage => self.storage_bytes = amount,
            Resource::Gpu => self.gpus = amount,
        }
    }

    /// Returns what is asked for, from texts such as `("cpu", "250m")`; names that are not traded are left out.
    ///
    /// # Errors
    /// [`QuantityError`] if one of the texts is not a quantity.
    pub fn asked<'a>(texts: impl IntoIterator<Item = (Resource, &'a str)>) -> Result<Self, QuantityError> {
        let mut amounts = Self::default();
        for (resource, text) in texts {
            amounts.set(resource, resource.asked(Quantity::parse(text)?));
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
        let mut left = *self;
        Resource::ALL.iter().for_each(|r| left.set(*r, self.get(*r).saturating_sub(other.get(*r))));
        left
    }

    /// Returns the resources of which there is less here than `needed`, with what is here and what is needed.
    pub fn shortfalls(&self, needed: &Self) -> Vec<(Resource, u64, u64)> {
        let all = Resource::ALL.iter().map(|resource| (*resource, self.get(*resource), needed.get(*resource)));
        all.filter(|(_, here, needed)| here < needed).collect()
    }

    /// Says whether `needed` fits into this.
    pub fn holds(&self, needed: &Self) -> bool {
        self.shortfalls(needed).is_empty()
    }

    /// Says whether there is nothing of anything.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn combine(&self, other: &Self, operation: fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let mut result = Self::default();
        for resource in Resource::ALL {
            result.set(resource, operation(self.get(resource), other.get(resource))?);
        }
        Some(result)
    }
}

/// Prints what is not 0: `cpu 500m, memory 1Gi, pods 10`.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Resource::ALL.iter().filter(|resource| self.get(**resource) != 0);
        let texts: Vec<_> = present.map(|r| format!("{} {}", r.name(), r.text(self.get(*r)))).collect();
        if texts.is_empty() { f.write_str("nothing") } else { f.write_str(&texts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn amounts_are_read_and_printed_exactly() {
        let texts = [(Resource::Cpu, "0.25"), (Resource::Memory, "1.5Gi"), (Resource::Pods, "110")];
        let amounts = Amounts::asked(texts).unwrap();
        assert_eq!(amounts.to_string(), "cpu 250m, memory 1536Mi, pods 110");
        assert_eq!(Amounts::default().to_string(), "nothing");
        assert_eq!(Resource::Cpu.asked(Quantity::parse("1n").unwrap()), 1, "asking rounds up");
        assert_eq!(Resource::Cpu.offered(Quantity::parse("1999999999n").unwrap()), 1999, "offering rounds down");
    }

    #[test]
    fn every_shortfall_is_named() {
        let here = Amounts { cpu_milli: 500, memory_bytes: 10, ..Amounts::default() };
        let needed = Amounts { cpu_milli: 1000, memory_bytes: 10, pods: 1, ..Amounts::default() };
        assert_eq!(here.shortfalls(&needed), [(Resource::Cpu, 500, 1000), (Resource::Pods, 0, 1)]);
        assert_eq!(here.checked_sub(&needed), None);
        assert_eq!(here.saturating_sub(&needed), Amounts::default());
    }
}
