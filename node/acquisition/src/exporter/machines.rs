//! What this owner's machines can give: an offer is the owner's word, and no more of it is sold than they have.
//!
//! ```text
//!  Σ allocatable of machines that are ready and take pods ─ what the owner's own pods there ask for ─▶ deliverable
//!  capacity of the Ledger = the least of --offer and that              no machine: the owner's word stands
//! ```
//! A machine is a Node with an allocatable that is no virtual one; it takes pods if it is ready, not cordoned, and has no taint
//! that keeps them away. Pods of contracts do not count: what they take is promised in the Ledger.
//! When the owner's own pods come, less is left: promises stay, nothing new is promised, and what is paid per use yields.

use std::sync::Arc;
use std::time::Duration;

use fluidos_model::kinds::names;
use fluidos_model::market::{Amounts, Quantity, Resource, requested_of_traded};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt as _;

use super::Exporter;

/// Pods come in bursts, and each is one write of the Ledger.
const GATHER: Duration = Duration::from_secs(1);

impl Exporter {
    /// Returns what can be sold altogether; `None` sells nothing.
    pub(super) async fn capacity(&self) -> Option<Amounts> {
        let offer = self.options.offer.as_ref()?;
        let (nodes, pods) = (self.caches.all::<Node>(), self.caches.all::<Pod>());
        tokio::join!(nodes.synced(), pods.synced());
        let Some(has) = deliverable(&nodes.list(), &pods.list()) else { return Some(offer.clone()) };
        Some(offer.least(&has))
    }

    /// Keeps the capacity of the Ledger as the machines have it, for ever.
    pub(super) async fn follow_machines(&self) {
        if self.options.offer.is_none() {
            return;
        }
        let (nodes, pods) = (self.caches.all::<Node>(), self.caches.all::<Pod>());
        let (mut machines, mut load) = (nodes.changes(), pods.changes());
        let mut last = None;
        loop {
            let capacity = self.capacity().await;
            if let Some(capacity) = capacity.filter(|capacity| last.as_ref() != Some(capacity)) {
                match self.books.open(Some(capacity.clone())).await {
                    Ok(()) => {
                        tracing::info!(%capacity, "what can be sold altogether, of the offer and of what the machines have left");
                        last = Some(capacity);
                    }
                    Err(error) => tracing::warn!(%error, "what can be sold was not written: it is tried again"),
                }
            }
            tokio::time::sleep(GATHER).await;
            tokio::select! {
                changed = machines.changed() => if changed.is_err() { return },
                changed = load.changed() => if changed.is_err() { return },
                // What was not written is tried again.
                () = tokio::time::sleep(super::SWEEP_MOST) => {}
            }
        }
    }
}

/// Returns what machines can give to contracts; `None` if there is none.
fn deliverable(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Option<Amounts> {
    // Guests run on the server's machine alone, so agents give nothing.
    let gives =
        |node: &&Arc<Node>| [names::VIRTUAL_NODE, names::AGENT].iter().all(|label| !node.labels().contains_key(*label));
    let machines: Vec<&Arc<Node>> = nodes.iter().filter(gives).filter(|node| allocatable(node).is_some()).collect();
    if machines.is_empty() {
        return None;
    }
    let usable: Vec<&&Arc<Node>> = machines.iter().filter(|node| takes_pods(node)).collect();
    let mut sum = Amounts::default();
    for machine in &usable {
        sum = sum.checked_add(&allocatable(machine).unwrap_or_default())?;
    }
    // What no machine says anything about is the owner's word; of devices that would be a guess.
    if machines.iter().all(|node| allocatable(node).unwrap_or_default().storage_bytes == 0) {
        sum.storage_bytes = u64::MAX;
    }
    let there: Vec<String> = usable.iter().map(|node| node.name_any()).collect();
    let own = pods.iter().filter(|pod| is_own(pod, &there));
    let own = own.filter_map(|pod| Some(asks(pod.spec.as_ref()?)));
    // What cannot be counted is more than there is.
    let own = own.into_iter().try_fold(Amounts::default(), |sum, pod| sum.checked_add(&pod));
    Some(own.map(|own| sum.saturating_sub(&own)).unwrap_or_default())
}

/// What a pod asks for; what is no amount is one pod.
fn asks(spec: &k8s_openapi::api::core::v1::PodSpec) -> Amounts {
    requested_of_traded(spec).unwrap_or(Amounts { pods: 1, ..Amounts::default() })
}

fn allocatable(node: &Node) -> Option<Amounts> {
    let texts = node.status.as_ref()?.allocatable.as_ref()?;
    let mut amounts = Amounts::default();
    for (name, text) in texts {
        // `hugepages-2Mi` and its kin are not traded.
        if let (Ok(resource), Ok(quantity)) = (Resource::parse(name), Quantity::parse(&text.0)) {
            amounts.set(&resource, resource.offered(quantity));
        }
    }
    Some(amounts)
}

fn takes_pods(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    // Pods of buyers tolerate no taint: one that keeps pods away keeps them away, too.
    let keeps_away = |taint: &Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(keeps_away);
    is_ready && !tainted && node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true)
}

