#![allow(clippy::unwrap_used, missing_docs)]
use fluidos_identity::NodeKey;
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::*;

fn id(seed: u8) -> NodeId {
    NodeKey::from_seed([seed; 32]).unwrap().id()
}

fn flavor(id: &str, cpu: &str, price: &str, available: bool) -> rear::Flavor {
    rear::Flavor {
        id: id.into(),
        provider_id: "p".into(),
        flavor_type: rear::FlavorType::K8Slice,
        data: json!({"characteristics": {"architecture": "amd64", "cpu": cpu, "memory": "8Gi", "pods": "10"}}),
        location: rear::Location { city: "Milan".into(), ..Default::default() },
        price: rear::Price { amount: price.into(), currency: "EUR".into(), period: "hour".into(), unit: String::new() },
        owner: Default::default(),
        availability: available,
        network_property_type: String::new(),
    }
}

fn solver(name: &str, cpu: &str, intents: Value, phase: Phase) -> Solver {
    let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
    let mut solver: Solver = serde_json::from_value(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Solver",
        "metadata": {"name": name, "labels": {names::LABEL_SOLVER_FOR: "w"}, "annotations": intents},
        "spec": {"intentID": name, "findCandidate": true, "selector": {"flavorType": "K8Slice", "filters": {"cpuFilter": range(cpu)}}},
    }))
    .unwrap();
    solver.status.get_or_insert_default().solver_phase.phase = phase;
    solver
}

fn peer(seed: u8) -> Peer {
    let address = "192.0.2.1:3004".parse().unwrap();
    Peer {
        name: format!("p{seed}"),
        address,
        did: Some(id(seed)),
        latency_micros: Some(1000),
        rating: None,
        plain: false,
        evidence: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn news_is_what_appears_comes_back_grows_or_is_cheaper() {
    let mut known = Known::default();
    assert!(known.one(id(1), &flavor("f", "4", "1", true)).is_none(), "nothing is known yet");
    assert!(known.all(id(1), &[flavor("f", "4", "1", true), flavor("g", "1", "1", false)]).is_empty());
    let mut is_news = |flavor: rear::Flavor| known.one(id(1), &flavor).is_some();
    assert!(!is_news(flavor("f", "4", "1", true)), "as it was");
    assert!(!is_news(flavor("f", "2", "2", true)), "less, and dearer");
    assert!(!is_news(flavor("f", "2", "3", true)));
    assert!(is_news(flavor("f", "3", "4", true)), "more, though dearer");
    assert!(is_news(flavor("f", "2", "0.5", true)), "cheaper, though less");
    assert!(!is_news(flavor("f", "8", "0.1", false)), "not to be had");
    assert!(is_news(flavor("f", "1", "9", true)), "it is back");
    assert!(is_news(flavor("g", "1", "1", true)) && is_news(flavor("h", "1", "1", true)), "they appear");
    let mut other = flavor("f", "1", "9", true);
    other.price.currency = "CHF".into();
    assert!(is_news(other), "who can compare them?");
    known.gone("h");
    assert!(known.one(id(1), &flavor("h", "1", "1", true)).is_some());
    // After a break in the line all is told again: what is as it was is no news.
    let all = [flavor("g", "1", "1", true), flavor("h", "2", "1", true), flavor("i", "1", "1", true)];
    let told: Vec<String> = known.all(id(1), &all).iter().map(|heard| heard.offer.flavor.clone()).collect();
    assert_eq!(told, ["h", "i"]);
    assert!(known.one(id(1), &flavor("f", "1", "1", true)).is_some(), "it was gone");
    for number in 0..200 {
        known.one(id(1), &flavor(&format!("many-{number}"), "1", "1", true));
    }
    assert_eq!(known.0.unwrap().len(), FLAVORS_MAX);
}

#[test]
fn exactly_those_are_woken_whom_it_could_serve_and_not_again_for_a_while() {
    let milan = json!({"fluidos-intent-location": "Milan"});
    let arm = json!({"fluidos-intent-architecture": "arm64"});
    let bought = |mut solver: Solver| {
        solver.status.get_or_insert_default().contracts = vec![Default::default()];
        solver
    };
    let mut by_hand = solver("by-hand", "2", json!({}), Phase::Failed);
    by_hand.metadata.labels = None;
    let annotated = |at: &str| solver("fresh", "2", json!({names::ANNOTATION_OFFERED: at}), Phase::Failed);
    let all = [
        solver("fits", "4", milan, Phase::Failed),
        solver("looks", "1", json!({}), Phase::Running),
        solver("late", "1", json!({}), Phase::TimedOut),
        solver("too-large", "5", json!({}), Phase::Failed),
        solver("elsewhere", "1", arm, Phase::Failed),
        solver("solved", "1", json!({}), Phase::Solved),
        bought(solver("has", "1", json!({}), Phase::Failed)),
        by_hand,
        annotated("1970-01-01T00:01:36Z p1"),
    ];
    let heard =
        |seed: u8, cpu: &str| (id(seed), vec![Heard::read(&flavor("f", cpu, "0", true), Some(id(seed))).unwrap()]);
    let told = |news, now| -> Vec<String> {
        let woken = woken(all.iter(), &[peer(1)], news, None, at(now));
        woken.into_iter().map(|(solver, peer)| format!("{solver} by {peer}")).collect()
    };
    assert_eq!(told(vec![heard(1, "4")], 100), ["fits by p1", "looks by p1", "late by p1"]);
    assert_eq!(told(vec![heard(1, "4")], 101).len(), 4, "5 s later");
    assert!(told(vec![heard(2, "4")], 101).is_empty(), "nobody trusts it");
}

#[test]
fn a_thousand_changes_are_one_piece_of_news() {
    let inbox = Inbox::default();
    let mut known = Known::default();
    known.all(id(1), &[]);
    for number in 0..1000 {
        let changed = flavor(&format!("f{}", number % 100), &format!("{}", number + 1), "1", true);
        inbox.put(id(1), known.one(id(1), &changed));
    }
    assert!(inbox.there().now_or_never().is_some());
    let news = inbox.take();
    assert_eq!(news.iter().map(|(_, of)| of.len()).collect::<Vec<_>>(), [FLAVORS_MAX]);
    assert_eq!(news[0].1[0].offer.whole.cpu_milli, 901_000, "the newest of it");
    inbox.put(id(1), []);
    assert!(inbox.there().now_or_never().is_none(), "nothing is no news");
}
