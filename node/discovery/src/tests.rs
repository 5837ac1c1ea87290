#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{DiscoveryPolicy, KnownCluster, KnownClusterSource, KnownClusterTrust, names};
use jiff::Timestamp;
use serde_json::json;

use crate::mdns::announcement;
use crate::plan::{self, Action, Rules, Trust};
use crate::policy::{self, Policies};
use crate::{Features, Sighting, Source, signature};

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn seen(source: Source, seed: u8, name: &str, address: &str) -> Sighting {
    let link = Some(address.parse().unwrap());
    Sighting {
        source,
        id: key(seed).id(),
        name: name.into(),
        domain: "grid.example".into(),
        rear: address.parse().unwrap(),
        link,
        further: Vec::new(),
        features: None,
        offers: None,
    }
}

fn trust() -> Trust {
    Trust { known: true, ..Trust::default() }
}

fn decide(sighting: &Sighting, before: Option<&KnownCluster>, trust: &Trust, policies: &Policies) -> Action {
    plan::sighting(sighting, before, 0, &Rules { own: key(9).id(), trust, policies, rating: None })
}

fn known(sighting: &Sighting, trust: &Trust) -> KnownCluster {
    match decide(sighting, None, trust, &Policies::default()) {
        Action::Create(spec, name) => KnownCluster::new(&name, *spec),
        other => panic!("{other:?}"),
    }
}

fn check(sighting: &Sighting, before: Option<&KnownCluster>, trust: &Trust, expected: Expect) {
    let told = match decide(sighting, before, trust, &Policies::default()) {
        Action::Create(spec, _) => {
            format!("create {} {:?} {:?}", spec.address, spec.source.unwrap(), spec.trust.unwrap())
        }
        Action::Change(spec, _) => {
            format!("change {} {:?} {:?}", spec.address, spec.source.unwrap(), spec.trust.unwrap())
        }
        Action::Heard(_) => "heard".into(),
        Action::Reject(why) => format!("reject: {why}"),
    };
    expected.assert_eq(&told);
}

#[test]
fn who_is_trusted_may_be_decided_elsewhere() {
    let elsewhere = Trust { decided_elsewhere: true, lan: true, ..trust() };
    let lan = seen(Source::Multicast, 1, "grid", "192.168.1.2:7300");
    let Action::Create(spec, _) = decide(&lan, None, &elsewhere, &Policies::default()) else { panic!("it is new") };
    assert_eq!(spec.trust, None, "nobody has decided yet");
    let mut entry = KnownCluster::new("k", *spec);
    entry.spec.trust = Some(KnownClusterTrust::Untrusted);
    let named = seen(Source::Static, 1, "grid", "192.168.1.2:7300");
    let Action::Change(spec, _) = decide(&named, Some(&entry), &elsewhere, &Policies::default()) else {
        panic!("it was named")
    };
    assert_eq!(spec.trust, Some(KnownClusterTrust::Untrusted), "a sighting does not change what was decided");
}

#[test]
fn what_is_new_is_kept_and_trusted_as_the_owner_says() {
    let lan = seen(Source::Multicast, 1, "grid", "192.168.1.2:7300");
    check(&lan, None, &trust(), expect!["create 192.168.1.2:7300 Multicast Untrusted"]);
    check(&lan, None, &Trust { lan: true, ..trust() }, expect!["create 192.168.1.2:7300 Multicast Trusted"]);
    check(
        &lan,
        None,
        &Trust { keys: vec![key(1).id()], ..Trust::default() },
        expect!["create 192.168.1.2:7300 Multicast Trusted"],
    );
    check(
        &seen(Source::Static, 1, "grid", "192.168.1.2:7300"),
        None,
        &trust(),
        expect!["create 192.168.1.2:7300 Static Trusted"],
    );
    check(
        &seen(Source::Inbound, 1, "grid", "192.168.1.2:7300"),
        None,
        &trust(),
        expect!["create 192.168.1.2:7300 Inbound Untrusted"],
    );
}

