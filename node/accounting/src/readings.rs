//! What is seen of a contract now: pure, from the objects of the API and the meters.
//!
//! The buyer's capacity is *ready* if and only if its virtual node is; the seller's, if the buyer uses it and the link to it is up.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluidos_model::kinds::{Allocation, AllocationPhase, names};
use fluidos_model::receipt::Reading;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::accounts::Kept;
use crate::{Meters, Traffic, Usage};

/// What stands in the API now.
pub(crate) struct View {
    pub allocations: Vec<Arc<Allocation>>,
    pub nodes: Vec<Arc<Node>>,
    pub pods: Vec<Arc<Pod>>,
}

impl View {
    /// Looks at a contract. `first` is the first of the contracts with this peer by name: the packets of all are counted there.
    pub fn read(&self, kept: &mut Kept, meters: &dyn Meters, first: bool) -> Reading {
        let (peer, sells) = (kept.peer(), kept.sells());
        let pods: Vec<&Pod> = match sells {
            true => self.pods.iter().map(AsRef::as_ref).filter(|pod| is_of(pod, kept.name())).filter(runs).collect(),
            false => {
                let node = self.node(kept.name()).map(|node| node.name_any());
                let bound = |pod: &&Pod| node.is_some() && pod.spec.as_ref().and_then(|s| s.node_name.clone()) == node;
                self.pods.iter().map(AsRef::as_ref).filter(bound).filter(runs).collect()
            }
        };
        let serving = match sells {
            true => self.is_used(kept.name()) && meters.is_up(&peer),
            false => self.node(kept.name()).is_some_and(is_ready),
        };
        let (to_peer, from_peer) = if first { packets(kept, meters.traffic(&peer)) } else { (None, None) };
        let (bytes_to_seller, bytes_to_buyer) = if sells { (from_peer, to_peer) } else { (to_peer, from_peer) };
        let (cpu_ms, memory_mib) = if sells { used(kept, &pods, meters) } else { (None, None) };
        Reading { serving, pods: pods.len() as u64, memory_mib, cpu_ms, bytes_to_seller, bytes_to_buyer }
    }

    fn node(&self, contract: &str) -> Option<&Node> {
        let is_virtual = |node: &&Node| {
            node.labels().contains_key(names::VIRTUAL_NODE)
                && node.labels().get(names::LABEL_CONTRACT).map(String::as_str) == Some(contract)
        };
        self.nodes.iter().map(AsRef::as_ref).find(is_virtual)
    }

    fn is_used(&self, contract: &str) -> bool {
        let of = |allocation: &&Arc<Allocation>| {
            allocation.spec.contract.name == contract && allocation.metadata.deletion_timestamp.is_none()
        };
        let active = |allocation: &Arc<Allocation>| {
            allocation.status.as_ref().is_some_and(|status| status.status == AllocationPhase::Active)
        };
        self.allocations.iter().find(of).is_some_and(active)
    }
}

fn is_of(pod: &Pod, contract: &str) -> bool {
    pod.labels().get(names::LABEL_CONTRACT).map(String::as_str) == Some(contract)
}

fn runs(pod: &&Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Bytes since the last look. Counters begin at 0 with the process, so what the first look finds may be of before.
fn packets(kept: &mut Kept, traffic: Option<Traffic>) -> (Option<u64>, Option<u64>) {
    let Some(now) = traffic else { return (None, None) };
    let before = kept.traffic.replace(now).unwrap_or(now);
    (Some(now.to_peer.saturating_sub(before.to_peer)), Some(now.from_peer.saturating_sub(before.from_peer)))
}

/// CPU since the last look, and memory now. A pod that came since is counted from its start.
fn used(kept: &mut Kept, pods: &[&Pod], meters: &dyn Meters) -> (Option<u64>, Option<u64>) {
    let mut now: BTreeMap<String, u64> = BTreeMap::new();
    let (mut cpu, mut memory, mut known) = (0u64, 0u64, pods.is_empty());
    for pod in pods {
        let Some(uid) = pod.uid() else { continue };
        let Some(Usage { cpu_ms, memory_mib }) = meters.usage(&uid) else { continue };
        known = true;
        memory = memory.saturating_add(memory_mib);
        let before = match &kept.cpu {
            Some(before) => before.get(&uid).copied().unwrap_or(0),
            None => cpu_ms,
        };
        cpu = cpu.saturating_add(cpu_ms.saturating_sub(before));
        now.insert(uid, cpu_ms);
    }
    kept.cpu = Some(now);
    if known && !pods.is_empty() { (Some(cpu), Some(memory)) } else { (None, None) }
}
