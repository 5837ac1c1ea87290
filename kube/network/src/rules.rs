//! The plan of a node's nftables rules: from what is wanted to a ruleset. No effects.
//!
//! ```text
//!  from a pod, a fabric device          from the machine          from anywhere to a node port, an external address
//!            │ prerouting                     │ output                     │ prerouting
//!            ▼                                ▼                            ▼
//!        services: address . protocol . port  ─▶ svc-…  ◀─ nodeports: protocol . port; external: address . protocol . port
//!                                                 │ dnat to one ready endpoint, by chance
//!            ┌────────────────────────────────────┘
//!            ▼ routed
//!        forward: what is left with a Service address has no endpoint: reject.  An isolated pod: what policies allow
//!                 A confined pod: only what it may reach
//!                 Another node's pod: its guests here; if trusted pods here, and through a Service pods elsewhere
//!        input:   confined pods and trusted nodes may ask the cluster's DNS, nothing else of this machine
//!            ▼
//!        postrouting: hairpin, fabric and what comes from outside for a pod of another machine get the gateway's address,
//!                     the way outside the machine's; between pods of two machines nothing changes
//! ```
//!
//! A packet from a pod that does not carry the pod's own address is dropped before all this, so a rule that names an
//! address names a pod.
//!
//! One look-up in a map per new connection finds the Service, however many there are.
mod affinity;
mod isolation;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

pub use isolation::{Allowed, Isolated, Peers, Ports};
use serde::{Deserialize, Serialize};

use crate::Cidr;
use engine_packets::Address;
use engine_packets::nftables::{Chain, Expr, Hook, Key, KeyKind, Protocol, Ruleset, Set, Value, ValueKind};

/// A pod that may open connections only to what is said here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct ConfinedPod<A: Address = Ipv4Addr> {
    /// The pod's address.
    pub address: A,
    /// What it may reach. Judged after the translation of Service addresses.
    pub allow_to: Vec<Cidr<A>>,
    /// Whether it may also reach this node's pods, its cluster's DNS and with them the Services that lead to pods.
    pub own_cluster: bool,
}

/// A range of addresses that lies behind a device: pods and Services of another node. The device belongs to the fabric
/// alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FabricRoute<A = Ipv4Addr> {
    /// The range.
    pub to: Cidr<A>,
    /// The device's name.
    pub device: String,
    /// What may be reached from there.
    pub access: FabricAccess,
}

/// A range of addresses that pods of another machine of this cluster have. That machine is on a network with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineRoute<A = Ipv4Addr> {
    /// The range.
    pub to: Cidr<A>,
    /// That machine.
    pub via: A,
}

/// What a node of the fabric may open connections to here. Never this machine's own addresses, its LAN, or anything else
/// behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FabricAccess {
    /// Its guests here: confined pods that may reach that node, too.
    Guests,
    /// Also this node's pods and Services and the cluster's DNS, and through a Service another node of the fabric. Not
    /// the guests of others.
    Cluster,
}

/// One port of a Service with the endpoints that are ready for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort<A = Ipv4Addr> {
    /// `namespace/name:port`, for people.
    pub name: String,
    /// Its cluster addresses.
    pub addresses: Vec<A>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port at the cluster addresses.
    pub port: u16,
    /// Its port at every address of the machine.
    pub node_port: Option<u16>,
    /// Addresses outside of the cluster's ranges at which its port is answered, whoever calls: external ones and a load balancer's.
    pub external: Vec<A>,
    /// Who may call there. `None`: everybody.
    pub sources: Option<Vec<Cidr<A>>>,
    /// Where connections go. Empty: they are refused.
    pub endpoints: Vec<(A, u16)>,
    /// Whether a client, by its address, always comes to the same endpoint.
    pub by_client: bool,
}

/// All that the rules of one family are made from. Those of IPv6 know pods and Services of this cluster alone: no fabric,
/// and who is confined reaches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View<A: Address = Ipv4Addr> {
    pub instance: String,
    pub pod_range: Cidr<A>,
    pub service_range: Cidr<A>,
    pub gateway: A,
    pub services: Vec<ServicePort<A>>,
    pub fabric: Vec<FabricRoute<A>>,
    pub machines: Vec<MachineRoute<A>>,
    pub confined: Vec<ConfinedPod<A>>,
    pub isolated: Vec<Isolated<A>>,
    /// Ports of the machine that lead to a pod each.
    pub published: Vec<ServicePort<A>>,
    /// Addresses of this node's pods on the machine's own network, whose cables are not ours.
    pub plugged: BTreeSet<A>,
}

