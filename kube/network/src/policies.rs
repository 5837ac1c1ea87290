//! From NetworkPolicies, pods and namespaces to what each pod of this machine may send and receive. No effects.
//!
//! A pod that a policy selects is *isolated* in the directions that the policy names: connections that no policy allows are refused.
//! What several policies allow adds up (`networking.k8s.io/v1`, NetworkPolicySpec).
//!
//! ```text
//!  policies × pods here ─▶ Isolated{address, ingress?, egress?} ─▶ rules
//!             └─ peers: pods anywhere by labels, ranges of addresses
//! ```
//!
//! Judged is where a connection really ends, after the translation of Service addresses. The cluster's DNS is no pod here; it counts as
//! one with the label `k8s-app: kube-dns` in `kube-system`, by which policies written for other clusters know it.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use substrate_client::lookup::{Labels, label_selector_matches};

use crate::here::Here;
use crate::rules::{Allowed, Isolated, Peers, Ports};
use engine_packets::Address;
use engine_packets::nftables::Protocol;

/// What a policy can name, by its labels: a pod, or the cluster's DNS.
struct Subject<A> {
    namespace: String,
    labels: Option<Labels>,
    address: A,
    /// Name, protocol, number.
    ports: Vec<(String, Protocol, u16)>,
}

/// Which pods of `here` are isolated, and what they may do all the same. `dns` is where the cluster's DNS answers, if it does in this family.
/// Each family is judged by itself: a range of the other has nobody, so what names none but those allows nobody.
pub(crate) fn plan<A: Address>(
    policies: &[Arc<NetworkPolicy>],
    pods: &[Arc<Pod>],
    namespaces: &[Arc<Namespace>],
    here: &Here<A>,
    dns: Option<A>,
) -> Vec<Isolated<A>> {
    let mut subjects: Vec<Subject<A>> = pods.iter().filter_map(|pod| of_pod(pod)).collect();
    subjects.extend(dns.map(of_dns));
    let world = World {
        subjects,
        namespaces: namespaces
            .iter()
            .filter_map(|namespace| Some((namespace.metadata.name.as_deref()?, namespace.metadata.labels.as_ref())))
            .collect(),
    };
    let mut isolated: BTreeMap<A, Isolated<A>> = BTreeMap::new();
    for policy in policies {
        let Some(spec) = &policy.spec else { continue };
        let own = policy.metadata.namespace.as_deref().unwrap_or_default();
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let asks = |name: &str| types.iter().any(|given| given == name);
        let ingress = types.is_empty() || asks("Ingress");
        let egress = asks("Egress") || (types.is_empty() && spec.egress.iter().flatten().next().is_some());
        let selected = world.subjects.iter().filter(|subject| {
            subject.namespace == own
                && Some(subject.address) != dns
                && here.contains(subject.address)
                && selects(spec.pod_selector.as_ref(), subject.labels.as_ref())
        });
        for target in selected {
            let entry = isolated.entry(target.address).or_insert_with(|| Isolated::new(target.address));
            if ingress {
                let allowed = entry.ingress.get_or_insert_default();
                for rule in spec.ingress.iter().flatten() {
                    let ports = resolve(rule.ports.as_deref(), &target.ports);
                    let peers = world.peers(rule.from.as_deref(), own);
                    allowed.extend(ports.iter().flat_map(|ports| peers.iter().map(|(peers, _)| allow(peers, ports))));
                }
            }
            if egress {
                let allowed = entry.egress.get_or_insert_default();
                for rule in spec.egress.iter().flatten() {
                    allowed.extend(world.egress(rule.to.as_deref(), rule.ports.as_deref(), own));
                }
            }
        }
    }
    isolated.into_values().collect()
}

fn allow<A: Address>(peers: &Peers<A>, ports: &[Ports]) -> Allowed<A> {
    Allowed { peers: peers.clone(), ports: ports.to_vec() }
}

/// An empty or absent selector of a policy selects all pods of its namespace.
fn selects(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    labels: Option<&Labels>,
) -> bool {
    selector.is_none() || label_selector_matches(selector, labels)
}

/// A pod that has an address of its own; one that has ended keeps its address in its status, which another may have by now.
fn of_pod<A: Address>(pod: &Pod) -> Option<Subject<A>> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over || spec.host_network == Some(true) {
        return None;
    }
    let mut addresses = status.pod_ips.iter().flatten().map(|address| &address.ip).chain(&status.pod_ip);
    let address = addresses.find_map(|text| text.parse().ok())?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, protocol(port.protocol.as_deref())?, number))
    });
    Some(Subject {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone(),
        address,
        ports: ports.collect(),
    })
}

