//! What is decided for one Solver, as text: a view in, the next step out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use fluidos_model::intent;
use fluidos_model::kinds::{
    AcquisitionPolicySpec, Allocation, AllocationPhase, AttributeLevel, Contract, ContractSpec, KnownCluster,
    KnownClusterSpec, KnownClusterTrust, Phase, Reservation, Solver, SolverStatus, names,
};
use fluidos_model::market::{Buying, Expense, K8SliceSelector, Price};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::Resource as _;
use serde_json::{Value, json};

use super::act::{Done, Unsold};
use super::plan::{Action, plan};
use super::purse::Purse;
use super::view::{Away, Findings, Peer, Refused, Search, Searches, View, peers};
use super::weigh::{Answer, Said, Silence, told, weigh};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn solver(spec: Value, annotations: &[(&str, &str)], phase: Phase) -> Solver {
    let mut whole = json!({
        "intentID": "i", "findCandidate": true, "reserveAndBuy": true, "establishPeering": true,
        "selector": {"flavorType": "K8Slice", "filters": {"cpuFilter": {"name": "Range", "data": {"min": "1"}}}},
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut solver = Solver::new("s", serde_json::from_value(whole).unwrap());
    solver.metadata.uid = Some("uid".into());
    solver.metadata.resource_version = Some("7".into());
    solver.metadata.annotations =
        Some(annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
    let mut status = SolverStatus::default();
    if phase != Phase::Idle {
        status.solver_phase.phase = phase;
        status.solver_phase.start_time = Some(at(0).to_string());
        status.solver_phase.end_time = phase.is_final().then(|| at(0).to_string());
    }
    if phase == Phase::Solved {
        (status.reserve_and_buy, status.peering) = (Phase::Solved, Phase::Solved);
    }
    solver.status = Some(status);
    solver
}

fn running() -> Solver {
    solver(json!({}), &[], Phase::Running)
}

fn peer(name: &str) -> Peer {
    let address = "192.0.2.1:7300".parse().unwrap();
    Peer { name: name.into(), address, did: None, latency_micros: None, rating: None, plain: false, evidence: None }
}

fn flavor(id: &str, cpu: &str, city: &str) -> rear::Flavor {
    rear::Flavor {
        id: id.into(),
        provider_id: "p".into(),
        flavor_type: rear::FlavorType::K8Slice,
        data: json!({
            "characteristics": {"architecture": "amd64", "cpu": cpu, "memory": "1Gi", "pods": "10"},
            "policies": {"partitionability": {"cpuStep": "500m"}},
        }),
        location: rear::Location { city: city.into(), ..rear::Location::default() },
        price: rear::Price { amount: "0".into(), ..rear::Price::default() },
        owner: rear::Party::default(),
        availability: true,
        network_property_type: String::new(),
    }
}

fn answer(seed: u8, flavors: Vec<rear::Flavor>) -> Answer {
    Ok(Said::of(NodeKey::from_seed([seed; 32]).unwrap().id().into(), &flavors, None))
}

fn found(filters: Value, intents: &[(&str, &str)], answers: Vec<(Peer, Answer)>) -> Findings {
    let selector = K8SliceSelector::from_json(&filters).unwrap();
    weigh(&selector, None, &intent::parse(intents.iter().copied()), None, &answers)
}

/// Grid offers what is asked for.
fn grid() -> Findings {
    found(
        json!({"cpuFilter": {"name": "Range", "data": {"min": "1"}}}),
        &[],
        vec![(peer("grid"), answer(2, vec![flavor("f", "4", "Milan")]))],
    )
}

fn refused(peer: &str) -> Refused {
    Refused { peer: peer.into(), step: "list", reason: "cpu: 1 offered, needed at least 2".into() }
}

struct Case {
    solver: Solver,
    peers: Vec<Peer>,
    search: Search,
    reservation: Option<Value>,
    contract: bool,
    allocation: Option<AllocationPhase>,
    purse: Purse,
}

fn case(solver: Solver, peers: &[Peer], search: Search) -> Case {
    let (purse, contract) = (Purse::default(), false);
    Case { solver, peers: peers.to_vec(), search, reservation: None, contract, allocation: None, purse }
}

fn asked(second: i64, peers: &[Peer], findings: Findings) -> Search {
    Search { asked: Some((at(second), peers.to_vec())), findings, ..Search::default() }
}

fn check(case: &Case, second: i64, expected: Expect) {
    let mut searches = Searches::default();
    searches.insert("uid", case.search.clone());
    let mut reservations = BTreeMap::new();
    if let Some(status) = &case.reservation {
        let mut reservation = Reservation::new("reservation-s", Default::default());
        reservation.metadata.owner_references = case.solver.controller_owner_ref(&()).map(|owner| vec![owner]);
        reservation.status = Some(serde_json::from_value(status.clone()).unwrap());
        reservations.insert("reservation-s".to_owned(), Arc::new(reservation));
    }
    let mut contracts = BTreeMap::new();
    if case.contract {
        let mut known = Contract::new("contract-c", ContractSpec::default());
        known.spec.signed_terms = Some(fluidos_model::kinds::SignedTerms::default());
        contracts.insert("contract-c".to_owned(), Arc::new(known));
    }
    let mut allocations = BTreeMap::new();
    if let Some(phase) = case.allocation {
        let mut allocation = Allocation::new("allocation-c", Default::default());
        allocation.status.get_or_insert_default().status = phase;
        allocations.insert("allocation-c".to_owned(), Arc::new(allocation));
    }
    let peers = case.peers.clone();
    let purse = case.purse.clone();
    let view =
        View { solvers: vec![&case.solver], reservations, contracts, allocations, peers, purse, searches: &searches };
    let plan = plan(&view, at(second));
    let mut lines: Vec<String> = plan
        .actions
        .iter()
        .map(|(_, _, action)| match action {
            Action::Write { status } => {
                let steps = [status.find_candidate, status.reserve_and_buy, status.peering];
                let phase = &status.solver_phase;
                format!("write {steps:?} {}: {}", phase.phase, phase.message)
            }
            Action::Ask { peers, earlier, .. } => {
                let after = earlier.as_ref().map(|earlier| format!(" after {}", earlier.0.len())).unwrap_or_default();
                format!("ask {:?}{after}", peers.iter().map(|it| &it.name).collect::<Vec<_>>())
            }
            Action::Buy { offers } => {
                let bought = offers.iter().map(|offered| {
                    let price = offered.price.map_or("?".into(), |price| price.to_string());
                    format!("{} of {}: {} at {price}", offered.candidate, offered.peer, offered.buys)
                });
                format!("buy {}", bought.collect::<Vec<_>>().join(" + "))
            }
            Action::Resume => "resume".into(),
            Action::Allocate { contract } => format!("allocate {contract}"),
            Action::Ended { contracts, status } => {
                format!("ended? {}: {}", contracts.join(", "), status.solver_phase.message)
            }
        })
        .collect();
    lines.extend(plan.look_again.map(|at| format!("look again at {at}")));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_search_begins_asks_and_buys_the_best() {
    let grid_peer = [peer("grid")];
    check(
        &case(solver(json!({}), &[], Phase::Idle), &[], Search::default()),
        0,
        expect!["write [Running, Idle, Idle] Running: Solver is looking for peers"],
    );
    check(
        &case(running(), &[], Search::default()),
        0,
        expect!["write [Idle, Idle, Idle] Running: no trusted peer is known, needed at least one"],
    );
    check(&case(running(), &grid_peer, Search::default()), 0, expect![[r#"ask ["grid"]"#]]);
    check(
        &case(running(), &grid_peer, asked(0, &grid_peer, grid())),
        0,
        expect!["buy peeringcandidate-f-8139770e of grid: cpu 1, memory 1Gi, pods 10 at 0"],
    );
    let only_find = solver(json!({"reserveAndBuy": false}), &[], Phase::Running);
    check(
        &case(only_find, &grid_peer, asked(0, &grid_peer, grid())),
        0,
        expect!["write [Solved, Idle, Idle] Solved: No need to reserve and buy the resources: Peering Candidate found"],
    );
    let nothing = solver(json!({"reserveAndBuy": false, "findCandidate": false}), &[], Phase::Idle);
    check(
        &case(nothing, &grid_peer, Search::default()),
        0,
        expect!["write [Idle, Idle, Idle] Idle: nothing is asked for: set findCandidate or reserveAndBuy"],
    );
}

#[test]
fn what_cannot_be_looked_for_fails_at_once() {
    let wrong = json!({"selector": {"flavorType": "K8Slice", "filters": {"modsFilter": {}}}});
    check(
        &case(solver(wrong, &[], Phase::Idle), &[], Search::default()),
        0,
        expect![
            "write [Failed, Idle, Idle] Failed: filter `modsFilter` is not known: needed one of architectureFilter, cpuFilter, memoryFilter, podsFilter, storageFilter, gpuFilter, extendedResourceFilters, planFilter"
        ],
    );
    let service = json!({"selector": {"flavorType": "VM"}});
    check(
        &case(solver(service, &[], Phase::Idle), &[], Search::default()),
        0,
        expect!["write [Failed, Idle, Idle] Failed: VM is not bought: only K8Slice and Service are built"],
    );
    check(
        &case(solver(json!({"selector": null}), &[], Phase::Idle), &[], Search::default()),
        0,
        expect!["write [Failed, Idle, Idle] Failed: selector is absent, needed one with a flavorType"],
    );
    let typo = solver(json!({}), &[("fluidos-intent-citty", "x")], Phase::Idle);
    check(
        &case(typo, &[], Search::default()),
        0,
        expect!["write [Failed, Idle, Idle] Failed: fluidos-intent-citty: no such intent"],
    );
}

#[test]
fn it_waits_for_peers_and_not_for_those_that_refused() {
    let (one, two) = ([peer("grid")], [peer("grid"), peer("cloud")]);
    let away = || Findings { pending: vec![refused("grid")], open: true, ..Findings::default() };
    let mut waiting = running();
    waiting.status.as_mut().unwrap().solver_phase.message = "grid: list: cpu: 1 offered, needed at least 2".into();
    // Nobody has answered: again and again, sooner when a peer appears, until the time is over.
    check(
        &case(running(), &one, asked(10, &one, away())),
        11,
        expect!["write [Idle, Idle, Idle] Running: grid: list: cpu: 1 offered, needed at least 2"],
    );
    check(&case(waiting.clone(), &one, asked(10, &one, away())), 11, expect!["look again at 1970-01-01T00:00:12Z"]);
    check(&case(waiting.clone(), &one, asked(10, &one, away())), 12, expect![[r#"ask ["grid"]"#]]);
    check(&case(waiting.clone(), &two, asked(10, &one, away())), 11, expect![[r#"ask ["cloud"] after 1"#]]);
    // Somebody is heard to offer what could serve: sooner, too, and not for what was heard before it was asked.
    let heard = |second| {
        let mut waiting = waiting.clone();
        let said = names::offered("grid", at(second));
        waiting.metadata.annotations.get_or_insert_default().insert(names::ANNOTATION_OFFERED.into(), said);
        waiting
    };
    check(&case(heard(11), &one, asked(10, &one, away())), 11, expect![[r#"ask ["grid"]"#]]);
    check(&case(heard(10), &one, asked(10, &one, away())), 11, expect!["look again at 1970-01-01T00:00:12Z"]);
    check(
        &case(waiting, &one, asked(299, &one, away())),
        300,
        expect!["write [TimedOut, Idle, Idle] Timed Out: grid: list: cpu: 1 offered, needed at least 2"],
    );
    // All have refused: at once; with somebody pending a little later.
    let out = Findings { refused: vec![refused("grid")], ..Findings::default() };
    check(
        &case(running(), &one, asked(10, &one, out.clone())),
        10,
        expect!["write [Failed, Idle, Idle] Failed: grid: list: cpu: 1 offered, needed at least 2"],
    );
    let half = Findings { pending: vec![refused("cloud")], open: true, ..out };
    let search = Search { last_refusal: Some(at(10)), ..asked(10, &two, half) };
    check(&case(running(), &two, search.clone()), 10, expect!["look again at 1970-01-01T00:00:11Z"]);
    check(&case(running(), &two, search.clone()), 11, expect![[r#"ask ["grid", "cloud"]"#]]);
    check(
        &case(running(), &two, search),
        15,
        expect![
            "write [Failed, Idle, Idle] Failed: grid: list: cpu: 1 offered, needed at least 2; cloud: list: cpu: 1 offered, needed at least 2"
        ],
    );
}

#[test]
fn who_did_not_sell_is_not_asked_again() {
    let one = [peer("grid")];
    let mut search = asked(0, &one, grid());
    search.tried.insert(
        "peeringcandidate-f-8139770e".into(),
        Refused { peer: "grid".into(), step: "reserve", reason: "cpu: 0 free, needed 1".into() },
    );
    check(
        &case(running(), &one, search),
        1,
        expect!["write [Solved, Failed, Idle] Failed: grid: reserve: cpu: 0 free, needed 1"],
    );
}

#[test]
fn what_is_bought_is_used_and_watched() {
    let bought = |solver, allocation| Case {
        search: Search { bought: vec!["contract-c".into()], ..Search::default() },
        contract: true,
        allocation,
        ..case(solver, &[], Search::default())
    };
    check(&bought(running(), None), 1, expect!["allocate contract-c"]);
    check(
        &bought(running(), Some(AllocationPhase::Inactive)),
        1,
        expect!["write [Solved, Solved, Running] Running: contract contract-c is bought; its allocation is awaited"],
    );
    check(
        &bought(running(), Some(AllocationPhase::Inactive)),
        300,
        expect![
            "write [Solved, Solved, TimedOut] Timed Out: allocation of contract-c is Inactive, needed Active: not in use yet"
        ],
    );
    check(
        &bought(running(), Some(AllocationPhase::Error)),
        1,
        expect!["write [Solved, Solved, Failed] Failed: allocation of contract-c: "],
    );
    check(
        &bought(running(), Some(AllocationPhase::Active)),
        1,
        expect!["write [Solved, Solved, Solved] Solved: Solver has completed all the phases"],
    );
    check(
        &bought(solver(json!({"establishPeering": false}), &[], Phase::Running), None),
        1,
        expect!["write [Solved, Solved, Idle] Solved: contract contract-c is bought; no peering is asked for"],
    );
    let solved =
        |contract| Case { contract, ..bought(solver(json!({}), &[], Phase::Solved), Some(AllocationPhase::Active)) };
    check(&solved(true), 100, expect![[r#""#]]);
    check(&solved(false), 1, expect!["look again at 1970-01-01T00:00:02Z"]);
    check(
        &solved(false),
        100,
        expect![
            "ended? contract-c: contract contract-c has ended: released by the other side, deleted, or its time was over"
        ],
    );
    // What an earlier process began.
    let begun = json!({"phase": {"phase": "Running"}, "transactionID": "t"});
    let mut interrupted = Case { reservation: Some(begun), ..case(running(), &[peer("grid")], Search::default()) };
    check(&interrupted, 1, expect!["resume"]);
    check(&interrupted, 1000, expect!["resume"]);
    interrupted.search.ended.insert("t".into());
    check(&interrupted, 1, expect![[r#"ask ["grid"]"#]]);
    let done = json!({"phase": {"phase": "Solved"}, "transactionID": "t", "contract": {"name": "contract-c"}});
    check(&Case { reservation: Some(done), contract: true, ..interrupted }, 1, expect!["allocate contract-c"]);
}

#[test]
fn a_stale_view_and_a_fresh_failure_are_waited_out() {
    let outdated = Search { outdated: Some("7".into()), ..Search::default() };
    check(&case(running(), &[peer("grid")], outdated), 1, expect![[r#""#]]);
    let paused = Search { not_before: Some(at(5)), ..Search::default() };
    check(&case(running(), &[peer("grid")], paused.clone()), 1, expect!["look again at 1970-01-01T00:00:05Z"]);
    check(&case(running(), &[peer("grid")], paused), 5, expect![[r#"ask ["grid"]"#]]);
    let mut going = running();
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    check(&case(going, &[peer("grid")], Search::default()), 1, expect![[r#""#]]);
}

#[test]
fn answers_are_weighed_with_reasons() {
    let quick = Peer { latency_micros: Some(4_000), ..peer("quick") };
    let answers = vec![
        (peer("away"), Err("no answer within 2 s".to_owned().into())),
        (peer("empty"), answer(2, vec![])),
        (peer("big"), answer(3, vec![flavor("f", "4", "Milan")])),
        (quick, answer(4, vec![flavor("f", "1500m", "Milan"), flavor("g", "8", "Turin")])),
        (
            peer("odd"),
            answer(5, vec![flavor("f", "much", "Milan"), rear::Flavor { data: json!([]), ..flavor("g", "1", "") }]),
        ),
        (peer("sold-out"), answer(6, vec![rear::Flavor { availability: false, ..flavor("f", "4", "Milan") }])),
    ];
    let show = |intents: &[(&str, &str)], filters: Value| {
        let findings = found(filters, intents, answers.clone());
        let offered: Vec<String> = findings.offered.iter().map(|it| format!("{} {}", it.candidate, it.buys)).collect();
        format!("{}\n{}", offered.join("\n"), told(&findings).replace("; ", "\n  "))
    };
    let min = |cpu: &str| json!({"cpuFilter": {"name": "Range", "data": {"min": cpu}}});
    // The least surplus first: two of three find exactly what is asked for.
    expect![[r#"
        peeringcandidate-f-ed4928c6 cpu 2, memory 1Gi, pods 10
        peeringcandidate-g-ca93ac17 cpu 2, memory 1Gi, pods 10
        2 Peering Candidates found
          not empty: list: nothing offered, needed a K8Slice
          not quick: list: cpu: 1500m (at least 0, in steps of 500m) offered, needed at least 1600m
          not odd: list: K8Slice cpu: `much` is not a quantity: needed a number with a unit such as 250m, 1.5, 2Gi or 1e3
          not odd: list: flavor data is no object, or 2 bytes, needed at most 16384
          not sold-out: list: f: cpu 4, memory 1Gi, pods 10 is free, and it says that nothing can be bought
          not away: list: no answer within 2 s"#]].assert_eq(&show(&[], min("1600m")));
    expect![[r#"
        peeringcandidate-f-ca93ac17 cpu 1, memory 1Gi, pods 10
        peeringcandidate-g-ca93ac17 cpu 1, memory 1Gi, pods 10
        2 Peering Candidates found
          not empty: list: nothing offered, needed a K8Slice
          not odd: list: K8Slice cpu: `much` is not a quantity: needed a number with a unit such as 250m, 1.5, 2Gi or 1e3
          not odd: list: flavor data is no object, or 2 bytes, needed at most 16384
          not sold-out: list: f: cpu 4, memory 1Gi, pods 10 is free, and it says that nothing can be bought
          not away: list: no answer within 2 s
          not big: list: latency: ?, needed at most 10ms"#]].assert_eq(&show(&[("fluidos-intent-latency", "10ms")], min("1")));
    // A preference only orders.
    let soft = [("fluidos-intent-location", "turin"), ("fluidos.eu/soft-intents", "location")];
    expect![[r#"
        peeringcandidate-g-ca93ac17 cpu 1, memory 1Gi, pods 10
        peeringcandidate-f-ca93ac17 cpu 1, memory 1Gi, pods 10
        peeringcandidate-f-ed4928c6 cpu 1, memory 1Gi, pods 10
        3 Peering Candidates found
          not empty: list: nothing offered, needed a K8Slice
          not odd: list: K8Slice cpu: `much` is not a quantity: needed a number with a unit such as 250m, 1.5, 2Gi or 1e3
          not odd: list: flavor data is no object, or 2 bytes, needed at most 16384
          not sold-out: list: f: cpu 4, memory 1Gi, pods 10 is free, and it says that nothing can be bought
          not away: list: no answer within 2 s"#]].assert_eq(&show(&soft, min("1")));
}

#[test]
fn only_trusted_peers_that_can_be_asked_are() {
    let own = NodeKey::from_seed([1; 32]).unwrap().id();
    let known = |name: &str, trust, did: Option<String>, address: &str, expires: &str| {
        let mut known = KnownCluster::new(
            name,
            KnownClusterSpec { address: address.into(), did, trust, ..KnownClusterSpec::default() },
        );
        known.status.get_or_insert_default().expiration_time = expires.into();
        known
    };
    let trusted = Some(KnownClusterTrust::Trusted);
    let all = [
        known("good", trusted, None, "192.0.2.1:7300", ""),
        known("unsaid", None, None, "192.0.2.1:7300", ""),
        known("untrusted", Some(KnownClusterTrust::Untrusted), None, "192.0.2.1:7300", ""),
        known("itself", trusted, Some(own.to_string()), "192.0.2.1:7300", ""),
        known("nonsense", trusted, Some("did:key:x".into()), "192.0.2.1:7300", ""),
        known("nowhere", trusted, None, "somewhere", ""),
        known("over", trusted, None, "192.0.2.1:7300", "1970-01-01T00:00:10Z"),
        known("not-over", trusted, None, "192.0.2.1:7300", "1970-01-01T00:00:11Z"),
    ];
    let names: Vec<String> =
        peers(all.iter(), &BTreeMap::new(), own, at(10)).into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, ["good", "not-over"]);
}

#[test]
fn a_peer_that_refuses_again_does_not_put_off_the_end() {
    let mut searches = Searches::default();
    let asked = |reason: &str| {
        let refused = Refused { reason: reason.into(), ..refused("grid") };
        Ok(Done::Asked { peers: vec![], findings: Findings { refused: vec![refused], ..Findings::default() } })
    };
    searches.done("uid", asked("latency: 5ms, needed at most 4ms"), at(1));
    searches.done("uid", asked("latency: 6ms, needed at most 4ms"), at(3));
    assert_eq!(searches.get("uid").unwrap().last_refusal, Some(at(1)));
}

fn priced(id: &str, amount: &str, currency: &str) -> rear::Flavor {
    let price =
        rear::Price { amount: amount.into(), currency: currency.into(), period: "hour".into(), unit: "cpu".into() };
    rear::Flavor { price, ..flavor(id, "4", "Milan") }
}

fn min_cpu(cpu: &str) -> Value {
    json!({"cpuFilter": {"name": "Range", "data": {"min": cpu}}})
}

/// At most 1 EUR an hour.
fn purse(expenses: &[&str]) -> Purse {
    let spec: AcquisitionPolicySpec =
        serde_json::from_value(json!({"ceilings": [{"currency": "EUR", "perHour": "1"}]})).unwrap();
    let expense = |amount: &&str| Expense {
        price: Price::parse(amount, "EUR", "hour").unwrap().unwrap(),
        from: at(0),
        until: None,
        namespace: None,
    };
    Purse { policy: Some(Ok(spec.rules("p").unwrap())), expenses: expenses.iter().map(expense).collect() }
}

#[test]
fn what_costs_is_bought_within_a_ceiling_only() {
    let one = [peer("grid")];
    let dear = |flavors| found(min_cpu("1500m"), &[], vec![(peer("grid"), answer(2, flavors))]);
    let offers = |amount: &str| asked(0, &one, dear(vec![priced("f", amount, "EUR")]));
    check(
        &case(running(), &one, offers("0.02")),
        0,
        expect![
            "write [Solved, Failed, Idle] Failed: grid: buy: price: 0.03 EUR/hour, needed 0: there is no AcquisitionPolicy"
        ],
    );
    check(
        &case(running(), &one, offers("")),
        0,
        expect!["write [Solved, Failed, Idle] Failed: grid: buy: price: ?, needed a stated one"],
    );
    let with = |expenses: &[&str], search| Case { purse: purse(expenses), ..case(running(), &one, search) };
    check(
        &with(&[], offers("0.02")),
        0,
        expect!["buy peeringcandidate-f-8139770e of grid: cpu 1500m, memory 1Gi, pods 10 at 0.03 EUR/hour"],
    );
    check(
        &with(&["0.98"], offers("0.02")),
        0,
        expect![
            "write [Solved, Failed, Idle] Failed: grid: buy: ceiling: 1.01 EUR an hour with it, needed at most 1 (AcquisitionPolicy p)"
        ],
    );
    // The cheaper one that fits below the ceiling is taken, though the other is named first.
    let two = dear(vec![priced("a", "0.03", "EUR"), priced("b", "0.01", "EUR"), priced("c", "0.001", "USD")]);
    check(
        &with(&["0.98"], asked(0, &one, two)),
        0,
        expect!["buy peeringcandidate-b-8139770e of grid: cpu 1500m, memory 1Gi, pods 10 at 0.015 EUR/hour"],
    );
    // Somebody else is paying: what would be left of the ceiling is not known yet.
    let mut paying = with(&[], offers("0.02"));
    paying.search.settling = Some((vec!["contract-x".into()], at(9)));
    check(&paying, 0, expect!["look again at 1970-01-01T00:00:00.1Z"]);
    let mut free = with(&[], offers("0"));
    free.search.settling = Some((vec!["contract-x".into()], at(9)));
    check(&free, 0, expect!["buy peeringcandidate-f-8139770e of grid: cpu 1500m, memory 1Gi, pods 10 at 0 EUR/hour"]);
    // To look is free of charge.
    let only_find = solver(json!({"reserveAndBuy": false}), &[], Phase::Running);
    check(
        &case(only_find, &one, offers("0.02")),
        0,
        expect!["write [Solved, Idle, Idle] Solved: No need to reserve and buy the resources: Peering Candidate found"],
    );
    let wrong = dear(vec![priced("f", "cheap", "EUR")]);
    assert_eq!(
        told(&wrong),
        "no Peering Candidate found; not grid: list: price: amount is `cheap`, needed a decimal from 0 to 1000000000 with at most nine digits after the point, such as 0.02"
    );
    let refused = vec![(peer("grid"), Err(Silence { reason: "no sharing policy sells to you".into(), refused: true }))];
    let findings = found(min_cpu("1"), &[], refused);
    assert!(!findings.open && findings.refused.len() == 1, "who says no for good is not waited for");
    let seller = NodeKey::from_seed([2; 32]).unwrap().id();
    let denied = |reason: &str| Said::of(seller.into(), &[], Some(reason.into()));
    let findings = found(min_cpu("1"), &[], vec![(peer("grid"), Ok(denied("location: Milan, needed Turin")))]);
    assert!(!findings.open);
    assert_eq!(told(&findings), "no Peering Candidate found; not grid: list: location: Milan, needed Turin");
}

#[test]
fn who_offers_a_slice_of_nothing_may_have_started_a_moment_ago() {
    let slice = |cpu: &str, memory: &str, pods: &str| {
        let mut slice = flavor("f", cpu, "Milan");
        slice.data["characteristics"] = json!({"architecture": "amd64", "cpu": cpu, "memory": memory, "pods": pods});
        found(min_cpu("1"), &[], vec![(peer("grid"), answer(2, vec![slice]))])
    };
    let nothing = slice("0", "0", "0");
    assert!(nothing.open && nothing.offered.is_empty() && nothing.refused.len() == 1, "{nothing:?}");
    let denied = Said {
        open: true,
        ..Said::of(NodeKey::from_seed([2; 32]).unwrap().id().into(), &[], Some("cpu: 0 offered".into()))
    };
    let denied = found(min_cpu("1"), &[], vec![(peer("grid"), Ok(denied))]);
    assert!(denied.open && denied.refused.len() == 1, "it denies and says that this may change: {denied:?}");
    let little = slice("500m", "1Gi", "10");
    assert!(!little.open && little.refused.len() == 1, "who has too little is not asked again: {little:?}");
}

#[test]
fn the_next_shortlist_is_asked_until_all_were() {
    let all = ["a", "b", "c", "d", "e"].map(peer);
    let out = |names: &[&str]| Findings { refused: names.iter().map(|name| refused(name)).collect(), ..grid() };
    let nothing = |names: &[&str]| Findings { offered: vec![], ..out(names) };
    let mut purse = purse(&[]);
    purse.policy = purse.policy.map(|policy| policy.map(|policy| Buying { shortlist: 2, ..policy }));
    let with = |search| Case { purse: purse.clone(), ..case(running(), &all, search) };
    check(&with(Search::default()), 0, expect![[r#"ask ["a", "b"]"#]]);
    check(&with(asked(1, &all[..2], nothing(&["a", "b"]))), 1, expect![[r#"ask ["c", "d"] after 2"#]]);
    check(&with(asked(1, &all[..4], nothing(&["a", "b", "c", "d"]))), 1, expect![[r#"ask ["e"] after 4"#]]);
    check(
        &with(asked(1, &all, nothing(&["a", "e"]))),
        1,
        expect![
            "write [Failed, Idle, Idle] Failed: a: list: cpu: 1 offered, needed at least 2; e: list: cpu: 1 offered, needed at least 2"
        ],
    );
    // Who is found in one is bought from before the next is asked.
    let found = asked(1, &all[..2], out(&["a"]));
    check(&with(found), 1, expect!["buy peeringcandidate-f-8139770e of grid: cpu 1, memory 1Gi, pods 10 at 0"]);
    // What several shortlists have brought stands together, the earlier first.
    let both = nothing(&["a"]).and(out(&["c"]));
    assert_eq!((both.offered.len(), both.refused.len()), (1, 2));
    let many = (0..100).fold(Findings::default(), |sum, _| sum.and(out(&["a", "b", "c", "d"])));
    assert_eq!((many.offered.len(), many.refused.len()), (64, 256));
}

#[test]
fn the_ranking_of_the_policy_decides() {
    let (near, far) =
        (Peer { latency_micros: Some(1_000), ..peer("near") }, Peer { latency_micros: Some(9_000), ..peer("far") });
    let answers =
        vec![(near, answer(2, vec![priced("n", "0.02", "EUR")])), (far, answer(3, vec![priced("f", "0.01", "EUR")]))];
    let first = |ranking: &[&str]| {
        let spec = json!({"ceilings": [{"currency": "EUR", "perHour": "1"}], "ranking": ranking});
        let spec: AcquisitionPolicySpec = serde_json::from_value(spec).unwrap();
        let selector = K8SliceSelector::from_json(&min_cpu("1")).unwrap();
        weigh(&selector, None, &intent::parse([]), Some(&spec.rules("p").unwrap()), &answers).offered[0].peer.clone()
    };
    assert_eq!((first(&["latency"]), first(&["price"]), first(&[])), ("near".into(), "far".into(), "far".into()));
}

#[test]
fn who_is_away_is_tried_again_and_others_at_once() {
    let (one, two) = ([peer("grid")], [peer("grid"), peer("cloud")]);
    let away = |candidate: &str, until| {
        let why = Refused { peer: "grid".into(), step: "reserve", reason: "no answer within 5 s".into() };
        (candidate.to_owned(), Away { why, failures: 1, until: at(until) })
    };
    let grid_away = || BTreeMap::from([away("peeringcandidate-f-8139770e", 12)]);
    let search = Search { away: grid_away(), ..asked(10, &one, grid()) };
    let waiting = |message: &str| {
        let mut solver = running();
        solver.status.as_mut().unwrap().solver_phase.message = message.into();
        solver
    };
    check(
        &case(running(), &one, search.clone()),
        11,
        expect!["write [Idle, Idle, Idle] Running: grid: reserve: no answer within 5 s"],
    );
    let said = waiting("grid: reserve: no answer within 5 s");
    check(&case(said.clone(), &one, search.clone()), 11, expect!["look again at 1970-01-01T00:00:12Z"]);
    check(
        &case(said.clone(), &one, search.clone()),
        12,
        expect!["buy peeringcandidate-f-8139770e of grid: cpu 1, memory 1Gi, pods 10 at 0"],
    );
    check(
        &case(said, &one, search.clone()),
        300,
        expect!["write [TimedOut, Idle, Idle] Timed Out: grid: reserve: no answer within 5 s"],
    );
    // Another that has refused does not end the search at once, and this one does not put off the end.
    let findings = Findings { refused: vec![refused("cloud")], ..grid() };
    let both = Search { away: BTreeMap::from([away("peeringcandidate-f-8139770e", 40)]), ..asked(10, &two, findings) };
    let both = Search { last_refusal: Some(at(10)), ..both };
    check(&case(running(), &two, both.clone()), 10, expect!["look again at 1970-01-01T00:00:11Z"]);
    check(
        &case(running(), &two, both),
        15,
        expect![
            "write [Failed, Idle, Idle] Failed: grid: reserve: no answer within 5 s; cloud: list: cpu: 1 offered, needed at least 2"
        ],
    );
    // Pauses double, and end.
    let mut searches = Searches::default();
    let why = || Refused { peer: "grid".into(), step: "reserve", reason: "away".into() };
    let pauses: Vec<String> = (0..8)
        .map(|second| {
            let transaction = Some(format!("t{second}"));
            let done = Done::Unsold(vec![Unsold { candidate: "c".into(), transaction, why: Some((why(), true)) }]);
            searches.done("uid", Ok(done), at(0));
            searches.get("uid").unwrap().away["c"].until.to_string()
        })
        .collect();
    let seconds: Vec<&str> = pauses.iter().map(|pause| &pause[14..19]).collect();
    assert_eq!(seconds, ["00:01", "00:02", "00:04", "00:08", "00:16", "00:32", "00:32", "00:32"]);
    assert_eq!(searches.get("uid").unwrap().ended.len(), 8, "nothing of them is resumed");
}

#[test]
fn who_is_rated_too_low_is_not_asked_and_the_better_rated_comes_first() {
    let rated = |name: &str, rating| Peer { rating, ..peer(name) };
    let answers = vec![
        (rated("bad", Some(17)), answer(2, vec![priced("a", "0.02", "EUR")])),
        (rated("new", None), answer(3, vec![priced("b", "0.02", "EUR")])),
        (rated("good", Some(95)), answer(4, vec![priced("c", "0.02", "EUR")])),
    ];
    let spec = json!({"ceilings": [{"currency": "EUR", "perHour": "1"}]});
    let spec: AcquisitionPolicySpec = serde_json::from_value(spec).unwrap();
    let (rules, selector) = (spec.rules("p").unwrap(), K8SliceSelector::from_json(&min_cpu("1")).unwrap());
    let found = weigh(&selector, None, &intent::parse([]), Some(&rules), &answers);
    let why: Vec<String> = found.offered.iter().map(|it| format!("{} {}", it.peer, it.why)).collect();
    expect![[r#"
        good 1 of 3: price 0.02 EUR/hour, rating 95, latency ?; exactly what was asked for
        new 2 of 3: price 0.02 EUR/hour, rating ?, latency ?; exactly what was asked for
        bad 3 of 3: price 0.02 EUR/hour, rating 17, latency ?; exactly what was asked for"#]]
    .assert_eq(&why.join("\n"));
    let least: AcquisitionPolicySpec =
        serde_json::from_value(json!({"minimumRating": 40, "unrated": "Refuse"})).unwrap();
    let least = least.rules("p").unwrap().rating;
    assert_eq!(least.admits(Some(40)), Ok(()));
    assert_eq!(least.admits(Some(39)), Err("its rating is 39, needed at least 40".into()));
    assert_eq!(least.admits(None), Err("its rating is ?, needed at least 40".into()));
}

#[test]
fn what_is_not_known_well_enough_is_refused_with_both_levels() {
    let known = |name: &str, did: u8, evidence: Option<&[(&str, &str, AttributeLevel)]>| Peer {
        did: Some(NodeKey::from_seed([did; 32]).unwrap().id()),
        evidence: evidence.map(|all| {
            let of = |(name, value, level): &(&str, &str, AttributeLevel)| intent::Attribute {
                name: (*name).into(),
                value: (*value).into(),
                level: Some(*level),
            };
            all.iter().map(of).collect()
        }),
        ..peer(name)
    };
    let audited: &[(&str, &str, AttributeLevel)] = &[("city", "Milan", AttributeLevel::Audited)];
    let mut passed_on = flavor("r", "4", "Milan");
    passed_on.data["policies"]["conditions"] = json!({"resold": true});
    let answers = vec![
        (known("audited", 2, Some(audited)), answer(2, vec![flavor("a", "4", "Milan")])),
        (known("claims", 3, Some(&[])), answer(3, vec![flavor("b", "4", "Milan")])),
        (known("new", 4, None), answer(4, vec![flavor("c", "4", "Milan")])),
        (known("elsewhere", 5, None), answer(5, vec![flavor("d", "4", "Turin")])),
        (known("reseller", 6, Some(audited)), answer(6, vec![passed_on])),
        (peer("no-key"), answer(7, vec![flavor("e", "4", "Milan")])),
    ];
    let filters = json!({"cpuFilter": {"name": "Range", "data": {"min": "1"}}});
    let asks = [("fluidos-intent-location", "Milan"), (intent::INTENT_EVIDENCE, "location=audited")];
    let accepts: AcquisitionPolicySpec = serde_json::from_value(json!({"accepts": {"resold": true}})).unwrap();
    let buying = accepts.rules("p").unwrap();
    let selector = K8SliceSelector::from_json(&filters).unwrap();
    let found = weigh(&selector, None, &intent::parse(asks), Some(&buying), &answers);
    let texts = |all: &[Refused]| all.iter().map(|out| format!("{}: {}", out.peer, out.reason)).collect::<Vec<_>>();
    assert_eq!(found.offered.iter().map(|offered| offered.peer.as_str()).collect::<Vec<_>>(), ["audited"]);
    assert_eq!(
        texts(&found.refused),
        [
            "claims: location: Milan (claimed), needed Milan (audited)",
            "elsewhere: location: Turin, needed Milan (audited)",
            "reseller: location: Milan (claimed), needed Milan (audited)",
            "no-key: location: Milan (claimed), needed Milan (audited)",
        ]
    );
    assert_eq!(texts(&found.pending), ["new: location: Milan (claimed), needed Milan (audited)"]);
}

#[test]
fn evidence_is_of_a_key_and_as_long_as_it_lasts() {
    let known = |did: Option<u8>, refused: &str| -> KnownCluster {
        let did = did.map(|seed| NodeKey::from_seed([seed; 32]).unwrap().id().to_string());
        let evidence = json!([
            {"name": "city", "value": "Milan", "level": "Audited", "until": at(100).to_string()},
            {"name": "arch", "value": "amd64", "level": "Measured"},
        ]);
        serde_json::from_value(json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": "k"},
            "spec": {"address": "192.0.2.1:7300", "did": did, "trust": "Trusted"},
            "status": {"expirationTime": "", "lastUpdateTime": "", "identity": {"refused": refused, "evidence": evidence}},
        }))
        .unwrap()
    };
    let levels = |known: &KnownCluster, now| {
        let peers = peers([known].into_iter(), &BTreeMap::new(), NodeKey::from_seed([9; 32]).unwrap().id(), at(now));
        let evidence = peers[0].evidence.clone()?;
        Some(evidence.iter().map(|known| known.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(levels(&known(Some(2), ""), 99), Some(vec!["city".into(), "arch".into()]));
    assert_eq!(levels(&known(Some(2), ""), 100), Some(vec!["arch".into()]), "the word of who vouched for it is over");
    assert_eq!(levels(&known(Some(2), "it was revoked"), 99), Some(vec![]));
    assert_eq!(levels(&known(None, ""), 99), None, "whose is it?");
}