impl<A: Address> View<A> {
    /// All that is translated: the ports of pods come after those of Services.
    fn ports(&self) -> impl Iterator<Item = &ServicePort<A>> {
        self.services.iter().chain(&self.published)
    }

    /// Name of the device that has the gateway's address.
    pub fn gateway_device(&self) -> String {
        format!("sb-{}", self.instance)
    }

    /// What the names of all cables to pods begin with.
    pub fn cable_prefix(&self) -> String {
        format!("v{}-", self.instance)
    }

    pub fn table(&self) -> String {
        format!("substrate-{}", self.instance)
    }

    /// The cluster's DNS: address number 10 of the Service range.
    pub fn dns_address(&self) -> Option<A> {
        // It listens on IPv4.
        self.service_range.nth(10).filter(|_| A::BITS == 32)
    }
}

/// The rules for a view.
pub(crate) fn plan<A: Address>(view: &View<A>) -> Ruleset<A> {
    let mut sets = service_sets(view);
    let mut chains = vec![spoofed(view), prerouting(view), output(view), services(), postrouting(view)];
    chains.extend([forward(view), input(view), filter_output(view)]);
    chains.push(Chain { name: "refuse".into(), hook: None, rules: refuse() });
    for (number, service) in view.ports().enumerate().filter(|(_, service)| !service.endpoints.is_empty()) {
        let count = u32::try_from(service.endpoints.len()).unwrap_or(u32::MAX);
        let rules = match service.endpoints.as_slice() {
            [(address, port)] => vec![vec![Expr::Dnat(*address, *port)]],
            _ if service.by_client => vec![vec![Expr::DnatByClient(affinity::PARTS, format!("ep-{number}"))]],
            _ => vec![vec![Expr::DnatRandom(count, format!("ep-{number}"))]],
        };
        // Rules need their protocol said before a port can be translated.
        let rules = rules.into_iter().map(|rule| [vec![Expr::Protocol(service.protocol)], rule].concat()).collect();
        chains.push(Chain { name: format!("svc-{number}"), hook: None, rules });
        if let Some(sources) = &service.sources {
            let from = |range: &Cidr<A>| vec![Expr::Source(*range), Expr::Jump(format!("svc-{number}"))];
            let rules = sources.iter().map(from).chain([vec![Expr::Drop]]).collect();
            chains.push(Chain { name: format!("from-{number}"), hook: None, rules });
        }
    }
    if view.dns_address().is_some() {
        let to_dns = |protocol| vec![Expr::Protocol(protocol), Expr::Dnat(view.gateway, 53)];
        chains.push(Chain {
            name: "dns".into(),
            hook: None,
            rules: vec![to_dns(Protocol::Udp), to_dns(Protocol::Tcp)],
        });
    }
    let confined = confined_by_address(view);
    sets.push(Set {
        name: "confined".into(),
        key: &[KeyKind::Address],
        value: ValueKind::Verdict,
        elements: confined
            .keys()
            .map(|address| (vec![Key::Address(*address)], Value::Goto(format!("confined-{address}"))))
            .collect(),
    });
    sets.push(Set {
        name: "confined-input".into(),
        key: &[KeyKind::Address],
        value: ValueKind::Verdict,
        elements: confined
            .keys()
            .map(|address| {
                let own_cluster = view.confined.iter().any(|pod| pod.address == *address && pod.own_cluster);
                let chain = if own_cluster { "dns-only" } else { "nothing" };
                (vec![Key::Address(*address)], Value::Goto(chain.into()))
            })
            .collect(),
    });
    let guests: BTreeSet<A> = view.confined.iter().filter(|pod| !pod.own_cluster).map(|pod| pod.address).collect();
    sets.push(Set {
        name: "guests".into(),
        key: &[KeyKind::Address],
        value: ValueKind::None,
        elements: guests.into_iter().map(|address| (vec![Key::Address(address)], Value::None)).collect(),
    });
    sets.push(Set {
        name: "plugged".into(),
        key: &[KeyKind::Address],
        value: ValueKind::None,
        elements: view.plugged.iter().map(|address| (vec![Key::Address(*address)], Value::None)).collect(),
    });
    for (address, allowed) in &confined {
        let mut rules: Vec<Vec<Expr<A>>> =
            allowed.iter().map(|range| vec![Expr::Destination(*range), Expr::Accept]).collect();
        rules.push(vec![Expr::RejectProhibited]);
        chains.push(Chain { name: format!("confined-{address}"), hook: None, rules });
    }
    chains.extend([from_fabric(view), fabric_input(view), dns_only(view)]);
    chains.push(Chain { name: "nothing".into(), hook: None, rules: vec![vec![Expr::RejectProhibited]] });
    let (of_isolated, ways) = isolation::plan(&view.isolated);
    sets.extend(of_isolated);
    chains.extend(ways);
    Ruleset { table: view.table(), chains, sets }
}

