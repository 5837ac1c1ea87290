//! A *deal* is what the fabric reads of a Contract: who sells how much of what to whom, until when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{FabricPrefix, NodeId, Speakers};
use fluidos_model::kinds::{Contract, FlavorLocation, NodeIdentity};
use fluidos_model::market::{Amounts, Conditions, Features};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deal {
    pub name: String,
    /// The key that speaks for the buyer now: its link, its signatures.
    pub buyer: NodeId,
    /// As of the seller.
    pub seller: NodeId,
    /// The key under which the contract names the buyer: what is called after it keeps its name.
    pub buyer_named: NodeId,
    /// As of the seller.
    pub seller_named: NodeId,
    /// The name that the seller says.
    pub seller_name: String,
    pub amounts: Amounts,
    pub location: FlavorLocation,
    pub architecture: String,
    /// What is special about it, as its seller says.
    pub features: Features,
    /// Under which RuntimeClass of the seller the buyer's pods run, as both have signed; `None` is its usual runtime.
    pub runtime_class: Option<String>,
    /// Its seller has said that others serve it.
    pub resold: bool,
    /// At its seller: the contract that serves it; `None` is that the seller serves it itself.
    pub served_by: Option<String>,
    pub deleting: bool,
    pub until: Option<Timestamp>,
}

/// Deals that were read, by uid of their contracts, with the version that was read. Every room asks for all of them whenever anything changes.
static READ: LazyLock<Mutex<HashMap<String, (String, Deal)>>> = LazyLock::new(Mutex::default);
/// Each takes some hundreds of bytes; whoever is read often is there again soon.
const READ_MAX: usize = 4096;

impl Deal {
    /// Returns the deal of a contract, or why it has none that the fabric can serve.
    pub(crate) fn of(contract: &Contract, speakers: &Speakers) -> Result<Self, String> {
        let (uid, version) = (contract.uid(), contract.resource_version());
        let mut deal = match uid.zip(version) {
            // Nobody has written this one into an API.
            None => Self::read(contract)?,
            Some((uid, version)) => {
                // Nothing panics while it is held.
                let read = || READ.lock().unwrap_or_else(PoisonError::into_inner);
                let known = read().get(&uid).filter(|(known, _)| *known == version).map(|(_, deal)| deal.clone());
                match known {
                    Some(known) => known,
                    None => {
                        let deal = Self::read(contract)?;
                        let mut read = read();
                        if read.len() >= READ_MAX {
                            read.clear();
                        }
                        read.insert(uid, (version, deal.clone()));
                        deal
                    }
                }
            }
        };
        // Keys change without their contracts.
        (deal.buyer, deal.seller) = (speakers.current(&deal.buyer_named), speakers.current(&deal.seller_named));
        Ok(deal)
    }

    /// The deal, with the keys that the contract names.
    fn read(contract: &Contract) -> Result<Self, String> {
        let party = |who: &str, identity: &NodeIdentity| -> Result<NodeId, String> {
            let did = identity.additional_information.as_ref().and_then(|more| more.did.as_deref());
            did.ok_or(format!("its {who} has no DID"))?.parse().map_err(|error| format!("its {who}: {error}"))
        };
        let spec = &contract.spec;
        let slice = spec.flavor.spec.k8slice().map_err(|error| error.to_string())?;
        let amounts = match &spec.configuration {
            Some(configuration) => configuration.amounts(),
            None => slice.characteristics.amounts(),
        };
        let until = match &spec.expiration_time {
            Some(text) => Some(text.parse().map_err(|error| format!("its expirationTime {text:?}: {error}"))?),
            None => None,
        };
        let conditions = conditions(contract)?;
        let (buyer_named, seller_named) = (party("buyer", &spec.buyer)?, party("seller", &spec.seller)?);
        Ok(Self {
            name: contract.name_any(),
            buyer: buyer_named,
            seller: seller_named,
            buyer_named,
            seller_named,
            seller_name: spec
                .seller
                .additional_information
                .as_ref()
                .and_then(|more| more.name.clone())
                .unwrap_or_default(),
            amounts: amounts.map_err(|error| error.to_string())?,
            location: spec.flavor.spec.location.clone().unwrap_or_default(),
            features: slice.properties.features(),
            architecture: slice.characteristics.architecture,
            resold: conditions.resold,
            runtime_class: conditions.runtime_class,
            served_by: spec.served_by.clone(),
            deleting: contract.metadata.deletion_timestamp.is_some(),
            until,
        })
    }

