//! The choices of the exporter as text.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{Flavor, FlavorSpec, FlavorTypeData, SharingPolicySpec};
use fluidos_model::market::{Amounts, K8SliceSelector, Pool, Sharing, sale};
use fluidos_rear as rear;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Wish, admit, answered, asked, listed, mend, refusal, selector, together};
use crate::{HOLD, terms};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn cpu(cpu_milli: u64) -> Amounts {
    Amounts { cpu_milli, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() }
}

fn flavor() -> Flavor {
    let type_data = json!({
        "characteristics": {"architecture": "amd64", "cpu": "4", "memory": "8Gi", "pods": "110"},
        "policies": {"partitionability": {"cpuStep": "500m", "memoryStep": "1Mi", "podsStep": "1"}},
        "properties": {"additionalProperties": {"TEE": "sev-snp", "additional-hardware": ["tpm"]}},
    });
    let spec = FlavorSpec {
        flavor_type: FlavorTypeData { type_data, ..FlavorTypeData::default() },
        availability: true,
        ..FlavorSpec::default()
    };
    Flavor::new("f", spec)
}

fn pool() -> Pool {
    Pool {
        capacity: Amounts { cpu_milli: 4000, memory_bytes: 8 << 30, pods: 110, ..Amounts::default() },
        commitments: vec![],
    }
}

fn hold(pool: &Pool, buyer: u8, transaction: &str, amounts: Option<Amounts>, second: i64) -> Result<Pool, String> {
    hold_by(&[], pool, buyer, transaction, amounts, second)
}

fn hold_by(
    policies: &[Option<Sharing>],
    pool: &Pool,
    buyer: u8,
    transaction: &str,
    amounts: Option<Amounts>,
    second: i64,
) -> Result<Pool, String> {
    let buyer = NodeKey::from_seed([buyer; 32]).unwrap().id().to_string();
    let wish =
        Wish { transaction, buyer: &buyer, rating: None, amounts, term: None, hold: HOLD, plan: None, service: None };
    let request = admit(&flavor(), policies, pool, &wish, at(second)).map_err(|refusal| refusal.to_string())?;
    pool.hold(&request, at(second)).map_err(|error| refusal(error).to_string())
}

fn check(observed: Result<Pool, String>, expected: Expect) {
    let text = observed.map_or_else(
        |refusal| refusal,
        |pool| {
            let line = |known: &std::sync::Arc<fluidos_model::market::Commitment>| {
                format!("{} {} until {}", known.transaction, known.amounts, known.until().unwrap())
            };
            pool.commitments.iter().map(line).collect::<Vec<_>>().join("\n")
        },
    );
    expected.assert_eq(&text);
}

