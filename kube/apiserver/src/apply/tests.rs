//! Laws of sets, and of comparing, merging and pruning, for whatever objects there are.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::compare::{compare, set};
use super::fields::{self, Node};
use super::merge::merge;
use super::{Writer, apply, note};
use crate::schema::{View, lookup};

fn view() -> View<'static> {
    View::Type(lookup("", "v1", "Pod").unwrap())
}

/// A pod with some of everything that is shared in another way.
fn pods() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![Just("1"), Just("2")];
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let labels = || proptest::collection::btree_map(name(), text(), 0..3);
    let ports = proptest::collection::btree_set(1..4, 0..3)
        .prop_map(|ports| ports.into_iter().map(|port| json!({"containerPort": port})).collect::<Vec<_>>());
    let container = (text(), proptest::option::of(labels()), ports, proptest::option::of(text())).prop_map(
        |(image, limits, ports, user)| {
            let mut container = json!({"image": image, "ports": ports, "args": [image, "x"]});
            if let Some(limits) = limits {
                container["resources"]["limits"] = json!(limits);
            }
            if let Some(user) = user {
                container["securityContext"] = json!({"runAsUser": user.parse::<i64>().unwrap()});
            }
            container
        },
    );
    let containers = proptest::collection::btree_map(name(), container, 0..3);
    let finalizers = proptest::collection::btree_set(name(), 0..3);
    (labels(), finalizers, containers).prop_map(|(labels, finalizers, containers)| {
        let named = containers.into_iter().map(|(name, mut container)| {
            container["name"] = name.into();
            container
        });
        let containers: Vec<Value> = named.collect();
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    })
}

/// The members of a set, by their paths: what the operations are held against.
fn members(set: &Node) -> BTreeSet<String> {
    fields::paths(set).into_iter().collect()
}

fn writer(name: &str) -> Writer<'_> {
    Writer { name, version: "v1", subresource: "" }
}

/// Without lists and maps that say nothing, which come and go with who applies them.
fn without_empty(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.values_mut().for_each(|value| *value = without_empty(value.take()));
            map.retain(|_, value| *value != json!({}) && *value != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_empty(item.take())),
        _ => {}
    }
    value
}

proptest! {
    #[test]
    fn sets_obey_the_laws_of_sets(a in pods(), b in pods()) {
        let (a, b) = (set(&a, view()), set(&b, view()));
        let (of_a, of_b) = (members(&a), members(&b));
        let mut sum = a.clone();
        prop_assert_eq!(fields::add(&mut sum, &b), !of_b.is_subset(&of_a));
        prop_assert_eq!(members(&sum), &of_a | &of_b);
        let mut rest = a.clone();
        prop_assert_eq!(fields::subtract(&mut rest, &b), !of_b.is_disjoint(&of_a));
        prop_assert_eq!(members(&rest), &of_a - &of_b);
        prop_assert_eq!(members(&fields::both(&a, &b)), &of_a & &of_b);
        prop_assert_eq!(fields::read(&Value::Object(sum.clone())).unwrap(), sum, "what is written reads back");
    }

    #[test]
    fn what_changed_and_went_is_all_that_differs(old in pods(), new in pods()) {
        // A map that is emptied lost its entries, and is not new itself.
        let (old, new) = (without_empty(old), without_empty(new));
        let change = compare(&old, &new, view());
        let (before, after) = (members(&set(&old, view())), members(&set(&new, view())));
        let (changed, removed) = (members(&change.changed), members(&change.removed));
        prop_assert!((&after - &before).is_subset(&changed), "{:?}", change);
        prop_assert!((&before - &after).is_subset(&removed), "{:?}", change);
        prop_assert!(changed.is_disjoint(&removed));
        prop_assert_eq!(change.changed.is_empty() && change.removed.is_empty(), old == new);
    }

    #[test]
    fn merged_says_what_was_said_and_again_changes_nothing(live in pods(), said in pods()) {
        let mut once = live.clone();
        merge(&mut once, &said, view());
        let mut twice = once.clone();
        merge(&mut twice, &said, view());
        prop_assert_eq!(&once, &twice);
        let missing = members(&compare(&once, &said, view()).changed);
        prop_assert!(missing.is_empty(), "{:?}", missing);
    }

    #[test]
    fn who_alone_applies_gets_what_it_says(first in pods(), second in pods()) {
        let nothing = json!({});
        let one = apply(&nothing, &first, view(), &writer("a"), false).unwrap();
        let two = apply(&one, &second, view(), &writer("a"), false).unwrap();
        let fresh = apply(&nothing, &second, view(), &writer("a"), false).unwrap();
        prop_assert_eq!(without_empty(two), without_empty(fresh));
    }

    #[test]
    fn what_another_owns_stays_when_an_applier_goes(theirs in pods(), mine in pods()) {
        let one = apply(&json!({}), &theirs, view(), &writer("b"), false).unwrap();
        let both = apply(&one, &mine, view(), &writer("a"), false);
        prop_assume!(both.is_ok());
        let left = apply(&both.unwrap(), &json!({}), view(), &writer("a"), false).unwrap();
        let set = members(&set(&without_empty(left), view()));
        let owned = members(&super::compare::set(&without_empty(theirs), view()));
        prop_assert_eq!(set, owned);
    }

    #[test]
    fn nothing_is_owned_by_two_who_update(versions in proptest::collection::vec(pods(), 2..5)) {
        let mut object = versions[0].clone();
        let mut managers = note(None, &object, Value::Null, Value::Null, view(), &writer("w0")).0.unwrap_or_default();
        for (i, new) in versions.iter().enumerate().skip(1) {
            let who = format!("w{i}");
            let (noted, moved) = note(Some(&object), new, managers.clone(), Value::Null, view(), &writer(&who));
            prop_assert_eq!(moved, noted.clone().unwrap_or_default() != managers);
            managers = noted.unwrap_or_default();
            object = new.clone();
        }
        let mut seen = BTreeSet::new();
        for entry in managers.as_array().into_iter().flatten() {
            for path in fields::paths(entry["fieldsV1"].as_object().unwrap()) {
                prop_assert!(seen.insert(path.clone()), "{path} is owned twice");
            }
        }
        let all = members(&set(&versions[versions.len() - 1], view()));
        prop_assert!(all.is_subset(&seen), "{:?} is nobody's", &all - &seen);
    }
}

#[test]
fn what_others_wrote_is_read_into_one_form() {
    for (given, read) in [
        (json!({"f:a": {".": {}}}), Some(json!({"f:a": {}}))),
        (
            json!({"k:{\"b\": 1, \"a\":\"x\"}": {}, "v:[1, 2]": {}, "i:07": {}}),
            Some(json!({"k:{\"a\":\"x\",\"b\":1}": {}, "v:[1,2]": {}, "i:7": {}})),
        ),
        (json!({}), Some(json!({}))),
        (json!({"a": {}}), None),
        (json!({"f:a": 1}), None),
        (json!({"k:[]": {}}), None),
        (json!({"v:{": {}}), None),
        (json!([]), None),
    ] {
        assert_eq!(fields::read(&given).map(Value::Object), read, "{given}");
    }
    assert_eq!(fields::shown("k:{\"a\":\"x\",\"b\":1}"), "[a=\"x\",b=1]");
}
