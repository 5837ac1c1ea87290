#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{KnownCluster, names};
use jiff::Timestamp;

use crate::plan::{self, Action, Trust};
use crate::{Sighting, Source, mdns, signature};

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
    }
}

fn trust() -> Trust {
    Trust { known: true, ..Trust::default() }
}

fn known(sighting: &Sighting, trust: &Trust) -> KnownCluster {
    match plan::sighting(sighting, &key(9).id(), None, 0, trust) {
        Action::Create(spec, name) => KnownCluster::new(&name, *spec),
        other => panic!("{other:?}"),
    }
}

fn check(sighting: &Sighting, before: Option<&KnownCluster>, trust: &Trust, expected: Expect) {
    let told = match plan::sighting(sighting, &key(9).id(), before, 0, trust) {
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
    let read = |fields: &BTreeMap<String, String>| mdns::sighting(fields, ["192.168.1.2".parse().unwrap()].into_iter());
    let good = read(&signed(1)).unwrap();
    assert_eq!((good.id, good.link.unwrap().port()), (key(1).id(), 7301));
    assert!(read(&signed(2)).unwrap_err().contains("not signed by"));
    for (field, value) in [("rear", "7400"), ("name", "cloud"), ("extra", "x")] {
        let mut changed = signed(1);
        changed.insert(field.into(), value.into());
        assert!(read(&changed).unwrap_err().contains("not signed by"), "{field}");
    }
    assert!(mdns::sighting(&signed(1), ["127.0.0.1".parse().unwrap()].into_iter()).is_err());
}

#[test]
fn only_what_was_heard_on_the_lan_ends_by_itself() {
    let mut grid = known(&seen(Source::Multicast, 1, "grid", "192.168.1.2:7300"), &trust());
    let now = Timestamp::from_second(1000).unwrap();
    assert!(!plan::is_expired(&grid, false, now), "an empty status stays, as with official nodes");
    grid.status.get_or_insert_default().expiration_time = Timestamp::from_second(1000).unwrap().to_string();
    assert!(plan::is_expired(&grid, false, now));
    assert!(!plan::is_expired(&grid, true, now), "a link shows that it lives");
    assert_eq!(grid.metadata.name.unwrap(), names::known_cluster(&key(1).id().tag()));
}
