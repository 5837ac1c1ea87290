//! Connections that the kernel remembers: those of UDP outlive the endpoint that they lead to.
//!
//! A UDP client that keeps its socket sends for ever to where its first packet was translated to. When that endpoint is
//! no longer one of the Service, the kernel has to forget the pair, so that the next packet finds another. TCP needs no
//! help: its client sees the connection end. Numbers: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
use std::collections::BTreeSet;
use std::io;

use crate::ServicePort;
use engine_packets::Address;
use engine_packets::netlink::{ACK, Answer, DUMP, Message, REQUEST, Socket, attributes};
use engine_packets::nftables::Protocol;

/// An address and a port.
type End<A> = (A, u16);

/// Where a client called and where that led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stale<A> {
    Address(End<A>, End<A>),
    NodePort(u16, End<A>),
}

/// What UDP ports of Services led to before and do not lead to any more.
pub(crate) fn stale<A: Address>(before: &[ServicePort<A>], now: &[ServicePort<A>]) -> BTreeSet<Stale<A>> {
    let pairs = |services: &[ServicePort<A>]| {
        let mut pairs = BTreeSet::new();
        for service in services.iter().filter(|service| service.protocol == Protocol::Udp) {
            for endpoint in &service.endpoints {
                let addresses = service.addresses.iter().chain(&service.external);
                pairs.extend(addresses.map(|a| Stale::Address((*a, service.port), *endpoint)));
                pairs.extend(service.node_port.map(|port| Stale::NodePort(port, *endpoint)));
            }
        }
        pairs
    };
    let now = pairs(now);
    pairs(before).into_iter().filter(|pair| !now.contains(pair)).collect()
}

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// Makes the kernel forget the connections that lead to what is stale. Answers how many.
pub(crate) fn forget<A: Address>(socket: &mut Socket, stale: &BTreeSet<Stale<A>>) -> io::Result<usize> {
    let family = [A::FAMILY, 0, 0, 0];
    let mut forgotten = 0;
    for entry in socket.dump(Message::new(SUBSYSTEM | GET, REQUEST | DUMP, &family))? {
        let Some((original, called, led_to)) = udp_pair(&entry) else { continue };
        let is_stale = stale.contains(&Stale::Address(called, led_to))
            || (called != led_to && stale.contains(&Stale::NodePort(called.1, led_to)));
        if !is_stale {
            continue;
        }
        let mut message = Message::new(SUBSYSTEM | DELETE, REQUEST | ACK, &family);
        message.nest(TUPLE_ORIGINAL, |tuple| {
            tuple.raw(original);
        });
        match socket.execute(message) {
            Ok(()) => forgotten += 1,
            // It has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// The original tuple as it came, where the client called, and who answers it. `None` if it is not UDP over this family.
fn udp_pair<A: Address>(entry: &Answer) -> Option<(&[u8], End<A>, End<A>)> {
    let tuple = |wanted: u16| entry.attributes(4).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (original, reply) = (tuple(TUPLE_ORIGINAL)?, tuple(TUPLE_REPLY)?);
    Some((original, destination(original)?, source(reply)?))
}

fn source<A: Address>(tuple: &[u8]) -> Option<End<A>> {
    end(tuple, 1, 2)
}

fn destination<A: Address>(tuple: &[u8]) -> Option<End<A>> {
    end(tuple, 2, 3)
}

/// `address` is the attribute's number for IPv4; for IPv6 it is two more.
fn end<A: Address>(tuple: &[u8], address: u16, port: u16) -> Option<End<A>> {
    let nested = |list, wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (ip, protocol) = (nested(tuple, 1)?, nested(tuple, 2)?);
    if nested(protocol, 1)? != [17] {
        return None;
    }
    let address = A::of_bytes(nested(ip, if A::BITS == 32 { address } else { address + 2 })?)?;
    let port: [u8; 2] = nested(protocol, port)?.try_into().ok()?;
    Some((address, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_what_udp_no_longer_leads_to_is_stale() {
        let port = |protocol, endpoints: &[u8], node_port| ServicePort {
            name: "d/s".into(),
            addresses: vec![Ipv4Addr::new(10, 96, 0, 1)],
            protocol,
            port: 53,
            node_port,
            external: Vec::new(),
            sources: None,
            endpoints: endpoints.iter().map(|last| (Ipv4Addr::new(10, 1, 0, *last), 53)).collect(),
            by_client: false,
        };
        let end = |last| (Ipv4Addr::new(10, 1, 0, last), 53);
        let service = (Ipv4Addr::new(10, 96, 0, 1), 53);
        let (udp, tcp) = (Protocol::Udp, Protocol::Tcp);
        let found = stale(&[port(udp, &[1, 2], None), port(tcp, &[3], None)], &[port(udp, &[2, 4], None)]);
        assert_eq!(found, [Stale::Address(service, end(1))].into());
        let found = stale(&[port(udp, &[1], Some(30053))], &[]);
        assert_eq!(found, [Stale::Address(service, end(1)), Stale::NodePort(30053, end(1))].into());
        assert!(stale(&[], &[port(udp, &[1], None)]).is_empty());
    }
}
