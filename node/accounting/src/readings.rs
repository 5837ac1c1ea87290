//! What is seen of a contract now: pure, from the objects of the API and the meters.
//!
//! The buyer's capacity is *ready* if and only if its virtual node is; the seller's, if the buyer uses it and the link to it is up. A service is
//! ready, for either, if it can be used (its Allocation is Active) and the link is up; its seller measures CPU and memory, as of a slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluidos_model::kinds::{Allocation, AllocationPhase, names};
use fluidos_model::market::{Amounts, BusinessModel, SHARE_MOST, requested, share};
use fluidos_model::receipt::Reading;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::accounts::Kept;
use crate::{Meters, Traffic, Usage};

/// What stands in the API now, by contract: a look costs as much as there is, not contracts × pods.
#[derive(Default)]
pub(crate) struct View {
    /// Whether the buyer uses the capacity.
    used: BTreeMap<String, bool>,
    /// How many of the buyer's pods yield.
    yielding: BTreeMap<String, u64>,
    nodes: BTreeMap<String, Arc<Node>>,
    /// Pods that run here for others.
    twins: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Pods that run, by node; on virtual nodes also those of others that are served there.
    bound: BTreeMap<String, Vec<Arc<Pod>>>,
}

impl View {
    pub fn new(allocations: &[Arc<Allocation>], nodes: Vec<Arc<Node>>, pods: Vec<Arc<Pod>>) -> Self {
        let mut view = Self::default();
        for allocation in allocations.iter().filter(|allocation| allocation.metadata.deletion_timestamp.is_none()) {
            let active = allocation.status.as_ref().is_some_and(|status| status.status == AllocationPhase::Active);
            let contract = allocation.spec.contract.name.clone();
            view.yielding.insert(contract.clone(), allocation.status.as_ref().map_or(0, |status| status.yielding));
            view.used.insert(contract, active);
        }
        for node in nodes.into_iter().filter(|node| node.labels().contains_key(names::VIRTUAL_NODE)) {
            if let Some(contract) = node.labels().get(names::LABEL_CONTRACT) {
                view.nodes.insert(contract.clone(), node);
            }
        }
        for pod in pods.into_iter().filter(|pod| runs(pod)) {
            if let Some(contract) = serves(&pod).cloned() {
                view.twins.entry(contract).or_default().push(pod.clone());
            }
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                view.bound.entry(node).or_default().push(pod);
            }
        }
        view
    }

    /// Looks at a contract. `first` is the first of the contracts with this peer by name: the packets of all are counted there.
    pub fn read(&self, kept: &mut Kept, meters: &dyn Meters, first: bool) -> Reading {
        let (peer, sells) = (kept.peer(), kept.sells());
        let in_use = self.used.get(kept.name()).is_some_and(|used| *used) && meters.is_up(&peer);
        let (to_peer, from_peer) = if first { packets(kept, meters.traffic(&peer)) } else { (None, None) };
        let none = Vec::new();
        let (bought, conditions) = kept.bought();
        let (per_use, bought) = (conditions.business_model == BusinessModel::PayPerUse, bought.clone());
        // A service is used as long as it is there: how much of it is not measured.
        let whole = kept.is_service();
        let used_of =
            |pods: &[Arc<Pod>]| per_use.then(|| if whole { SHARE_MOST } else { share(&bought, &asked(pods)) });
        let yielding = per_use.then(|| self.yielding.get(kept.name()).copied().unwrap_or(0));
        if sells {
            let twins = self.twins.get(kept.name()).unwrap_or(&none);
            let serving = in_use;
            // How large it may be was not signed: then nobody can say how much it may have used.
            let measured = if bought.is_zero() { &none } else { twins };
            let (cpu_ms, memory_mib) = used(kept, measured, meters);
            let (bytes_to_seller, bytes_to_buyer) = (from_peer, to_peer);
            // The pods of a service are its seller's: its buyer does not see how many there are.
            let (pods, used_ppm) = (if whole { 0 } else { twins.len() as u64 }, used_of(twins));
            let running = if whole { Vec::new() } else { twins.iter().filter_map(|twin| origin_uid(twin)).collect() };
            return Reading {
                serving,
                pods,
                running,
                used_ppm,
                yielding,
                memory_mib,
                cpu_ms,
                bytes_to_seller,
                bytes_to_buyer,
            };
        }
        let node = self.nodes.get(kept.name());
        let pods = node.and_then(|node| self.bound.get(&node.name_any())).unwrap_or(&none);
        let serving = if kept.is_service() { in_use } else { node.is_some_and(|node| is_ready(node)) };
        Reading {
            serving,
            pods: pods.len() as u64,
            running: pods.iter().filter_map(|pod| pod.uid()).collect(),
            used_ppm: used_of(pods),
            yielding,
            memory_mib: None,
            cpu_ms: None,
            bytes_to_seller: to_peer,
            bytes_to_buyer: from_peer,
        }
    }
}

/// What pods ask for together. One that asks for what nobody sells is one pod: both sides read it alike.
fn asked(pods: &[Arc<Pod>]) -> Amounts {
    let one = Amounts { pods: 1, ..Amounts::default() };
    let of = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|spec| requested(spec).ok()).unwrap_or_else(|| one.clone());
    // What cannot be counted is all of it.
    let all = Amounts { cpu_milli: u64::MAX, ..one.clone() };
    pods.iter().map(of).try_fold(Amounts::default(), |sum, pod| sum.checked_add(&pod)).unwrap_or(all)
}

/// The contract for which a pod runs here.
fn serves(pod: &Pod) -> Option<&String> {
    pod.labels().get(names::LABEL_SERVICE).or_else(|| pod.labels().get(names::LABEL_CONTRACT))
}

/// The UID that a twin's pod has at the buyer.
fn origin_uid(twin: &Pod) -> Option<String> {
    let origin = twin.annotations().get(names::ANNOTATION_ORIGIN)?;
    origin.rsplit('/').next().filter(|uid| !uid.is_empty()).map(str::to_owned)
}

fn runs(pod: &Pod) -> bool {
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
fn used(kept: &mut Kept, pods: &[Arc<Pod>], meters: &dyn Meters) -> (Option<u64>, Option<u64>) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// A reseller's: the twin of a contract that it has sold, on the node of one that it has bought.
    #[test]
    fn what_is_passed_on_counts_in_what_was_sold_and_in_what_was_bought() {
        let object = |value: Value| serde_json::from_value(value).unwrap();
        let twin: Pod = object(json!({"metadata": {"name": "web", "labels": {names::LABEL_CONTRACT: "sold"}},
            "spec": {"nodeName": "grid", "containers": []}, "status": {"phase": "Running"}}));
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "grid",
            "labels": {names::VIRTUAL_NODE: "true", names::LABEL_CONTRACT: "bought"}}}))
        .unwrap();
        let view = View::new(&[], vec![Arc::new(node)], vec![Arc::new(twin)]);
        assert_eq!(view.twins["sold"].len(), 1);
        assert_eq!(view.bound[&view.nodes["bought"].name_any()].len(), 1);
    }
    #[test]
    fn pods_of_a_service_count_in_its_contract() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "db", "labels": {names::LABEL_SERVICE: "sold"}},
            "spec": {"containers": []}, "status": {"phase": "Running"}}))
            .unwrap();
        let view = View::new(&[], Vec::new(), vec![Arc::new(pod)]);
        assert_eq!(view.twins["sold"].len(), 1);
    }
}
