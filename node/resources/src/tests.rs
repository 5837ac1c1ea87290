//! The plan as text: a view in, what is written out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use fluidos_identity::{NodeKey, Speakers};
use fluidos_model::kinds::{AdditionalInformation, Flavor, FlavorSpec, NodeIdentity, Offer, SharingPolicySpec, names};
use fluidos_model::market::{Amounts, Extended, HoldRequest, Location, Pool, Sharing};
use jiff::Timestamp;
use serde_json::json;

use crate::Options;
use crate::plan::{Action, View, flavor_name, plan};

const OFFER: Amounts =
    Amounts { cpu_milli: 4000, memory_bytes: 8 << 30, pods: 110, storage_bytes: 0, extended: Extended::NONE };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn options(offer: Option<Amounts>) -> Options {
    let node = NodeKey::from_seed([1; 32]).unwrap().id();
    let more = AdditionalInformation { did: Some(node.to_string()), ..AdditionalInformation::default() };
    let identity = NodeIdentity {
        domain: "Grid.example".into(),
        node_id: node.tag(),
        ip: "192.0.2.1:7300".into(),
        additional_information: Some(more),
    };
    let location = Location { city: "Milan".into(), ..Location::default() };
    Options { node, identity, offer, location, architecture: "amd64".into(), speakers: Speakers::default() }
}

fn promised(amounts: &[Amounts]) -> Pool {
    let mut pool = Pool { capacity: OFFER, commitments: vec![] };
    for (n, amounts) in amounts.iter().enumerate() {
        let request = HoldRequest {
            transaction: format!("t{n}"),
            buyer: "did:key:z".into(),
            flavor: "f".into(),
            amounts: amounts.clone(),
            until: at(60),
            agreed: None,
        };
        pool = pool.hold(&request, at(0)).unwrap();
    }
    pool
}

fn lines(options: &Options, pool: Option<&Pool>, flavors: &[Flavor], second: i64) -> Vec<Action> {
    let view = View {
        options,
        pool: pool.map(Ok),
        policies: &[],
        offers: vec![],
        blueprints: vec![],
        handlers: vec![],
        flavors: flavors.iter().collect(),
        identity: None,
    };
    plan(&view, at(second))
}

fn check(options: &Options, pool: Option<&Pool>, flavors: &[Flavor], second: i64, expected: Expect) {
    let text = |spec: &FlavorSpec| {
        let more = &spec.flavor_type.type_data;
        let price = &spec.price.amount;
        format!("available={} price={price:?} {} {}", spec.availability, more["characteristics"], more["properties"])
    };
    let told: Vec<String> = lines(options, pool, flavors, second)
        .iter()
        .map(|action| match action {
            Action::Identify { data } => format!("identify {data:?}"),
            Action::Offer { name, spec } => format!("offer {name}: {}", text(spec)),
            Action::Change { name, spec, .. } => format!("change {name}: {}", text(spec)),
            Action::Withdraw { name } => format!("withdraw {name}"),
            Action::JudgeService { name, status, .. } => {
                format!("judge {name}: {} {}", status.accepted, status.message)
            }
            Action::Judge { name, status, .. } => format!("judge {name}: {} {}", status.accepted, status.message),
        })
        .collect();
    expected.assert_eq(&told[1..].join("\n"));
}

fn offered(options: &Options) -> Flavor {
    match lines(options, Some(&promised(&[])), &[], 0).pop() {
        Some(Action::Offer { name, spec }) => Flavor::new(&name, *spec),
        other => panic!("no offer but {other:?}"),
    }
}