fn of_dns<A>(address: A) -> Subject<A> {
    Subject {
        namespace: "kube-system".into(),
        labels: Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into()),
        address,
        ports: vec![("dns".into(), Protocol::Udp, 53), ("dns-tcp".into(), Protocol::Tcp, 53)],
    }
}

/// SCTP is not carried, so nothing of it is allowed.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

struct World<'a, A> {
    subjects: Vec<Subject<A>>,
    /// Labels by name.
    namespaces: BTreeMap<&'a str, Option<&'a Labels>>,
}

impl<A: Address> World<'_, A> {
    /// Who a rule names: its pods together, and each range; with the pods, for ports that they name themselves.
    fn peers(&self, named: Option<&[NetworkPolicyPeer]>, own: &str) -> Vec<(Peers<A>, Vec<&Subject<A>>)> {
        let named = named.unwrap_or_default();
        if named.is_empty() {
            return vec![(Peers::Anybody, Vec::new())];
        }
        let mut found: Vec<(Peers<A>, Vec<&Subject<A>>)> = Vec::new();
        let is_named = |subject: &&Subject<A>| {
            named.iter().filter(|peer| peer.ip_block.is_none()).any(|peer| {
                let in_namespace = match &peer.namespace_selector {
                    Some(selector) => {
                        let labels = self.namespaces.get(subject.namespace.as_str()).copied().flatten();
                        label_selector_matches(Some(selector), labels)
                    }
                    None => subject.namespace == own,
                };
                in_namespace && selects(peer.pod_selector.as_ref(), subject.labels.as_ref())
            })
        };
        let pods: Vec<&Subject<A>> = self.subjects.iter().filter(is_named).collect();
        if !pods.is_empty() {
            found.push((Peers::Pods(pods.iter().map(|pod| pod.address).collect()), pods));
        }
        for block in named.iter().filter_map(|peer| peer.ip_block.as_ref()) {
            // A range of the other family has nobody here.
            let Ok(range) = block.cidr.parse() else { continue };
            let except = block.except.iter().flatten().filter_map(|range| range.parse().ok()).collect();
            found.push((Peers::Range { range, except }, Vec::new()));
        }
        found
    }

    /// What an egress rule allows. A port by name is that of each pod at the other end.
    fn egress(
        &self,
        to: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
        own: &str,
    ) -> Vec<Allowed<A>> {
        let mut allowed = Vec::new();
        for (peers, pods) in self.peers(to, own) {
            let by_number = resolve(ports, &[]);
            allowed.extend(by_number.iter().map(|ports| allow(&peers, ports)));
            let mut by_name: BTreeMap<Ports, BTreeSet<A>> = BTreeMap::new();
            for pod in pods {
                let named =
                    ports.unwrap_or_default().iter().filter(|port| matches!(port.port, Some(IntOrString::String(_))));
                for ports in named.filter_map(|port| resolve_one(port, &pod.ports)) {
                    by_name.entry(ports).or_default().insert(pod.address);
                }
            }
            let one = |(ports, pods)| Allowed { peers: Peers::Pods(pods), ports: vec![ports] };
            allowed.extend(by_name.into_iter().map(one));
        }
        allowed
    }
}

/// The ports of a rule, empty for all; `None` if it names some, but none that is there.
fn resolve(named: Option<&[NetworkPolicyPort]>, of_target: &[(String, Protocol, u16)]) -> Option<Vec<Ports>> {
    let named = named.unwrap_or_default();
    let found: Vec<Ports> = named.iter().filter_map(|port| resolve_one(port, of_target)).collect();
    (named.is_empty() || !found.is_empty()).then_some(found)
}

fn resolve_one(port: &NetworkPolicyPort, of_target: &[(String, Protocol, u16)]) -> Option<Ports> {
    let protocol = protocol(port.protocol.as_deref())?;
    let range = match &port.port {
        None => None,
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?;
            Some((first, last))
        }
        Some(IntOrString::String(name)) => {
            let number = of_target.iter().find(|(known, of, _)| known == name && *of == protocol)?.2;
            Some((number, number))
        }
    };
    Some(Ports { protocol, range })
}

#[cfg(test)]
mod tests;
