//! What is decided about what is sold on, by what is there.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use fluidos_identity::NodeKey;
use fluidos_model::kinds::{
    AdditionalInformation, Contract, ContractSpec, ContractStatus, EmbeddedFlavor, FlavorPrice, FlavorSpec,
    FlavorTypeData, NodeIdentity, Solver, SolverSpec, names,
};
use fluidos_model::market::{Amounts, Conditions, Margin, Pool, Price, Reselling, Sale, UnitPrice};
use fluidos_rear as rear;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::json;

use super::plan::{self, Order, Settling};
use crate::importer::resale::Held;
use crate::importer::view::Offered;

const BUYER: &str = "did:key:zBuyer";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn amounts() -> Amounts {
    Amounts { cpu_milli: 2000, memory_bytes: 1 << 30, pods: 4, ..Amounts::default() }
}

fn price(amount: &str) -> Price {
    Price::parse(amount, "EUR", "hour").unwrap().unwrap()
}

fn reselling() -> Reselling {
    Reselling { margin: Margin::parse("10%").unwrap(), hops_max: 2, allow: None, deny: vec![] }
}

fn sale() -> Sale {
    Sale {
        policy: "standard".into(),
        price: UnitPrice::ZERO,
        free: Amounts::default(),
        blocks: None,
        hold: None,
        term: None,
        conditions: Conditions::default(),
        plan: None,
        reselling: Some(reselling()),
    }
}

fn behind(amount: &str) -> Held {
    let conditions = Conditions { notice_seconds: 60, ..Conditions::default() };
    let (until, ends) = (Some(at(30)), Some(at(3600)));
    Held { contract: "contract-x".into(), until, ends, price: price(amount), conditions, amounts: amounts() }
}

/// What is held here for what is held behind: until when, when it ends, its conditions; or why not.
fn held(behind: &Held, asked: &str, term_seconds: Option<u64>) -> Result<(Timestamp, Timestamp, Conditions), String> {
    let request = rear::ReserveRequest {
        flavor_id: "f".into(),
        buyer: rear::Party::default(),
        configuration: None,
        transaction_id: None,
        term_seconds,
        path: None,
    };
    let order = Order::Slice(amounts());
    let (of, told, times) = (("t", BUYER), (&order, price(asked)), (Duration::from_secs(60), at(0)));
    let hold = plan::held(&request, of, told, (&sale(), &reselling()), behind, times)?;
    let agreed = hold.agreed.unwrap();
    assert_eq!((hold.until, agreed.price), (agreed.hold_until, price(asked)));
    Ok((hold.until, agreed.ends.unwrap(), agreed.conditions))
}

#[test]
fn what_is_held_here_ends_before_what_is_held_behind_it_and_leaves_the_margin() {
    let (until, ends, conditions) = held(&behind("0.04"), "0.044", None).unwrap();
    assert_eq!((until, ends), (at(29), at(3600)));
    assert_eq!((conditions.resold, conditions.notice_seconds), (true, 60));
    assert_eq!(held(&behind("0.04"), "0.044", Some(600)).unwrap().1, at(600));
    assert_eq!(held(&behind("0.04"), "0.05", None).unwrap().0, at(29), "more than the margin is more");
    let refused = held(&behind("0.040000001"), "0.044", None).unwrap_err();
    assert!(
        refused.starts_with("margin: 0.040000001 EUR/hour is paid and 0.044 EUR/hour asked, needed at least"),
        "{refused}"
    );
    let other = Held { price: Price::parse("0.0004", "USD", "hour").unwrap().unwrap(), ..behind("0") };
    assert!(held(&other, "0.044", None).unwrap_err().starts_with("margin: "));
    let gone = Held { until: Some(at(1)), ..behind("0.04") };
    assert!(held(&gone, "0.044", None).unwrap_err().starts_with("time: "));
    let over = Held { ends: Some(at(20)), ..behind("0.04") };
    assert!(held(&over, "0.044", None).unwrap_err().starts_with("time: "));
}