fn confined_by_address<A: Address>(view: &View<A>) -> BTreeMap<A, BTreeSet<Cidr<A>>> {
    let mut confined: BTreeMap<A, BTreeSet<Cidr<A>>> = BTreeMap::new();
    for pod in &view.confined {
        let allowed = confined.entry(pod.address).or_default();
        allowed.extend(pod.allow_to.iter().copied());
        allowed.extend(pod.own_cluster.then_some(view.pod_range));
    }
    confined
}

/// Drops what a pod sends with an address that is not its own.
fn spoofed<A: Address>(view: &View<A>) -> Chain<A> {
    let from_pod = || Expr::InPrefix(view.cable_prefix());
    let mut rules = Vec::new();
    if let Some(on_the_link) = link_local() {
        // The pod's other address, by which no rule knows it: with it it asks for its neighbour's device, and nothing else.
        rules.push(vec![from_pod(), Expr::Neighbour, Expr::Accept]);
        rules.push(vec![from_pod(), Expr::Source(on_the_link), Expr::Drop]);
    }
    rules.push(vec![from_pod(), Expr::SourceElsewhere, Expr::Drop]);
    Chain { name: "spoofed".into(), hook: Some(Hook::RawPrerouting), rules }
}

/// Addresses that are good on one cable (RFC 4291, section 2.5.6).
fn link_local<A: Address>() -> Option<Cidr<A>> {
    let address = A::of(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into())?;
    Cidr::new(address, 10)
}

fn prerouting<A: Address>(view: &View<A>) -> Chain<A> {
    let rules = vec![
        vec![Expr::InPrefix(view.cable_prefix()), Expr::Jump("services".into())],
        vec![Expr::SourceSet("plugged".into()), Expr::Jump("services".into())],
        vec![Expr::InSet("fabric".into()), Expr::Jump("services".into())],
        vec![Expr::DestinationPortMap("external".into())],
        vec![Expr::DestinationLocal, Expr::PortMap("nodeports".into())],
    ];
    Chain { name: "prerouting".into(), hook: Some(Hook::NatPrerouting), rules }
}

fn output<A: Address>(view: &View<A>) -> Chain<A> {
    let rules = vec![
        // The route says whose Service address it is when several nodes use the same range.
        vec![Expr::Out(view.gateway_device()), Expr::Jump("services".into())],
        vec![Expr::DestinationPortMap("external".into())],
        // From 127.0.0.0/8 the kernel would not send to a pod; the machine's other addresses work.
        vec![Expr::DestinationNot(Cidr::loopback()), Expr::DestinationLocal, Expr::PortMap("nodeports".into())],
    ];
    Chain { name: "output".into(), hook: Some(Hook::NatOutput), rules }
}

fn services<A: Address>() -> Chain<A> {
    Chain { name: "services".into(), hook: None, rules: vec![vec![Expr::DestinationPortMap("services".into())]] }
}

fn postrouting<A: Address>(view: &View<A>) -> Chain<A> {
    let cables = || Expr::OutPrefix(view.cable_prefix());
    let mut rules = vec![
        // A pod that reaches itself through a Service would see its own address and answer without passing here.
        vec![cables(), Expr::SourceDestinationSet("hairpin".into()), Expr::Snat(view.gateway)],
        vec![
            Expr::DestinationSet("plugged".into()),
            Expr::SourceDestinationSet("hairpin".into()),
            Expr::Snat(view.gateway),
        ],
        vec![cables(), Expr::Accept],
        // Other nodes know this node by its pod range only.
        vec![Expr::OutSet("fabric".into()), Expr::SourceNot(view.pod_range), Expr::Snat(view.gateway)],
        vec![Expr::OutSet("fabric".into()), Expr::Accept],
    ];
    rules.extend(fabric_ranges(view).into_iter().map(|range| vec![Expr::Destination(range), Expr::Accept]));
    for machine in &view.machines {
        // Its pods answer by the way that their machine knows: that of this one's range.
        rules.push(vec![Expr::Destination(machine.to), Expr::Source(view.pod_range), Expr::Accept]);
        rules.push(vec![Expr::Destination(machine.to), Expr::Snat(view.gateway)]);
    }
    rules.push(vec![Expr::Source(view.pod_range), Expr::OutNot(view.gateway_device()), Expr::Masquerade]);
    Chain { name: "postrouting".into(), hook: Some(Hook::NatPostrouting), rules }
}

