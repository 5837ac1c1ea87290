#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod kernel;
mod lan;

use std::net::Ipv4Addr;

use bytes::{Buf as _, Bytes};
use expect_test::{Expect, expect};
use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_model::kinds::{
    AdditionalInformation, Contract, ContractSpec, ContractStatus, EmbeddedFlavor, FlavorSpec, FlavorTypeData,
    NodeIdentity, Phase,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::counters::Dropped;
use super::packet::{Addresses, Framer, Joiner, addresses};
use super::plan::{Own, View, plan};
use super::relay::Change;
use super::services::Seen;
use super::table::{Table, Taken};
use super::{MTU, prefix};

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn id(seed: u8) -> NodeId {
    key(seed).id()
}

/// Address number `host` of a node.
fn of(seed: u8, host: u32) -> Ipv4Addr {
    prefix(&id(seed)).nth(host).unwrap()
}

/// As `fluidos up` lays them out: pods first, Services last.
fn own(seed: u8) -> Own {
    let range = |host, bits| substrate_network::Cidr::new(of(seed, host), bits).unwrap();
    Own { id: id(seed), prefix: prefix(&id(seed)), pods: range(0, 21), services: range(0xf00, 24) }
}

/// A contract as acquisition writes it.
fn contract(name: &str, buyer: NodeId, seller: NodeId) -> Contract {
    let party = |id: NodeId| NodeIdentity {
        additional_information: Some(AdditionalInformation { did: Some(id.to_string()), ..Default::default() }),
        ..Default::default()
    };
    let flavor_type = FlavorTypeData { type_data: serde_json::json!({}), ..Default::default() };
    let flavor = EmbeddedFlavor { spec: FlavorSpec { flavor_type, ..Default::default() }, ..Default::default() };
    let spec = ContractSpec { flavor, buyer: party(buyer), seller: party(seller), ..Default::default() };
    let mut contract = Contract::new(name, spec);
    contract.metadata.namespace = Some("fluidos".into());
    contract
}

fn active(buyer: NodeId, seller: NodeId, made: i64) -> Contract {
    let mut contract = contract("c", buyer, seller);
    contract.metadata.creation_timestamp = Some(Time(Timestamp::from_second(made).unwrap()));
    contract.status = Some(ContractStatus { phase: Phase::Active, ..ContractStatus::default() });
    contract
}

fn view(own: &Own, speakers: &Speakers, contracts: &[Contract], now: Timestamp) -> View {
    let contracts: Vec<&Contract> = contracts.iter().collect();
    View::new(own, speakers, &contracts, [].iter(), &Seen::default(), now)
}

fn check(contracts: &[Contract], expected: Expect) {
    let view = self::view(&own(1), &Speakers::default(), contracts, Timestamp::from_second(1000).unwrap());
    let plan = plan(&own(1), &view);
    let mut told = String::new();
    for peer in &plan.peers {
        told += &format!("{} {} {:?}\n", peer.id.tag(), peer.prefix, peer.access);
    }
    for refused in &plan.refused {
        told += &format!("{} refused: {}\n", refused.peer.tag(), refused.reason);
    }
    expected.assert_eq(&told);
}

#[test]
fn a_peer_with_another_key_keeps_its_addresses() {
    use fluidos_identity::Standing;
    // 2 was handed over to 3, and this node was 5 before.
    let speakers = Speakers::default();
    let standings = [(id(2), Standing::Current(id(3))), (id(5), Standing::Current(id(1)))];
    speakers.set(standings.into(), [(id(3), id(2))].into());
    let view = self::view(&own(1), &speakers, &[active(id(5), id(2), 1)], Timestamp::from_second(1000).unwrap());
    let peers = plan(&own(1), &view).peers;
    assert_eq!((peers[0].id, peers[0].prefix, peers.len()), (id(3), prefix(&id(2)), 1));
}

#[test]
fn a_route_lasts_as_long_as_a_contract_and_is_as_wide() {
    let (buys, sells) = (active(id(1), id(2), 1), active(id(2), id(1), 2));
    check(
        std::slice::from_ref(&buys),
        expect![[r#"
            8139770e 100.77.176.0/20 Cluster
        "#]],
    );
    check(
        std::slice::from_ref(&sells),
        expect![[r#"
            8139770e 100.77.176.0/20 Guests
        "#]],
    );
    check(
        &[buys.clone(), sells.clone()],
        expect![[r#"
            8139770e 100.77.176.0/20 Cluster
        "#]],
    );
    let mut ending = sells.clone();
    ending.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let mut over = sells.clone();
    over.spec.expiration_time = Some("1970-01-01T00:16:40Z".into());
    let mut pending = sells.clone();
    pending.status = None;
    let mut keyless = sells;
    keyless.spec.buyer.additional_information = None;
    let (of_others, with_itself) = (active(id(2), id(3), 1), active(id(1), id(1), 1));
    check(&[ending, over, pending, keyless, of_others, with_itself], expect![""]);
}

/// Keys whose prefixes meet: about one pair in 1,024.
fn same_prefix() -> (NodeId, NodeId) {
    let mut seen = std::collections::HashMap::new();
    (0..u32::MAX)
        .find_map(|seed| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_be_bytes());
            let id = NodeKey::from_seed(bytes).unwrap().id();
            seen.insert(prefix(&id), id).map(|other| (other, id))
        })
        .unwrap()
}

#[test]
fn a_prefix_is_whose_contract_is_the_oldest() {
    let (a, b) = same_prefix();
    for (first, second) in [(a, b), (b, a)] {
        let contracts = [active(id(1), second, 20), active(id(1), first, 10)];
        let plan =
            plan(&own(1), &view(&own(1), &Speakers::default(), &contracts, Timestamp::from_second(1000).unwrap()));
        let peers: Vec<_> = plan.peers.iter().map(|peer| peer.id).collect();
        assert_eq!(peers, [first]);
        assert_eq!(plan.refused.len(), 1);
        assert_eq!(plan.refused[0].peer, second);
        assert!(plan.refused[0].reason.contains(&first.to_string()), "{}", plan.refused[0].reason);
    }
    // Nobody gets this node's own, however old the contract.
    let own = Own { id: a, prefix: prefix(&a), pods: prefix(&a), services: prefix(&a) };
    let plan = plan(&own, &view(&own, &Speakers::default(), &[active(a, b, 0)], Timestamp::MAX));
    assert!(plan.peers.is_empty() && plan.refused[0].reason.contains(&a.to_string()));
}

#[test]
fn packets_are_judged_by_both_their_ends() {
    let planned =
        plan(&own(1), &view(&own(1), &Speakers::default(), &[active(id(1), id(2), 1)], Timestamp::UNIX_EPOCH));
    let table = Table::new(&own(1), &planned);
    let packet = |source, destination| Addresses { source, destination };
    let incoming = |peer: u8, source, destination| table.incoming(&id(peer), packet(source, destination));
    assert_eq!(incoming(2, of(2, 5), of(1, 5)), Ok(Taken::Here));
    assert_eq!(incoming(2, of(2, 4095), of(1, 0xf0a)), Ok(Taken::Here));
    assert_eq!(incoming(3, of(3, 5), of(1, 5)), Err(Dropped::NoContract));
    for spoofed in [of(3, 5), of(1, 5), Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1)] {
        assert_eq!(incoming(2, spoofed, of(1, 5)), Err(Dropped::ForeignSource), "{spoofed}");
    }
    // Between pods and Services, this node's LAN, loopback, everybody, the peer itself, another.
    let multicast = Ipv4Addr::new(224, 0, 0, 251);
    for elsewhere in [of(1, 0x900), Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST, multicast, of(2, 6), of(3, 5)] {
        assert_eq!(incoming(2, of(2, 5), elsewhere), Err(Dropped::ForeignDestination), "{elsewhere}");
    }
    assert_eq!(table.outgoing(packet(of(1, 5), of(2, 5))), Ok(id(2)));
    assert_eq!(table.outgoing(packet(of(1, 5), of(3, 5))), Err(Dropped::ForeignDestination));
    assert_eq!(table.outgoing(packet(Ipv4Addr::new(192, 0, 2, 1), of(2, 5))), Err(Dropped::ForeignSource));
    let empty = Table::default();
    assert_eq!(empty.outgoing(packet(of(1, 5), of(2, 5))), Err(Dropped::ForeignSource));
    assert_eq!(empty.incoming(&id(2), packet(of(2, 5), of(1, 5))), Err(Dropped::NoContract));
}

/// An IPv4 packet of this length; its check sum is the kernel's affair.
fn packet(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..length).map(|i| i as u8).collect();
    packet[..2].copy_from_slice(&[0x45, 0]);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet
}

#[test]
fn only_whole_plain_ipv4_is_read() {
    let good = packet(of(1, 5), of(2, 5), 100);
    assert_eq!(addresses(&good), Ok(Addresses { source: of(1, 5), destination: of(2, 5) }));
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let long = packet(of(1, 5), of(2, 5), usize::from(MTU) + 1);
    let options = changed(0, 0x46);
    for bad in [&[][..], &good[..19], &good[..99], &[&good[..], &[0]].concat(), &changed(0, 0x65), &options, &long] {
        assert_eq!(addresses(bad), Err(Dropped::Malformed), "{bad:?}");
    }
}

#[test]
fn a_packet_too_long_for_a_datagram_arrives_in_two_parts_in_any_order() {
    let (mut framer, mut joiner) = (Framer::new(), Joiner::default());
    let whole = packet(of(1, 5), of(2, 5), usize::from(MTU));
    let payload = |mut frame: Bytes| {
        assert_eq!(frame.get_u8(), super::CHANNEL);
        frame
    };
    let sent = payload(framer.whole(&whole));
    assert_eq!(joiner.packet(id(2), sent), Ok(Some(Bytes::from(whole.clone()))));
    for swap in [false, true] {
        let mut parts = framer.parts(&whole).map(payload);
        // The least that a datagram of the link holds.
        assert!(parts.iter().all(|part| part.len() <= 1161));
        if swap {
            parts.swap(0, 1);
        }
        let [first, second] = parts;
        assert_eq!(joiner.packet(id(2), first), Ok(None));
        assert_eq!(joiner.packet(id(3), second.clone()), Ok(None), "another peer's part is another packet's");
        assert_eq!(joiner.packet(id(2), second), Ok(Some(Bytes::from(whole.clone()))));
        joiner.retain(|peer| *peer != id(3));
    }
    // A part that was lost takes nothing with it but its packet.
    let [lost, _] = framer.parts(&whole).map(payload);
    let [first, second] = framer.parts(&whole).map(payload);
    assert_eq!(joiner.packet(id(2), lost), Ok(None));
    assert_eq!(joiner.packet(id(2), first.clone()), Ok(None));
    assert_eq!(joiner.packet(id(2), first), Ok(None), "the same part twice is not a packet");
    assert_eq!(joiner.packet(id(2), second), Ok(Some(Bytes::from(whole))));
    assert_eq!(joiner.packet(id(2), Bytes::new()), Err(Dropped::Malformed));
    assert_eq!(joiner.packet(id(2), Bytes::from_static(&[0, 1, 2])), Err(Dropped::Malformed));
    assert_eq!(joiner.packet(id(2), vec![0; 1300].into()), Err(Dropped::Malformed));
}

#[test]
fn who_sells_a_service_reaches_nothing_here_for_it() {
    let mut service = active(id(1), id(2), 1);
    service.spec.flavor.spec.flavor_type.type_identifier = fluidos_model::kinds::FlavorType::Service;
    let slice = active(id(1), id(2), 2);
    let access = |seed, contracts: &[Contract]| {
        let own = own(seed);
        let view = self::view(&own, &Speakers::default(), contracts, Timestamp::from_second(10).unwrap());
        plan(&own, &view).peers[0].access
    };
    use substrate_network::FabricAccess::{Cluster, Guests};
    assert_eq!((access(1, &[service.clone()]), access(2, &[service.clone()])), (Guests, Guests));
    assert_eq!(access(1, &[service, slice]), Cluster, "its pods run there as well");
}

/// A twin as it stands in the API of its provider.
fn twin(name: &str, contract: &str, address: Ipv4Addr, notes: serde_json::Value) -> Pod {
    serde_json::from_value(
        serde_json::json!({"metadata": {"name": name, "labels": {"reservation.fluidos.eu/contract": contract},
        "annotations": notes}, "status": {"podIP": address}}),
    )
    .unwrap()
}

fn named(name: &str, mut contract: Contract) -> Contract {
    contract.metadata.name = Some(name.into());
    contract
}

fn planned(seed: u8, contracts: &[Contract], twins: &[Pod]) -> super::plan::Plan {
    let contracts: Vec<&Contract> = contracts.iter().collect();
    planned_with(seed, &contracts, twins, &Seen::default())
}

fn planned_with(seed: u8, contracts: &[&Contract], twins: &[Pod], services: &Seen) -> super::plan::Plan {
    let (own, now) = (own(seed), Timestamp::from_second(10).unwrap());
    let view = View::new(&own, &Speakers::default(), contracts, twins.iter(), services, now);
    plan(&own, &view)
}

/// 1 uses a service that 2 sells on and 3 runs.
#[test]
fn a_service_that_is_sold_on_is_carried_to_who_uses_it_and_to_nobody_else() {
    let mut sold = named("sold", active(id(1), id(2), 1));
    sold.spec.served_by = Some("bought".into());
    let mut bought = named("bought", active(id(2), id(3), 2));
    for contract in [&mut sold, &mut bought] {
        contract.spec.flavor.spec.flavor_type.type_identifier = fluidos_model::kinds::FlavorType::Service;
    }
    let (stand_in, at) = (of(2, 0xe07), of(3, 7));
    let slice = |pod: Ipv4Addr, stand_in: Ipv4Addr| Seen {
        passed: vec![std::sync::Arc::new(
            serde_json::from_value(serde_json::json!({"addressType": "IPv4", "endpoints": [], "metadata": {
                "name": "passed", "labels": {"fluidos.eu/service-passed": "sold"},
                "annotations": {"fluidos.eu/stand-in": format!("{pod}={stand_in}")}}}))
            .unwrap(),
        )],
        ..Seen::default()
    };
    // At who sells it on.
    let plan = planned_with(2, &[&sold, &bought], &[], &slice(at, stand_in));
    let table = Table::new(&own(2), &plan);
    let incoming = |peer: u8, source, destination| table.incoming(&id(peer), Addresses { source, destination });
    assert_eq!(incoming(1, of(1, 5), stand_in), Ok(Taken::On(id(3), Change::Destination(at))));
    assert_eq!(incoming(3, at, of(1, 5)), Ok(Taken::On(id(1), Change::Source(stand_in))));
    assert_eq!(incoming(3, at, of(2, 5)), Err(Dropped::ForeignDestination), "nothing of the reseller's");
    for (pod, stand_in) in [(of(4, 7), stand_in), (at, of(2, 5)), (at, of(2, 0xf0a)), (at, of(1, 0xe07))] {
        assert!(planned_with(2, &[&sold, &bought], &[], &slice(pod, stand_in)).relays.is_empty(), "{pod} {stand_in}");
    }
    assert!(planned_with(2, &[&sold], &[], &slice(at, stand_in)).relays.is_empty(), "what serves it has ended");

    // Where it runs.
    let runs = Seen {
        pods: vec![std::sync::Arc::new(
            serde_json::from_value(serde_json::json!({"metadata": {"name": "db", "namespace": "service-1",
                "labels": {"fluidos.eu/service": "bought"}}, "status": {"podIP": at}}))
            .unwrap(),
        )],
        namespaces: vec![std::sync::Arc::new(
            serde_json::from_value(serde_json::json!({"metadata": {"name": "service-1",
                "annotations": {"fluidos.eu/home": prefix(&id(1)).to_string()}}}))
            .unwrap(),
        )],
        ..Seen::default()
    };
    let plan = planned_with(3, &[&bought], &[], &runs);
    assert!(plan.routes("flt3").iter().any(|route| route.to == prefix(&id(1))), "who uses it is led to the buyer");
    let table = Table::new(&own(3), &plan);
    let packet = |source, destination| Addresses { source, destination };
    assert_eq!(table.incoming(&id(2), packet(of(1, 5), at)), Ok(Taken::Here));
    assert_eq!(table.incoming(&id(2), packet(of(4, 5), at)), Err(Dropped::ForeignSource));
    assert_eq!(table.incoming(&id(2), packet(of(1, 5), of(3, 8))), Err(Dropped::ForeignSource), "for its pods only");
    assert_eq!(table.outgoing(packet(at, of(1, 5))), Ok(id(2)));
    assert_eq!(table.outgoing(packet(at, of(2, 5))), Err(Dropped::ForeignDestination));
}

/// 1 buys from 2, who serves that with what it has bought from 3; 4 is a peer of 2 and of 3.
#[test]
fn a_reseller_carries_between_an_owner_and_its_pod_and_nothing_else() {
    let mut sold = named("sold", active(id(1), id(2), 1));
    sold.spec.served_by = Some("bought".into());
    let bought = named("bought", active(id(2), id(3), 2));
    let other = named("other", active(id(4), id(2), 3));
    let contracts = [sold, bought, other];
    let (stand_in, at) = (of(2, 0x900), of(3, 7));
    let twins = [twin("web", "sold", at, serde_json::json!({"fluidos.eu/stand-in": stand_in}))];
    let plan = planned(2, &contracts, &twins);
    use substrate_network::FabricAccess::Guests;
    assert!(plan.peers.iter().all(|peer| peer.access == Guests), "what is sold on reaches nothing of the reseller");
    assert!(plan.routes("flt2").iter().all(|route| route.to != prefix(&id(2))));
    let table = Table::new(&own(2), &plan);
    let incoming = |peer: u8, source, destination| table.incoming(&id(peer), Addresses { source, destination });
    assert_eq!(incoming(1, of(1, 5), stand_in), Ok(Taken::On(id(3), Change::Destination(at))));
    assert_eq!(incoming(1, of(1, 0xf0a), stand_in), Ok(Taken::On(id(3), Change::Destination(at))));
    assert_eq!(incoming(3, at, of(1, 5)), Ok(Taken::On(id(1), Change::Source(stand_in))));
    // In another's name; by another; to another stand-in.
    assert_eq!(incoming(1, of(3, 7), stand_in), Err(Dropped::ForeignSource));
    assert_eq!(incoming(4, of(4, 5), stand_in), Err(Dropped::ForeignDestination));
    assert_eq!(incoming(3, of(3, 8), stand_in), Err(Dropped::ForeignDestination));
    assert_eq!(incoming(1, of(1, 5), of(2, 0x901)), Err(Dropped::ForeignDestination));
    // The pod reaches its owner, and neither the reseller nor the reseller's other consumers; another pod there does not.
    for elsewhere in [of(2, 5), of(2, 0xf0a), of(4, 5), of(3, 9)] {
        assert_eq!(incoming(3, at, elsewhere), Err(Dropped::ForeignDestination), "{elsewhere}");
    }
    assert_eq!(incoming(3, of(3, 8), of(1, 5)), Err(Dropped::ForeignDestination));
    // What is told of places that are not there leads nowhere.
    for (address, stand_in) in [(of(4, 7), stand_in), (at, of(2, 5)), (at, of(2, 0xf0a)), (at, of(1, 0x900))] {
        let twins = [twin("web", "sold", address, serde_json::json!({"fluidos.eu/stand-in": stand_in}))];
        assert!(planned(2, &contracts, &twins).relays.is_empty(), "{address} {stand_in}");
    }
    // One of the two contracts has ended.
    for end in [0, 1] {
        let mut contracts = contracts.clone();
        contracts[end].status = None;
        assert!(planned(2, &contracts, &twins).relays.is_empty());
    }
}

/// 2 sells what it has of 3, who has it of 4: in the middle both are somebody else's.
#[test]
fn a_chain_may_be_longer() {
    let mut bought = named("bought", active(id(2), id(3), 1));
    bought.spec.served_by = Some("further".into());
    let contracts = [bought, named("further", active(id(3), id(4), 2))];
    let (stand_in, at, home) = (of(3, 0x900), of(4, 7), prefix(&id(1)));
    let notes = serde_json::json!({"fluidos.eu/stand-in": stand_in, "fluidos.eu/home": home});
    let plan = planned(3, &contracts, &[twin("web", "bought", at, notes)]);
    let table = Table::new(&own(3), &plan);
    let incoming = |peer: u8, source, destination| table.incoming(&id(peer), Addresses { source, destination });
    assert_eq!(incoming(2, of(1, 5), stand_in), Ok(Taken::On(id(4), Change::Destination(at))));
    assert_eq!(incoming(4, at, of(1, 5)), Ok(Taken::On(id(2), Change::Source(stand_in))));
    assert_eq!(
        incoming(2, of(2, 5), stand_in),
        Err(Dropped::ForeignSource),
        "the one between has nothing to say to it"
    );
    assert_eq!(incoming(4, at, of(2, 5)), Err(Dropped::ForeignDestination));
}

/// At 3, for whom 2 is the consumer and 1 stands behind it; 1 is a peer of 3 as well.
#[test]
fn what_stands_behind_a_consumer_comes_by_it_and_for_its_own_pod_only() {
    let contracts = [named("bought", active(id(2), id(3), 1)), named("own", active(id(1), id(3), 2))];
    let (pod, own_guest) = (of(3, 7), of(3, 8));
    let home = serde_json::json!({"fluidos.eu/home": prefix(&id(1))});
    let twins = [twin("web", "bought", pod, home.clone()), twin("api", "own", own_guest, serde_json::json!({}))];
    let check = |contracts: &[Contract]| {
        let plan = planned(3, contracts, &twins);
        let table = Table::new(&own(3), &plan);
        let incoming = |peer: u8, source, destination| table.incoming(&id(peer), Addresses { source, destination });
        assert_eq!(incoming(2, of(1, 5), pod), Ok(Taken::Here));
        assert_eq!(table.outgoing(Addresses { source: pod, destination: of(1, 5) }), Ok(id(2)), "not to 1 itself");
        assert_eq!(incoming(2, of(1, 5), own_guest), Err(Dropped::ForeignSource));
        assert_eq!(incoming(2, of(1, 5), of(3, 0xf0a)), Err(Dropped::ForeignSource));
        assert_eq!(incoming(2, of(4, 5), pod), Err(Dropped::ForeignSource));
        for elsewhere in [of(2, 5), of(4, 5)] {
            let packet = Addresses { source: pod, destination: elsewhere };
            assert_eq!(table.outgoing(packet), Err(Dropped::ForeignDestination), "{elsewhere}");
        }
        let routes: Vec<_> = plan.routes("flt3").into_iter().map(|route| (route.to, route.access)).collect();
        use substrate_network::FabricAccess::Guests;
        let mut both = [(prefix(&id(1)), Guests), (prefix(&id(2)), Guests)];
        both.sort();
        let mut routes: Vec<_> = routes;
        routes.sort();
        assert_eq!(routes, both, "one route each");
        table
    };
    let table = check(&contracts);
    let incoming = |peer: u8, source, destination| table.incoming(&id(peer), Addresses { source, destination });
    assert_eq!(incoming(1, of(1, 5), own_guest), Ok(Taken::Here));
    assert_eq!(incoming(1, of(1, 5), pod), Err(Dropped::ForeignDestination), "it is not the consumer of this pod");
    assert_eq!(table.outgoing(Addresses { source: own_guest, destination: of(1, 5) }), Ok(id(1)));
    check(&contracts[..1]);
    // This node's own addresses are behind nobody.
    let own_home = [twin("web", "bought", pod, serde_json::json!({"fluidos.eu/home": prefix(&id(3))}))];
    assert!(planned(3, &contracts, &own_home).vias.is_empty());
}