    /// Says whether it is neither ended nor over.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        !self.deleting && self.until.is_none_or(|until| now < until)
    }

    /// Who runs what this node sends under it, as far as its terms say: nobody knows of one that is resold.
    pub(crate) fn runs_at(&self, own: NodeId, now: Timestamp) -> Option<NodeId> {
        (self.buyer == own && !self.resold && self.is_live(now)).then_some(self.seller)
    }
}

/// What was signed beyond size, price and term. Official nodes sign nothing: theirs are the usual ones.
fn conditions(contract: &Contract) -> Result<Conditions, String> {
    let Some(signed) = &contract.spec.signed_terms else { return Ok(Conditions::default()) };
    let wrong = |error: &dyn std::fmt::Display| format!("its signed terms: {error}");
    let bytes = URL_SAFE_NO_PAD.decode(&signed.payload).map_err(|error| wrong(&error))?;
    let terms: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    Conditions::read(terms.get("conditions")).map_err(|error| wrong(&error))
}

/// Says whether an address may be a pod's of the node with this prefix: its IPv4 pods have the first half of the block, then come those that
/// it has others run (the last /24 is its Services').
pub(crate) fn is_pod_address(prefix: &FabricPrefix, address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(v4)) => prefix.holds_v4(v4) && (v4.to_bits() & 0xfff) < FabricPrefix::SERVICES,
        Ok(IpAddr::V6(v6)) => prefix.holds_v6(v6),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::{NodeKey, fabric_prefix};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_resold_runs_at_nobody_who_is_known() {
        let id = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap().id();
        let deal = |conditions: Value| {
            let party = |seed: u8| json!({"domain": "", "nodeID": "", "ip": "", "additionalInformation": {"did": id(seed).to_string()}});
            let payload = URL_SAFE_NO_PAD.encode(json!({"conditions": conditions}).to_string());
            let contract = serde_json::from_value::<Contract>(json!({
                "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract", "metadata": {"name": "c"},
                "spec": {
                    "flavor": {"metadata": {"name": "f", "namespace": "fluidos"}, "spec": {
                        "providerID": "", "owner": party(2), "availability": true, "networkPropertyType": "",
                        "price": {"amount": "", "currency": "", "period": ""},
                        "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                            "characteristics": {"architecture": "amd64", "cpu": "4", "memory": "8Gi", "pods": "110"},
                            "properties": {}, "policies": {"partitionability": {}}}}}},
                    "transactionID": "t", "buyerClusterID": "", "buyer": party(1), "seller": party(2),
                    "signedTerms": {"purpose": "", "payload": payload, "signatures": []},
                },
            }));
            Deal::of(&contract.unwrap(), &Speakers::default()).unwrap()
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(deal(json!({})).runs_at(id(1), now), Some(id(2)));
        assert_eq!(deal(json!({"resold": true})).runs_at(id(1), now), None);
        assert_eq!(deal(json!({})).runs_at(id(2), now), None, "it was sold, not bought");
    }

    #[test]
    fn a_pods_address_is_in_its_nodes_block_before_its_services() {
        let prefix = fabric_prefix(&NodeKey::from_seed([3; 32]).unwrap().id(), 0); // 100.125.80.0/20
        assert!(is_pod_address(&prefix, "100.125.80.5") && is_pod_address(&prefix, "100.125.94.255"));
        for foreign in ["100.125.95.0", "100.125.95.10", "100.125.96.1", "10.0.0.1", "127.0.0.1", "::1", "x"] {
            assert!(!is_pod_address(&prefix, foreign), "{foreign}");
        }
    }
}