fn fabric_ranges<A: Address>(view: &View<A>) -> BTreeSet<Cidr<A>> {
    view.fabric.iter().map(|route| route.to).collect()
}

fn forward<A: Address>(view: &View<A>) -> Chain<A> {
    let from_pod = || Expr::InPrefix(view.cable_prefix());
    let rules = vec![
        vec![Expr::Established, Expr::Accept],
        vec![from_pod(), Expr::Destination(view.service_range), Expr::Jump("refuse".into())],
        vec![Expr::Out(view.gateway_device()), Expr::Jump("refuse".into())],
        vec![Expr::DestinationPortMap("nowhere".into())],
        vec![from_pod(), Expr::SourceMap("egress".into())],
        vec![Expr::SourceSet("plugged".into()), Expr::SourceMap("egress".into())],
        vec![Expr::OutPrefix(view.cable_prefix()), Expr::DestinationMap("ingress".into())],
        vec![Expr::DestinationSet("plugged".into()), Expr::DestinationMap("ingress".into())],
        vec![from_pod(), Expr::SourceMap("confined".into())],
        vec![Expr::InSet("fabric".into()), Expr::Jump("from-fabric".into())],
    ];
    Chain { name: "forward".into(), hook: Some(Hook::FilterForward), rules }
}

fn input<A: Address>(view: &View<A>) -> Chain<A> {
    let rules = vec![
        vec![Expr::Established, Expr::Accept],
        vec![Expr::Neighbour, Expr::Accept],
        // Nothing else that listens here is what they mean.
        vec![Expr::DestinationPortMap("nowhere".into())],
        vec![Expr::InPrefix(view.cable_prefix()), Expr::SourceMap("egress".into())],
        vec![Expr::SourceSet("plugged".into()), Expr::SourceMap("egress".into())],
        vec![Expr::InPrefix(view.cable_prefix()), Expr::SourceMap("confined-input".into())],
        vec![Expr::InSet("fabric".into()), Expr::Jump("fabric-input".into())],
    ];
    Chain { name: "input".into(), hook: Some(Hook::FilterInput), rules }
}

fn filter_output<A: Address>(view: &View<A>) -> Chain<A> {
    let to_nowhere =
        vec![Expr::Out(view.gateway_device()), Expr::Destination(view.service_range), Expr::Jump("refuse".into())];
    Chain { name: "filter-output".into(), hook: Some(Hook::FilterOutput), rules: vec![to_nowhere] }
}

fn refuse<A: Address>() -> Vec<Vec<Expr<A>>> {
    vec![vec![Expr::Protocol(Protocol::Tcp), Expr::RejectReset], vec![Expr::RejectPort]]
}

/// What others may reach through this machine.
fn from_fabric<A: Address>(view: &View<A>) -> Chain<A> {
    let mut rules = Vec::new();
    for pod in &view.confined {
        let here = Cidr::host(pod.address);
        rules.extend(pod.allow_to.iter().map(|from| vec![Expr::Source(*from), Expr::Destination(here), Expr::Accept]));
    }
    rules.push(vec![Expr::DestinationSet("guests".into()), Expr::RejectProhibited]);
    for from in trusted(view) {
        rules.push(vec![Expr::Source(from), Expr::OutPrefix(view.cable_prefix()), Expr::Accept]);
        rules.push(vec![Expr::Source(from), Expr::DestinationSet("plugged".into()), Expr::Accept]);
        let elsewhere = view.machines.iter();
        rules.extend(elsewhere.map(|machine| vec![Expr::Source(from), Expr::Destination(machine.to), Expr::Accept]));
        // A pod at one node calls a Service here whose pod is at another: that node knows only us.
        rules.push(vec![Expr::Source(from), Expr::OutSet("fabric".into()), Expr::Translated, Expr::Accept]);
    }
    rules.push(vec![Expr::RejectProhibited]);
    Chain { name: "from-fabric".into(), hook: None, rules }
}

fn fabric_input<A: Address>(view: &View<A>) -> Chain<A> {
    let mut rules: Vec<Vec<Expr<A>>> =
        trusted(view).into_iter().map(|from| vec![Expr::Source(from), Expr::Jump("dns-only".into())]).collect();
    rules.push(vec![Expr::RejectProhibited]);
    Chain { name: "fabric-input".into(), hook: None, rules }
}

