#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use fluidos_identity::{NodeId, NodeKey};
use fluidos_model::kinds::{Allocation, Contract};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Action, plan};
use super::view::{Link, View};

fn id(seed: u8) -> NodeId {
    NodeKey::from_seed([seed; 32]).unwrap().id()
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Sold by the node of this seed to the node of seed 1.
fn contract(name: &str, seller: u8) -> Contract {
    let party = |seed: u8| json!({"additionalInformation": {"did": id(seed).to_string(), "name": "grid"}});
    from(json!({
        "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract", "metadata": {"name": name},
        "spec": {"flavor": {"metadata": {"name": "f"}, "spec": {
                "providerID": "p", "owner": party(seller), "availability": true, "price": {"amount": "", "currency": "", "period": ""},
                "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                    "characteristics": {"architecture": "amd64", "cpu": "4", "memory": "8Gi", "pods": "110"},
                    "properties": {}, "policies": {"partitionability": {}}}}}},
            "transactionID": "t", "configuration": {"type": "K8Slice", "data": {"cpu": "1", "memory": "1Gi", "pods": "5"}},
            "expirationTime": "1970-01-01T01:00:00Z", "buyer": party(1), "seller": party(seller)}}))
}

fn allocation(contract: &str) -> Allocation {
    from(json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Allocation",
        "metadata": {"name": format!("allocation-{contract}")}, "spec": {"contract": {"name": contract}, "forwarding": false}}))
}

fn node(name: &str, contract: &str, seller: u8) -> Node {
    from(json!({"metadata": {"name": name, "uid": format!("uid-{name}"),
        "labels": {"fluidos.eu/virtual-node": "true", "reservation.fluidos.eu/contract": contract},
        "annotations": {"fluidos.eu/peer-did": id(seller).to_string()}}}))
}

fn pod(name: &str, node: &str) -> Pod {
    from(
        json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"nodeName": node, "containers": []}}),
    )
}

#[derive(Default)]
struct Stage {
    contracts: Vec<Contract>,
    allocations: Vec<Allocation>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    up: Vec<u8>,
    ready: Vec<&'static str>,
    missing: Option<&'static str>,
    now: i64,
}

impl Stage {
    fn check(&self, expected: Expect) {
        let link = || Link { name: "grid".into(), latency_micros: Some(1500) };
        let links: BTreeMap<NodeId, Link> = self.up.iter().map(|seed| (id(*seed), link())).collect();
        let missing = self.missing.map(str::to_owned);
        let ready: BTreeMap<_, _> = self.ready.iter().map(|name| ((*name).to_owned(), missing.clone())).collect();
        let now = Timestamp::from_second(self.now).unwrap();
        let view = View::new(
            (id(1), &Default::default()),
            "farm",
            self.contracts.iter(),
            self.allocations.iter(),
            self.nodes.iter(),
            self.pods.iter(),
            links,
            ready,
            BTreeMap::new(),
            now,
        );
        let lines: Vec<String> = plan(&view, now).iter().map(line).collect();
        expected.assert_eq(&lines.join("\n"));
    }
}

fn line(action: &Action) -> String {
    match action {
        Action::Create(node) => format!("create {}", node.name_any()),
        Action::Status { node, status } => {
            let conditions: Vec<String> =
                status.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect();
            let amounts: Vec<String> =
                status.allocatable.iter().flatten().map(|(k, v)| format!("{k}={}", v.0)).collect();
            format!("status {node}: {} {}", conditions.join(" "), amounts.join(" "))
        }
        Action::Replace(node) => {
            let spec = node.spec.clone().unwrap_or_default();
            let taints: Vec<String> = spec.taints.iter().flatten().map(|t| format!("{}:{}", t.key, t.effect)).collect();
            format!("replace {}: {} cordoned={:?}", node.name_any(), taints.join(" "), spec.unschedulable)
        }
        Action::Renew { node } => format!("renew {node}"),
        Action::Evict { pod } => format!("evict {}", pod.name),
        Action::Remove { pod } => format!("remove {}", pod.name),
        Action::Delete { node, .. } => format!("delete {node}"),
        Action::Allocation { name, phase, node, .. } => format!("{name} {phase:?} {node}"),
    }
}

