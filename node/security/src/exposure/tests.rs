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
    tried: Vec<inside::Tried>,
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
        tried: &node.tried,
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
            tried: &[],
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
        Guest address from twin-1-shop/good: ?: not tried from inside: it does not run yet, or has no network of its own
        Guest address from twin-1-shop/bad: ?: not tried from inside: it does not run yet, or has no network of its own"#]],
    );
}

/// A node with a guest of peer 1 that runs, one of peer 2, an own pod, a Service, and two machines of which one is another owner's.
fn inhabited() -> Node {
    let pod = |name: &str, contract: &str, address: &str| {
        object::<Pod>(json!({"metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"),
            "labels": if contract.is_empty() { json!({}) } else { json!({names::LABEL_CONTRACT: contract}) }},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c",
                "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": address}}))
    };
    let machine = |name: &str, address: &str, annotations: Value| {
        object(json!({"metadata": {"name": name, "annotations": annotations},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]}}))
    };
    Node {
        contracts: vec![contract("c2", &did(1), &did(9), "2026-02-01T00:00:00Z")],
        nodes: vec![
            machine("farm", "192.0.2.1", json!({})),
            machine("grid", "100.65.192.1", json!({names::ANNOTATION_PEER_DID: did(1)})),
        ],
        pods: vec![pod("guest", "c2", "10.0.0.2"), pod("other", "c3", "10.0.0.3"), pod("own", "", "10.0.0.4")],
        services: vec![object(json!({"metadata": {"name": "api", "namespace": "n"},
            "spec": {"clusterIP": "10.1.0.9", "ports": [{"port": 53, "protocol": "UDP"}, {"port": 443}]}}))],
        ..Node::default()
    }
}

fn guests(node: &Node) -> Vec<inside::Guest> {
    let view = View {
        peer: &did(1),
        contracts: &node.contracts,
        nodes: &node.nodes,
        namespaces: &[],
        pods: &node.pods,
        services: &node.services,
        secrets: &[],
        config_maps: &[],
        named: &|_| Named::default(),
        decisions: &[],
        api: Ok(401),
        tried: &[],
        multicast: None,
        now: "2026-01-02T00:00:00Z".parse().unwrap(),
    };
    inside::guests(&view, inside::Ports { api: Some(6443), rear: None })
}

#[test]
fn from_inside_of_a_guest_is_tried_what_is_not_its_owners() {
    let told = |guests: &[inside::Guest]| {
        let lines = guests.iter().flat_map(|guest| {
            let targets = guest.targets.iter().map(|target| format!("  {} {}", target.address, target.what));
            std::iter::once(format!("{} {} {}", guest.pod, guest.uid, guest.address)).chain(targets)
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut node = inhabited();
    expect![[r#"
        n/guest uid-guest 10.0.0.2
          169.254.169.254:80 metadata of a cloud
          192.0.2.1:6443 API of this node, at machine farm
          10.1.0.9:443 Service n/api
          10.0.0.3:8080 pod n/other of another peer
          10.0.0.4:8080 pod n/own of this owner"#]]
    .assert_eq(&told(&guests(&node)));
    // However many there are, a person gets an answer.
    let many = |of: &Pod, count: usize| vec![of.clone(); count];
    let mut away = node.pods[2].clone();
    away.spec.as_mut().unwrap().node_name = Some("grid".into());
    node.pods.push(away);
    assert_eq!(guests(&node)[0].targets.len(), 5, "what runs at another owner's is not here");
    node.pods = [many(&node.pods[0], 20), many(&node.pods[1], 20), many(&node.pods[2], 20)].concat();
    node.nodes = vec![node.nodes[0].clone(); 50];
    let found = guests(&node);
    assert_eq!(found.len(), inside::PODS_MAX);
    assert!(found.iter().all(|guest| guest.targets.len() <= inside::TARGETS_MAX));
    let sorts = ["metadata", "API of", "Service", "of another peer", "of this owner"];
    let tried = |sort: &str| found[0].targets.iter().any(|target| target.what.contains(sort));
    assert_eq!(sorts.map(tried), [true; 5], "many of one sort leave room for the others: {:?}", found[0].targets);
    node.pods[0].spec.as_mut().unwrap().host_network = Some(true);
    node.pods.truncate(1);
    assert_eq!(guests(&node), [], "it has no network of its own");
}

#[test]
fn what_a_connection_from_inside_met_is_told_and_silence_is_no_proof() {
    use inside::Answer::{Connected, NotTried, Prohibited, Refused, Silent};
    let mut node = inhabited();
    let target = &guests(&node)[0].targets[4];
    let service = &guests(&node)[0].targets[2];
    let no_way = || Prohibited("No route to host".into());
    let tries = [
        (target, Connected, Silent),
        (target, Refused, Refused),
        (target, Refused, Connected),
        (service, Refused, Refused),
        (target, no_way(), Connected),
        (target, Silent, Connected),
        (target, Silent, Refused),
        (target, Silent, Silent),
        (target, Silent, no_way()),
        (target, NotTried("too many threads".into()), Connected),
    ];
    let attempts = tries.map(|(target, inside, machine)| inside::Attempt { target: target.clone(), inside, machine });
    let told = |tried: Vec<inside::Tried>, node: &mut Node| {
        node.tried = tried;
        let named = |_: &PodSpec| Named::default();
        let view = View {
            peer: &did(1),
            contracts: &node.contracts,
            nodes: &node.nodes,
            namespaces: &[],
            pods: &node.pods,
            services: &[],
            secrets: &[],
            config_maps: &[],
            named: &named,
            decisions: &[],
            api: Ok(401),
            tried: &node.tried,
            multicast: None,
            now: "2026-01-02T00:00:00Z".parse().unwrap(),
        };
        let can = |can: Option<bool>| can.map_or("?", |can| if can { "yes" } else { "no" });
        let rows = rows(&view).into_iter().filter(|row| row.what == "address");
        rows.map(|row| format!("{} {}: {}", can(row.can), row.item, row.proof)).collect::<Vec<_>>().join("\n")
    };
    let tried = |attempts| vec![inside::Tried { pod: "n/guest".into(), attempts }];
    let shown = told(tried(Ok(attempts.to_vec())), &mut node);
    expect![[r#"
        yes own: accepted
        yes own: refused by the host itself: packets get there, and nobody listens
        no own: refused by a rule, though this machine is accepted there
        ? 10.1.0.9:443 Service n/api, from n/guest: TCP connect from inside: refused, as is whoever calls a Service that nothing serves
        no own: prohibited: No route to host
        no own: filtered: no answer, though this machine gets one
        no own: filtered: no answer, though this machine gets one
        ? own: no answer; this machine gets none either: nobody may be there
        ? own: no answer; this machine gets none either: nobody may be there
        ? own: not tried: too many threads"#]]
    .assert_eq(&shown.replace("10.0.0.4:8080 pod n/own of this owner, from n/guest: TCP connect from inside", "own"));
    expect!["? from n/guest: not tried from inside: it needs root"]
        .assert_eq(&told(tried(Err("it needs root".into())), &mut node));
    expect!["? from n/guest: not tried from inside: at most 8 pods are entered"].assert_eq(&told(vec![], &mut node));
    node.pods.remove(0);
    expect!["no : no pod of it is on a machine of this node now: nobody is there to reach anything"]
        .assert_eq(&told(vec![], &mut node));
}
