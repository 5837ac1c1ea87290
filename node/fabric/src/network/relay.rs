//! A packet that this node carries on between a consumer and a provider (`resale`): one of its two addresses becomes another, and no state is
//! kept.
//!
//! ```text
//!  owner a ─────▶ R's stand-in s   becomes   a ─────▶ p, the pod at the provider
//!  a ◀─────────── s                becomes   a ◀───── p
//! ```
//! Check sums follow by what has changed (RFC 1624). An ICMP error carries the head of the packet that it is about, whose other end is the
//! same address: there it is changed, too, or its receiver would not know it (RFC 5508, section 4.2). Fragments have what is translated in
//! their first only. Each node on the way counts a hop.

use std::net::Ipv4Addr;

use super::counters::Dropped;

/// Which address becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Where it comes from.
    Source(Ipv4Addr),
    /// Where it goes.
    Destination(Ipv4Addr),
}

/// Places in an IPv4 header without options (RFC 791, section 3.1).
const TIME_TO_LIVE: usize = 8;
const PROTOCOL: usize = 9;
const CHECK_SUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const HEADER_BYTES: usize = 20;
/// An ICMP error: type, code, check sum, four bytes, then the head of the packet that it is about (RFC 792).
const ICMP_CHECK_SUM: usize = HEADER_BYTES + 2;
const ICMP_INNER: usize = HEADER_BYTES + 8;
/// Destination unreachable, source quench, redirect, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];

/// Translates a packet that [`super::packet::addresses`] has accepted, and counts the hop. Every place that is looked at lies within a length that
/// was looked at before, whatever a peer has sent: `any_packet_is_translated_or_dropped`.
///
/// # Errors
/// [`Dropped::Hops`] for one that has been carried too often, [`Dropped::Malformed`] for one without a header.
pub(super) fn translate(packet: &mut [u8], change: Change) -> Result<(), Dropped> {
    if packet.len() < HEADER_BYTES {
        return Err(Dropped::Malformed);
    }
    if packet[TIME_TO_LIVE] <= 1 {
        return Err(Dropped::Hops);
    }
    let (at, new) = match change {
        Change::Source(new) => (SOURCE, new.octets()),
        Change::Destination(new) => (DESTINATION, new.octets()),
    };
    let old = four(packet, at);
    let before = word(packet, TIME_TO_LIVE);
    packet[TIME_TO_LIVE] -= 1;
    let after = word(packet, TIME_TO_LIVE);
    replace(packet, CHECK_SUM, &[(before, after)]);
    packet[at..at + 4].copy_from_slice(&new);
    let changed = words(old, new);
    replace(packet, CHECK_SUM, &changed);
    let is_first = word(packet, 6) & 0x1fff == 0;
    match packet[PROTOCOL] {
        6 if is_first && packet.len() >= HEADER_BYTES + 18 => replace(packet, HEADER_BYTES + 16, &changed),
        // 0 is that there is none; what comes out as 0 is written as its other form (RFC 768).
        17 if is_first && packet.len() >= HEADER_BYTES + 8 && word(packet, HEADER_BYTES + 6) != 0 => {
            replace(packet, HEADER_BYTES + 6, &changed);
            if word(packet, HEADER_BYTES + 6) == 0 {
                packet[HEADER_BYTES + 6..HEADER_BYTES + 8].copy_from_slice(&[0xff, 0xff]);
            }
        }
        1 if is_first => error(packet, change, old, new),
        _ => {}
    }
    Ok(())
}

