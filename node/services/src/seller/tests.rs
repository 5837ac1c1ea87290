//! Views in, actions as text out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{NodeKey, Speakers};
use fluidos_model::kinds::{Allocation, Contract, ServiceBlueprint, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{View, plan};

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn blueprint(max: u32) -> ServiceBlueprint {
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    let spec = json!({
        "name": "cache", "description": "", "category": "database", "tags": [], "hostingPolicies": ["Provider"],
        "configurationTemplate": {"type": "object", "properties": {"size": {"type": "integer", "maximum": max}}},
        "templates": [
            {"name": "s", "serviceData": {"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "cache", "labels": {"nodecore.fluidos.eu/flavor-service-endpoint": "true"}},
                "spec": {"selector": {"app": "cache"}, "ports": [{"port": 6379}]}}},
            {"name": "p", "serviceData": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cache"},
                "spec": {"containers": [{"name": "cache", "image": "redis", "resources": resources}]}}}],
    });
    ServiceBlueprint::new("cache", serde_json::from_value(spec).unwrap())
}

/// A contract by which key 2 sells a cache to key 1.
fn contract(change: impl FnOnce(&mut Value)) -> Contract {
    let party = |seed| json!({"domain": "d", "nodeID": "n", "ip": "192.0.2.1:1", "additionalInformation": {"did": key(seed).id().to_string()}});
    let service = json!({"name": "cache", "description": "", "category": "database", "tags": [], "hostingPolicies": ["Provider"],
        "configurationTemplate": {"type": "object"}, "blueprint": "cache"});
    let price = json!({"amount": "0", "currency": "", "period": ""});
    let mut value = json!({
        "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract", "metadata": {"name": "contract-1"},
        "spec": {"transactionID": "t", "buyer": party(1), "seller": party(2), "buyerClusterID": "",
            "configuration": {"type": "Service", "data": {"configurationData": {"size": 10}}},
            "flavor": {"metadata": {"name": "f"}, "spec": {"providerID": "n", "owner": party(2), "price": price, "availability": true,
                "flavorType": {"typeIdentifier": "Service", "typeData": service}}}},
        "status": {"phase": "Active"},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn told(contracts: &[Contract], blueprint: Option<ServiceBlueprint>, namespace: bool, ready: bool) -> String {
    let mut allocation = Allocation::new("allocation-1", Default::default());
    allocation.metadata.labels = Some(BTreeMap::from([(names::LABEL_CONTRACT.to_owned(), "contract-1".to_owned())]));
    let mut home = Namespace::default();
    home.metadata.name = Some("service-1".into());
    home.metadata.labels = Some(BTreeMap::from([(names::LABEL_SERVICE.to_owned(), "contract-1".to_owned())]));
    let slice: EndpointSlice =
        serde_json::from_value(json!({"addressType": "IPv4", "metadata": {"name": "cache", "namespace": "service-1"},
        "endpoints": [{"addresses": ["100.64.0.2"], "conditions": {"ready": ready}}]}))
        .unwrap();
    let speakers = Speakers::default();
    let view = View::new(
        (key(2).id(), &speakers),
        contracts.iter(),
        blueprint.iter().map(|blueprint| ("cache".to_owned(), blueprint)).collect(),
        [&allocation].into_iter(),
        namespace.then_some(&home).into_iter(),
        [&slice].into_iter(),
        Timestamp::from_second(1_000_000_000).unwrap(),
    );
    plan(&view).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_live_contract_has_an_instance_and_an_ended_one_has_none() {
    let live = [contract(|_| {})];
    let starting = "make contract-1; allocation-1 is Provisioning: no endpoint is ready yet in namespace service-1";
    assert_eq!(told(&live, Some(blueprint(64)), false, false), starting);
    let runs = "make contract-1; allocation-1 is Active: the service runs in namespace service-1";
    assert_eq!(told(&live, Some(blueprint(64)), true, true), runs);
    for ended in [
        contract(|value| value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
        contract(|value| value["spec"]["expirationTime"] = json!("2001-01-01T00:00:00Z")),
        contract(|value| value["spec"]["expirationTime"] = json!("soon")),
        contract(|value| value["status"] = json!({"phase": "Failed"})),
        contract(|value| value["spec"]["flavor"]["spec"]["flavorType"]["typeIdentifier"] = json!("K8Slice")),
        contract(|value| value["spec"]["seller"] = value["spec"]["buyer"].clone()),
        contract(|value| value["spec"]["servedBy"] = json!("contract-2")),
    ] {
        assert_eq!(told(&[ended], Some(blueprint(64)), true, true), "remove service-1");
    }
    assert_eq!(told(&[], None, true, false), "remove service-1");
    assert_eq!(told(&[], None, false, false), "");
}

#[test]
fn an_instance_that_cannot_be_made_says_why() {
    let live = [contract(|_| {})];
    let gone = "allocation-1 is Error: ServiceBlueprint cache is not there any more";
    assert_eq!(told(&live, None, false, false), gone);
    let changed = told(&live, Some(blueprint(5)), false, false);
    assert!(
        changed.starts_with("allocation-1 is Error: ServiceBlueprint cache has changed: configurationData.size"),
        "{changed}"
    );
    // What runs goes on.
    let runs = "allocation-1 is Active: the service runs in namespace service-1 as it was made: ServiceBlueprint cache is not there any more";
    assert_eq!(told(&live, None, true, true), runs);
}

#[test]
fn an_instance_is_as_large_as_both_have_signed() {
    let of = |cpu: &str| {
        let terms = json!({"configuration": {"size": {"cpu": cpu, "memory": "64Mi", "pods": "1"}}});
        let payload = URL_SAFE_NO_PAD.encode(terms.to_string());
        contract(|value| value["spec"]["signedTerms"] = json!({"purpose": "", "payload": payload, "signatures": []}))
    };
    assert!(told(&[of("100m")], Some(blueprint(64)), false, false).starts_with("make contract-1; "));
    let grown = told(&[of("50m")], Some(blueprint(64)), false, false);
    let needed = "ServiceBlueprint cache has changed: it takes cpu 100m, memory 64Mi, pods 1, needed cpu 50m, memory 64Mi, pods 1 as both have signed";
    assert_eq!(grown, format!("allocation-1 is Error: {needed}"));
    let unread = told(&[of("0.05")], Some(blueprint(64)), false, false);
    assert!(unread.starts_with("allocation-1 is Error: size is "), "{unread}");
}
