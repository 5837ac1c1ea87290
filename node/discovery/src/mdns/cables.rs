//! The cables of this machine: interfaces that carry multicast to others, with the addresses by which others reach it there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// Cables that are used, those with the lowest numbers: a machine has some few, and each costs two sockets.
const CABLES_MAX: usize = 16;
/// Addresses of one cable: an announcement stays within a packet.
const ADDRESSES_MAX: usize = 8;

/// One cable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cable {
    /// The address from which packets of IPv4 are sent.
    pub(super) v4: Option<Ipv4Addr>,
    /// Whether it carries IPv6.
    pub(super) v6: bool,
    /// What is announced.
    pub(super) addresses: Vec<IpAddr>,
}

/// Returns the cables by their number. One without an address that others reach, as a pod's, is none.
///
/// # Errors
/// The kernel does not say.
pub(super) fn cables() -> io::Result<BTreeMap<u32, Cable>> {
    let mut cables: BTreeMap<String, Cable> = BTreeMap::new();
    for interface in getifaddrs()?.filter(carries) {
        let cable = cables.entry(interface.interface_name.clone()).or_default();
        let Some(address) = &interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip) {
            cable.add(v4.into());
        }
        if let Some(v6) = address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip) {
            cable.add(v6.into());
        }
    }
    let mut numbered = BTreeMap::new();
    for (name, mut cable) in cables.into_iter().filter(|(_, cable)| !cable.addresses.is_empty()) {
        cable.addresses.sort();
        cable.addresses.truncate(ADDRESSES_MAX);
        // It may have gone since.
        if let Ok(index) = if_nametoindex(name.as_str()) {
            numbered.insert(index, cable);
        }
    }
    Ok(numbered.into_iter().take(CABLES_MAX).collect())
}

fn carries(interface: &InterfaceAddress) -> bool {
    let needed = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_MULTICAST;
    let refused = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT;
    interface.flags.contains(needed) && !interface.flags.intersects(refused)
}

impl Cable {
    fn add(&mut self, ip: IpAddr) {
        let of_one_cable = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match ip {
            IpAddr::V4(v4) => self.v4 = self.v4.or(Some(v4)),
            IpAddr::V6(_) => self.v6 = true,
        }
        if !of_one_cable && !ip.is_loopback() {
            self.addresses.push(ip);
        }
    }
}
