//! Nodes that find each other by multicast, and who is not taken.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use fluidos_discovery::Trust;
use fluidos_identity::NodeId;
use fluidos_model::kinds::MulticastState;
use serde_json::json;

use crate::others::Avahi;
use crate::stage::{DEADLINE, FOUND, Machine, PORT, ip, key, on_lan};

/// Has it announced that `id` is at this machine, with a signature that is nobody's.
fn forge(avahi: &mut Avahi, instance: &str, id: NodeId) {
    let (signature, port) = ("A".repeat(86), PORT.to_string());
    let fields = [
        ("v", "1"),
        ("did", &id.to_string()),
        ("name", "forged"),
        ("domain", "x"),
        ("rear", &port),
        ("link", &port),
        ("sig", &signature),
    ];
    avahi.publish(instance, &fields.map(|(key, value)| format!("{key}={value}")));
}

#[test]
fn nodes_on_a_lan_find_each_other_and_nobody_else() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let a = one.node(Trust { known: true, lan: true, ..Trust::default() }).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        let (at_a, at_b) = (
            "node2 grid.example 192.0.2.2:7300 Multicast Trusted Up\n",
            "node1 grid.example 192.0.2.1:7300 Multicast Untrusted Up\n",
        );
        a.tells("A finds B", at_a).await;
        b.tells("B finds A", at_b).await;
        let found = b.started.elapsed();
        println!("found and linked after {found:?}");
        assert!(found < FOUND, "{found:?}");
        assert_eq!(a.known().await[0].spec.did, Some(b.id.to_string()));
        assert_eq!(a.links.get(&b.id).map(|session| session.peer().name.clone()).as_deref(), Some("node2"));

        // A stranger takes nobody's place and is nobody: not under A's instance, nor under one of its own.
        let (of_a, nobody) = (a.id, key(9).id());
        let forging = three
            .here(async move {
                let mut avahi = Avahi::start();
                forge(&mut avahi, "intruder", of_a);
                forge(&mut avahi, &nobody.tag(), nobody);
                avahi
            })
            .await;
        let start = Instant::now();
        loop {
            let rejected = b.handle.rejected();
            let seen = |id: NodeId| rejected.iter().any(|r| r.reason.contains(&format!("not signed by {id}")));
            if seen(a.id) && seen(nobody) {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "the forged ones are rejected; last seen: {rejected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(forging);
        assert_eq!((a.told().await.as_str(), b.told().await.as_str()), (at_a, at_b));

        // A cable that is pulled is no good-bye: B is called until it answers.
        ip("link set flt-lan-2 down");
        a.tells("B is down", &at_a.replace("Up", "Down")).await;
        let left = || async {
            let until: jiff::Timestamp = a.known().await[0].status.clone().unwrap().expiration_time.parse().unwrap();
            until.duration_since(jiff::Timestamp::now()).as_secs()
        };
        // However long the link was up before.
        assert!((100..=120).contains(&left().await), "{}", left().await);
        ip("link set flt-lan-2 up");
        a.tells("B is back", at_a).await;
        b.tells("A is back", at_b).await;

        // B says good-bye and is forgotten, not after its time but at the next look.
        b.running.abort();
        let (links, client) = (b.links.clone(), b.client.clone());
        two.here(async move { links.stop().await }).await;
        let gone = a.tells("B is forgotten", "").await;
        println!("forgotten after {gone:?}");
        drop(client);
        let start = Instant::now();
        while !a.links.dials().is_empty() {
            assert!(start.elapsed() < DEADLINE, "B is called no more; last seen: {:?}", a.links.dials());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn who_goes_just_after_its_cable_came_back_is_forgotten_at_once() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node(Trust { known: true, ..Trust::default() }).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        let at_a = "node2 grid.example 192.0.2.2:7300 Multicast Untrusted Up\n";
        a.tells("A finds B", at_a).await;
        ip("link set flt-lan-2 down");
        a.tells("B is down", &at_a.replace("Up", "Down")).await;
        // B has seen that its cable went, and has no sockets there; when it comes back, B ends before it looks again.
        tokio::time::sleep(Duration::from_secs(4)).await;
        ip("link set flt-lan-2 up");
        // What is said before the switch sends it on is heard by nobody.
        let start = Instant::now();
        while !forwards("flt-lan-2") {
            assert!(start.elapsed() < DEADLINE, "the switch sends nothing on");
        }
        let stopped = two.here(async move {
            let start = Instant::now();
            while !is_up() {
                assert!(start.elapsed() < DEADLINE, "the cable is not there");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            b.running.abort();
            b.links.stop().await;
        });
        stopped.await;
        a.tells("B is forgotten", "").await;
    });
}

/// Whether the cable of the machine whose thread calls carries.
fn is_up() -> bool {
    shown("lan0").contains("state UP")
}

/// Whether the switch sends on what comes in at a port.
fn forwards(port: &str) -> bool {
    shown(port).contains("state forwarding")
}

fn shown(device: &str) -> String {
    let output = std::process::Command::new("ip").args(["-o", "-d", "link", "show", device]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_policy_drops_candidates_and_takes_them_again() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node(Trust { known: true, ..Trust::default() }).await;
        a.policy("french", json!({"incoming": {"matchLabels": {"country": "France"}}})).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        b.tells("B finds A", "node1 grid.example 192.0.2.1:7300 Multicast Untrusted Up\n").await;
        a.policy_tells("A says whom it did not take, and why", |status| {
            status.rejected.iter().any(|r| {
                r.peer == format!("node2 {}", b.id) && r.reason == "policy french: country is Italy, needed France"
            })
        })
        .await;
        assert_eq!(a.told().await, "");
        // The rule is gone: B is taken when it is heard again, which is when it announces something new.
        a.remove_policy("french").await;
        b.policy("more", json!({"outgoing": {"features": ["country", "hardware"], "labels": {"hardware": "lidar"}}}))
            .await;
        let at_a = "node2 grid.example 192.0.2.2:7300 Multicast Untrusted Up\n";
        a.tells("A finds B", at_a).await;
        let start = Instant::now();
        while a.known().await[0].spec.features != ["country=Italy", "hardware=lidar"] {
            assert!(start.elapsed() < DEADLINE, "last seen: {:?}", a.known().await[0].spec.features);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(a.known().await[0].metadata.labels.as_ref().unwrap()["feature.fluidos.eu/hardware"], "lidar");
        a.policy_tells("nobody is rejected any more", |status| {
            let multicast = status.multicast.as_ref();
            multicast.is_some_and(|m| m.state == MulticastState::Announcing && m.heard == 1)
        })
        .await;
        // A rule that comes later drops who is there already.
        a.policy("with-tee", json!({"incoming": {"matchExpressions": [{"key": "tee", "operator": "Exists"}]}})).await;
        a.tells("B is dropped", "").await;
        // Nothing is announced any more, and A forgets nothing that a link shows to live.
        b.policy("quiet", json!({"outgoing": {"approaches": ["Catalog"]}})).await;
        b.policy_tells("B only listens", |status| {
            status.multicast.as_ref().is_some_and(|m| m.state == MulticastState::Listening)
        })
        .await;
    });
}

#[test]
fn nodes_find_each_other_where_there_is_only_ipv6() {
    on_lan(async || {
        let (one, two) = (Machine::with(1, None).await, Machine::with(2, None).await);
        let listen = Ipv6Addr::UNSPECIFIED.into();
        let a = one.node_on(listen, Trust { known: true, lan: true, ..Trust::default() }).await;
        let b = two.node_on(listen, Trust { known: true, ..Trust::default() }).await;
        a.tells("A finds B", "node2 grid.example [fd00:db8::2]:7300 Multicast Trusted Up\n").await;
        b.tells("B finds A", "node1 grid.example [fd00:db8::1]:7300 Multicast Untrusted Up\n").await;
    });
}
