//! Guests on this machine: the twins of peers' pods, the pods of services that are sold to them, and what their network may reach: their
//! consumer's addresses, or those of who stands behind it (`resale`), and nothing else: not this machine, its LAN, its API, its Services, its
//! pods. Pods of one service reach one another.

use std::collections::BTreeMap;

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Contract, names};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt};
use substrate_client::{Cache, Pace};
use substrate_network::{Cidr, ConfinedPod, NodeNetwork};

use crate::network::prefix;
use crate::resale;

/// Says whether a pod runs here for somebody else.
pub fn is_guest(pod: &Pod) -> bool {
    contract_of(pod).is_some()
}

/// Who brings the images of a pod: the consumer on its contract. Those of a service that is sold are this node's own.
pub fn brings_images(pod: &Pod) -> Option<String> {
    pod.labels().get(names::LABEL_CONTRACT).filter(|_| !is_of_service(pod)).cloned()
}

/// Says whether a pod is of a service that is sold.
fn is_of_service(pod: &Pod) -> bool {
    pod.labels().contains_key(names::LABEL_SERVICE)
}

/// The contract for which a pod runs here.
fn contract_of(pod: &Pod) -> Option<&String> {
    pod.labels().get(names::LABEL_SERVICE).or_else(|| pod.labels().get(names::LABEL_CONTRACT))
}

/// Keeps every guest confined to its consumer, for ever. A guest whose contract is not known reaches nothing.
pub async fn confine(client: Client, contracts: Cache<Contract>, network: NodeNetwork, speakers: Speakers) {
    let labelled = |label: &str| kube::runtime::watcher::Config::default().labels(label);
    let pods = Cache::<Pod>::start_with(Api::all(client.clone()), labelled(names::LABEL_CONTRACT));
    let of_services = Cache::<Pod>::start_with(Api::all(client.clone()), labelled(names::LABEL_SERVICE));
    let namespaces = Cache::<Namespace>::start_with(Api::all(client), labelled(names::LABEL_SERVICE));
    tokio::join!(pods.synced(), of_services.synced(), namespaces.synced(), contracts.synced());
    let (mut pods_changed, mut contracts_changed) = (pods.changes(), contracts.changes());
    let (mut services_changed, mut namespaces_changed) = (of_services.changes(), namespaces.changes());
    let mut applied: Option<Vec<ConfinedPod>> = None;
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        pods_changed.mark_unchanged();
        contracts_changed.mark_unchanged();
        services_changed.mark_unchanged();
        namespaces_changed.mark_unchanged();
        let (mut pod_list, contract_list) = (pods.list(), contracts.list());
        pod_list.extend(of_services.list());
        let homes = homes(namespaces.list().iter().map(AsRef::as_ref));
        let contract_list = contract_list.iter().map(AsRef::as_ref);
        let wanted = plan(pod_list.iter().map(AsRef::as_ref), contract_list, &homes, &speakers);
        if applied.as_ref() != Some(&wanted) {
            match network.set_confined(wanted.clone()).await {
                Ok(()) => applied = Some(wanted),
                Err(error) => tracing::warn!(%error, "guests reach nothing until the rules can be set"),
            }
        }
        pace.end();
        // Losing the race loses nothing: what has changed stays marked.
        tokio::select! {
            _ = pods_changed.changed() => {}
            _ = contracts_changed.changed() => {}
            _ = services_changed.changed() => {}
            _ = namespaces_changed.changed() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
        }
    }
}

/// Who uses the services that run here, where that is not their buyer: by the namespaces of their instances.
fn homes<'a>(namespaces: impl Iterator<Item = &'a Namespace>) -> BTreeMap<String, Cidr> {
    namespaces.filter_map(|known| Some((known.name_any(), resale::home_of_service(known)?))).collect()
}