#[test]
fn what_is_free_and_may_be_cut_is_held() {
    let one = hold(&pool(), 1, "t1", Some(cpu(1500)), 0);
    check(one.clone(), expect!["t1 cpu 1500m, memory 1Gi, pods 10 until 1970-01-01T00:01:00Z"]);
    let one = one.unwrap();
    check(
        hold(&one, 1, "t1", Some(cpu(1500)), 5),
        expect!["t1 cpu 1500m, memory 1Gi, pods 10 until 1970-01-01T00:01:00Z"],
    );
    check(hold(&one, 1, "t1", Some(cpu(500)), 5), expect!["conflict: transaction t1 exists with other content"]);
    check(hold(&one, 2, "t1", Some(cpu(1500)), 5), expect!["conflict: transaction t1 exists with other content"]);
    check(hold(&one, 2, "t2", Some(cpu(3000)), 5), expect!["conflict: cpu: 2500m free, needed 3"]);
    check(
        hold(&one, 2, "t2", Some(cpu(3000)), 60),
        expect!["t2 cpu 3, memory 1Gi, pods 10 until 1970-01-01T00:02:00Z"],
    );
    check(
        hold(&one, 2, "t2", None, 5),
        expect![[r#"
        t1 cpu 1500m, memory 1Gi, pods 10 until 1970-01-01T00:01:00Z
        t2 cpu 2500m, memory 7Gi, pods 100 until 1970-01-01T00:01:05Z"#]],
    );
    check(
        hold(&one, 2, "t2", Some(cpu(750)), 5),
        expect!["conflict: cpu: 2500m (at least 0, in steps of 500m) offered, needed 750m"],
    );
    check(
        hold(&one, 2, "t2", Some(Amounts::default()), 5),
        expect!["conflict: amounts: nothing offered, needed something"],
    );
    let all = hold(&pool(), 1, "all", None, 0).unwrap();
    check(hold(&all, 1, "all", None, 5), expect!["all cpu 4, memory 8Gi, pods 110 until 1970-01-01T00:01:00Z"]);
    check(hold(&all, 2, "t2", None, 5), expect!["conflict: amounts: nothing offered, needed something"]);
}

fn query(filters: &[(&str, &str)]) -> rear::Selector {
    let filters = filters
        .iter()
        .map(|(name, value)| rear::SelectorFilter::Match { name: (*name).into(), value: (*value).into() })
        .collect();
    rear::Selector { flavor_type: None, filters }
}

#[test]
fn only_what_matches_is_listed() {
    let names = |asked: &rear::Selector| match selector(asked) {
        Ok(Some(wanted)) => {
            format!(
                "{:?}",
                listed(&[flavor()], &sale(&[], &pool(), None, at(0)).unwrap(), &wanted)
                    .iter()
                    .map(|f| f.id.clone())
                    .collect::<Vec<_>>()
            )
        }
        Ok(None) => "nothing of that kind".into(),
        Err(refusal) => refusal.to_string(),
    };
    let seen: Vec<String> = [
        query(&[]),
        query(&[("architecture", "amd64"), ("cpu", "1500m")]),
        query(&[("architecture", "arm64")]),
        query(&[("cpu", "5")]),
        query(&[("cpu", "much")]),
        query(&[("category", "database")]),
        rear::Selector { flavor_type: Some(rear::FlavorType::Service), filters: vec![] },
    ]
    .iter()
    .map(names)
    .collect();
    expect![[r#"
        ["f"]
        ["f"]
        []
        []
        malformed: filter `cpu`: `much` is not a quantity: needed a number with a unit such as 250m, 1.5, 2Gi or 1e3
        nothing of that kind
        nothing of that kind"#]]
    .assert_eq(&seen.join("\n"));
    let vm = rear::Configuration { flavor_type: rear::FlavorType::Vm, data: json!({}) };
    expect!["not-found: vm is not sold here, only k8slice"].assert_eq(&asked(&vm).unwrap_err().to_string());
}

#[test]
fn the_ledger_is_the_truth() {
    let pool = hold(&pool(), 1, "t1", Some(cpu(500)), 0).unwrap();
    let pool = hold(&pool, 1, "t2", Some(cpu(500)), 0).unwrap();
    let commitment = pool.commitment("t1").unwrap();
    let name = terms::contract_name(commitment);
    let until = terms::shifted(at(0), terms::CONTRACT_TERM, 1);
    let pool = pool.commit("t1", &name, until, at(1)).unwrap();
    let told = |sold: &[&str], second| format!("{:?}", mend(&pool, &sold.iter().copied().collect(), HOLD, at(second)));
    // Held ones end by themselves; a sale has 60 s after its hold to be written; a contract without a promise ends.
    let seen = [
        told(&[], 119),
        told(&[], 120),
        told(&[&name], 120),
        told(&[&name, "contract-x"], 120),
        told(&[&name], 31_536_000),
    ];
    expect![[r#"
        Mending { free: [], end: [] }
        Mending { free: [("t1", "contract contract-f-d7da2217cced was sold and never written")], end: [] }
        Mending { free: [], end: [] }
        Mending { free: [], end: ["contract-x"] }
        Mending { free: [], end: ["contract-f-d7da2217cced"] }"#]]
    .assert_eq(&seen.join("\n"));
}

fn policy(spec: Value) -> Option<Sharing> {
    let mut whole = json!({"price": {"amount": "0.02", "currency": "EUR", "period": "hour", "unit": "cpu"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Some(serde_json::from_value::<SharingPolicySpec>(whole).unwrap().rules("p").unwrap())
}

#[test]
fn a_policy_makes_the_price_and_what_is_held_keeps_it() {
    let dear = [policy(json!({"price": {"amount": "9", "currency": "EUR", "period": "hour"}, "holdSeconds": 5}))];
    let terms = |pool: &Pool, transaction: &str| {
        let agreed = pool.commitment(transaction).unwrap().agreed.clone().unwrap();
        format!("{} until {} ends {}", agreed.price, agreed.hold_until, agreed.ends.unwrap())
    };
    let cheap = [policy(json!({"termSeconds": 3600, "limits": {"cpu": "2"}}))];
    let one = hold_by(&cheap, &pool(), 1, "t1", Some(cpu(1500)), 0).unwrap();
    expect!["0.03 EUR/hour until 1970-01-01T00:01:00Z ends 1970-01-01T01:00:00Z"].assert_eq(&terms(&one, "t1"));
    // Asked again under another policy it is the same hold; a new one is by the new policy.
    let again = hold_by(&dear, &one, 1, "t1", Some(cpu(1500)), 5).unwrap();
    assert_eq!(again, one);
    let nobody = [policy(json!({"buyers": {"allow": []}}))];
    assert_eq!(hold_by(&nobody, &one, 1, "t1", None, 5).as_ref(), Ok(&one));
    let two = hold_by(&dear, &one, 1, "t2", Some(cpu(500)), 5).unwrap();
    expect!["9 EUR/hour until 1970-01-01T00:00:10Z ends 1971-01-01T00:00:05Z"].assert_eq(&terms(&two, "t2"));
    let free = hold(&pool(), 1, "t3", Some(cpu(500)), 0).unwrap();
    expect!["0 until 1970-01-01T00:01:00Z ends 1971-01-01T00:00:00Z"].assert_eq(&terms(&free, "t3"));
    // What the policies do not sell.
    let seen = [
        hold_by(&cheap, &one, 2, "t4", Some(cpu(1000)), 5),
        hold_by(&nobody, &one, 2, "t4", Some(cpu(500)), 5),
        hold_by(&[None], &one, 2, "t4", Some(cpu(500)), 5),
        hold_by(&[policy(json!({"blocks": {"cpuStep": "1"}}))], &pool(), 2, "t4", Some(cpu(500)), 5),
        hold_by(
            &[policy(json!({"price": {"amount": "1000000000", "currency": "EUR", "period": "hour", "unit": "cpu"}}))],
            &pool(),
            2,
            "t4",
            Some(cpu(1500)),
            5,
        ),
    ]
    .map(|held| held.unwrap_err().replace(&NodeKey::from_seed([2; 32]).unwrap().id().to_string(), "BUYER"));
    expect![[r#"
        conflict: cpu: 500m free, needed 1
        forbidden: no sharing policy sells to BUYER
        unavailable: the seller's sharing policy cannot be read
        conflict: cpu: 4 (at least 0, in steps of 1) offered, needed 500m
        conflict: the price of a contract is beyond what can be counted"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn a_buyer_is_told_its_price_its_blocks_and_no_more_than_it_may_buy() {
    let policies = [policy(json!({"limits": {"cpu": "2500m", "pods": "20"}, "blocks": {"cpuStep": "1"}}))];
    let sold = hold_by(&policies, &pool(), 1, "t1", Some(cpu(1000)), 0).unwrap();
    let sale = sale(&policies, &sold, None, at(1)).unwrap();
    let told = listed(&[flavor()], &sale, &K8SliceSelector::default()).remove(0);
    expect![[r#"{"architecture":"amd64","cpu":"1500m","memory":"7Gi","pods":"10"}"#]]
        .assert_eq(&told.data["characteristics"].to_string());
    assert_eq!(told.data["policies"]["partitionability"]["cpuStep"], "1");
    expect![[r#"Price { amount: "0.02", currency: "EUR", period: "hour", unit: "cpu" }"#]]
        .assert_eq(&format!("{:?}", told.price));
}

#[test]
fn a_request_is_answered_with_what_comes_nearest_or_a_reason() {
    let range =
        |name: &str, min: &str| rear::SelectorFilter::Range { name: name.into(), min: Some(min.into()), max: None };
    let told = |policies: &[Option<Sharing>], pool: &Pool, cpu: &str, intents: &[(&str, &str)]| {
        let request = rear::ResourceRequest {
            flavor_type: rear::FlavorType::K8Slice,
            filters: vec![range("cpu", cpu), range("memory", "1Gi"), range("pods", "1")],
            intents: intents.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            term_seconds: Some(3600),
            wait_millis: None,
            path: None,
        };
        let sale = sale(policies, pool, Some("did:key:z"), at(1)).unwrap();
        let answer = answered(&[flavor()], &sale, &request).unwrap();
        let line = |offer: &rear::ResourceOffer| {
            let (price, term) = (&offer.price, offer.term_seconds.unwrap());
            let price = format!("{} {}/{}{}", price.amount, price.currency, price.period, price.unit);
            format!("{:?} {} at {price} for {term} s", offer.fit, offer.configuration.data["cpu"])
        };
        let offers: Vec<_> = answer.offers.iter().map(line).collect();
        format!("{}{}", offers.join(", "), answer.denial.unwrap_or_default())
    };
    let priced = [policy(json!({"termSeconds": 60}))];
    let seen = [
        told(&[], &pool(), "1500m", &[]),
        told(&priced, &pool(), "1500m", &[]),
        told(&priced, &pool(), "1400m", &[]),
        told(&[policy(json!({"limits": {"cpu": "1"}}))], &pool(), "1500m", &[]),
        told(&[policy(json!({"limits": {"cpu": "0"}}))], &pool(), "1500m", &[]),
        told(&[], &pool(), "1", &[("fluidos-intent-location", "Milan")]),
        told(&[], &pool(), "1", &[("fluidos-intent-citty", "Milan")]),
        // The buyer measures it.
        told(&[], &pool(), "1", &[("fluidos-intent-latency", "1ms")]),
        told(&[], &pool(), "1", &[("fluidos-intent-hardware", "TPM"), ("fluidos-intent-tee-readiness", "true")]),
        told(&[], &pool(), "1", &[("fluidos-intent-hardware", "TPM"), ("fluidos-intent-tee-readiness", "tdx")]),
    ];
    expect![[r#"
        Exact "1500m" at 0 / for 3600 s
        Exact "1500m" at 0.03 EUR/hour for 60 s
        More "1500m" at 0.03 EUR/hour for 60 s
        Less "1" at 0.02 EUR/hour for 3600 s
        cpu: 0 (at least 0, in steps of 500m) offered, needed at least 1500m
        location: ?, needed Milan
        fluidos-intent-citty: no such intent
        Exact "1" at 0 / for 3600 s
        Exact "1" at 0 / for 3600 s
        tee-readiness: sev-snp, needed tdx"#]]
    .assert_eq(&seen.join("\n"));
    let vm = rear::ResourceRequest {
        flavor_type: rear::FlavorType::Vm,
        filters: vec![],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path: None,
    };
    let sale = sale(&[], &pool(), None, at(1)).unwrap();
    let denial = answered(&[flavor()], &sale, &vm).unwrap().denial;
    assert_eq!(denial.as_deref(), Some("vm is not sold here, only k8slice"));
    let nothing = rear::ResourceRequest { flavor_type: rear::FlavorType::K8Slice, ..vm };
    assert_eq!(answered(&[], &sale, &nothing).unwrap(), rear::ResourceAnswer::default());

    let asked = rear::ResourceRequest { filters: vec![range("cpu", "3")], ..nothing };
    let there = [("fluidos-intent-location".to_owned(), "Milan".to_owned())].into();
    let elsewhere = rear::ResourceRequest { intents: there, ..asked.clone() };
    let denied = answered(&[flavor()], &sale, &elsewhere).unwrap();
    assert!(denied.denial.is_some() && !denied.open, "that will not be otherwise in a moment: {denied:?}");
    let mut starts = flavor();
    starts.spec.availability = false;
    starts.spec.flavor_type.type_data["characteristics"] =
        json!({"architecture": "amd64", "cpu": "0", "memory": "0", "pods": "0"});
    let early = together([answered(&[starts], &sale, &asked).unwrap(), denied]);
    assert!(early.denial.is_some() && early.open, "a machine that is not ready yet: {early:?}");
}