#[test]
fn the_flavor_is_what_can_still_be_sold() {
    let (options, one) =
        (options(Some(OFFER)), Amounts { cpu_milli: 1500, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() });
    check(
        &options,
        Some(&promised(&[])),
        &[],
        0,
        expect![[
            r#"offer grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: available=true price="0" {"architecture":"amd64","cpu":"4","memory":"8Gi","pods":"110"} {}"#
        ]],
    );
    check(
        &options,
        Some(&promised(std::slice::from_ref(&one))),
        &[offered(&options)],
        1,
        expect![[
            r#"change grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: available=true price="0" {"architecture":"amd64","cpu":"2500m","memory":"7Gi","pods":"100"} {}"#
        ]],
    );
    check(&options, Some(&promised(&[one])), &[offered(&options)], 60, expect![[r#""#]]);
    check(
        &options,
        Some(&promised(&[OFFER])),
        &[offered(&options)],
        1,
        expect![[
            r#"change grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: available=false price="0" {"architecture":"amd64","cpu":"0","memory":"0","pods":"0"} {}"#
        ]],
    );
}

#[test]
fn without_books_nothing_is_said_and_without_an_offer_nothing_is_left() {
    check(&options(Some(OFFER)), None, &[], 0, expect![[r#""#]]);
    check(&options(None), Some(&promised(&[])), &[], 0, expect![[r#""#]]);
    check(
        &options(None),
        None,
        &[offered(&options(Some(OFFER)))],
        0,
        expect!["withdraw grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72"],
    );
    let mut renamed = options(Some(OFFER));
    renamed.identity.domain = "new.example".into();
    check(
        &renamed,
        Some(&promised(&[])),
        &[offered(&options(Some(OFFER)))],
        0,
        expect![[r#"
        withdraw grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72
        offer new.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: available=true price="0" {"architecture":"amd64","cpu":"4","memory":"8Gi","pods":"110"} {}"#]],
    );
    let mut foreign = offered(&options(Some(OFFER)));
    foreign.metadata.name = Some("foreign".into());
    foreign.spec.owner.additional_information = None;
    check(&options(None), None, &[foreign], 0, expect![[r#""#]]);
}

#[test]
fn what_the_owner_adds_to_the_flavor_stays() {
    let options = options(Some(OFFER));
    let mut flavor = offered(&options);
    flavor.spec.flavor_type.type_data["properties"] = json!({"carbon-footprint": {"embodied": 53000}});
    check(&options, Some(&promised(&[])), &[flavor.clone()], 0, expect![[r#""#]]);
    check(
        &options,
        Some(&promised(&[OFFER])),
        &[flavor.clone()],
        0,
        expect![[
            r#"change grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: available=false price="0" {"architecture":"amd64","cpu":"0","memory":"0","pods":"0"} {"carbon-footprint":{"embodied":53000}}"#
        ]],
    );
    // But a price that is not a policy's is not one: nobody would sell at it.
    flavor.spec.price.amount = "3".into();
    assert_eq!(lines(&options, Some(&promised(&[])), &[flavor], 0).len(), 2);
}

#[test]
fn policies_say_what_is_offered_to_anybody() {
    let policy = |spec: serde_json::Value| {
        let spec: SharingPolicySpec = serde_json::from_value(spec).unwrap();
        spec.rules("p").ok()
    };
    let price =
        || json!({"amount": "hour < 1 ? \"0.01\" : \"0.02\"", "currency": "EUR", "period": "hour", "unit": "cpu"});
    let options = options(Some(OFFER));
    let told = |policies: &[Option<Sharing>], second| {
        let pool = promised(&[]);
        let view = View {
            options: &options,
            pool: Some(Ok(&pool)),
            policies,
            blueprints: vec![],
            handlers: vec![],
            offers: vec![],
            flavors: vec![],
            identity: None,
        };
        let Some(Action::Offer { spec, .. }) = plan(&view, at(second)).pop() else { panic!("nothing is offered") };
        let data = &spec.flavor_type.type_data;
        let (cpu, step) = (&data["characteristics"]["cpu"], &data["policies"]["partitionability"]["cpuStep"]);
        format!("{} {} {cpu} in steps of {step}", spec.price.amount, spec.price.unit)
    };
    let whole = [policy(json!({"price": price(), "limits": {"cpu": 1}, "blocks": {"cpuStep": "500m"}}))];
    expect![[r#"0.01 cpu "1" in steps of "500m""#]].assert_eq(&told(&whole, 0));
    expect![[r#"0.02 cpu "1" in steps of "500m""#]].assert_eq(&told(&whole, 3600));
    // For nobody in particular there is no price where only some are admitted; it is not stated, which is not 0.
    let named = [policy(json!({"price": price(), "buyers": {"allow": ["did:key:z"]}}))];
    expect![[r#"  "4" in steps of "1m""#]].assert_eq(&told(&named, 0));
    expect![[r#"  "4" in steps of "1m""#]].assert_eq(&told(&[None], 0));
}

#[test]
fn the_name_comes_from_domain_and_key() {
    expect!["grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72"].assert_eq(&flavor_name(&options(None)));
}

fn package(name: &str, policy: Option<&str>, cpu: &str) -> Offer {
    let plan = |name: &str, cpu: &str| json!({"name": name, "resources": {"cpu": cpu, "memory": "1Gi", "pods": 10}});
    let spec = json!({"sharingPolicy": policy, "plans": [plan("small", cpu), plan("large", "3")]});
    Offer::new(name, serde_json::from_value(spec).unwrap())
}

#[test]
fn each_plan_of_an_offer_is_a_flavor_of_its_size() {
    let options = options(Some(OFFER));
    let told = |offers: &[Offer], flavors: &[Flavor], held: &[Amounts]| {
        let pool = promised(held);
        let (offers, flavors) = (offers.iter().collect(), flavors.iter().collect());
        let view = View {
            options: &options,
            pool: Some(Ok(&pool)),
            policies: &[],
            offers,
            blueprints: vec![],
            handlers: vec![],
            flavors,
            identity: None,
        };
        let lines = plan(&view, at(1)).into_iter().filter_map(|action| match action {
            Action::Identify { .. } => None,
            Action::JudgeService { .. } => None,
            Action::Judge { name, status, .. } => Some(format!("judge {name}: {} {}", status.accepted, status.message)),
            Action::Withdraw { name } => Some(format!("withdraw {name}")),
            Action::Offer { name, spec } | Action::Change { name, spec, .. } => {
                let data = &spec.flavor_type.type_data;
                let (cpu, least) = (&data["characteristics"]["cpu"], &data["policies"]["partitionability"]["cpuMin"]);
                let plan = &data["properties"]["additionalProperties"]["plan"];
                Some(format!("{name}: {plan} {} cpu {cpu} of at least {least}", spec.availability))
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let one = Amounts { cpu_milli: 1500, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
    expect![[r#"
        judge web: true 
        grid.example-k8slice-8a88e3dd7409f195fd52db2d3cba5d72: null true cpu "2500m" of at least "0"
        grid.example-k8slice-8a88e3dd-web.small: "web/small" true cpu "1" of at least "1"
        grid.example-k8slice-8a88e3dd-web.large: "web/large" false cpu "3" of at least "3""#]]
    .assert_eq(&told(&[package("web", None, "1")], &[offered(&options)], &[one]));
    expect![[r#"
        judge web: false sharingPolicy gold: there is none of this name"#]]
    .assert_eq(&told(&[package("web", Some("gold"), "1")], &[offered(&options)], &[]));
    expect![[r#"
        judge web: false plan small: resources are memory 1Gi, pods 10, needed some cpu, memory and pods"#]]
    .assert_eq(&told(&[package("web", None, "0")], &[offered(&options)], &[]));
    let gone = Flavor::new("grid.example-k8slice-8a88e3dd-web.small", offered(&options).spec);
    expect!["withdraw grid.example-k8slice-8a88e3dd-web.small"].assert_eq(&told(&[], &[offered(&options), gone], &[]));
    let many: Vec<Offer> = (0..32).map(|number| package(&format!("web{number:02}"), None, "1")).collect();
    let told = told(&many, &[offered(&options)], &[]);
    assert!(
        told.contains("judge web31: false 62 plans are sold by other offers, needed at most 63 with these"),
        "{told}"
    );
    assert_eq!(told.matches("of at least").count(), 62);
}

#[test]
fn what_was_offered_under_a_key_that_was_handed_over_is_taken_back_and_what_others_offer_is_not() {
    let before = options(Some(OFFER));
    let old = offered(&before);
    let key = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap().id();
    let speakers = Speakers::default();
    let after = Options { node: key(2), speakers: speakers.clone(), ..options(Some(OFFER)) };
    let withdrawn = |flavors: &[Flavor]| {
        let actions = lines(&after, Some(&promised(&[])), flavors, 1).into_iter();
        actions
            .filter(|action| matches!(action, Action::Withdraw { .. }))
            .map(|action| action.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(withdrawn(std::slice::from_ref(&old)), Vec::<String>::new(), "nobody has said that it is the same node");
    let handed_over = fluidos_identity::Standing::Current(key(2));
    speakers.set([(key(1), handed_over.clone()), (key(2), handed_over)].into(), BTreeMap::new());
    assert_eq!(withdrawn(&[old]), [format!("withdraw {}", flavor_name(&before))]);
}

#[test]
fn a_flavor_says_what_can_run_its_pods() {
    let node = |name: &str, label: Option<&str>, handlers: &[&str]| {
        let labels: serde_json::Map<_, _> = label.map(|label| (label.to_owned(), json!("true"))).into_iter().collect();
        let handlers: Vec<_> = handlers.iter().map(|name| json!({"name": name})).collect();
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"runtimeHandlers": handlers}});
        std::sync::Arc::new(serde_json::from_value(node).unwrap())
    };
    let handlers = crate::plan::handlers(&[
        node("farm", None, &["", "oci", "cri"]),
        node("barn", None, &["oci"]),
        node("shed", Some(names::AGENT), &["process"]),
        node("peer", Some(names::VIRTUAL_NODE), &["kata"]),
    ]);
    assert_eq!(handlers, ["cri", "oci"], "guests run on machines of the server alone");

    let options = options(Some(OFFER));
    let pool = promised(&[]);
    let planned = |handlers: &[String], flavors: &[Flavor]| {
        let view = View {
            options: &options,
            pool: Some(Ok(&pool)),
            policies: &[],
            blueprints: vec![],
            handlers: handlers.to_vec(),
            offers: vec![],
            flavors: flavors.iter().collect(),
            identity: None,
        };
        let specs = plan(&view, at(1)).into_iter().filter_map(|action| match action {
            Action::Offer { name, spec } | Action::Change { name, spec, .. } => Some(Flavor::new(&name, *spec)),
            _ => None,
        });
        specs.collect::<Vec<Flavor>>()
    };
    let more = |flavor: &Flavor| flavor.spec.flavor_type.type_data["properties"]["additionalProperties"].clone();
    let mut flavors = planned(&handlers, &[]);
    assert_eq!(more(&flavors[0]), json!({"runtime-handlers": ["cri", "oci"]}));
    // What the owner has added stays; what runs pods is the machines' to say.
    flavors[0].spec.flavor_type.type_data["properties"]["additionalProperties"] =
        json!({"TEE": true, "runtime-handlers": ["kata"]});
    let again = planned(&handlers[1..], &flavors);
    assert_eq!(more(&again[0]), json!({"TEE": true, "runtime-handlers": ["oci"]}));
    let none = planned(&[], &again);
    assert_eq!(more(&none[0]), json!({"TEE": true}));
}