/// What each guest that has an address may reach.
fn plan<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    contracts: impl Iterator<Item = &'a Contract>,
    homes: &BTreeMap<String, Cidr>,
    speakers: &Speakers,
) -> Vec<ConfinedPod> {
    let buyers: BTreeMap<String, NodeId> = contracts.filter_map(|c| Some((c.name_any(), buyer(c)?))).collect();
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse::<std::net::Ipv4Addr>().ok();
    // A twin that another runs has no address here, and what it has there names no pod of this machine.
    let guests: Vec<(&Pod, &String, std::net::Ipv4Addr)> = pods
        .filter(|pod| resale::stand_in(pod).is_none())
        .filter_map(|pod| Some((pod, contract_of(pod)?, address(pod)?)))
        .collect();
    let confined = guests.iter().map(|(pod, contract, address)| {
        let consumer = buyers.get(*contract);
        let of_service = || homes.get(&pod.namespace()?).copied().filter(|_| is_of_service(pod));
        let home = |key| resale::home(pod).or_else(of_service).unwrap_or_else(|| prefix(&speakers.first(key)));
        let home = consumer.map(home);
        let mut allow_to: Vec<Cidr> = home.into_iter().collect();
        if is_of_service(pod) && consumer.is_some() {
            let others =
                guests.iter().filter(|(other, of, at)| is_of_service(other) && of == contract && at != address);
            allow_to.extend(others.filter_map(|(_, _, at)| Cidr::new(*at, 32)));
            allow_to.sort();
        }
        ConfinedPod { address: *address, allow_to, own_cluster: false }
    });
    let mut confined: Vec<ConfinedPod> = confined.collect();
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
        let told: Vec<_> = plan(pods.iter(), [contract].iter(), &BTreeMap::new(), &Speakers::default())
            .into_iter()
            .map(|p| (p.address.to_string(), p.allow_to, p.own_cluster))
            .collect();
        assert_eq!(told, [("100.64.0.2".into(), vec![prefix(&consumer)], false), ("100.64.0.3".into(), vec![], false)]);
    }

    #[test]
    fn a_guest_of_somebody_behind_its_consumer_reaches_him_alone_and_one_that_goes_on_is_none() {
        let (owner, consumer) = ([1, 2]).map(|seed| NodeKey::from_seed([seed; 32]).unwrap().id()).into();
        let mut contract = Contract::new("contract-1", Default::default());
        contract.spec.buyer.additional_information.get_or_insert_default().did = Some(consumer.to_string());
        let pod = |notes: serde_json::Value, ip: &str| -> Pod {
            let labels = json!({ names::LABEL_CONTRACT: "contract-1" });
            let metadata = json!({"name": "a", "labels": labels, "annotations": notes});
            serde_json::from_value(json!({"metadata": metadata, "status": {"podIP": ip}})).unwrap()
        };
        let pods = [
            pod(json!({ names::ANNOTATION_HOME: prefix(&owner).to_string() }), "100.64.0.2"),
            pod(json!({ names::ANNOTATION_STAND_IN: "100.64.8.0" }), "100.64.0.3"),
        ];
        let told = plan(pods.iter(), [contract].iter(), &BTreeMap::new(), &Speakers::default());
        let told: Vec<_> = told.into_iter().map(|pod| (pod.address.to_string(), pod.allow_to)).collect();
        assert_eq!(told, [("100.64.0.2".into(), vec![prefix(&owner)])], "and not {}", prefix(&consumer));
    }

    #[test]
    fn pods_of_a_service_reach_one_another_and_their_buyer_and_not_those_of_another() {
        let consumer = NodeKey::from_seed([1; 32]).unwrap().id();
        let contract = |name: &str| {
            let mut contract = Contract::new(name, Default::default());
            contract.spec.buyer.additional_information.get_or_insert_default().did = Some(consumer.to_string());
            contract
        };
        let pod = |contract: &str, ip: &str| -> Pod {
            let labels = json!({ names::LABEL_SERVICE: contract });
            serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}, "status": {"podIP": ip}}))
                .unwrap()
        };
        let pods =
            [pod("one", "100.64.0.2"), pod("one", "100.64.0.3"), pod("two", "100.64.0.4"), pod("gone", "100.64.0.5")];
        assert!(pods.iter().all(is_guest));
        let contracts = [contract("one"), contract("two")];
        let told = plan(pods.iter(), contracts.iter(), &BTreeMap::new(), &Speakers::default());
        let told: Vec<_> = told.into_iter().map(|pod| (pod.address.to_string(), pod.allow_to)).collect();
        let (home, only) = (prefix(&consumer), |ip: &str| format!("{ip}/32").parse::<Cidr>().unwrap());
        let with = |ip: &str| {
            let mut both = vec![home, only(ip)];
            both.sort();
            both
        };
        assert_eq!(told[0], ("100.64.0.2".into(), with("100.64.0.3")));
        assert_eq!(told[1], ("100.64.0.3".into(), with("100.64.0.2")));
        assert_eq!((&told[2].1, &told[3].1), (&vec![home], &vec![]));
    }
    #[test]
    fn a_service_that_is_sold_on_reaches_who_uses_it_and_not_who_bought_it() {
        let [user, consumer] = [1, 2].map(|seed| NodeKey::from_seed([seed; 32]).unwrap().id());
        let mut contract = Contract::new("one", Default::default());
        contract.spec.buyer.additional_information.get_or_insert_default().did = Some(consumer.to_string());
        let pod = |label: &str, namespace: &str, ip: &str| -> Pod {
            let metadata = json!({"name": "a", "namespace": namespace, "labels": {label: "one"}});
            serde_json::from_value(json!({"metadata": metadata, "status": {"podIP": ip}})).unwrap()
        };
        let pods = [
            pod(names::LABEL_SERVICE, "service-one", "100.64.0.2"),
            pod(names::LABEL_SERVICE, "elsewhere", "100.64.0.3"),
            pod(names::LABEL_CONTRACT, "service-one", "100.64.0.4"),
        ];
        let notes = json!({ names::ANNOTATION_HOME: prefix(&user).to_string() });
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "service-one", "annotations": notes}})).unwrap();
        let told = plan(pods.iter(), [contract].iter(), &homes([&namespace].into_iter()), &Speakers::default());
        let reaches = |at: usize, whom| told[at].allow_to.contains(&prefix(&whom));
        let all = [0, 1, 2].map(|at| (reaches(at, user), reaches(at, consumer)));
        assert_eq!(all, [(true, false), (false, true), (false, true)]);
    }
}
