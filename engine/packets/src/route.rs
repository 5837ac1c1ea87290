//! Links, addresses and routes by netlink (`include/uapi/linux/rtnetlink.h`, `if_link.h`).
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::SockProtocol;

use crate::netlink::{ACK, CREATE, DUMP, EXCL, Message, REPLACE, REQUEST, Socket};
use crate::{Address, Cidr};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;

const IFA_F_NODAD: u8 = 2;
const IFF_UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const SCOPE_LINK: u8 = 253;

/// Says in `ip route` who added a route. Numbers above 4 are for programs (`rtnetlink.h`: RTPROT_*); 115 is `s`.
const ROUTE_PROTOCOL: u8 = 115;

/// A route to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<A = Ipv4Addr> {
    /// The range.
    pub to: Cidr<A>,
    /// 0: that by which the gateway is reached.
    pub device: u32,
    /// Through which machine; none is needed on the same network.
    pub gateway: Option<A>,
    /// Address that the machine's own packets on this route carry.
    pub source: Option<A>,
    /// Of several to one range the least counts.
    pub metric: Option<u32>,
}

/// Links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Routing(Socket);

impl Routing {
    /// Of the calling thread's namespace.
    pub fn open() -> io::Result<Routing> {
        Ok(Routing(Socket::open(SockProtocol::NetlinkRoute)?))
    }

    /// The number of the link with that name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<u32>> {
        Ok(self.links()?.into_iter().find(|(_, found)| found == name).map(|(index, _)| index))
    }

    /// All links: number and name.
    pub fn links(&mut self) -> io::Result<Vec<(u32, String)>> {
        let answers = self.0.dump(Message::new(GETLINK, REQUEST | DUMP, &link_header(0, 0)))?;
        let links = answers.iter().filter_map(|answer| {
            let name = answer.attributes(16).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            Some((answer.u32_at(4)?, String::from_utf8_lossy(name).into_owned()))
        });
        Ok(links.collect())
    }

    /// Makes a bridge. `EEXIST` if the name is in use.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(NEWLINK, REQUEST | ACK | CREATE | EXCL, &link_header(0, 0));
        message.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "bridge");
        });
        self.0.execute(message)
    }

    /// Makes a cable from here into another namespace.
    pub fn add_veth(&mut self, name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let namespace = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
        let mut message = Message::new(NEWLINK, REQUEST | ACK | CREATE | EXCL, &link_header(0, 0));
        message.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |end| {
                    end.raw(&link_header(0, 0)).text(IFLA_IFNAME, peer).ne32(IFLA_NET_NS_FD, namespace);
                });
            });
        });
        self.0.execute(message)
    }

    /// Removes a link; its other end and its routes go with it.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.0.execute(Message::new(DELLINK, REQUEST | ACK, &link_header(index, 0)))
    }

    /// Switches a link on.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.0.execute(Message::new(NEWLINK, REQUEST | ACK, &link_header(index, IFF_UP)))
    }

    /// Gives a link an address, which nobody else on the link has: an IPv6 one is of use at once, without asking for others (RFC 4862,
    /// section 5.4). One that it has is left.
    pub fn add_address<A: Address>(&mut self, index: u32, address: A, prefix_len: u8) -> io::Result<()> {
        let flags = if A::BITS == 128 { IFA_F_NODAD } else { 0 };
        let mut fixed = [A::FAMILY, prefix_len, flags, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(NEWADDR, REQUEST | ACK | CREATE | REPLACE, &fixed);
        message.attr(IFA_LOCAL, &address.bytes()).attr(IFA_ADDRESS, &address.bytes());
        self.0.execute(message)
    }

    /// All IPv4 addresses: link number and address.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Addr)>> {
        let answers = self.0.dump(Message::new(GETADDR, REQUEST | DUMP, &[Ipv4Addr::FAMILY, 0, 0, 0, 0, 0, 0, 0]))?;
        let addresses = answers.iter().filter_map(|answer| {
            let local = answer.attributes(8).find(|(kind, _)| *kind == IFA_LOCAL)?.1;
            Some((answer.u32_at(4)?, Ipv4Addr::from(<[u8; 4]>::try_from(local).ok()?)))
        });
        Ok(addresses.collect())
    }

    /// Adds a route or replaces the one with the same range and metric.
    pub fn replace_route<A: Address>(&mut self, route: Route<A>) -> io::Result<()> {
        self.0.execute(route_message(NEWROUTE, REQUEST | ACK | CREATE | REPLACE, route))
    }

    /// Removes a route. `ESRCH` if there is none.
    pub fn delete_route<A: Address>(&mut self, route: Route<A>) -> io::Result<()> {
        self.0.execute(route_message(DELROUTE, REQUEST | ACK, route))
    }
}

fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn route_message<A: Address>(kind: u16, flags: u16, route: Route<A>) -> Message {
    const UNICAST: u8 = 1;
    let scope = if route.gateway.is_some() { 0 } else { SCOPE_LINK };
    let fixed = [A::FAMILY, route.to.prefix_len(), 0, 0, TABLE_MAIN, ROUTE_PROTOCOL, scope, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, &fixed);
    if route.to.prefix_len() > 0 {
        message.attr(RTA_DST, &route.to.network().bytes());
    }
    if route.device != 0 {
        message.ne32(RTA_OIF, route.device);
    }
    if let Some(gateway) = route.gateway {
        message.attr(RTA_GATEWAY, &gateway.bytes());
    }
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &source.bytes());
    }
    if let Some(metric) = route.metric {
        message.ne32(RTA_PRIORITY, metric);
    }
    message
}
