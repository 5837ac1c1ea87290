//! Real namespaces, cables and rules of the kernel, on a machine of its own: a thread with a network and a mount namespace that are
//! gone with it. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::{Ipv4Addr, TcpListener};

use fluidos_security::exposure::{self, View, inside};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::mount::{MsFlags, mount};
use nix::sched::unshare;
use serde_json::json;
use substrate_network::{Attachment, ConfinedPod, NodeNetwork, Options};

use super::*;

const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

fn target(what: &str, address: Ipv4Addr, port: u16) -> Target {
    Target { what: what.into(), address: (address, port).into(), is_service: false }
}

/// What the verb shows of one guest: `CAN item: proof`, one in a line.
fn shown(pod: &Attachment, targets: Vec<Target>) -> Vec<String> {
    let file = File::open(&pod.netns).unwrap();
    let tried = vec![Tried { pod: "twin/web".into(), attempts: probe(&file, pod.address.into(), targets) }];
    let contract = serde_json::from_value(json!({"apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract",
        "metadata": {"name": "c"}, "status": {"phase": "Active"}, "spec": {
            "flavor": {"metadata": {"name": "f"}, "spec": {"providerID": "p", "owner": {"domain": "", "nodeID": "", "ip": ""},
                "availability": true, "networkPropertyType": "", "price": {"amount": "0", "currency": "", "period": ""},
                "flavorType": {"typeIdentifier": "K8Slice", "typeData": {}}}},
            "transactionID": "t", "buyerClusterID": "", "seller": {"domain": "", "nodeID": "", "ip": ""},
            "buyer": {"domain": "", "nodeID": "", "ip": "", "additionalInformation": {"did": "PEER"}}}}))
    .unwrap();
    let guest: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "twin", "uid": "u", "labels": {"reservation.fluidos.eu/contract": "c"}},
        "spec": {"containers": [], "automountServiceAccountToken": false},
        "status": {"phase": "Running", "podIP": pod.address}}))
    .unwrap();
    let view = View {
        peer: "PEER",
        contracts: &[contract],
        nodes: &[],
        namespaces: &[],
        pods: &[guest],
        services: &[],
        secrets: &[],
        config_maps: &[],
        named: &|_| exposure::Named::default(),
        decisions: &[],
        api: Ok(401),
        tried: &tried,
        multicast: None,
        now: Timestamp::now(),
    };
    assert_eq!(inside::guests(&view, inside::Ports::default())[0].pod, "twin/web");
    let rows = exposure::rows(&view);
    let of_addresses = rows.iter().filter(|row| row.what == "address");
    let can = |can: Option<bool>| can.map_or("?", |can| if can { "yes" } else { "no" });
    of_addresses.map(|row| format!("{} {}: {}", can(row.can), row.item, row.proof)).collect()
}

fn serve(namespace: Option<&Path>, port: u16) {
    let listen = move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
    };
    match namespace {
        Some(path) => within(&File::open(path).unwrap(), listen).and_then(joined).unwrap().unwrap(),
        None => listen(),
    }
}

#[test]
fn a_guest_that_is_confined_reaches_nothing_and_one_whose_rule_was_broken_is_shown_so() {
    let machine = thread::Builder::new().name("flt-machine".into()).spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(on_machine());
    });
    machine.unwrap().join().unwrap();
}

async fn on_machine() {
    let directory = tempfile::Builder::new().prefix("flt-exposure-").tempdir().unwrap();
    let network = NodeNetwork::open(Options {
        instance: "e1".into(),
        data_dir: directory.path().join("network"),
        pod_cidr: "10.79.0.0/24".parse().unwrap(),
        service_cidr: "10.97.0.0/16".parse().unwrap(),
        cni: None,
        ipv6: None,
    })
    .await
    .unwrap();
    let (guest, other) =
        (network.attach_confined("uid-guest").await.unwrap(), network.attach("uid-other").await.unwrap());
    serve(None, 6443);
    serve(Some(&other.netns), 80);
    let targets = || {
        vec![
            target("API of this node, at machine m", MACHINE, 6443),
            target("pod shop/db of this owner", other.address, 80),
            target("pod shop/db of this owner", other.address, 81),
            target("metadata of a cloud", Ipv4Addr::new(169, 254, 169, 254), 80),
        ]
    };
    let prohibited = "TCP connect from inside: prohibited: No route to host (os error 113)";
    let confined = [
        format!("no 10.79.0.1:6443 API of this node, at machine m, from twin/web: {prohibited}"),
        format!("no {}:80 pod shop/db of this owner, from twin/web: {prohibited}", other.address),
        format!("no {}:81 pod shop/db of this owner, from twin/web: {prohibited}", other.address),
    ];
    assert_eq!(shown(&guest, targets())[..3], confined);

    // Somebody breaks the rule: the pod may go wherever this node's pods go.
    let open = ConfinedPod { address: guest.address, allow_to: vec!["0.0.0.0/0".parse().unwrap()], own_cluster: true };
    network.set_confined(vec![open]).await.unwrap();
    let seen = shown(&guest, targets());
    let accepted =
        format!("yes {}:80 pod shop/db of this owner, from twin/web: TCP connect from inside: accepted", other.address);
    assert_eq!(seen[1], accepted);
    assert!(seen[2].starts_with("yes") && seen[2].contains("refused by the host itself"), "{seen:?}");
    assert!(seen[0].starts_with("no"), "its own address is still behind the rule of input: {seen:?}");

    // Whoever enters another pod's network than the one that was meant is told.
    let elsewhere = Attachment { netns: other.netns.clone(), ..guest.clone() };
    let seen = shown(&elsewhere, targets());
    assert!(seen.len() == 1 && seen[0].starts_with("? ") && seen[0].contains("has not the pod's address"), "{seen:?}");

    // Not confined at all, as an own pod: everything is open.
    let seen = shown(&other, vec![target("API of this node, at machine m", MACHINE, 6443)]);
    assert!(seen[0].starts_with("yes") && seen[0].ends_with("accepted"), "{seen:?}");
    network.destroy().await.unwrap();
}

#[test]
fn the_network_of_a_pod_is_found_among_mounts_and_nothing_else_is_taken_for_it() {
    let line =
        |root: &str, point: &str, kind: &str| format!("36 35 0:4 {root} {point} rw,relatime shared:1 - {kind} x rw\n");
    let at = "/var/lib/fluidos/network/net/uid-1";
    let mounts = line("/", "/", "ext4") + &line("net:[4026532198]", at, "nsfs");
    assert_eq!(mount_point(&mounts, "uid-1"), Some(Path::new(at)));
    assert_eq!(mount_point(&mounts, "uid-2"), None);
    assert_eq!(mount_point(&line("/x", at, "ext4"), "uid-1"), None, "a file of that name is no namespace");
    assert_eq!(mount_point(&line("net:[1]", "/other/uid-1", "nsfs"), "uid-1"), None);
    assert_eq!(mount_point("nonsense\n\n - \n", "uid-1"), None);
}

#[test]
fn a_pod_of_another_machine_is_said_to_be_there() {
    let why = namespace_of("flt-no-such-uid").unwrap_err();
    assert!(why.contains("runs on another") || why.contains("needs root"), "{why}");
}
