//! Filters: why a pod cannot run on a node. The first filter that speaks is heard.
mod affinity;
mod spread;

use k8s_openapi::api::core::v1::{ContainerPort, Pod, Taint};
use substrate_client::quantity::Quantity;

pub(crate) use affinity::attraction;
pub(crate) use spread::{Spread, Spreads};

use affinity::Affinities;

use crate::guarantee::Kept;
use crate::view::{NodeInfo, View};
use substrate_client::lookup::{node_matches_affinity, taints, tolerates, tolerations};
use substrate_client::requests::{Resources, pod_requests};

/// What is worked out once per pod, not once per node.
pub(crate) struct Prepared {
    requests: Resources,
    ports: Vec<(String, String, i32)>,
    affinities: Affinities,
    spreads: Spreads,
    kept: Kept,
}

impl Prepared {
    pub fn new(view: &View, pod: &Pod) -> Prepared {
        Prepared {
            requests: pod_requests(pod),
            ports: host_ports(pod),
            affinities: Affinities::new(view, pod),
            spreads: Spreads::new(view, pod, "DoNotSchedule"),
            kept: Kept::new(view, pod),
        }
    }
}

/// The reasons of the first filter that does not let the pod onto the node, in kube-scheduler's order and words.
pub(crate) fn first_failure(prepared: &Prepared, pod: &Pod, node: &NodeInfo) -> Option<Vec<String>> {
    let one = |reason: Option<String>| reason.map(|reason| vec![reason]);
    one(unschedulable(pod, node))
        .or_else(|| one(node_name(pod, node)))
        .or_else(|| one(taint(pod, node)))
        .or_else(|| one(node_affinity(pod, node)))
        .or_else(|| one(free_ports(prepared, node)))
        .or_else(|| fit(prepared, node))
        .or_else(|| one(prepared.kept.failure(node)))
        .or_else(|| one(prepared.spreads.failure(node)))
        .or_else(|| one(prepared.affinities.failure(node)))
}

fn unschedulable(pod: &Pod, node: &NodeInfo) -> Option<String> {
    let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    (cordoned && !tolerates(tolerations(pod), &taint)).then(|| "node(s) were unschedulable".to_owned())
}

fn node_name(pod: &Pod, node: &NodeInfo) -> Option<String> {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    let other = wanted.is_some_and(|wanted| wanted != node.name());
    other.then(|| "node(s) didn't match the requested node name".to_owned())
}

fn taint(pod: &Pod, node: &NodeInfo) -> Option<String> {
    let mut hard =
        taints(&node.node).iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    let taint = hard.find(|taint| !tolerates(tolerations(pod), taint))?;
    Some(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default()))
}

fn node_affinity(pod: &Pod, node: &NodeInfo) -> Option<String> {
    let matches = node_matches_affinity(pod, &node.node);
    (!matches).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Host address, protocol, port.
fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let on_host = spec.host_network.unwrap_or(false);
    let port = |port: &ContainerPort| {
        let number = port.host_port.filter(|n| *n > 0).or(on_host.then_some(port.container_port))?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    };
    ports.filter_map(port).collect()
}

fn free_ports(prepared: &Prepared, node: &NodeInfo) -> Option<String> {
    let clash = |a: &(String, String, i32), b: &(String, String, i32)| {
        a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
    };
    if prepared.ports.is_empty() {
        return None;
    }
    let taken =
        node.pods.iter().flat_map(|pod| host_ports(pod)).any(|used| prepared.ports.iter().any(|p| clash(p, &used)));
    taken.then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
}

fn fit(prepared: &Prepared, node: &NodeInfo) -> Option<Vec<String>> {
    let mut reasons = Vec::new();
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if Quantity::whole(pods.saturating_add(1)) > node.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in &prepared.requests.0 {
        let free = node.allocatable.get(name) - node.requested.get(name);
        if !amount.is_zero() && *amount > free {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    (!reasons.is_empty()).then_some(reasons)
}
