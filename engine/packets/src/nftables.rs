//! A set of nftables rules as a value that can be compared and printed, and its replacement in one transaction.
//!
//! A **ruleset** is everything in one table of one family. Replacing it, or those of both, is one batch: the kernel checks all of it, then switches at one
//! moment, so no packet ever meets half of it.
mod encode;

use std::fmt;
use std::net::Ipv4Addr;

pub use encode::{Batch, exists, remove, replace};

use crate::{Address, Cidr};

/// Everything in one table of the family `ip` or `ip6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset<A = Ipv4Addr> {
    /// Its name.
    pub table: String,
    /// Its chains; those that are led to by another must be among them.
    pub chains: Vec<Chain<A>>,
    /// What rules look things up in.
    pub sets: Vec<Set<A>>,
}

/// A list of rules, entered from a hook or from another rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<A = Ipv4Addr> {
    /// Its name.
    pub name: String,
    /// Where packets enter it by themselves.
    pub hook: Option<Hook>,
    /// Rules in turn, each its steps in turn.
    pub rules: Vec<Vec<Expr<A>>>,
}

/// Where a packet enters a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before connections are tracked.
    RawPrerouting,
    /// What comes from elsewhere, before it is known where it goes.
    NatPrerouting,
    /// What this machine sends.
    NatOutput,
    /// What leaves.
    NatPostrouting,
    /// What is for this machine.
    FilterInput,
    /// What goes through.
    FilterForward,
    /// What this machine sends, after it was translated.
    FilterOutput,
}

impl Hook {
    /// Name of the kind of chain, hook number, priority (raw, dstnat, srcnat, filter).
    fn parameters(self) -> (&'static str, u32, i32) {
        match self {
            Hook::RawPrerouting => ("filter", 0, -300),
            Hook::NatPrerouting => ("nat", 0, -100),
            Hook::NatOutput => ("nat", 3, -100),
            Hook::NatPostrouting => ("nat", 4, 100),
            Hook::FilterInput => ("filter", 1, 0),
            Hook::FilterForward => ("filter", 2, 0),
            Hook::FilterOutput => ("filter", 3, 0),
        }
    }
}

/// One step of a rule: a condition that the rest needs, or what happens to the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr<A = Ipv4Addr> {
    /// It came by a device whose name begins so.
    InPrefix(String),
    /// It leaves by this device.
    Out(String),
    /// It leaves by a device whose name begins so.
    OutPrefix(String),
    /// It leaves by another device.
    OutNot(String),
    /// It came by a device of the set.
    InSet(String),
    /// It leaves by a device of the set.
    OutSet(String),
    /// From this range.
    Source(Cidr<A>),
    /// From elsewhere.
    SourceNot(Cidr<A>),
    /// To this range.
    Destination(Cidr<A>),
    /// To elsewhere.
    DestinationNot(Cidr<A>),
    /// The destination is an address of this machine.
    DestinationLocal,
    /// An answer to the source would not leave by the device that it came from.
    SourceElsewhere,
    /// Belongs to a connection whose destination was translated: it was called by another address.
    Translated,
    /// Belongs to a connection that was let through before.
    Established,
    /// Of this protocol.
    Protocol(Protocol),
    /// Asks or tells who has an address on the link (RFC 4861: neighbor solicitation and advertisement). IPv6 alone.
    Neighbour,
    /// To this port.
    DestinationPort(u16),
    /// First and last.
    DestinationPorts(u16, u16),
    /// Its source is in the set.
    SourceSet(String),
    /// Its destination is in the set.
    DestinationSet(String),
    /// Source and destination are in the set.
    SourceDestinationSet(String),
    /// What the map says of destination, protocol and port.
    DestinationPortMap(String),
    /// What the map says of protocol and port.
    PortMap(String),
    /// What the map says of the source.
    SourceMap(String),
    /// What the map says of the destination.
    DestinationMap(String),
    /// Through another chain, and back if that says nothing.
    Jump(String),
    /// Back to the rule after the one that led here.
    Return,
    /// Let through.
    Accept,
    /// Thrown away, and nobody is told.
    Drop,
    /// Refused by a TCP reset.
    RejectReset,
    /// Refused: port unreachable.
    RejectPort,
    /// Refused: administratively prohibited.
    RejectProhibited,
    /// To one of so many endpoints of a map, by chance.
    DnatRandom(u32, String),
    /// To that of so many parts of a map which the source address falls to.
    DnatByClient(u32, String),
    /// To this address and port.
    Dnat(A, u16),
    /// From this address.
    Snat(A),
    /// From the address of the device by which it leaves.
    Masquerade,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A named set or map that rules look things up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<A = Ipv4Addr> {
    /// Its name.
    pub name: String,
    /// What is looked up.
    pub key: &'static [KeyKind],
    /// What is found.
    pub value: ValueKind,
    /// What is in it.
    pub elements: Vec<(Vec<Key<A>>, Value<A>)>,
}

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An address.
    Address,
    /// A protocol.
    Protocol,
    /// A port.
    Port,
    /// A device's name.
    Interface,
    /// A number.
    Number,
}

/// What a set or map finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Nothing: it is a set.
    None,
    /// What happens to the packet.
    Verdict,
    /// An address and a port.
    Endpoint,
}

/// A part of a key, with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<A = Ipv4Addr> {
    /// An address.
    Address(A),
    /// A protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// A device's name.
    Interface(String),
    /// A number.
    Number(u32),
}

