//! A set of nftables rules as a value that can be compared and printed, and its replacement in one transaction.
//!
//! A **ruleset** is everything in one table. Replacing it is one batch: the kernel checks all of it, then switches at one
//! moment, so no packet ever meets half of it.
mod encode;

use std::fmt;
use std::net::Ipv4Addr;

pub(crate) use encode::{exists, remove, replace};

use crate::Cidr;

/// Everything in one table of family `ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub table: String,
    pub chains: Vec<Chain>,
    pub sets: Vec<Set>,
}

/// A list of rules, entered from a hook or from another rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
    pub rules: Vec<Vec<Expr>>,
}

/// Where a packet enters a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before connections are tracked.
    RawPrerouting,
    NatPrerouting,
    NatOutput,
    NatPostrouting,
    FilterInput,
    FilterForward,
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
pub(crate) enum Expr {
    InPrefix(String),
    Out(String),
    OutPrefix(String),
    OutNot(String),
    InSet(String),
    OutSet(String),
    Source(Cidr),
    SourceNot(Cidr),
    Destination(Cidr),
    DestinationNot(Cidr),
    /// The destination is an address of this machine.
    DestinationLocal,
    /// An answer to the source would not leave by the device that it came from.
    SourceElsewhere,
    /// Belongs to a connection whose destination was translated: it goes through a Service.
    Translated,
    /// Belongs to a connection that was let through before.
    Established,
    Protocol(Protocol),
    DestinationPort(u16),
    /// First and last.
    DestinationPorts(u16, u16),
    SourceSet(String),
    DestinationSet(String),
    SourceDestinationSet(String),
    DestinationPortMap(String),
    PortMap(String),
    SourceMap(String),
    DestinationMap(String),
    Jump(String),
    /// Back to the rule after the one that led here.
    Return,
    Accept,
    Drop,
    RejectReset,
    RejectPort,
    RejectProhibited,
    /// To one of so many endpoints of a map, by chance.
    DnatRandom(u32, String),
    /// To that of so many parts of a map which the source address falls to.
    DnatByClient(u32, String),
    Dnat(Ipv4Addr, u16),
    Snat(Ipv4Addr),
    Masquerade,
}

/// A transport protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
pub(crate) struct Set {
    pub name: String,
    pub key: &'static [KeyKind],
    pub value: ValueKind,
    pub elements: Vec<(Vec<Key>, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Address,
    Protocol,
    Port,
    Interface,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    None,
    Verdict,
    Endpoint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Address(Ipv4Addr),
    Protocol(Protocol),
    Port(u16),
    Interface(String),
    Number(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Goto(String),
    /// A chain that may return.
    Jump(String),
    Endpoint(Ipv4Addr, u16),
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::InPrefix(name) => write!(f, "iifname {name}*"),
            Expr::Out(name) => write!(f, "oifname {name}"),
            Expr::OutPrefix(name) => write!(f, "oifname {name}*"),
            Expr::OutNot(name) => write!(f, "oifname != {name}"),
            Expr::InSet(set) => write!(f, "iifname @{set}"),
            Expr::OutSet(set) => write!(f, "oifname @{set}"),
            Expr::Source(range) => write!(f, "ip saddr {range}"),
            Expr::SourceNot(range) => write!(f, "ip saddr != {range}"),
            Expr::Destination(range) => write!(f, "ip daddr {range}"),
            Expr::DestinationNot(range) => write!(f, "ip daddr != {range}"),
            Expr::DestinationLocal => write!(f, "fib daddr type local"),
            Expr::SourceElsewhere => write!(f, "fib saddr . iif oif missing"),
            Expr::Drop => write!(f, "drop"),
            Expr::Translated => write!(f, "ct status dnat"),
            Expr::Established => write!(f, "ct state established,related"),
            Expr::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.name()),
            Expr::DestinationPort(port) => write!(f, "th dport {port}"),
            Expr::DestinationPorts(first, last) => write!(f, "th dport {first}-{last}"),
            Expr::SourceSet(set) => write!(f, "ip saddr @{set}"),
            Expr::DestinationSet(set) => write!(f, "ip daddr @{set}"),
            Expr::SourceDestinationSet(set) => write!(f, "ip saddr . ip daddr @{set}"),
            Expr::DestinationPortMap(map) => write!(f, "ip daddr . meta l4proto . th dport vmap @{map}"),
            Expr::PortMap(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Expr::SourceMap(map) => write!(f, "ip saddr vmap @{map}"),
            Expr::DestinationMap(map) => write!(f, "ip daddr vmap @{map}"),
            Expr::Jump(chain) => write!(f, "jump {chain}"),
            Expr::Return => write!(f, "return"),
            Expr::Accept => write!(f, "accept"),
            Expr::RejectReset => write!(f, "reject with tcp reset"),
            Expr::RejectPort => write!(f, "reject with icmp port-unreachable"),
            Expr::RejectProhibited => write!(f, "reject with icmp admin-prohibited"),
            Expr::DnatRandom(count, map) => write!(f, "dnat to numgen random mod {count} map @{map}"),
            Expr::DnatByClient(parts, map) => write!(f, "dnat to jhash ip saddr mod {parts} map @{map}"),
            Expr::Dnat(address, port) => write!(f, "dnat to {address}:{port}"),
            Expr::Snat(address) => write!(f, "snat to {address}"),
            Expr::Masquerade => write!(f, "masquerade"),
        }
    }
}

struct RuleText<'a>(&'a [Expr]);

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, expr) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{expr}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Key {
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
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table ip {}", self.table)?;
        for set in &self.sets {
            writeln!(f, "{} {}", if set.value == ValueKind::None { "set" } else { "map" }, set.name)?;
            for (key, value) in &set.elements {
                let key: Vec<String> = key.iter().map(Key::to_string).collect();
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
