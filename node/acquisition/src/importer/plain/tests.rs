#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn buys() -> Amounts {
    Amounts { cpu_milli: 1000, memory_bytes: 1 << 30, pods: 110, ..Amounts::default() }
}

fn slice(cpu: &str) -> Option<rear::Configuration> {
    // As official nodes write quantities.
    let data: Value = json!({"cpu": cpu, "memory": "1Gi", "pods": "110"});
    Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data })
}

fn held() -> rear::Transaction {
    rear::Transaction {
        id: "2738c980a0f4a5ab0d5c6a7c24ac5b90-1716800000000000000".into(),
        flavor_id: "fluidos.eu-k8slice-ab12".into(),
        configuration: slice("1"),
        buyer: rear::Party::default(),
        cluster_id: "fluidos-consumer-1".into(),
        expiration: Some(at(100)),
        terms: None,
    }
}

fn sold() -> rear::Contract {
    let flavor = rear::Flavor {
        id: held().flavor_id,
        provider_id: "ekvjnuvsel".into(),
        flavor_type: rear::FlavorType::K8Slice,
        data: json!({}),
        location: rear::Location::default(),
        price: rear::Price::default(),
        owner: rear::Party::default(),
        availability: true,
        network_property_type: String::new(),
    };
    rear::Contract {
        id: "contract-fluidos-eu-k8slice-ab12-7f3e".into(),
        transaction_id: held().id,
        flavor,
        configuration: slice("1000m"),
        buyer: rear::Party::default(),
        buyer_cluster_id: String::new(),
        seller: rear::Party::default(),
        expiration: Some(at(1000)),
        extra: Default::default(),
        network_requests: None,
        telemetry: None,
        signed_terms: None,
        credentials_dropped: true,
    }
}

fn told(changed: impl FnOnce(&mut rear::Transaction)) -> String {
    let mut held = held();
    changed(&mut held);
    check_held("fluidos.eu-k8slice-ab12", &buys(), &held, at(50)).map_or_else(|reason| reason, |()| "yes".into())
}

fn told_sold(changed: impl FnOnce(&mut rear::Contract)) -> String {
    let mut sold = sold();
    changed(&mut sold);
    check_sold(&held(), &buys(), &sold, at(50)).map_or_else(|reason| reason, |()| "yes".into())
}

#[test]
fn what_is_held_is_what_was_asked_for() {
    assert_eq!(told(|_| {}), "yes");
    assert_eq!(told(|held| held.expiration = None), "yes", "Go's zero time is none");
    assert!(told(|held| held.flavor_id = "other".into()).starts_with("flavor other is held, needed fluidos.eu"));
    assert!(
        told(|held| held.configuration = slice("500m")).starts_with("cpu 500m, memory 1Gi, pods 110, needed cpu 1")
    );
    assert_eq!(told(|held| held.configuration = None), "it does not say how much");
    assert!(told(|held| held.expiration = Some(at(50))).contains("would be over since"));
}

#[test]
fn what_is_sold_is_what_is_held() {
    assert_eq!(told_sold(|_| {}), "yes");
    assert!(
        told_sold(|sold| sold.transaction_id = "other".into()).starts_with("transaction other is sold, needed 2738")
    );
    assert!(told_sold(|sold| sold.flavor.id = "other".into()).starts_with("flavor other is sold"));
    assert!(told_sold(|sold| sold.configuration = slice("2")).contains("needed cpu 1"));
    assert!(told_sold(|sold| sold.id = "Contract/../x".into()).contains("needed 1 to 63 lower-case"));
    assert!(told_sold(|sold| sold.expiration = Some(at(1))).contains("would be over"));
}

#[test]
fn the_condition_says_whose_word_it_is_and_what_came_with_it() {
    let (came, none) = (condition(true, at(0)), condition(false, at(0)));
    assert_eq!(
        (came.kind.as_str(), came.status.as_str(), came.reason.as_str()),
        ("Peering", "False", "SignedByNobody")
    );
    assert!(came.message.starts_with("signed by nobody: what it says is the claim of its seller"), "{}", came.message);
    assert!(came.message.ends_with("it sent one, which was dropped unread"), "{}", came.message);
    assert!(!none.message.contains("it sent one"), "{}", none.message);
}
