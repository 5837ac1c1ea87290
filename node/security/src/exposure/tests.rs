#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn did(seed: u8) -> String {
    NodeKey::from_seed([seed; 32]).unwrap().id().to_string()
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn contract(name: &str, buyer: &str, seller: &str, until: &str) -> Contract {
    let mut contract = Contract::new(name, Default::default());
    contract.spec.buyer.additional_information.get_or_insert_default().did = Some(buyer.into());
    contract.spec.seller.additional_information.get_or_insert_default().did = Some(seller.into());
    contract.spec.expiration_time = Some(until.into());
    contract.status = Some(object(json!({"phase": "Active"})));
    contract
}

#[derive(Default)]
struct Node {
    contracts: Vec<Contract>,
    nodes: Vec<k8s_openapi::api::core::v1::Node>,
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    services: Vec<Service>,
    secrets: Vec<Secret>,
}

fn check(node: &Node, peer: u8, expected: Expect) {
    let named = |spec: &PodSpec| {
        let secrets = spec.volumes.iter().flatten().filter_map(|v| v.secret.as_ref()?.secret_name.clone());
        (BTreeSet::new(), secrets.collect())
    };
    let decision =
        Decision { allowed: true, policies: vec!["offer".into()], reason: "policy offer permits Buy".into() };
    let view = View {
        peer: &did(peer),
        contracts: &node.contracts,
        nodes: &node.nodes,
        namespaces: &node.namespaces,
        pods: &node.pods,
        services: &node.services,
        secrets: &node.secrets,
        config_maps: &[],
        named: &named,
        decisions: &[(Action::Buy, "f".into(), decision)],
        api: Ok(401),
        multicast: Some(MulticastState::Off),
        now: "2026-01-02T00:00:00Z".parse().unwrap(),
    };
    let line = |row: &Row| {
        let can = row.can.map_or("?", |can| if can { "yes" } else { "no" });
        format!("{:?} {} {}: {can}: {}", row.role, row.what, row.item, row.proof)
    };
    expected.assert_eq(&rows(&view).iter().map(line).collect::<Vec<_>>().join("\n").replace(&did(peer), "PEER"));
}

