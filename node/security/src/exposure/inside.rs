//! What a guest reaches from inside its own network: which addresses are tried there, and what the answers mean. Pure.
//!
//! ```text
//!   guest pod's network namespace                      this machine's
//!   ─────────────────────────────                      ──────────────
//!   TCP connect to each target                         the same, beside it
//!     accepted, or refused by the host itself   ──────────────────────────▶  yes: packets get there
//!     prohibited by a rule, or no way           ──────────────────────────▶  no
//!     silence                                   accepted or refused  ─────▶  no: filtered
//!                                               silence, too  ────────────▶  ?: nobody may be there
//! ```
//! Limits: TCP only; one port of each address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::ResourceExt as _;

use super::{As, Row, View, is_over, row};

/// Pods that are entered: each takes a second, and eight still answer a person in time.
pub const PODS_MAX: usize = 8;
/// Of each sort that there may be many of; more of the same are behind the same rule.
const OF_A_SORT_MAX: usize = 4;
/// Addresses that are tried from each, all at once with a thread each: metadata; API and REAR; Services; pods of others; own pods.
pub const TARGETS_MAX: usize = 1 + 5 * OF_A_SORT_MAX;
/// Where clouds tell a machine its credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A guest pod that is to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// `namespace/name`.
    pub pod: String,
    /// Its UID: its network namespace is called after it.
    pub uid: String,
    /// Its address, which only its own network has: whoever enters another sees the mistake.
    pub address: IpAddr,
    /// What is tried from there.
    pub targets: Vec<Target>,
}

/// An address that is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is, for people.
    pub what: String,
    /// Where.
    pub address: SocketAddr,
    /// Whether the rules answer for it when nothing serves it, so that a refusal shows nothing.
    pub is_service: bool,
}

/// What became of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Connected,
    /// Refused, by the host or in its name.
    Refused,
    /// There is no way, in the kernel's words.
    Prohibited(String),
    /// Nothing came back in time.
    Silent,
    /// It could not be tried, and why.
    NotTried(String),
}

/// One target that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What.
    pub target: Target,
    /// From inside the pod.
    pub inside: Answer,
    /// From this machine.
    pub machine: Answer,
}

/// What was tried from one pod, or why nothing was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `namespace/name`.
    pub pod: String,
    /// Each target, or why the pod could not be entered.
    pub attempts: Result<Vec<Attempt>, String>,
}

/// Ports at which this node itself listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// Its API's.
    pub api: Option<u16>,
    /// That of REAR.
    pub rear: Option<u16>,
}

/// Returns the pods of the peer that run here and what is to be tried from each; at most [`PODS_MAX`] and [`TARGETS_MAX`].
pub fn guests(view: &View<'_>, ports: Ports) -> Vec<Guest> {
    let sold = view.sold();
    let enter = |pod: &Pod| {
        let address = address(pod)?;
        Some(Guest {
            pod: name(pod),
            uid: pod.uid()?,
            address,
            targets: targets(view, ports, address, &|pod| is_of(pod, &sold)),
        })
    };
    let here = view.pods.iter().filter(|pod| is_of(*pod, &sold) && runs_here(pod));
    here.filter_map(enter).take(PODS_MAX).collect()
}

fn targets(view: &View<'_>, ports: Ports, own: IpAddr, is_guest: &dyn Fn(&Pod) -> bool) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |what: String, address: IpAddr, port: Option<u16>, is_service: bool| {
        if let Some(port) = port {
            targets.push(Target { what, address: SocketAddr::new(address, port), is_service });
        }
    };
    add("metadata of a cloud".into(), METADATA.into(), Some(80), false);
    let own_machines = view.nodes.iter().filter(|node| !node.annotations().contains_key(names::ANNOTATION_PEER_DID));
    let internal = own_machines.flat_map(|machine| {
        let addresses = machine.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        internal.filter_map(|address| Some((machine.name_any(), address.address.parse().ok()?)))
    });
    for (machine, address) in internal.take(OF_A_SORT_MAX) {
        add(format!("API of this node, at machine {machine}"), address, ports.api, false);
        add(format!("REAR of this node, at machine {machine}"), address, ports.rear, false);
    }
    for service in view.services.iter().filter(|service| !is_foreign(*service)).take(OF_A_SORT_MAX) {
        if let Some((address, port)) = place(service) {
            add(format!("Service {}", full_name(service)), address, Some(port), true);
        }
    }
    let others = |foreign: bool| {
        let other = move |pod: &&Pod| is_foreign(*pod) == foreign && runs_here(pod) && !is_away(view, pod);
        view.pods.iter().filter(other).filter(|pod| !is_guest(pod)).take(OF_A_SORT_MAX)
    };
    for (pod, of) in others(true).map(|pod| (pod, "another peer")).chain(others(false).map(|pod| (pod, "this owner"))) {
        if let Some(address) = address(pod).filter(|address| *address != own) {
            add(format!("pod {} of {of}", name(pod)), address, Some(port(pod)), false);
        }
    }
    targets
}

