//! A *home* is where those who use a service have their addresses, as whoever sells it on says it: a /20 of the fabric.

use std::fmt;
use std::net::Ipv4Addr;

use fluidos_identity::{FabricPrefix, NodeId, fabric_prefix};

/// See the module. Written as `100.64.16.0/20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(Ipv4Addr);

impl Home {
    /// The home of a node, of which this is the first key.
    pub fn of(first: &NodeId) -> Self {
        Self(fabric_prefix(first, 0).v4)
    }

    /// Reads what a buyer says.
    ///
    /// # Errors
    /// Why packets to it cannot be led there, in words that the buyer may read: it is no block of the fabric, or `own`.
    pub fn read(text: &str, own: &Self) -> Result<Self, String> {
        let shown: String = text.chars().take(32).collect();
        let needed = || format!("home is {shown:?}, needed a /{} of 100.64.0.0/10", FabricPrefix::V4_BITS);
        let address = text.strip_suffix(&format!("/{}", FabricPrefix::V4_BITS)).ok_or_else(needed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| needed())?;
        let is_fabric = address.to_bits() >> 22 == Ipv4Addr::new(100, 64, 0, 0).to_bits() >> 22;
        if !is_fabric || address.to_bits() & 0xfff != 0 {
            return Err(needed());
        }
        if Self(address) == *own {
            return Err(format!("home is {shown}, which are the addresses of this node itself"));
        }
        Ok(Self(address))
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, FabricPrefix::V4_BITS)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_home_is_a_block_of_the_fabric_and_of_somebody_else() {
        let own = Home("100.64.16.0".parse().unwrap());
        assert_eq!(Home::read("100.64.32.0/20", &own).unwrap().to_string(), "100.64.32.0/20");
        for wrong in [
            "100.64.32.0",
            "100.64.32.0/21",
            "100.64.33.0/20",
            "10.0.0.0/20",
            "192.168.16.0/20",
            "0.0.0.0/0",
            "x/20",
            "100.128.0.0/20",
        ] {
            assert!(Home::read(wrong, &own).unwrap_err().contains("needed a /20 of 100.64.0.0/10"), "{wrong}");
        }
        assert!(Home::read("100.64.16.0/20", &own).unwrap_err().contains("this node itself"));
    }
}
