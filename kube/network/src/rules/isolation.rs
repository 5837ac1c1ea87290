//! What isolated pods may send and receive, as rules. No effects.
//!
//! ```text
//!  forward, input ─ from a pod ─▶ egress:  source      ─▶ out-ADDRESS ─┐ allowed: return, and what comes next decides
//!  forward        ─ to a pod ───▶ ingress: destination ─▶ in-ADDRESS  ─┘ anything else: reject
//! ```
//! Peers that several rules share are one set. Connections that were let through before are not judged again.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::Cidr;
use engine_packets::Address;
use engine_packets::nftables::{Chain, Expr, Key, KeyKind, Protocol, Set, Value, ValueKind};

/// A pod that may only do what is said here, in the directions that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated<A = Ipv4Addr> {
    /// The pod's address.
    pub address: A,
    /// From whom connections are taken; `None`: from everybody.
    pub ingress: Option<Vec<Allowed<A>>>,
    /// To whom connections are opened; `None`: to everybody.
    pub egress: Option<Vec<Allowed<A>>>,
}

impl<A> Isolated<A> {
    /// Isolated in no direction yet.
    pub fn new(address: A) -> Self {
        Self { address, ingress: None, egress: None }
    }
}

/// Connections that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed<A = Ipv4Addr> {
    /// Who is at the other end.
    pub peers: Peers<A>,
    /// To which ports; empty: to all, by any protocol.
    pub ports: Vec<Ports>,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers<A = Ipv4Addr> {
    /// Whoever it is.
    Anybody,
    /// One of these pods.
    Pods(BTreeSet<A>),
    /// An address of a range, but of none of the exceptions.
    Range {
        /// The range.
        range: Cidr<A>,
        /// What of it is left out.
        except: Vec<Cidr<A>>,
    },
}

/// Ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// First and last; `None`: all.
    pub range: Option<(u16, u16)>,
}

/// A direction, as seen from the isolated pod.
#[derive(Clone, Copy)]
enum Direction {
    Ingress,
    Egress,
}

/// The maps that lead to the chains, the sets that these look into, and the chains.
pub(super) fn plan<A: Address>(isolated: &[Isolated<A>]) -> (Vec<Set<A>>, Vec<Chain<A>>) {
    let mut shared: BTreeMap<&BTreeSet<A>, String> = BTreeMap::new();
    let (mut sets, mut chains) = (Vec::new(), Vec::new());
    for (map, direction) in [("ingress", Direction::Ingress), ("egress", Direction::Egress)] {
        let mut elements = Vec::new();
        for pod in isolated {
            let (allowed, name) = match direction {
                Direction::Ingress => (&pod.ingress, format!("in-{}", pod.address)),
                Direction::Egress => (&pod.egress, format!("out-{}", pod.address)),
            };
            let Some(allowed) = allowed else { continue };
            elements.push((vec![Key::Address(pod.address)], Value::Jump(name.clone())));
            let itself = match direction {
                Direction::Ingress => Expr::Source(Cidr::host(pod.address)),
                Direction::Egress => Expr::Destination(Cidr::host(pod.address)),
            };
            // Which no policy can refuse.
            let mut rules = vec![vec![itself, Expr::Return]];
            for allowed in allowed {
                let peers = ends(&allowed.peers, direction, &mut shared);
                let ports: Vec<Vec<Expr<A>>> = match allowed.ports.as_slice() {
                    [] => vec![Vec::new()],
                    ports => ports.iter().map(to_ports).collect(),
                };
                rules.extend(ports.into_iter().map(|ports| [peers.clone(), ports, vec![Expr::Return]].concat()));
            }
            rules.push(vec![Expr::RejectProhibited]);
            chains.push(Chain { name, hook: None, rules });
        }
        sets.push(Set { name: map.into(), key: &[KeyKind::Address], value: ValueKind::Verdict, elements });
    }
    sets.extend(shared.into_iter().map(|(addresses, name)| Set {
        name,
        key: &[KeyKind::Address],
        value: ValueKind::None,
        elements: addresses.iter().map(|address| (vec![Key::Address(*address)], Value::None)).collect(),
    }));
    (sets, chains)
}

/// That the other end is one of these.
fn ends<'a, A: Address>(
    peers: &'a Peers<A>,
    direction: Direction,
    shared: &mut BTreeMap<&'a BTreeSet<A>, String>,
) -> Vec<Expr<A>> {
    let is_in = |range: Cidr<A>| match direction {
        Direction::Ingress => Expr::Source(range),
        Direction::Egress => Expr::Destination(range),
    };
    let is_not_in = |range: Cidr<A>| match direction {
        Direction::Ingress => Expr::SourceNot(range),
        Direction::Egress => Expr::DestinationNot(range),
    };
    match peers {
        Peers::Anybody => Vec::new(),
        Peers::Pods(pods) if pods.len() == 1 => pods.iter().map(|address| is_in(Cidr::host(*address))).collect(),
        Peers::Pods(pods) => {
            let next = format!("peers-{}", shared.len());
            let name = shared.entry(pods).or_insert(next).clone();
            vec![match direction {
                Direction::Ingress => Expr::SourceSet(name),
                Direction::Egress => Expr::DestinationSet(name),
            }]
        }
        Peers::Range { range, except } => {
            let whole = (*range != Cidr::any()).then(|| is_in(*range));
            whole.into_iter().chain(except.iter().map(|range| is_not_in(*range))).collect()
        }
    }
}

fn to_ports<A: Address>(ports: &Ports) -> Vec<Expr<A>> {
    let range = match ports.range {
        None => None,
        Some((first, last)) if first == last => Some(Expr::DestinationPort(first)),
        Some((first, last)) => Some(Expr::DestinationPorts(first, last)),
    };
    [Expr::Protocol(ports.protocol)].into_iter().chain(range).collect()
}