/// Returns what the answers show, in the order of the pods.
pub(super) fn rows(view: &View<'_>) -> Vec<Row> {
    let sold = view.sold();
    let here: Vec<&Pod> =
        view.pods.iter().filter(|pod| is_of(*pod, &sold) && !is_stand_in(pod) && !is_over(pod)).collect();
    if here.is_empty() {
        let proof = "no pod of it is on a machine of this node now: nobody is there to reach anything";
        return vec![row(As::Guest, "address", "", Some(false), proof)];
    }
    let mut rows = Vec::new();
    for pod in here {
        let name = name(pod);
        let unknown = |why: &str| {
            row(As::Guest, "address", &format!("from {name}"), None, format!("not tried from inside: {why}"))
        };
        match view.tried.iter().find(|tried| tried.pod == name).map(|tried| &tried.attempts) {
            Some(Ok(attempts)) => rows.extend(attempts.iter().map(|attempt| shown(&name, attempt))),
            Some(Err(why)) => rows.push(unknown(why)),
            None if !runs_here(pod) => rows.push(unknown("it does not run yet, or has no network of its own")),
            None => rows.push(unknown(&format!("at most {PODS_MAX} pods are entered"))),
        }
    }
    rows
}

fn shown(pod: &str, attempt: &Attempt) -> Row {
    let Attempt { target, inside, machine } = attempt;
    let (can, what) = judge(target, inside, machine);
    let item = format!("{} {}, from {pod}", target.address, target.what);
    row(As::Guest, "address", &item, can, format!("TCP connect from inside: {what}"))
}

/// Whether a guest reaches a target, and what shows it.
fn judge(target: &Target, inside: &Answer, machine: &Answer) -> (Option<bool>, String) {
    match (inside, machine) {
        (Answer::Connected, _) => (Some(true), "accepted".into()),
        (Answer::Refused, Answer::Connected) => {
            (Some(false), "refused by a rule, though this machine is accepted there".into())
        }
        (Answer::Refused, _) if target.is_service => {
            (None, "refused, as is whoever calls a Service that nothing serves".into())
        }
        (Answer::Refused, _) => {
            (Some(true), "refused by the host itself: packets get there, and nobody listens".into())
        }
        (Answer::Prohibited(why), _) => (Some(false), format!("prohibited: {why}")),
        (Answer::Silent, Answer::Connected | Answer::Refused) => {
            (Some(false), "filtered: no answer, though this machine gets one".into())
        }
        (Answer::Silent, _) => (None, "no answer; this machine gets none either: nobody may be there".into()),
        (Answer::NotTried(why), _) => (None, format!("not tried: {why}")),
    }
}

fn is_of<K: kube::Resource>(object: &K, contracts: &std::collections::BTreeSet<String>) -> bool {
    let labels = object.meta().labels.as_ref();
    labels.and_then(|labels| labels.get(names::LABEL_CONTRACT)).is_some_and(|contract| contracts.contains(contract))
}

/// Whether it is here for somebody else.
fn is_foreign<K: kube::Resource>(object: &K) -> bool {
    object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(names::LABEL_CONTRACT))
}

fn is_stand_in(pod: &Pod) -> bool {
    pod.annotations().contains_key(names::ANNOTATION_STAND_IN)
}

/// Whether it runs on a machine of this node, in a network of its own.
fn runs_here(pod: &Pod) -> bool {
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && !host && !is_stand_in(pod) && address(pod).is_some()
}

/// Whether it runs at somebody else's: what a guest reaches there is not for this node to say.
fn is_away(view: &View<'_>, pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let is_virtual = |node: &Node| node.annotations().contains_key(names::ANNOTATION_PEER_DID);
    view.nodes.iter().any(|known| is_virtual(known) && node.as_ref() == known.metadata.name.as_ref())
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// The first port that it names, or that of the web.
fn port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let first = ports.find(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    first.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(80)
}

/// The cluster address of a Service and its first TCP port.
fn place(service: &Service) -> Option<(IpAddr, u16)> {
    let spec = service.spec.as_ref()?;
    let address = spec.cluster_ip.as_ref()?.parse().ok()?;
    let port = spec.ports.iter().flatten().find(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")?;
    Some((address, u16::try_from(port.port).ok()?))
}

fn name(pod: &Pod) -> String {
    full_name(pod)
}

fn full_name<K: kube::Resource>(object: &K) -> String {
    let meta = object.meta();
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