/// What is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<A = Ipv4Addr> {
    /// That it is there.
    None,
    /// On in a chain, and not back.
    Goto(String),
    /// A chain that may return.
    Jump(String),
    /// An address and a port.
    Endpoint(A, u16),
}

impl<A: Address> fmt::Display for Expr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = A::WORD;
        let icmp = if A::BITS == 32 { "icmp" } else { "icmpv6" };
        match self {
            Expr::InPrefix(name) => write!(f, "iifname {name}*"),
            Expr::Out(name) => write!(f, "oifname {name}"),
            Expr::OutPrefix(name) => write!(f, "oifname {name}*"),
            Expr::OutNot(name) => write!(f, "oifname != {name}"),
            Expr::InSet(set) => write!(f, "iifname @{set}"),
            Expr::OutSet(set) => write!(f, "oifname @{set}"),
            Expr::Source(range) => write!(f, "{ip} saddr {range}"),
            Expr::SourceNot(range) => write!(f, "{ip} saddr != {range}"),
            Expr::Destination(range) => write!(f, "{ip} daddr {range}"),
            Expr::DestinationNot(range) => write!(f, "{ip} daddr != {range}"),
            Expr::DestinationLocal => write!(f, "fib daddr type local"),
            Expr::SourceElsewhere => write!(f, "fib saddr . iif oif missing"),
            Expr::Drop => write!(f, "drop"),
            Expr::Translated => write!(f, "ct status dnat"),
            Expr::Established => write!(f, "ct state established,related"),
            Expr::Neighbour => write!(f, "icmpv6 type nd-neighbor-solicit-nd-neighbor-advert"),
            Expr::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.name()),
            Expr::DestinationPort(port) => write!(f, "th dport {port}"),
            Expr::DestinationPorts(first, last) => write!(f, "th dport {first}-{last}"),
            Expr::SourceSet(set) => write!(f, "{ip} saddr @{set}"),
            Expr::DestinationSet(set) => write!(f, "{ip} daddr @{set}"),
            Expr::SourceDestinationSet(set) => write!(f, "{ip} saddr . {ip} daddr @{set}"),
            Expr::DestinationPortMap(map) => write!(f, "{ip} daddr . meta l4proto . th dport vmap @{map}"),
            Expr::PortMap(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Expr::SourceMap(map) => write!(f, "{ip} saddr vmap @{map}"),
            Expr::DestinationMap(map) => write!(f, "{ip} daddr vmap @{map}"),
            Expr::Jump(chain) => write!(f, "jump {chain}"),
            Expr::Return => write!(f, "return"),
            Expr::Accept => write!(f, "accept"),
            Expr::RejectReset => write!(f, "reject with tcp reset"),
            Expr::RejectPort => write!(f, "reject with {icmp} port-unreachable"),
            Expr::RejectProhibited => write!(f, "reject with {icmp} admin-prohibited"),
            Expr::DnatRandom(count, map) => write!(f, "dnat to numgen random mod {count} map @{map}"),
            Expr::DnatByClient(parts, map) => write!(f, "dnat to jhash {ip} saddr mod {parts} map @{map}"),
            Expr::Dnat(address, port) => match A::BITS {
                32 => write!(f, "dnat to {address}:{port}"),
                _ => write!(f, "dnat to [{address}]:{port}"),
            },
            Expr::Snat(address) => write!(f, "snat to {address}"),
            Expr::Masquerade => write!(f, "masquerade"),
        }
    }
}

struct RuleText<'a, A>(&'a [Expr<A>]);

impl<A: Address> fmt::Display for RuleText<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, expr) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{expr}")?;
        }
        Ok(())
    }
}

impl<A: Address> fmt::Display for Key<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Address(address) => write!(f, "{address}"),
            Key::Protocol(protocol) => write!(f, "{}", protocol.name()),
            Key::Port(port) => write!(f, "{port}"),
            Key::Interface(name) => write!(f, "{name}"),
            Key::Number(number) => write!(f, "{number}"),
        }
    }
}

/// The words of `nft list`, for reading and for tests.
impl<A: Address> fmt::Display for Ruleset<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {}", A::WORD, self.table)?;
        for set in &self.sets {
            writeln!(f, "{} {}", if set.value == ValueKind::None { "set" } else { "map" }, set.name)?;
            for (key, value) in &set.elements {
                let key: Vec<String> = key.iter().map(ToString::to_string).collect();
                match value {
                    Value::None => writeln!(f, "  {}", key.join(" . "))?,
                    Value::Goto(chain) => writeln!(f, "  {} : goto {chain}", key.join(" . "))?,
                    Value::Jump(chain) => writeln!(f, "  {} : jump {chain}", key.join(" . "))?,
                    Value::Endpoint(address, port) => writeln!(f, "  {} : {address} . {port}", key.join(" . "))?,
                }
            }
        }
        for chain in &self.chains {
            match chain.hook {
                Some(hook) => {
                    let (kind, _, priority) = hook.parameters();
                    writeln!(f, "chain {} ({kind} {hook:?} {priority})", chain.name)?;
                }
                None => writeln!(f, "chain {}", chain.name)?,
            }
            for rule in &chain.rules {
                writeln!(f, "  {}", RuleText(rule))?;
            }
        }
        Ok(())
    }
}
