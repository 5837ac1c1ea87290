//! Guests on this machine: the twins of peers' pods, and what their network may reach: their consumer's addresses, and
//! nothing else: not this machine, its LAN, its API, its Services, its pods.

use std::collections::BTreeMap;

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Contract, names};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use substrate_client::Cache;
use substrate_network::{Cidr, ConfinedPod, NodeNetwork};

use crate::network::prefix;

/// Says whether a pod runs here for somebody else.
pub fn is_guest(pod: &Pod) -> bool {
    pod.labels().contains_key(names::LABEL_CONTRACT)
}

/// Keeps every guest confined to its consumer, for ever. A guest whose contract is not known reaches nothing.
pub async fn confine(client: Client, contracts: Cache<Contract>, network: NodeNetwork, speakers: Speakers) {
    let selection = kube::runtime::watcher::Config::default().labels(names::LABEL_CONTRACT);
    let pods = Cache::<Pod>::start_with(Api::all(client), selection);
    tokio::join!(pods.synced(), contracts.synced());
    let (mut pods_changed, mut contracts_changed) = (pods.changes(), contracts.changes());
    let mut applied: Option<Vec<ConfinedPod>> = None;
    loop {
        pods_changed.mark_unchanged();
        contracts_changed.mark_unchanged();
        let (pod_list, contract_list) = (pods.list(), contracts.list());
        let wanted = plan(pod_list.iter().map(AsRef::as_ref), contract_list.iter().map(AsRef::as_ref), &speakers);
        if applied.as_ref() != Some(&wanted) {
            match network.set_confined(wanted.clone()).await {
                Ok(()) => applied = Some(wanted),
                Err(error) => tracing::warn!(%error, "guests reach nothing until the rules can be set"),
            }
        }
        // Losing the race loses nothing: what has changed stays marked.
        tokio::select! {
            _ = pods_changed.changed() => {}
            _ = contracts_changed.changed() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
        }
    }
}

/// What each guest that has an address may reach.
fn plan<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    contracts: impl Iterator<Item = &'a Contract>,
    speakers: &Speakers,
) -> Vec<ConfinedPod> {
    let buyers: BTreeMap<String, NodeId> = contracts.filter_map(|c| Some((c.name_any(), buyer(c)?))).collect();
    let mut confined: Vec<ConfinedPod> = pods
        .filter(|pod| is_guest(pod))
        .filter_map(|pod| {
            let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
            let consumer = pod.labels().get(names::LABEL_CONTRACT).and_then(|contract| buyers.get(contract));
            let allow_to: Vec<Cidr> = consumer.map(|key| prefix(&speakers.first(key))).into_iter().collect();
            Some(ConfinedPod { address, allow_to, own_cluster: false })
        })
        .collect();
    confined.sort();
    confined.dedup_by_key(|pod| pod.address);
    confined
}

fn buyer(contract: &Contract) -> Option<NodeId> {
    contract.spec.buyer.additional_information.as_ref()?.did.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::NodeKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guest_reaches_its_consumer_and_without_a_contract_nothing() {
        let consumer = NodeKey::from_seed([1; 32]).unwrap().id();
        let mut contract = Contract::new("contract-1", Default::default());
        contract.spec.buyer.additional_information.get_or_insert_default().did = Some(consumer.to_string());
        let pod = |labels: serde_json::Value, ip: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}, "status": {"podIP": ip}}))
                .unwrap()
        };
        let pods = [
            pod(json!({ names::LABEL_CONTRACT: "contract-1" }), "100.64.0.2"),
            pod(json!({ names::LABEL_CONTRACT: "contract-gone" }), "100.64.0.3"),
            pod(json!({}), "100.64.0.4"),
        ];
        let told: Vec<_> = plan(pods.iter(), [contract].iter(), &Speakers::default())
            .into_iter()
            .map(|p| (p.address.to_string(), p.allow_to, p.own_cluster))
            .collect();
        assert_eq!(told, [("100.64.0.2".into(), vec![prefix(&consumer)], false), ("100.64.0.3".into(), vec![], false)]);
    }
}
