//! Nodes that are found because they call, and one that is called again because it has something new to say.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use fluidos_discovery::mdns::{Announcement, Mdns};
use fluidos_discovery::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, Trust};
use fluidos_link::{DialStatus, Links};
use fluidos_model::kinds::{KnownClusterSource, KnownClusterTrust, LinkState};

use crate::stage::{DEADLINE, Machine, Node, PORT, key, on_lan};

#[test]
fn who_is_behind_no_multicast_is_found_by_its_call() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node(Trust { known: true, lan: true, ..Trust::default() }).await;
        // Only A's cable lets multicast pass: B hears nothing and is not heard, and has A's address by hand.
        let b = two
            .here(async {
                let links = Links::start(
                    key(2),
                    fluidos_link::Options {
                        attributes: [(ATTRIBUTE_REAR_PORT.to_owned(), PORT.to_string())].into(),
                        ..fluidos_link::Options::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), "node2", 1)
                    },
                )
                .unwrap();
                links.dial(SocketAddr::from(([192, 0, 2, 1], PORT)), None);
                links
            })
            .await;
        a.tells("A is called", "node2  192.0.2.2:7300 Inbound Untrusted Up\n").await;
        let known = a.known().await.remove(0);
        assert_eq!(known.spec.source, Some(KnownClusterSource::Inbound));
        assert_eq!(known.spec.trust, Some(KnownClusterTrust::Untrusted));
        assert_eq!(known.status.unwrap().link.unwrap().state, LinkState::Up);
        two.here(async move { b.stop().await }).await;
        // Nobody announced it, so it does not end by itself.
        a.tells("B is down", "node2  192.0.2.2:7300 Inbound Untrusted Down\n").await;
    });
}

#[test]
fn who_is_named_by_its_owner_and_calls_first_is_who_is_named() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let b = two
            .here(async {
                let attributes =
                    [ATTRIBUTE_REAR_PORT, ATTRIBUTE_LINK_PORT].map(|name| (name.to_owned(), PORT.to_string()));
                let options = fluidos_link::Options::new(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)), "node2", 1);
                let links =
                    Links::start(key(2), fluidos_link::Options { attributes: attributes.into(), ..options }).unwrap();
                links.dial(SocketAddr::from(([192, 0, 2, 1], PORT)), None);
                links
            })
            .await;
        let trust = Trust { known: true, ..Trust::default() };
        let listen = Ipv6Addr::UNSPECIFIED.into();
        let named = "[fd00:db8::2]:7300";
        let a = one.here(async move { Node::start_with(1, listen, trust, "", Some(named), None).await }).await;
        // It calls from another address than the one that is named: it is a caller like any other until A's own call has led to it.
        a.tells("A's call leads to B", "node2  [fd00:db8::2]:7300 Static Trusted Up\n").await;
        two.here(async move { b.stop().await }).await;
    });
}

/// Announces node 2, as it says what it has.
fn announce(mdns: &mut Mdns, features: &str) {
    let (key, features) = (&key(2), &Features::parse(features).unwrap());
    let (name, domain) = ("node2", "grid.example");
    let announcement = Announcement { key, name, domain, rear_port: PORT, link_port: PORT, features };
    mdns.announce(Some(&announcement)).unwrap();
}

#[test]
fn who_never_answered_is_called_at_once_when_it_says_something_new() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node_on(Ipv4Addr::UNSPECIFIED.into(), Trust { known: true, ..Trust::default() }).await;
        let mut mdns = two
            .here(async {
                let mut mdns = Mdns::start(None).unwrap();
                announce(&mut mdns, "country=Italy");
                mdns
            })
            .await;
        // After the fifth call in vain the next is due in 19 to 26 s.
        let at_b = SocketAddr::from(([192, 0, 2, 2], PORT));
        let start = Instant::now();
        loop {
            let dials = a.links.dials();
            let failures = dials.iter().find(|(at, _)| *at == at_b).map(|(_, status)| status.clone());
            if matches!(failures, Some(DialStatus::Trying { failures: 5, .. })) {
                break;
            }
            assert!(start.elapsed() < 2 * DEADLINE, "five calls in vain; last seen: {dials:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (b, said) = two
            .here(async move {
                let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
                let b = Links::start(key(2), fluidos_link::Options::new(listen, "node2", 1)).unwrap();
                announce(&mut mdns, "country=France");
                ((b, mdns), Instant::now())
            })
            .await;
        let up = "node2 grid.example 192.0.2.2:7300 Multicast Untrusted Up\n";
        a.tells("A calls B", up).await;
        assert!(said.elapsed() < Duration::from_secs(10), "{:?}", said.elapsed());
        two.here(async move {
            b.0.stop().await;
            drop(b.1);
        })
        .await;
    });
}