/// The ranges from which the cluster may be reached.
fn trusted<A: Address>(view: &View<A>) -> BTreeSet<Cidr<A>> {
    view.fabric.iter().filter(|route| route.access == FabricAccess::Cluster).map(|route| route.to).collect()
}

fn dns_only<A: Address>(view: &View<A>) -> Chain<A> {
    let gateway = Cidr::host(view.gateway);
    let dns =
        |protocol| vec![Expr::Destination(gateway), Expr::Protocol(protocol), Expr::DestinationPort(53), Expr::Accept];
    let rules = vec![dns(Protocol::Udp), dns(Protocol::Tcp), vec![Expr::RejectProhibited]];
    Chain { name: "dns-only".into(), hook: None, rules }
}

/// Of two Services that claim the same address or port the first in the list wins, so that the kernel never sees a
/// duplicate; the API server does not let it come to that.
fn service_sets<A: Address>(view: &View<A>) -> Vec<Set<A>> {
    let mut services: BTreeMap<(A, Protocol, u16), String> = BTreeMap::new();
    let mut nodeports: BTreeMap<(Protocol, u16), String> = BTreeMap::new();
    let mut external: BTreeMap<(A, Protocol, u16), String> = BTreeMap::new();
    let mut nowhere: BTreeMap<(A, Protocol, u16), String> = BTreeMap::new();
    let mut hairpin: BTreeSet<A> = BTreeSet::new();
    let mut maps = Vec::new();
    if let Some(address) = view.dns_address() {
        services.insert((address, Protocol::Udp, 53), "dns".into());
        services.insert((address, Protocol::Tcp, 53), "dns".into());
    }
    for (number, service) in view.ports().enumerate() {
        let at = |address: &A| (*address, service.protocol, service.port);
        if service.endpoints.is_empty() {
            nowhere.extend(service.external.iter().map(|address| (at(address), "refuse".into())));
            continue;
        }
        for address in &service.addresses {
            services.entry(at(address)).or_insert(format!("svc-{number}"));
        }
        let chain = if service.sources.is_none() { "svc" } else { "from" };
        for address in &service.external {
            external.entry(at(address)).or_insert(format!("{chain}-{number}"));
        }
        if let Some(port) = service.node_port {
            nodeports.entry((service.protocol, port)).or_insert(format!("svc-{number}"));
        }
        hairpin.extend(service.endpoints.iter().map(|(address, _)| *address));
        if service.endpoints.len() > 1 {
            let endpoints: Vec<(u32, &(A, u16))> = match service.by_client {
                true => affinity::shares(&service.endpoints),
                false => (0..).zip(&service.endpoints).collect(),
            };
            maps.push(Set {
                name: format!("ep-{number}"),
                key: &[KeyKind::Number],
                value: ValueKind::Endpoint,
                elements: endpoints
                    .into_iter()
                    .map(|(index, (address, port))| (vec![Key::Number(index)], Value::Endpoint(*address, *port)))
                    .collect(),
            });
        }
    }
    let devices: BTreeSet<&String> = view.fabric.iter().map(|route| &route.device).collect();
    let mut sets = vec![
        by_address("services", services),
        by_address("external", external),
        by_address("nowhere", nowhere),
        Set {
            name: "nodeports".into(),
            key: &[KeyKind::Protocol, KeyKind::Port],
            value: ValueKind::Verdict,
            elements: nodeports
                .into_iter()
                .map(|((protocol, port), chain)| (vec![Key::Protocol(protocol), Key::Port(port)], Value::Goto(chain)))
                .collect(),
        },
        Set {
            name: "hairpin".into(),
            key: &[KeyKind::Address, KeyKind::Address],
            value: ValueKind::None,
            elements: hairpin
                .into_iter()
                .map(|address| (vec![Key::Address(address), Key::Address(address)], Value::None))
                .collect(),
        },
        Set {
            name: "fabric".into(),
            key: &[KeyKind::Interface],
            value: ValueKind::None,
            elements: devices.into_iter().map(|device| (vec![Key::Interface(device.clone())], Value::None)).collect(),
        },
    ];
    sets.extend(maps);
    sets
}

/// A map from address, protocol and port to a chain.
fn by_address<A: Address>(name: &str, chains: BTreeMap<(A, Protocol, u16), String>) -> Set<A> {
    let element = |((address, protocol, port), chain)| {
        (vec![Key::Address(address), Key::Protocol(protocol), Key::Port(port)], Value::Goto(chain))
    };
    Set {
        name: name.into(),
        key: &[KeyKind::Address, KeyKind::Protocol, KeyKind::Port],
        value: ValueKind::Verdict,
        elements: chains.into_iter().map(element).collect(),
    }
}
