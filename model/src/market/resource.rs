//! What is traded: the resources that every node has, and those that a cluster gives a name.
//!
//! An *extended resource* is Kubernetes': a qualified name outside its own domain, counted in whole devices, asked for by pods
//! like CPU. GPUs are such resources.

use std::borrow::Cow;
use std::fmt;

use super::Quantity;

/// One of the resources that are traded.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Resource {
    /// CPU, counted in thousandths.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Pods.
    Pods,
    /// Ephemeral storage, in bytes.
    Storage,
    /// Whole devices of one kind.
    Extended(ExtendedResource),
}

/// The name of an extended resource, such as `example.com/fpga`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ExtendedResource(Cow<'static, str>);

/// Why a name is not that of a resource that is traded. Its writer must correct it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error(
    "resource {observed:?} is not traded: needed cpu, memory, pods, storage, gpu, or an extended resource such as example.com/fpga"
)]
pub struct ResourceError {
    /// The beginning of the name.
    observed: String,
}

/// The resource by which pods ask for what official nodes call `gpu`: theirs are of this vendor where they have any.
const GPU: &str = "nvidia.com/gpu";
/// The longest name of a subdomain, and the longest one behind it (Kubernetes' qualified names).
const DOMAIN_MAX: usize = 253 - "requests.".len();
const NAME_MAX: usize = 63;

impl Resource {
    /// Those that every node has, in the order in which reasons are told.
    pub const NATIVE: [Self; 4] = [Self::Cpu, Self::Memory, Self::Pods, Self::Storage];
    /// What official nodes call `gpu`: `nvidia.com/gpu`.
    pub const GPU: Self = Self::Extended(ExtendedResource::GPU);

    /// Returns the resource of a name: `cpu`, `memory`, `pods`, `storage` or Kubernetes' `ephemeral-storage`, `gpu`, or that of an
    /// extended resource.
    ///
    /// # Errors
    /// [`ResourceError`] for every other.
    pub fn parse(name: &str) -> Result<Self, ResourceError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "memory" => Ok(Self::Memory),
            "pods" => Ok(Self::Pods),
            "storage" | "ephemeral-storage" => Ok(Self::Storage),
            "gpu" => Ok(Self::GPU),
            other => ExtendedResource::parse(other).map(Self::Extended),
        }
    }

    /// Returns the resource that a container asks for by this name.
    ///
    /// # Errors
    /// [`ResourceError`] for every other.
    pub fn requested(name: &str) -> Result<Self, ResourceError> {
        match Self::parse(name)? {
            resource if resource != Self::Pods && resource.kubernetes_name() == name => Ok(resource),
            _ => Err(ResourceError { observed: name.chars().take(64).collect() }),
        }
    }

    /// Returns the name used in configurations and filters.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pods => "pods",
            Self::Storage => "storage",
            Self::Extended(name) => name.as_str(),
        }
    }

    /// Returns the name by which pods ask for it and nodes have it.
    pub fn kubernetes_name(&self) -> &str {
        match self {
            Self::Storage => "ephemeral-storage",
            other => other.name(),
        }
    }

    /// Returns what is asked for in this resource's own unit, a rest rounded up.
    pub fn asked(&self, quantity: Quantity) -> u64 {
        match self {
            Self::Cpu => quantity.milli_ceil(),
            _ => quantity.units_ceil(),
        }
    }

    /// Returns what is offered in this resource's own unit, a rest dropped.
    pub fn offered(&self, quantity: Quantity) -> u64 {
        match self {
            Self::Cpu => quantity.milli_floor(),
            _ => quantity.units_floor(),
        }
    }

    /// Returns an amount of this resource as a Kubernetes quantity: `1500m`, `2`, `512Mi`.
    pub fn text(&self, amount: u64) -> String {
        match self {
            Self::Cpu => Quantity::from_milli(amount).to_string(),
            Self::Memory | Self::Storage => bytes_text(amount),
            Self::Pods | Self::Extended(_) => amount.to_string(),
        }
    }
}

impl ExtendedResource {
    /// What official nodes call `gpu`.
    pub const GPU: Self = Self(Cow::Borrowed(GPU));

    /// Returns the extended resource of this name, as Kubernetes judges it: qualified, not of its own domain, and not the
    /// spelling of a quota.
    ///
    /// # Errors
    /// [`ResourceError`] for every other name.
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        let (domain, name) = text.split_once('/').unwrap_or_default();
        let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
            bytes.len() <= 63 && bytes.iter().all(letter) && alphanumeric(bytes.first()) && alphanumeric(bytes.last())
        };
        let is_name = {
            let bytes = name.as_bytes();
            let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            bytes.len() <= NAME_MAX
                && bytes.iter().all(letter)
                && alphanumeric(bytes.first())
                && alphanumeric(bytes.last())
        };
        let is_domain = domain.len() <= DOMAIN_MAX && domain.split('.').all(is_label);
        let is_native = text.contains("kubernetes.io/") || text.starts_with("requests.");
        if is_domain && is_name && !is_native {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(ResourceError { observed: text.chars().take(64).collect() })
        }
    }

    /// Returns its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExtendedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn bytes_text(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    match units.iter().find(|(_, bits)| bytes != 0 && bytes.is_multiple_of(1 << bits)) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn names_are_judged_as_kubernetes_judges_them() {
        for good in ["example.com/fpga", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "xilinx.com/fpga-xilinx_u200", "a/b"] {
            assert_eq!(Resource::parse(good).unwrap().name(), good);
        }
        assert_eq!(Resource::parse("gpu").unwrap().name(), "nvidia.com/gpu");
        assert_eq!(Resource::parse("nvidia.com/gpu").unwrap(), Resource::GPU);
        assert_eq!(Resource::parse("ephemeral-storage").unwrap().kubernetes_name(), "ephemeral-storage");
        let long = format!("{}.com/x", "a".repeat(64));
        let bad = [
            "fpga",
            "",
            "/",
            "example.com/",
            "/fpga",
            "kubernetes.io/x",
            "node.kubernetes.io/x",
            "requests.example.com/x",
            "hugepages-2Mi",
            "Example.com/x",
            "example..com/x",
            "example.com/-x",
            "example.com/a/b",
            "example.com/a b",
            &long,
        ];
        for bad in bad {
            assert!(Resource::parse(bad).is_err(), "{bad}");
        }
        let told = Resource::parse("fpga").unwrap_err().to_string();
        assert!(told.starts_with("resource \"fpga\" is not traded: needed cpu, memory"), "{told}");
    }
}