fn offered(seed: u8, buys: Amounts, amount: Option<&str>, conditions: serde_json::Value) -> Offered {
    let seller = NodeKey::from_seed([seed; 32]).unwrap().id();
    let type_data = json!({
        "characteristics": {"architecture": "amd64", "cpu": "8", "memory": "8Gi", "pods": "110", "gpu": {"model": "x", "cores": "4"}},
        "policies": {"partitionability": {"cpuStep": "1m"}, "conditions": conditions},
        "properties": {"latency": 5, "additionalProperties": {"plan": "web/small", "site": "grid hall 3"}},
    });
    let owner = NodeIdentity {
        domain: "grid.example".into(),
        node_id: "n3".into(),
        ip: "192.0.2.3:1".into(),
        additional_information: None,
    };
    let flavor_type = FlavorTypeData { type_data, ..FlavorTypeData::default() };
    let spec = FlavorSpec { provider_id: "n3".into(), owner, flavor_type, ..FlavorSpec::default() };
    Offered {
        candidate: format!("c{seed}"),
        peer: "grid".into(),
        address: "192.0.2.3:1".parse().unwrap(),
        seller: seller.into(),
        flavor: EmbeddedFlavor { spec, ..EmbeddedFlavor::default() },
        buys,
        price: amount.map(price),
        latency_micros: None,
        rating: None,
        term_seconds: None,
        why: String::new(),
        configuration: None,
    }
}

#[test]
fn who_stands_in_for_the_best_sells_the_same_for_no_more() {
    let usual = || json!({});
    let found = vec![
        offered(1, amounts(), Some("0.04"), usual()),
        offered(2, amounts(), Some("0.041"), usual()),
        offered(3, amounts(), Some("0.03"), json!({"noticeSeconds": 9})),
        offered(4, Amounts { pods: 5, ..amounts() }, Some("0.03"), usual()),
        offered(5, amounts(), None, usual()),
        offered(6, amounts(), Some("0.04"), usual()),
        offered(7, amounts(), Some("0"), usual()),
    ];
    let (asked, offers) = plan::quoted(&reselling(), found).unwrap();
    let names: Vec<&str> = offers.iter().map(|offered| offered.candidate.as_str()).collect();
    assert_eq!((asked, names), (price("0.044"), vec!["c1", "c6", "c7"]));
    assert!(
        plan::quoted(&reselling(), vec![offered(5, amounts(), None, usual())]).is_none(),
        "a price of ? has no margin"
    );
}