#[test]
fn names_tell_peers_and_contracts_apart() {
    let mut stage = Stage { up: vec![2, 3], ..Stage::default() };
    stage.contracts = vec![contract("a", 2), contract("b", 2), contract("c", 3), contract("d", 3)];
    stage.allocations = ["a", "b", "c"].map(allocation).into();
    // Another's, who says the same name, gets its tag; nothing is written for what has no allocation.
    stage.check(expect![[r#"
        create grid
        allocation-a Provisioning grid
        create grid-2
        allocation-b Provisioning grid-2
        create grid-ed4928c6
        allocation-c Provisioning grid-ed4928c6"#]]);
    stage.nodes = vec![node("grid", "a", 2)];
    stage.contracts = vec![contract("a", 2), contract("b", 2), contract("c", 3)];
    stage.allocations = ["b", "c"].map(allocation).into();
    stage.nodes.push(from(json!({"metadata": {"name": "grid-2"}})));
    stage.check(expect![[r#"
        delete grid
        create grid-3
        allocation-b Provisioning grid-3
        create grid-ed4928c6
        allocation-c Provisioning grid-ed4928c6"#]]);
}

#[test]
fn a_node_stands_as_its_link_and_its_providers_word() {
    let mut stage = Stage { contracts: vec![contract("a", 2)], allocations: vec![allocation("a")], ..Stage::default() };
    stage.nodes = vec![node("grid", "a", 2)];
    stage.check(expect![[r#"
        status grid: MemoryPressure=Unknown DiskPressure=Unknown PIDPressure=Unknown Ready=Unknown cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute cordoned=None
        allocation-a Provisioning grid"#]]);
    stage.up = vec![2];
    stage.check(expect![[r#"
        status grid: MemoryPressure=False DiskPressure=False PIDPressure=False Ready=False cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute cordoned=None
        renew grid
        allocation-a Provisioning grid"#]]);
    stage.ready = vec!["a"];
    stage.check(expect![[r#"
        status grid: MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule cordoned=None
        renew grid
        allocation-a Active grid"#]]);
    // It is there, and what it sold is not.
    stage.missing = Some("what the provider has bought to serve it with is not ready");
    stage.check(expect![[r#"
        status grid: MemoryPressure=False DiskPressure=False PIDPressure=False Ready=False cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute cordoned=None
        renew grid
        allocation-a Provisioning grid"#]]);
}

#[test]
fn what_serves_another_contract_is_kept_for_it() {
    let mut stage = Stage { up: vec![2], ready: vec!["a"], ..Stage::default() };
    stage.nodes = vec![node("grid", "a", 2)];
    let mut sold = contract("sold", 1);
    sold.spec.served_by = Some("a".into());
    (stage.contracts, stage.allocations) = (vec![contract("a", 2), sold], vec![allocation("a")]);
    stage.check(expect![[r#"
        status grid: MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule fluidos.eu/resale:NoSchedule cordoned=None
        renew grid
        allocation-a Active grid"#]]);
    // What was sold is over: it is for everybody.
    stage.contracts.pop();
    let taint = |key: &str| json!({"key": key, "value": if key.contains("virtual") { "true" } else { "" }, "effect": "NoSchedule"});
    stage.nodes[0].spec = from(json!({"taints": [taint("fluidos.eu/virtual-node"), taint("fluidos.eu/resale")]}));
    stage.check(expect![[r#"
        status grid: MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule cordoned=None
        renew grid
        allocation-a Active grid"#]]);
}

#[test]
fn a_node_ends_with_its_contract_and_its_pods_before_it() {
    let mut stage = Stage {
        nodes: vec![node("grid", "a", 2)],
        pods: vec![pod("web", "grid"), pod("own", "farm")],
        ..Stage::default()
    };
    stage.check(expect![[r#"
        remove web
        delete grid"#]]);
    // Its time is over, but it is there.
    stage.contracts = vec![contract("a", 2)];
    stage.allocations = vec![allocation("a")];
    stage.now = 7200;
    stage.check(expect![[r#"
        status grid: MemoryPressure=Unknown DiskPressure=Unknown PIDPressure=Unknown Ready=Unknown cpu=1 memory=1Gi pods=5
        replace grid: fluidos.eu/virtual-node:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute cordoned=Some(true)
        evict web"#]]);
    stage.pods.clear();
    stage.check(expect!["delete grid"]);
}