#[test]
fn an_address_that_changes_is_followed_and_the_owners_word_stays() {
    let first = known(&seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"), &trust());
    check(&seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"), Some(&first), &trust(), expect!["heard"]);
    check(
        &seen(Source::Multicast, 1, "grid", "192.168.1.7:7300"),
        Some(&first),
        &trust(),
        expect!["change 192.168.1.7:7300 Multicast Untrusted"],
    );
    let named = known(&seen(Source::Static, 1, "grid", "192.168.1.2:7300"), &trust());
    check(
        &seen(Source::Multicast, 1, "grid", "192.168.1.7:7300"),
        Some(&named),
        &trust(),
        expect!["change 192.168.1.7:7300 Static Trusted"],
    );
    check(&seen(Source::Inbound, 1, "grid", "192.168.1.2:40000"), Some(&named), &trust(), expect!["heard"]);
}

#[test]
fn nobody_takes_the_place_of_another() {
    let grid = known(&seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"), &trust());
    check(
        &seen(Source::Multicast, 2, "grid", "192.168.1.3:7300"),
        Some(&grid),
        &trust(),
        expect!["reject: knowncluster-8a88e3dd belongs to did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX"],
    );
    check(&seen(Source::Multicast, 9, "me", "192.168.1.3:7300"), None, &trust(), expect!["reject: it is this node"]);
    check(
        &seen(Source::Multicast, 1, "Bad_Name", "192.168.1.3:7300"),
        None,
        &trust(),
        expect![[r#"reject: its name "Bad_Name" is no DNS label of at most 63 characters"#]],
    );
}

#[test]
fn an_announcement_must_be_signed_by_whom_it_names() {
    let signed = |seed: u8| {
        let mut fields: BTreeMap<String, String> =
            [("v", "1"), ("name", "grid"), ("domain", "grid.example"), ("rear", "7300"), ("link", "7301")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        fields.insert("did".into(), key(1).id().to_string());
        let signature = signature::sign(&key(seed), &fields);
        fields.insert("sig".into(), signature);
        fields
    };
    let read = |fields: &BTreeMap<String, String>| {
        announcement::read(fields).and_then(|signed| signed.at(["192.168.1.2".parse().unwrap()].into_iter()))
    };
    let good = read(&signed(1)).unwrap();
    assert_eq!((good.id, good.link.unwrap().port()), (key(1).id(), 7301));
    assert!(read(&signed(2)).unwrap_err().contains("not signed by"));
    assert_eq!(good.features, None, "a node of before there were features says nothing about them");
    for (field, value) in [("rear", "7400"), ("name", "cloud"), ("extra", "x")] {
        let mut changed = signed(1);
        changed.insert(field.into(), value.into());
        assert!(read(&changed).unwrap_err().contains("not signed by"), "{field}");
    }
    assert!(announcement::read(&signed(1)).unwrap().at(["127.0.0.1".parse().unwrap()].into_iter()).is_err());
}

#[test]
fn only_what_was_heard_on_the_lan_ends_by_itself() {
    let mut grid = known(&seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"), &trust());
    let now = Timestamp::from_second(1000).unwrap();
    let (lately, long) = (Some(Duration::from_secs(119)), Some(Duration::from_secs(120)));
    assert!(!plan::is_expired(&grid, false, lately, now), "an empty status stays, as with official nodes");
    assert!(plan::is_expired(&grid, false, long, now), "whatever time is left in the API, it is silent");
    assert!(!plan::is_expired(&grid, true, long, now), "a link shows that it lives");
    grid.status.get_or_insert_default().expiration_time = Timestamp::from_second(1000).unwrap().to_string();
    assert!(plan::is_expired(&grid, false, None, now));
    assert!(!plan::is_expired(&grid, true, None, now));
    let named = known(&seen(Source::Static, 1, "grid", "192.168.1.2:7300"), &trust());
    assert!(!plan::is_expired(&named, false, long, now), "whom the owner has named is not forgotten for silence");
    assert_eq!(grid.metadata.name.unwrap(), names::known_cluster(&key(1).id().tag()));
}

#[test]
fn of_many_addresses_those_that_others_reach_are_tried() {
    let announced =
        ["fe80::1", "fd00::7", "10.0.0.9", "127.0.0.1", "169.254.1.1", "::1", "10.0.0.2", "10.0.0.9", "fd00::8"];
    let tried = plan::addresses(announced.map(|text| text.parse().unwrap()).into_iter());
    assert_eq!(
        tried.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.2", "10.0.0.9", "fd00::7", "fd00::8"]
    );
    let mut grid = seen(Source::Multicast, 1, "grid", "10.0.0.2:7300");
    grid.further = vec!["fd00::7".parse().unwrap()];
    let endpoints = known(&grid, &trust()).spec.endpoints.unwrap();
    assert_eq!(endpoints.link, ["10.0.0.2:7300", "[fd00::7]:7300"]);
    assert_eq!(endpoints.rear, endpoints.link);
}

#[test]
fn features_are_words_and_few() {
    let features = Features::parse("city=Milan,sells=compute").unwrap();
    assert_eq!((features.get("city"), features.get("country")), (Some("Milan"), None));
    assert_eq!(features.to_string(), "city=Milan,sells=compute");
    assert_eq!(Features::from_list(&features.to_list()), features);
    assert_eq!(Features::parse(""), Ok(Features::default()));
    assert_eq!(crate::features::word(" São Paulo! "), "S-o-Paulo");
    let many = (0..17).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
    let long = (0..4).map(|i| format!("k{i}={}", "x".repeat(60))).collect::<Vec<_>>().join(",");
    for (text, why) in [
        ("city", "has no value"),
        ("=x", "is none"),
        ("a=-x", "is none"),
        ("a b=x", "is none"),
        ("a=x,a=y", "stands there twice"),
        (&many, "needed at most 16"),
        (&long, "needed at most"),
    ] {
        assert!(Features::parse(text).unwrap_err().contains(why), "{text}: {:?}", Features::parse(text));
    }
}

fn policy(name: &str, spec: serde_json::Value) -> DiscoveryPolicy {
    DiscoveryPolicy::new(name, serde_json::from_value(spec).unwrap())
}

#[test]
fn a_policy_says_who_becomes_a_candidate() {
    let admitted = |spec: serde_json::Value| {
        let features = Features::parse("country=Italy,sells=compute").unwrap();
        let policies = Policies::new([&policy("eu", spec)]);
        policies.admit(KnownClusterSource::Multicast, KnownClusterTrust::Untrusted, &features, None)
    };
    let rule = |key: &str, operator: &str, values: &[&str]| json!({"incoming": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}});
    for spec in [
        json!({}),
        json!({"incoming": {"matchLabels": {"sells": "compute"}}}),
        json!({"incoming": {"approaches": ["Multicast", "Catalog"], "minimumTrust": "Untrusted"}}),
        rule("country", "In", &["France", "Italy"]),
        rule("country", "NotIn", &["Elsewhere"]),
        rule("city", "NotIn", &["Milan"]),
        rule("sells", "Exists", &[]),
        rule("tee", "DoesNotExist", &[]),
    ] {
        assert_eq!(admitted(spec.clone()), Ok(()), "{spec}");
    }
    for (spec, why) in [
        (json!({"incoming": {"matchLabels": {"sells": "data"}}}), "policy eu: sells is compute, needed data"),
        (json!({"incoming": {"approaches": ["Catalog"]}}), "policy eu: found by Multicast, needed one of [Catalog]"),
        (
            json!({"incoming": {"minimumTrust": "Trusted"}}),
            "policy eu: it is Untrusted, needed Trusted (--trust says who is)",
        ),
        (rule("country", "In", &["France"]), "policy eu: country is Italy, needed one of France"),
        (rule("city", "In", &["Milan"]), "policy eu: city is not told, needed one of Milan"),
        (rule("country", "NotIn", &["Italy"]), "policy eu: country is Italy, needed none of Italy"),
        (rule("city", "Exists", &[]), "policy eu: city is not told, needed any"),
        (rule("sells", "DoesNotExist", &[]), "policy eu: sells is compute, needed none"),
        // One that cannot be read is no open door.
        (rule("country", "In", &[]), "policy eu: matchExpressions country: In has no values, needed at least one"),
        (rule("country", "Exists", &["x"]), "policy eu: matchExpressions country: Exists has values, needed none"),
    ] {
        assert_eq!(admitted(spec.clone()), Err(why.to_owned()), "{spec}");
    }
    let strict = Policies::new([&policy("none", json!({"incoming": {"approaches": []}}))]);
    let grid = seen(Source::Multicast, 1, "grid", "192.168.1.2:7300");
    assert_eq!(
        decide(&grid, None, &trust(), &strict),
        Action::Reject("policy none: found by Multicast, needed one of []".into())
    );
    let named = seen(Source::Static, 1, "grid", "192.168.1.2:7300");
    assert!(matches!(decide(&named, None, &trust(), &strict), Action::Create(..)), "the owner's word is not filtered");
    // What a node says of itself can change: then it is judged again.
    let before = known(&Sighting { features: Features::parse("country=Italy").ok(), ..grid.clone() }, &trust());
    assert_eq!(before.spec.features, ["country=Italy"]);
    let italy = Policies::new([&policy("eu", json!({"incoming": {"matchLabels": {"country": "Italy"}}}))]);
    let moved = Sighting { features: Features::parse("country=Elsewhere").ok(), ..grid.clone() };
    assert!(matches!(decide(&moved, Some(&before), &trust(), &italy), Action::Reject(_)));
    assert!(matches!(decide(&grid, Some(&before), &trust(), &italy), Action::Heard(_)), "what was told stays told");
    assert_eq!(policy::fault(&Default::default()), None);
}

#[test]
fn a_policy_says_what_is_told() {
    let own = Features::parse("city=Milan,country=Italy,sells=compute").unwrap();
    let told = |specs: &[serde_json::Value]| {
        let policies: Vec<_> = specs.iter().map(|spec| policy("p", spec.clone())).collect();
        let policies = Policies::new(&policies);
        let (told, wrong) = policies.told(&own);
        (policies.announces(KnownClusterSource::Multicast), told.to_string(), wrong.unwrap_or_default())
    };
    let all = (true, own.to_string(), String::new());
    assert_eq!(told(&[]), all);
    assert_eq!(told(&[json!({"outgoing": {}})]), all);
    assert!(!told(&[json!({"outgoing": {"approaches": []}})]).0);
    assert_eq!(
        told(&[
            json!({"outgoing": {"features": ["country", "hardware"], "labels": {"hardware": "lidar"}}}),
            json!({"outgoing": {"approaches": ["Multicast"], "labels": {"secret": "x"}}})
        ]),
        (true, "country=Italy,hardware=lidar".into(), String::new())
    );
    let (_, kept, wrong) = told(&[json!({"outgoing": {"labels": {"a b": "x"}}})]);
    assert_eq!(kept, own.to_string());
    assert!(wrong.contains("is none"), "{wrong}");
}

proptest::proptest! {
    /// Whatever a stranger writes is read or refused, and what is read is written the same.
    #[test]
    fn features_of_strangers_never_surprise(text in ".{0,300}") {
        if let Ok(features) = Features::parse(&text) {
            proptest::prop_assert!(features.to_string().len() <= crate::features::TEXT_MAX);
            proptest::prop_assert_eq!(Features::parse(&features.to_string()), Ok(features));
        }
    }
}

#[test]
fn a_catalog_gives_no_trust_and_changes_nothing_that_nearer_sources_know() {
    let generous = Trust { known: true, lan: true, ..Trust::default() };
    let listed = seen(Source::Catalog, 1, "grid", "192.0.2.1:7300");
    check(&listed, None, &generous, expect!["create 192.0.2.1:7300 Catalog Untrusted"]);
    let named = Trust { keys: vec![key(1).id()], ..generous.clone() };
    check(&listed, None, &named, expect!["create 192.0.2.1:7300 Catalog Trusted"]);
    for source in [Source::Static, Source::Multicast] {
        let before = known(&seen(source, 1, "grid", "192.168.1.2:7300"), &generous);
        check(&listed, Some(&before), &generous, expect!["heard"]);
    }
    let before = known(&listed, &generous);
    check(&seen(Source::Inbound, 1, "grid", "192.0.2.9:7300"), Some(&before), &generous, expect!["heard"]);
    check(
        &seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"),
        Some(&before),
        &generous,
        expect!["change 192.168.1.2:7300 Multicast Trusted"],
    );
}

#[test]
fn who_behaved_badly_is_dropped_and_who_is_new_is_not() {
    let policies = Policies::new([&policy("good", json!({"incoming": {"minimumRating": 60}}))]);
    let admitted = |value: Option<u8>, source| {
        let mut rating = fluidos_model::kinds::Rating::new("r", Default::default());
        rating.status = Some(fluidos_model::kinds::RatingStatus { value, ..Default::default() });
        policies.admit(source, KnownClusterTrust::Untrusted, &Features::default(), Some(&rating))
    };
    assert_eq!(admitted(Some(60), KnownClusterSource::Multicast), Ok(()));
    assert_eq!(admitted(None, KnownClusterSource::Multicast), Ok(()));
    let why = "policy good: its rating is 17, needed at least 60";
    assert_eq!(admitted(Some(17), KnownClusterSource::Multicast), Err(why.to_owned()));
    assert_eq!(admitted(Some(17), KnownClusterSource::Static), Ok(()), "the owner has named it");
    let wrong = Policies::new([&policy("x", json!({"incoming": {"minimumRating": 101}}))]);
    let refused = wrong.admit(KnownClusterSource::Multicast, KnownClusterTrust::Untrusted, &Features::default(), None);
    assert_eq!(refused, Err("policy x: minimumRating is 101, needed 0 to 100".to_owned()));
}

#[test]
fn what_catalogs_and_solvers_tell_of_goods_is_bounded_and_kept_apart() {
    let (lan, listed) = (
        seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"),
        crate::offers::of_catalog(
            &[fluidos_catalog::Offer { type_: "K8Slice\u{1b}".into(), price: "2 EUR".into(), ..Default::default() }],
            "192.0.2.7:7400/public",
        ),
    );
    assert_eq!((listed[0].type_.as_str(), listed[0].from.as_str()), ("K8Slice", "192.0.2.7:7400/public"));
    // Where it is is known better; what it sells is new. Who says nothing of it changes nothing.
    let entry = known(&lan, &trust());
    let elsewhere = Sighting { offers: Some(listed.clone()), ..seen(Source::Catalog, 1, "grid", "192.0.2.1:7300") };
    let Action::Change(spec, _) = decide(&elsewhere, Some(&entry), &trust(), &Policies::default()) else {
        panic!("it sells something")
    };
    assert_eq!((spec.address.as_str(), &spec.offers), (entry.spec.address.as_str(), &listed));
    let entry = KnownCluster::new("k", *spec);
    check(&lan, Some(&entry), &trust(), expect!["heard"]);
    check(&elsewhere, Some(&entry), &trust(), expect!["heard"]);

    // However long the texts are, an announcement has room for what is announced.
    let long = fluidos_model::kinds::KnownClusterOffer {
        name: "n".repeat(63),
        type_: "t".repeat(63),
        amounts: ["cpu", "memory", "pods"].map(|key| (key.to_owned(), "9".repeat(63))).into(),
        price: "p".repeat(64),
        location: "l".repeat(63),
        ..Default::default()
    };
    let told = crate::offers::to_catalog(&vec![long; 16]);
    assert!((2..16).contains(&told.len()), "{}", told.len());
    let announcement = fluidos_catalog::Announcement {
        version: 1,
        did: key(1).id(),
        name: "n".repeat(63),
        domain: "grid.example".into(),
        addresses: vec!["2001:db8:1111:2222:3333:4444:5555:6666".into()],
        rear_port: 65535,
        link_port: 65535,
        features: (0..8).map(|i| (format!("feature{i}"), "x".repeat(20))).collect(),
        offers: told,
        sequence: 1 << 52,
        lifetime_seconds: 900,
    };
    assert!(fluidos_catalog::seal(&key(1), announcement).is_ok());

    let candidate = |seed: u8, flavor: &str, price: &str| -> fluidos_model::kinds::PeeringCandidate {
        let spec = json!({"interestedSolverIDs": [], "sellerDid": key(seed).id().to_string(), "flavor": {
            "metadata": {"name": flavor}, "spec": {"providerID": "p", "owner": {"domain": "", "nodeID": "", "ip": ""},
            "availability": true, "price": {"amount": price, "currency": "EUR", "period": "hour"},
            "flavorType": {"typeIdentifier": "K8Slice", "typeData": {"characteristics": {"cpu": "4"}}}}}});
        fluidos_model::kinds::PeeringCandidate::new("c", serde_json::from_value(spec).unwrap())
    };
    let mut resold = candidate(1, "f3", "1");
    resold.spec.flavor.spec.flavor_type.type_data["policies"] = json!({"conditions": {"resold": true}});
    let candidates =
        [resold, candidate(1, "f1", "2"), candidate(1, "f1", "2"), candidate(1, "f2", "3"), candidate(2, "f1", "4")];
    let told = crate::offers::of_candidates(&candidates);
    let of = |seed: u8| told[&key(seed).id()].iter().map(|o| format!("{} {}", o.price, o.from)).collect::<Vec<_>>();
    assert_eq!(
        (of(1), of(2)),
        (vec!["2 EUR/hour rear".to_owned(), "3 EUR/hour rear".to_owned()], vec!["4 EUR/hour rear".to_owned()])
    );
}