#[test]
fn what_is_told_of_it_is_whole_and_names_nobody_behind() {
    let behind = offered(3, amounts(), Some("0.04"), json!({})).flavor.spec;
    let more = AdditionalInformation { name: Some("broker".into()), ..AdditionalInformation::default() };
    let own = NodeIdentity {
        domain: "broker.example".into(),
        node_id: "n2".into(),
        ip: "192.0.2.2:1".into(),
        additional_information: Some(more),
    };
    let conditions = Conditions { resold: true, ..Conditions::default() };
    let flavor = plan::flavor("f", &behind, (&amounts(), &price("0.044")), &conditions, &own).unwrap();
    let offer = flavor.spec.offer("f").unwrap();
    assert_eq!((&offer.whole, offer.architecture.as_str(), offer.plan.as_str()), (&amounts(), "amd64", ""));
    assert!(offer.allows(&amounts()).is_ok() && offer.allows(&Amounts { cpu_milli: 1000, ..amounts() }).is_err());
    assert_eq!(flavor.spec.price, FlavorPrice::from(&price("0.044")));
    let told = serde_json::to_string(&flavor).unwrap();
    assert!(!told.contains("grid") && !told.contains("n3") && !told.contains("192.0.2.3"), "{told}");
    assert!(told.contains(r#""latency":5"#) && told.contains(r#""resold":true"#), "{told}");
}

fn anchor(transaction: &str) -> Solver {
    let hex = plan::anchor(transaction, BUYER);
    let mut solver = Solver::new(&names::resale(&hex), SolverSpec::default());
    solver.labels_mut().insert(names::LABEL_RESALE.into(), hex);
    solver
}

fn pool(transactions: &[&str]) -> Pool {
    let hold = |transaction: &&str| fluidos_model::market::HoldRequest {
        transaction: (*transaction).into(),
        buyer: BUYER.into(),
        flavor: "f".into(),
        amounts: amounts(),
        until: at(60),
        agreed: None,
    };
    let held = transactions.iter().map(hold);
    held.fold(Pool::default(), |pool, hold| pool.hold_served(&hold, "contract-x", at(0)).unwrap())
}

fn contract(name: &str, served_by: Option<&str>) -> Contract {
    Contract::new(name, ContractSpec { served_by: served_by.map(str::to_owned), ..ContractSpec::default() })
}

fn settled(pool: &Pool, anchors: &[Solver], contracts: &[Contract]) -> Settling {
    plan::settle(pool, anchors, contracts, (&BTreeSet::new(), false), at(1))
}

#[test]
fn a_purchase_that_no_promise_names_is_given_back_unless_somebody_is_at_it() {
    let anchors = [anchor("t1"), anchor("t2")];
    let settling = settled(&pool(&["t1"]), &anchors, &[]);
    assert_eq!(settling, Settling { abandon: vec![anchors[1].name_any()], ..Settling::default() });
    let busy = BTreeSet::from([plan::anchor("t2", BUYER)]);
    assert_eq!(plan::settle(&pool(&["t1"]), &anchors, &[], (&busy, false), at(1)), Settling::default());
    // A hold whose time is over promises nothing, nor does one of another buyer.
    assert_eq!(
        plan::settle(&pool(&["t1", "t2"]), &anchors, &[], (&busy, false), at(60)).abandon,
        [anchors[0].name_any()]
    );
    assert_ne!(plan::anchor("t1", BUYER), plan::anchor("t1", "did:key:zOther"));
}

#[test]
fn one_buyer_does_not_hold_all_that_this_node_may_nor_do_all() {
    let held = |buyers: &[&str]| {
        let hold = |(number, buyer): (usize, &&str)| fluidos_model::market::HoldRequest {
            transaction: format!("t{number}"),
            buyer: (*buyer).into(),
            flavor: "f".into(),
            amounts: amounts(),
            until: at(60),
            agreed: None,
        };
        let holds = buyers.iter().enumerate().map(hold);
        holds.fold(Pool::default(), |pool, hold| pool.hold_served(&hold, "x", at(0)).unwrap())
    };
    let room = |pool: &Pool, second| {
        plan::room(pool, ("new", BUYER), "f", &Order::Slice(amounts()), at(second)).map_err(|refusal| refusal.code)
    };
    assert_eq!(room(&held(&[BUYER; 3]), 1), Ok(()));
    assert_eq!(room(&held(&[BUYER; 4]), 1), Err(rear::RefusalCode::TooMany));
    assert_eq!(room(&held(&[BUYER; 4]), 60), Ok(()), "their time is over");
    let others: Vec<String> = (0..12).map(|number| format!("did:key:z{number}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    assert_eq!(room(&held(&others[..11]), 1), Ok(()));
    assert_eq!(room(&held(&others), 1), Err(rear::RefusalCode::Unavailable));
    let sold = held(&[BUYER; 4]).commit("t0", "c", None, at(1)).unwrap();
    assert_eq!(room(&sold, 2), Ok(()), "what is sold is not held");
}

#[test]
fn what_is_sold_on_has_names_of_its_own() {
    let own = NodeIdentity { domain: "Broker.example".into(), ..NodeIdentity::default() };
    let request = rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: vec![],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: Some(1),
        path: None,
    };
    let name = |buyer: &str, request: &rear::ResourceRequest| plan::flavor_name(&own, "abcd0123", buyer, request);
    let asked = name(BUYER, &request);
    assert!(plan::is_resale(&asked, &own, "abcd0123"), "{asked}");
    assert_eq!(asked, name(BUYER, &rear::ResourceRequest { wait_millis: None, ..request.clone() }), "the same need");
    assert_ne!(asked, name("did:key:zOther", &request));
    assert_ne!(asked, name(BUYER, &rear::ResourceRequest { term_seconds: Some(60), ..request }));
    let plan_of = names::plan_flavor("Broker.example", "abcd0123", "resale-0123456789", "small");
    for other in
        [plan_of.as_str(), "broker.example-k8slice-1", "broker.example-k8slice-abcd0123-resale-", &format!("x{asked}")]
    {
        assert!(!plan::is_resale(other, &own, "abcd0123"), "{other}");
    }
}

#[test]
fn a_contract_ends_when_nothing_serves_it_and_notice_goes_both_ways() {
    let (sold, bought) = (contract("sold", Some("bought")), contract("bought", None));
    assert_eq!(settled(&pool(&[]), &[], &[sold.clone(), bought.clone()]), Settling::default());
    let ended = settled(&pool(&[]), &[], std::slice::from_ref(&sold));
    assert!(
        matches!(ended.end.as_slice(), [(name, reason)] if name == "sold" && reason.contains("has ended")),
        "{ended:?}"
    );
    let mut going = bought.clone();
    going.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(settled(&pool(&[]), &[], &[sold.clone(), going]).end.len(), 1);
    // Its own time is over, which is reason enough; or it goes already.
    let mut over = sold.clone();
    over.spec.expiration_time = Some(at(1).to_string());
    assert_eq!(settled(&pool(&[]), &[], &[over]), Settling::default());
    let mut gone = sold.clone();
    gone.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(settled(&pool(&[]), &[], &[gone]), Settling::default());

    let noticed = |contract: &Contract| {
        let mut contract = contract.clone();
        contract.status = Some(ContractStatus { ends: Some(at(100).to_string()), ..ContractStatus::default() });
        contract
    };
    let told = |settling: Settling| settling.notice.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(told(settled(&pool(&[]), &[], &[sold.clone(), noticed(&bought)])), ["sold"]);
    assert_eq!(told(settled(&pool(&[]), &[], &[noticed(&sold), bought.clone()])), ["bought"]);
    assert!(told(settled(&pool(&[]), &[], &[noticed(&sold), noticed(&bought)])).is_empty(), "both know");
    let mut asked = sold.clone();
    asked.annotations_mut().insert(names::ANNOTATION_END_REASON.into(), "x".into());
    assert!(told(settled(&pool(&[]), &[], &[asked, noticed(&bought)])).is_empty(), "once");
}

#[test]
fn what_came_back_after_a_loss_and_serves_nobody_is_given_back() {
    let hex = plan::anchor("t1", BUYER);
    let mut bought = contract("bought", None);
    bought.labels_mut().insert(names::LABEL_RESALE.into(), hex.clone());
    let unneeded = |pool: &Pool, bought: &Contract, busy: &[String], restoring: bool| {
        let busy = busy.iter().cloned().collect();
        plan::settle(pool, &[], std::slice::from_ref(bought), (&busy, restoring), at(1)).unneeded
    };
    assert_eq!(unneeded(&pool(&[]), &bought, &[], false), ["bought"]);
    assert!(unneeded(&pool(&["t1"]), &bought, &[], false).is_empty(), "a promise needs it");
    assert!(unneeded(&pool(&[]), &bought, &[hex], false).is_empty(), "somebody is at it");
    assert!(unneeded(&pool(&[]), &bought, &[], true).is_empty(), "its promise may come back in a moment");
    let mut owned = bought.clone();
    owned.metadata.owner_references = Some(vec![Default::default()]);
    assert!(unneeded(&pool(&[]), &owned, &[], false).is_empty(), "it goes with its Solver");
    bought.metadata.labels = None;
    assert!(unneeded(&pool(&[]), &bought, &[], false).is_empty(), "it was bought for this node itself");
}

#[test]
fn what_is_held_to_be_sold_on_counts_against_ceilings_at_what_it_is_sold_for() {
    let mut pool = pool(&["t1"]);
    assert!(plan::promised(&pool, at(0)).is_empty(), "older ones cost nothing");
    let agreed = fluidos_model::market::Agreed {
        policy: String::new(),
        issued: at(0),
        hold_until: at(60),
        ends: Some(at(3600)),
        price: price("0.044"),
        conditions: Conditions::default(),
        service: None,
    };
    std::sync::Arc::make_mut(&mut pool.commitments[0]).agreed = Some(agreed);
    assert_eq!(plan::promised(&pool, at(0)).iter().map(|expense| expense.price).collect::<Vec<_>>(), [price("0.044")]);
    assert!(plan::promised(&pool, at(60)).is_empty(), "its time is over");
    let sold = pool.commit("t1", "c", None, at(1)).unwrap();
    assert!(plan::promised(&sold, at(2)).is_empty(), "it stands among the contracts");
}
