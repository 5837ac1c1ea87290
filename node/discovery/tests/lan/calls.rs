//! Nodes that are found because they call.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use fluidos_discovery::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Trust};
use fluidos_link::Links;
use fluidos_model::kinds::{KnownClusterSource, KnownClusterTrust, LinkState};

use crate::stage::{Machine, Node, PORT, key, on_lan};

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
