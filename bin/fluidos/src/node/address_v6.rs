//! The address of IPv6 by which others reach this machine.
use std::fs;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};

/// The one that the way to anywhere begins with. Where that is one for some hours, which a machine takes so as not to be known again
/// (RFC 8981), the lasting one beside it. Nothing is sent.
pub fn find() -> Option<Ipv6Addr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)).ok()?; // for documentation (RFC 3849)
    match socket.local_addr().ok()?.ip() {
        IpAddr::V6(routed) => choose(routed, &fs::read_to_string("/proc/net/if_inet6").unwrap_or_default()),
        IpAddr::V4(_) => None,
    }
}

/// `known` is the kernel's list: address, device, length of the prefix, scope and flags in hexadecimal digits, name.
fn choose(routed: Ipv6Addr, known: &str) -> Option<Ipv6Addr> {
    const GLOBAL: &str = "00";
    /// Temporary, failed, deprecated, tentative (`if_addr.h`).
    const NOT_LASTING: u8 = 0x01 | 0x08 | 0x20 | 0x40;
    let read = |line: &str| {
        let [address, device, _, scope, flags, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let lasting = scope == GLOBAL && u8::from_str_radix(flags, 16).ok()? & NOT_LASTING == 0;
        Some((Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?), device.to_owned(), lasting))
    };
    let known: Vec<_> = known.lines().filter_map(read).collect();
    let found = known.iter().find(|(address, ..)| *address == routed);
    let (_, device, lasting) = found?;
    let beside = || known.iter().find(|(_, on, lasting)| on == device && *lasting).map(|(address, ..)| *address);
    if *lasting { Some(routed) } else { beside() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000fc00fffffe000001 04 40 20 80     eth0
20010db8000000000000000000000aaa 04 40 00 01     eth0
20010db8000000000000000000000bbb 04 40 00 20     eth0
20010db8000000000000000000000ccc 04 40 00 00     eth0
20010db8000100000000000000000ddd 05 40 00 01     eth1
";

    #[test]
    fn a_lasting_address_of_the_way_out() {
        let chosen = |routed: &str| choose(routed.parse().ok()?, KNOWN).map(|address| address.to_string());
        let lasting = Some("2001:db8::ccc".to_owned());
        assert_eq!(chosen("2001:db8::ccc"), lasting);
        assert_eq!(chosen("2001:db8::aaa"), lasting, "which is one for some hours");
        assert_eq!(chosen("2001:db8:1::ddd"), None, "it has no other");
        assert_eq!(chosen("fe80::fc00:ffff:fe00:1"), lasting, "of a machine without a router");
        assert_eq!(chosen("::1"), None);
        assert_eq!(chosen("2001:db8::eee"), None);
    }
}