#[test]
fn who_has_no_contract_has_nothing() {
    let mut node = Node::default();
    node.contracts.push(contract("over", &did(9), &did(1), "2026-01-01T00:00:00Z"));
    check(
        &node,
        1,
        expect![[r#"
        Anybody API this node's Kubernetes API: no: GET /api/v1/secrets without a credential: answered 401
        Anybody name this node's name, domain, DID, features on the LAN: no: DiscoveryPolicy default: multicast is Off
        Peer verb Buy f: yes: asked the policies: policy offer permits Buy
        Provider workload : no: no live contract by which it sells to us, and no pod of ours is on a node of it
        Guest workload : no: no live contract by which we sell to it"#]],
    );
}

#[test]
fn a_provider_has_what_its_pods_name_and_nothing_else_of_the_namespace() {
    // 100.65.200.0 is where the peer has addresses for pods that it has others run.
    let pod = |name: &str, node: &str, secret: &str| {
        let address = if name == "far" { "100.65.200.7" } else { "100.65.192.7" };
        object(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {
            "nodeName": node, "containers": [], "volumes": [{"name": "v", "secret": {"secretName": secret}}]},
            "status": {"podIP": address}}))
    };
    let secret = |name: &str| object(json!({"metadata": {"name": name, "namespace": "shop"}}));
    let node = Node {
        contracts: vec![contract("c1", &did(9), &did(1), "2026-02-01T00:00:00Z")],
        nodes: vec![object(json!({"metadata": {"name": "grid", "annotations": {names::ANNOTATION_PEER_DID: did(1)}}}))],
        pods: vec![pod("api", "grid", "db"), pod("far", "grid", "db"), pod("web", "farm", "tls")],
        services: vec![object(
            json!({"metadata": {"name": "api", "namespace": "shop"}, "spec": {"clusterIP": "100.64.0.10"}}),
        )],
        secrets: vec![secret("db"), secret("tls")],
        ..Node::default()
    };
    check(
        &node,
        1,
        expect![[r#"
            Anybody API this node's Kubernetes API: no: GET /api/v1/secrets without a credential: answered 401
            Anybody name this node's name, domain, DID, features on the LAN: no: DiscoveryPolicy default: multicast is Off
            Peer verb Buy f: yes: asked the policies: policy offer permits Buy
            Provider pod shop/api: yes: pod shop/api is on its node grid
            Provider Secret shop/db: yes: pod shop/api names it, and it is there
            Provider pod shop/far: yes: pod shop/far is on its node grid
            Provider passed on shop/far and all that goes with it: yes: its address 100.65.200.7 stands for one of somebody else, to whom the peer has passed it on
            Provider Secret shop/db: yes: pod shop/far names it, and it is there
            Provider namespace shop: yes: its name goes with the pods above, other objects in it do not
            Provider Service shop/api 100.64.0.10: yes: its name and address are variables of the pods above
            Provider addresses pods and Services here, in 100.81.32.0/20: yes: contract c1 is live: the link takes packets from 100.65.192.0/20
            Provider memory memory, disk and traffic of the pods above: ?: not probed: its owner is root there, and only attested hardware would hinder it
            Guest workload : no: no live contract by which we sell to it"#]],
    );
}

#[test]
fn services_that_are_sold_on_are_told_of_both_sides_and_those_that_are_bought_so() {
    let cache = |name: &str, buyer: u8, seller: u8, served_by: Option<&str>, conditions: Value| {
        let mut contract = contract(name, &did(buyer), &did(seller), "2026-02-01T00:00:00Z");
        contract.spec.flavor.spec.flavor_type.type_identifier = FlavorType::Service;
        contract.spec.flavor.spec.flavor_type.type_data =
            json!({"name": "redis", "policies": {"conditions": conditions}});
        contract.spec.served_by = served_by.map(str::to_owned);
        contract
    };
    // 9 sells `c` on to 2, served by 1 with `x`, and has bought `y` for itself of 3, who sells it on.
    let sold = cache("c", 2, 9, Some("x"), json!({"resold": true}));
    let slice = Contract {
        spec: fluidos_model::kinds::ContractSpec { flavor: Default::default(), ..sold.spec.clone() },
        ..sold.clone()
    };
    let mut contracts =
        vec![sold, cache("x", 9, 1, None, Value::Null), cache("y", 9, 3, None, json!({"resold": true}))];
    let told = |contracts: &[Contract], peer: u8| {
        let decision = Decision { allowed: true, policies: vec![], reason: String::new() };
        let view = View {
            peer: &did(peer),
            contracts,
            nodes: &[],
            namespaces: &[],
            pods: &[],
            services: &[],
            secrets: &[],
            config_maps: &[],
            named: &|_| Named::default(),
            decisions: &[(Action::Buy, "f".into(), decision)],
            api: Ok(401),
            multicast: None,
            now: "2026-01-02T00:00:00Z".parse().unwrap(),
        };
        let rows = rows(&view).into_iter().filter(|row| row.what == "passed on");
        rows.map(|row| format!("{:?} {}: {}", row.role, row.item, row.proof)).collect::<Vec<_>>().join("\n")
    };
    expect!["Provider what the buyer of contract c sends to service redis: contract c is served with x: packets and credentials pass this node"]
        .assert_eq(&told(&contracts, 1));
    expect!["Guest service redis, which others serve: contract c is served with x: packets and credentials pass this node, which keeps none"]
        .assert_eq(&told(&contracts, 2));
    expect![
        "Provider what is sent to service redis: contract y says that it is resold: who serves it is behind the peer"
    ]
    .assert_eq(&told(&contracts, 3));
    contracts[0] = slice;
    assert_eq!(told(&contracts, 2), "", "pods are told of one by one");
}

#[test]
fn a_guest_has_what_came_with_it_and_what_is_ours_is_shouted() {
    let labels = json!({names::LABEL_CONTRACT: "c2"});
    let guest = |name: &str, more: Value| {
        let mut spec = json!({"containers": [], "automountServiceAccountToken": false,
            "volumes": [{"name": "v", "secret": {"secretName": name}}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object(json!({"metadata": {"name": name, "namespace": "twin-1-shop", "labels": labels}, "spec": spec}))
    };
    let node = Node {
        contracts: vec![contract("c2", &did(1), &did(9), "2026-02-01T00:00:00Z")],
        namespaces: vec![object(json!({"metadata": {"name": "twin-1-shop", "labels": labels}}))],
        pods: vec![
            guest("good", json!({})),
            guest("bad", json!({"hostNetwork": true, "automountServiceAccountToken": null})),
        ],
        secrets: vec![
            object(json!({"metadata": {"name": "good", "namespace": "twin-1-shop", "labels": labels}})),
            object(json!({"metadata": {"name": "bad", "namespace": "twin-1-shop"}})),
        ],
        ..Node::default()
    };
    check(
        &node,
        1,
        expect![[r#"
        Anybody API this node's Kubernetes API: no: GET /api/v1/secrets without a credential: answered 401
        Anybody name this node's name, domain, DID, features on the LAN: no: DiscoveryPolicy default: multicast is Off
        Peer verb Buy f: yes: asked the policies: policy offer permits Buy
        Provider workload : no: no live contract by which it sells to us, and no pod of ours is on a node of it
        Guest namespace twin-1-shop: yes: it was made for its contract, for what it sends
        Guest pod twin-1-shop/good: yes: it runs here under its contract: logs, exec and port-forward are its own
        Guest Secret twin-1-shop/good: yes: it came with the pod: its label names the contract
        Guest token a token of this API in twin-1-shop/good: no: pod twin-1-shop/good: automountServiceAccountToken is Some(false)
        Guest machine this machine, from twin-1-shop/good: no: pod twin-1-shop/good has no host namespace, host path or privilege
        Guest pod twin-1-shop/bad: yes: it runs here under its contract: logs, exec and port-forward are its own
        Guest Secret twin-1-shop/bad: yes: its pod names it, and it is NOT of a contract of PEER
        Guest token a token of this API in twin-1-shop/bad: yes: pod twin-1-shop/bad: automountServiceAccountToken is None
        Guest machine this machine, from twin-1-shop/bad: yes: pod twin-1-shop/bad has hostNetwork
        Guest addresses anything but its own 100.65.192.0/20: ?: not probed: the kernel's rules confine its pods to it, which can be tried from inside them only"#]],
    );
}
