//! Addresses of one family or the other, and ranges of them.
//!
//! What is said of addresses is generic over their family, so that rules and ranges of the two never mix. Where no family is named it is
//! IPv4.
use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An address of one family: `Ipv4Addr` or `Ipv6Addr`, and nothing else.
pub trait Address:
    Copy
    + Ord
    + Hash
    + Debug
    + Display
    + FromStr
    + Into<IpAddr>
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + sealed::Sealed
    + 'static
{
    /// Its bits.
    const BITS: u8;
    /// Its number in netlink (`AF_INET`, `AF_INET6`; those of nftables are the same).
    const FAMILY: u8;
    /// Its word in `nft list`.
    const WORD: &'static str;
    /// The address of a machine for itself.
    const LOOPBACK: Self;
    /// What never leaves a machine (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.3), in bits of its prefix.
    const LOOPBACK_BITS: u8;

    /// As a number; an IPv4 address is in the lower 32 bits.
    fn number(self) -> u128;

    /// The address of a number. Bits above [`BITS`](Self::BITS) are left out.
    fn of_number(number: u128) -> Self;

    /// As on the wire.
    fn bytes(self) -> Vec<u8>;

    /// Of what [`bytes`](Self::bytes) gives; `None` for another number of them.
    fn of_bytes(bytes: &[u8]) -> Option<Self>;

    /// Of this family, from either.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Address for Ipv4Addr {
    const BITS: u8 = 32;
    const FAMILY: u8 = 2;
    const WORD: &'static str = "ip";
    const LOOPBACK: Self = Ipv4Addr::LOCALHOST;
    const LOOPBACK_BITS: u8 = 8;

    fn number(self) -> u128 {
        u128::from(self.to_bits())
    }

    fn of_number(number: u128) -> Self {
        let [.., a, b, c, d] = number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 4]>::try_from(bytes).ok().map(Self::from)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Ipv6Addr {
    const BITS: u8 = 128;
    const FAMILY: u8 = 10;
    const WORD: &'static str = "ip6";
    const LOOPBACK: Self = Ipv6Addr::LOCALHOST;
    const LOOPBACK_BITS: u8 = 128;

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn of_number(number: u128) -> Self {
        Ipv6Addr::from_bits(number)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().map(Self::from)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
}

/// A range: a network address and the length of its prefix. Host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "A: Address")]
pub struct Cidr<A = Ipv4Addr> {
    network: A,
    prefix_len: u8,
}

impl Cidr {
    /// What never leaves a machine (RFC 1122, section 3.2.1.3).
    pub const LOOPBACK: Cidr = Cidr { network: Ipv4Addr::new(127, 0, 0, 0), prefix_len: 8 };

    /// Every address.
    pub const ANY: Cidr = Cidr { network: Ipv4Addr::UNSPECIFIED, prefix_len: 0 };
}

impl<A: Address> Cidr<A> {
    /// Every address of the family.
    pub fn any() -> Cidr<A> {
        Cidr { network: A::of_number(0), prefix_len: 0 }
    }

    /// What never leaves a machine.
    pub fn loopback() -> Cidr<A> {
        Cidr { network: masked(A::LOOPBACK, A::LOOPBACK_BITS), prefix_len: A::LOOPBACK_BITS }
    }

    /// The range of one address.
    pub fn host(address: A) -> Cidr<A> {
        Cidr { network: address, prefix_len: A::BITS }
    }

    /// The range that holds `address` with a prefix of `prefix_len` bits; `None` above 32, or 128.
    pub fn new(address: A, prefix_len: u8) -> Option<Cidr<A>> {
        (prefix_len <= A::BITS).then(|| Cidr { network: masked(address, prefix_len), prefix_len })
    }

    /// The first address, which names the network.
    pub fn network(self) -> A {
        self.network
    }

    /// The length of the prefix in bits.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The prefix as a mask.
    pub fn netmask(self) -> A {
        A::of_number(mask::<A>(self.prefix_len))
    }

    /// How many addresses it has; the largest number where there are more.
    pub fn size(self) -> u64 {
        1u64.checked_shl(u32::from(A::BITS - self.prefix_len)).unwrap_or(u64::MAX)
    }

    /// The address number `index`, counted from the network address; `None` outside.
    pub fn nth(self, index: u32) -> Option<A> {
        (u64::from(index) < self.size()).then(|| A::of_number(self.network.number() + u128::from(index)))
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: A) -> bool {
        masked(address, self.prefix_len) == self.network
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Cidr<A>) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask<A: Address>(prefix_len: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(A::BITS - prefix_len)).unwrap_or(0)
}

fn masked<A: Address>(address: A, prefix_len: u8) -> A {
    A::of_number(address.number() & mask::<A>(prefix_len))
}

impl<A: Address> FromStr for Cidr<A> {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr<A>, String> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let address: A = address.parse().ok()?;
            let length: u8 = length.parse().ok()?;
            Cidr::new(address, length).filter(|cidr| cidr.network == address)
        });
        let (family, like) = if A::BITS == 32 { ("IPv4", "10.0.0.0/16") } else { ("IPv6", "fd00::/64") };
        parsed.ok_or_else(|| format!("{text:?} is not an {family} range like {like} with no bit set after the prefix"))
    }
}

impl<A: Address> TryFrom<String> for Cidr<A> {
    type Error = String;

    fn try_from(text: String) -> Result<Cidr<A>, String> {
        text.parse()
    }
}

impl<A: Address> From<Cidr<A>> for String {
    fn from(cidr: Cidr<A>) -> String {
        cidr.to_string()
    }
}

impl<A: Address> Display for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl<A: Debug> Debug for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address is shown as it is printed.
        write!(f, "{:?}/{}", self.network, self.prefix_len)
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
        assert_eq!(range.netmask(), Ipv4Addr::new(255, 255, 240, 0));
    }

    #[test]
    fn ranges_of_the_other_family() {
        let range: Cidr<Ipv6Addr> = "fd00:1:2:3::/64".parse().unwrap();
        assert_eq!(
            (range.size(), range.nth(u32::MAX).unwrap().to_string()),
            (u64::MAX, "fd00:1:2:3::ffff:ffff".into())
        );
        assert!(range.contains("fd00:1:2:3:ffff::1".parse().unwrap()));
        assert!(!range.contains("fd00:1:2:4::".parse().unwrap()));
        assert_eq!("fd00::/112".parse::<Cidr<Ipv6Addr>>().unwrap().nth(65536), None);
        for wrong in ["fd00::1/64", "fd00::", "fd00::/129", "10.0.0.0/8"] {
            assert!(wrong.parse::<Cidr<Ipv6Addr>>().is_err(), "{wrong}");
        }
        assert!(Cidr::any().overlaps(range) && !Cidr::loopback().overlaps(range));
        assert_eq!((Cidr::<Ipv4Addr>::loopback(), Cidr::<Ipv4Addr>::any()), (Cidr::LOOPBACK, Cidr::ANY));
    }
}