/// The packet that an ICMP error is about went the other way: its other end is the one that has changed.
fn error(packet: &mut [u8], change: Change, old: [u8; 4], new: [u8; 4]) {
    let is_error = packet.get(HEADER_BYTES).is_some_and(|kind| ICMP_ERRORS.contains(kind));
    let has_inner = packet.len() >= ICMP_INNER + HEADER_BYTES && packet[ICMP_INNER] == 0x45;
    let at = ICMP_INNER
        + match change {
            Change::Source(_) => DESTINATION,
            Change::Destination(_) => SOURCE,
        };
    if !is_error || !has_inner || four(packet, at) != old {
        return;
    }
    let before = word(packet, ICMP_INNER + CHECK_SUM);
    packet[at..at + 4].copy_from_slice(&new);
    let changed = words(old, new);
    replace(packet, ICMP_INNER + CHECK_SUM, &changed);
    let after = word(packet, ICMP_INNER + CHECK_SUM);
    replace(packet, ICMP_CHECK_SUM, &changed);
    replace(packet, ICMP_CHECK_SUM, &[(before, after)]);
}

fn four(packet: &[u8], at: usize) -> [u8; 4] {
    [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn words(old: [u8; 4], new: [u8; 4]) -> [(u16, u16); 2] {
    [(word(&old, 0), word(&new, 0)), (word(&old, 2), word(&new, 2))]
}

/// Brings a check sum up to date: `HC' = ~(~HC + ~m + m')` (RFC 1624, equation 3).
fn replace(packet: &mut [u8], at: usize, changed: &[(u16, u16)]) {
    let mut sum = u32::from(!word(packet, at));
    for (old, new) in changed {
        sum += u32::from(!old) + u32::from(*new);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded until it fits.
    let sum = !u16::try_from(sum).unwrap_or(u16::MAX);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::network::packet::addresses;

    const OWNER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 5);
    const STAND_IN: Ipv4Addr = Ipv4Addr::new(100, 64, 24, 7);
    const POD: Ipv4Addr = Ipv4Addr::new(100, 64, 32, 9);

    fn sum(parts: &[&[u8]]) -> u16 {
        let mut sum = 0u32;
        for part in parts {
            for pair in part.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// A packet as a kernel makes it, with all its check sums.
    fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(body);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let head = sum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&head.to_be_bytes());
        let pseudo = [&packet[12..20], &[0, protocol], &((length - 20).to_be_bytes())[..]].concat();
        let at = match protocol {
            6 => Some((20 + 16, true)),
            17 => Some((20 + 6, true)),
            1 => Some((20 + 2, false)),
            _ => None,
        };
        if let Some((at, with_pseudo)) = at {
            let body = packet[20..].to_vec();
            let parts: &[&[u8]] = if with_pseudo { &[&pseudo, &body] } else { &[&body] };
            let check = sum(parts);
            packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        packet
    }

    fn tcp() -> Vec<u8> {
        let mut body: Vec<u8> = (0..61u8).collect();
        body[16..18].copy_from_slice(&[0, 0]);
        body
    }

    fn udp() -> Vec<u8> {
        let mut body: Vec<u8> = (3..40u8).collect();
        body[6..8].copy_from_slice(&[0, 0]);
        body
    }

    fn hop(mut packet: Vec<u8>) -> Vec<u8> {
        packet[8] -= 1;
        packet[10..12].copy_from_slice(&[0, 0]);
        let head = sum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&head.to_be_bytes());
        packet
    }

    #[test]
    fn there_and_back_a_packet_is_what_a_kernel_would_have_made_of_it() {
        for (protocol, body) in [(6, tcp()), (17, udp()), (1, vec![8, 0, 0, 0, 1, 2, 3, 4, 5]), (132, vec![1; 30])] {
            let mut there = packet(OWNER, STAND_IN, protocol, &body);
            translate(&mut there, Change::Destination(POD)).unwrap();
            assert_eq!(there, hop(packet(OWNER, POD, protocol, &body)), "{protocol}");
            assert_eq!(addresses(&there).unwrap().destination, POD);
            let mut back = packet(POD, OWNER, protocol, &body);
            translate(&mut back, Change::Source(STAND_IN)).unwrap();
            assert_eq!(back, hop(packet(STAND_IN, OWNER, protocol, &body)), "{protocol}");
        }
    }

    #[test]
    fn a_datagram_without_a_check_sum_gets_none_and_a_later_fragment_is_not_looked_into() {
        let mut none = packet(OWNER, STAND_IN, 17, &udp());
        none[26..28].copy_from_slice(&[0, 0]);
        translate(&mut none, Change::Destination(POD)).unwrap();
        assert_eq!(none[26..28], [0, 0]);
        let mut fragment = packet(OWNER, STAND_IN, 6, &tcp());
        fragment[7] = 9;
        let body = fragment[20..].to_vec();
        translate(&mut fragment, Change::Destination(POD)).unwrap();
        assert_eq!(fragment[20..], body);
        for short in [vec![], vec![1, 2, 3]] {
            for protocol in [6, 17, 1] {
                let mut packet = packet(OWNER, STAND_IN, 132, &short);
                packet[9] = protocol;
                translate(&mut packet, Change::Destination(POD)).unwrap();
            }
        }
        assert_eq!(translate(&mut [0x45; 19], Change::Destination(POD)), Err(Dropped::Malformed));
    }

    #[test]
    fn an_error_is_about_a_packet_that_its_receiver_knows() {
        let about = |inner: &[u8]| [&[3, 3, 0, 0, 0, 0, 0, 0][..], &inner[..28]].concat();
        // The provider refuses what the owner sent to the stand-in.
        let sent = packet(OWNER, POD, 17, &udp());
        let mut refused = packet(POD, OWNER, 1, &about(&sent));
        translate(&mut refused, Change::Source(STAND_IN)).unwrap();
        assert_eq!(addresses(&refused).unwrap().source, STAND_IN);
        assert_eq!(refused[28 + 12..28 + 20], [OWNER.octets(), STAND_IN.octets()].concat());
        assert_eq!((sum(&[&refused[20..]]), sum(&[&refused[28..48]])), (0, 0), "both check sums hold");
        // The owner refuses what the pod sent.
        let sent = packet(STAND_IN, OWNER, 17, &udp());
        let mut refused = packet(OWNER, STAND_IN, 1, &about(&sent));
        translate(&mut refused, Change::Destination(POD)).unwrap();
        assert_eq!(refused[28 + 12..28 + 20], [POD.octets(), OWNER.octets()].concat());
        assert_eq!((sum(&[&refused[20..]]), sum(&[&refused[28..48]])), (0, 0));
        // About something else: it is left as it is.
        let foreign = packet(OWNER, OWNER, 17, &udp());
        let mut other = packet(POD, OWNER, 1, &about(&foreign));
        let inner = other[20..].to_vec();
        translate(&mut other, Change::Source(STAND_IN)).unwrap();
        assert_eq!(other[20..], inner);
    }

    #[test]
    fn nothing_goes_round_for_ever() {
        let mut packet = packet(OWNER, STAND_IN, 17, &udp());
        for _ in 1..64 {
            translate(&mut packet, Change::Destination(STAND_IN)).unwrap();
        }
        assert_eq!(translate(&mut packet, Change::Destination(STAND_IN)), Err(Dropped::Hops));
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_translated_or_dropped(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..128),
            protocol in proptest::sample::select(vec![1u8, 6, 17, 132]),
            first in proptest::bool::ANY,
            source in proptest::bool::ANY,
        ) {
            // By chance alone nothing would come behind the first looks.
            let header = [(6, 0), (7, 0), (TIME_TO_LIVE, 9), (PROTOCOL, protocol), (HEADER_BYTES, 3), (ICMP_INNER, 0x45)];
            for (at, byte) in header.into_iter().filter(|_| first) {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let inner = ICMP_INNER + if source { DESTINATION } else { SOURCE };
            let at = if source { SOURCE } else { DESTINATION };
            if let Some(old) = bytes.get(at..at + 4).map(<[u8]>::to_vec)
                && let Some(place) = bytes.get_mut(inner..inner + 4)
            {
                place.copy_from_slice(&old);
            }
            let length = bytes.len();
            let done = translate(&mut bytes, if source { Change::Source(POD) } else { Change::Destination(POD) });
            proptest::prop_assert_eq!(bytes.len(), length);
            proptest::prop_assert!(done.is_err() || length >= HEADER_BYTES);
        }
    }
}
