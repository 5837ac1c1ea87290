//! Filters: why a pod cannot run on a node. The first filter that speaks is heard.
mod affinity;
mod spread;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerPort, NodeSelectorTerm, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::Selector;
use substrate_client::lookup::{node_matches_affinity, taints, tolerates, tolerations};
use substrate_client::quantity::Quantity;
use substrate_client::requests::{Resources, pod_requests};

pub(crate) use affinity::Affinities;
pub(crate) use spread::{Spread, Spreads};

use crate::storage::Needs;
use crate::view::{NodeInfo, View};

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In kube-scheduler's words.
    pub reasons: Vec<String>,
    /// It would still be so if other pods left the node.
    pub lasts: bool,
}

impl Failure {
    pub fn new(reason: impl Into<String>) -> Failure {
        Failure { reasons: vec![reason.into()], lasts: false }
    }

    pub fn lasting(reason: impl Into<String>) -> Failure {
        Failure { reasons: vec![reason.into()], lasts: true }
    }
}

/// What a pod wants of a node alone, worked out once.
pub(crate) struct Wants {
    pub requests: Resources,
    ports: Vec<(String, String, i32)>,
    /// The nodes that its affinity names.
    named: Option<BTreeSet<String>>,
    pub needs: Needs,
}

impl Wants {
    pub fn new(view: &View, pod: &Pod) -> Wants {
        Wants {
            requests: pod_requests(pod),
            ports: host_ports(pod),
            named: named(pod),
            needs: Needs::new(view.storage(), pod),
        }
    }

    /// Why no node at all would do.
    pub fn refused(&self) -> Option<String> {
        let conflict = self.named.as_ref().is_some_and(BTreeSet::is_empty);
        conflict.then(|| "pod affinity terms conflict".to_owned()).or_else(|| self.needs.refused.clone())
    }
}

/// A filter that looks at one node and its pods.
pub(crate) type Filter = fn(&Wants, &Pod, &NodeInfo) -> Option<Failure>;

/// Those in kube-scheduler's order; spread and affinity, which look at all nodes, come after them.
pub(crate) const OF_ONE_NODE: [(&str, Filter); 8] = [
    ("NodeUnschedulable", unschedulable),
    ("NodeName", node_name),
    ("TaintToleration", taint),
    ("NodeAffinity", node_affinity),
    ("NodePorts", free_ports),
    ("NodeResourcesFit", fit),
    ("VolumeBinding", |wants, _, node| wants.needs.binding(node)),
    ("VolumeZone", |wants, _, node| wants.needs.zone(node)),
];

/// A selector with the values that the pod has for some keys.
fn selector_with<'a>(
    of: &Pod,
    selector: &LabelSelector,
    keys: impl IntoIterator<Item = (&'a Option<Vec<String>>, &'a str)>,
) -> Option<Selector> {
    let mut selector = selector.clone();
    for (keys, operator) in keys {
        for key in keys.iter().flatten() {
            if let Some(value) = of.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
                selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                });
            }
        }
    }
    Selector::try_from(selector).ok()
}

fn unschedulable(_: &Wants, pod: &Pod, node: &NodeInfo) -> Option<Failure> {
    let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let refused = cordoned && !tolerates(tolerations(pod), &taint);
    refused.then(|| Failure::lasting("node(s) were unschedulable"))
}

fn node_name(_: &Wants, pod: &Pod, node: &NodeInfo) -> Option<Failure> {
    let other = crate::view::node_name(pod).is_some_and(|wanted| wanted != node.name());
    other.then(|| Failure::lasting("node(s) didn't match the requested node name"))
}

fn taint(_: &Wants, pod: &Pod, node: &NodeInfo) -> Option<Failure> {
    let mut hard =
        taints(&node.node).iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    let taint = hard.find(|taint| !tolerates(tolerations(pod), taint))?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(Failure::lasting(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
}

/// The nodes that every term of the required affinity names; nothing if one names none.
fn named(pod: &Pod) -> Option<BTreeSet<String>> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let of = |term: &NodeSelectorTerm| {
        let fields = term.match_fields.iter().flatten();
        let names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let sets = names.map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<String>>());
        sets.reduce(|a, b| a.intersection(&b).cloned().collect())
    };
    let each: Option<Vec<BTreeSet<String>>> = terms.iter().map(of).collect();
    each.filter(|each| !each.is_empty()).map(|each| each.into_iter().flatten().collect())
}

/// The reason of the nodes that an affinity by name leaves out, whatever else speaks against them.
pub(crate) fn left_out(wants: &Wants, node: &NodeInfo) -> Option<Failure> {
    let other = wants.named.as_ref().is_some_and(|named| !named.contains(node.name()));
    other.then(|| Failure::lasting("node(s) didn't satisfy plugin(s) [NodeAffinity]"))
}

fn node_affinity(_: &Wants, pod: &Pod, node: &NodeInfo) -> Option<Failure> {
    let matches = node_matches_affinity(pod, &node.node);
    (!matches).then(|| Failure::lasting("node(s) didn't match Pod's node affinity/selector"))
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

fn free_ports(wants: &Wants, _: &Pod, node: &NodeInfo) -> Option<Failure> {
    let clash = |a: &(String, String, i32), b: &(String, String, i32)| {
        a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
    };
    if wants.ports.is_empty() {
        return None;
    }
    let mut used = node.pods.iter().flat_map(|pod| host_ports(pod));
    let taken = used.any(|used| wants.ports.iter().any(|port| clash(port, &used)));
    taken.then(|| Failure::new("node(s) didn't have free ports for the requested pod ports"))
}

fn fit(wants: &Wants, _: &Pod, node: &NodeInfo) -> Option<Failure> {
    let (mut reasons, mut lasts) = (Vec::new(), false);
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if Quantity::whole(pods.saturating_add(1)) > node.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in &wants.requests.0 {
        let all = node.allocatable.get(name);
        if !amount.is_zero() && *amount > all - node.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
            lasts |= *amount > all;
        }
    }
    (!reasons.is_empty()).then_some(Failure { reasons, lasts })
}
