//! IPv4 ranges.
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 range: a network address and the length of its prefix. Host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix_len: u8,
}

impl Cidr {
    /// What never leaves a machine (RFC 1122, section 3.2.1.3).
    pub const LOOPBACK: Cidr = Cidr { network: Ipv4Addr::new(127, 0, 0, 0), prefix_len: 8 };

    /// Every address.
    pub const ANY: Cidr = Cidr { network: Ipv4Addr::UNSPECIFIED, prefix_len: 0 };

    /// The range of one address.
    pub fn host(address: Ipv4Addr) -> Cidr {
        Cidr { network: address, prefix_len: 32 }
    }

    /// The range that holds `address` with a prefix of `prefix_len` bits; `None` above 32.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Cidr> {
        (prefix_len <= 32).then(|| Cidr { network: Ipv4Addr::from(u32::from(address) & mask(prefix_len)), prefix_len })
    }

    /// The first address, which names the network.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The length of the prefix in bits.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The prefix as a mask.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix_len))
    }

    /// How many addresses it has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix_len))
    }

    /// The address number `index`, counted from the network address; `None` outside.
    pub fn nth(self, index: u32) -> Option<Ipv4Addr> {
        (u64::from(index) < self.size()).then(|| Ipv4Addr::from(u32::from(self.network) + index))
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix_len) == u32::from(self.network)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let address: Ipv4Addr = address.parse().ok()?;
            let length: u8 = length.parse().ok()?;
            Cidr::new(address, length).filter(|cidr| cidr.network == address)
        });
        parsed.ok_or_else(|| format!("{text:?} is not an IPv4 range like 10.0.0.0/16 with no bit set after the prefix"))
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Cidr, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        let range: Cidr = "10.1.0.0/20".parse().unwrap();
        assert_eq!(range.nth(1), Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(range.nth(4096), None);
        assert!(range.contains(Ipv4Addr::new(10, 1, 15, 255)));
        assert!(!range.contains(Ipv4Addr::new(10, 1, 16, 0)));
        for wrong in ["10.1.0.1/20", "10.1.0.0", "10.1.0.0/33", "::/0", "10.1.0.0/-1", ""] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().overlaps(range));
        assert!(!"10.1.16.0/20".parse::<Cidr>().unwrap().overlaps(range));
    }
}
