//! What goes with a node and may be missed: contracts that are in force, and volumes with what pods have written there.

use fluidos_model::kinds::Contract;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde::de::DeserializeOwned;
use substrate_store::Store;

/// More than these are only counted: nobody reads them.
const SHOWN_MAX: usize = 50;

/// One line for each. What cannot be read as what it is is left out: it means nothing to anybody any more.
pub fn behind(store: &Store, now: Timestamp) -> Vec<String> {
    let contracts = all::<Contract>(store, "/reservation.fluidos.eu/contracts/");
    let in_force = contracts.into_iter().filter(|contract| {
        let ends = contract.spec.expiration_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        ends.is_none_or(|ends| ends > now)
    });
    let mut lines: Vec<String> = in_force.map(|contract| of_contract(&contract)).collect();
    lines.extend(all::<PersistentVolume>(store, "/core/persistentvolumes/").iter().filter_map(of_volume));
    let more = lines.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        lines.truncate(SHOWN_MAX);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn all<K: DeserializeOwned>(store: &Store, prefix: &str) -> Vec<K> {
    let page = store.list(prefix, None, usize::MAX, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

fn of_contract(contract: &Contract) -> String {
    let name = contract.metadata.name.as_deref().unwrap_or_default();
    let (seller, buyer) = (&contract.spec.seller.domain, &contract.spec.buyer.domain);
    let until = contract.spec.expiration_time.as_deref().map(|end| format!(" until {end}")).unwrap_or_default();
    format!("contract {name}, {seller} to {buyer}{until}: to end it first: fluidos contracts terminate {name}")
}

/// Only what is on this machine.
fn of_volume(volume: &PersistentVolume) -> Option<String> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|local| &local.path);
    let path = local.or_else(|| Some(&spec.host_path.as_ref()?.path))?;
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let claim =
        spec.claim_ref.as_ref().and_then(|of| Some(format!("{}/{}", of.namespace.as_ref()?, of.name.as_ref()?)));
    Some(format!("volume {name} of {}: {path}", claim.unwrap_or_else(|| "no claim".into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};
    use substrate_store::Precondition;

    use super::*;

    #[tokio::test]
    async fn contracts_in_force_and_volumes_of_this_machine() {
        let store = Store::memory().unwrap();
        let put = async |key: &str, object: Value| {
            store.put(key, Precondition::Absent, object.to_string().into()).await.unwrap();
        };
        let contract = |name: &str, end: &str| {
            let of = |domain: &str| json!({ "domain": domain, "nodeID": "n", "ip": "192.0.2.1:7300" });
            let spec = Contract::new(name, Default::default()).spec;
            let mut object = json!({ "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract",
                "metadata": { "name": name, "namespace": "fluidos" }, "spec": spec });
            (object["spec"]["seller"], object["spec"]["buyer"]) = (of("grid.example"), of("farm.example"));
            object["spec"]["expirationTime"] = end.into();
            object
        };
        let ours = "/reservation.fluidos.eu/contracts/fluidos/";
        put(&format!("{ours}live"), contract("live", "2026-12-01T00:00:00Z")).await;
        put(&format!("{ours}over"), contract("over", "2026-10-01T00:00:00Z")).await;
        put(&format!("{ours}odd"), json!({ "kind": "Contract" })).await;
        let volume = |name: &str, more: Value| {
            let mut spec = json!({ "claimRef": { "namespace": "shop", "name": "data-db-0" } });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "metadata": { "name": name }, "spec": spec })
        };
        put("/core/persistentvolumes/pvc-1", volume("pvc-1", json!({ "local": { "path": "/node/volumes/pvc-1" } })))
            .await;
        put("/core/persistentvolumes/nfs", volume("nfs", json!({ "nfs": { "path": "/", "server": "x" } }))).await;
        let told = behind(&store, "2026-11-01T00:00:00Z".parse().unwrap());
        assert_eq!(
            told,
            [
                "contract live, grid.example to farm.example until 2026-12-01T00:00:00Z: to end it first: fluidos contracts terminate live",
                "volume pvc-1 of shop/data-db-0: /node/volumes/pvc-1",
            ]
        );
    }
}