/// Whether a pod of the owner itself runs on one of these machines.
fn is_own(pod: &Pod, machines: &[String]) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let of_contract =
        pod.labels().contains_key(names::LABEL_CONTRACT) || pod.labels().contains_key(names::LABEL_SERVICE);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    !of_contract && !matches!(phase, Some("Succeeded" | "Failed")) && node.is_some_and(|node| machines.contains(node))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, more: Value) -> Arc<Node> {
        let mut node = json!({"metadata": {"name": name, "labels": {}}, "spec": {},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "hugepages-2Mi": "0", "example.com/fpga": "2"},
                       "conditions": [{"type": "Ready", "status": "True"}]}});
        merge(&mut node, more);
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more,
        }
    }

    fn pod(node: &str, labels: &Value, phase: &str) -> Arc<Pod> {
        let requests = json!({"cpu": "1500m", "memory": "1Gi", "example.com/fpga": "1"});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": labels},
                "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": requests}}]},
                "status": {"phase": phase}}))
            .unwrap(),
        )
    }

    fn told(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> String {
        deliverable(nodes, pods).map_or("the owner's word".into(), |mut has| {
            has.storage_bytes = 0;
            has.to_string()
        })
    }

    #[test]
    fn what_can_be_delivered_is_what_machines_have_without_the_owners_own_pods() {
        let virtual_node = node("virtual", json!({"metadata": {"labels": {names::VIRTUAL_NODE: "true"}}}));
        let new = node("new", json!({"status": {"allocatable": null}}));
        assert_eq!(told(&[], &[]), "the owner's word");
        assert_eq!(told(&[virtual_node.clone(), new], &[]), "the owner's word", "nobody knows yet what it has");
        let (one, two) = (node("one", json!({})), node("two", json!({})));
        assert_eq!(told(&[one.clone(), two, virtual_node], &[]), "cpu 8, memory 16Gi, pods 220, example.com/fpga 4");
        let own = |node: &str, phase: &str| pod(node, &json!({}), phase);
        let all = [
            own("one", "Running"),
            own("one", "Succeeded"),
            own("virtual", "Running"),
            pod("one", &json!({names::LABEL_CONTRACT: "c"}), "Running"),
            pod("one", &json!({names::LABEL_SERVICE: "c"}), "Running"),
        ];
        assert_eq!(told(std::slice::from_ref(&one), &all), "cpu 2500m, memory 7Gi, pods 109, example.com/fpga 1");
        let pages = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "one", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "3", "hugepages-2Mi": "64Mi"}}}]}});
        let pages = [Arc::new(serde_json::from_value(pages).unwrap())];
        assert_eq!(told(std::slice::from_ref(&one), &pages), "cpu 1, memory 8Gi, pods 109, example.com/fpga 2");
        let many: Vec<_> = (0..9).map(|_| own("one", "Running")).collect();
        assert_eq!(told(&[one], &many), "pods 101", "nothing is less than nothing");
    }

    #[test]
    fn a_machine_that_takes_no_pods_has_nothing_to_give() {
        let cordoned = node("one", json!({"spec": {"unschedulable": true}}));
        let silent = node("two", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
        let tainted = |effect: &str| node("three", json!({"spec": {"taints": [{"key": "mine", "effect": effect}]}}));
        assert_eq!(told(&[cordoned, silent, tainted("NoSchedule"), tainted("NoExecute")], &[]), "nothing");
        assert_eq!(told(&[tainted("PreferNoSchedule")], &[]), "cpu 4, memory 8Gi, pods 110, example.com/fpga 2");
    }

    #[test]
    fn storage_of_which_no_machine_speaks_is_the_owners_word() {
        assert_eq!(deliverable(&[node("one", json!({}))], &[]).unwrap().storage_bytes, u64::MAX);
        let speaks = node("one", json!({"status": {"allocatable": {"ephemeral-storage": "10Gi"}}}));
        assert_eq!(deliverable(&[speaks], &[]).unwrap().storage_bytes, 10 << 30);
    }
}
