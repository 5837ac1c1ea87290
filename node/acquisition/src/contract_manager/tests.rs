//! The plan as text.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use fluidos_identity::{NodeKey, Speakers, Standing};
use fluidos_model::kinds::{Contract, KnownCluster, KnownClusterSpec};
use fluidos_model::market::{Agreed, Amounts, Commitment, CommitmentState, Conditions, Price, Renewal};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use kube::ResourceExt as _;

use super::plan::{Action, Try, View, plan};
use crate::importer::purse::Purse;
use crate::{contracts, convert, terms};

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A contract by which 1 buys from 2, seen at either.
fn contract(deleted: Option<i64>) -> Contract {
    let commitment = Commitment {
        served_by: None,
        transaction: "t".into(),
        buyer: key(1).id().to_string(),
        flavor: "f".into(),
        amounts: Amounts { cpu_milli: 1, ..Amounts::default() },
        state: CommitmentState::Held { until: at(60) },
        agreed: None,
    };
    let signed = terms::of_commitment(&commitment, key(2).id(), crate::HOLD).unwrap();
    let mut spec = fluidos_model::kinds::ContractSpec {
        expiration_time: Some("1970-01-12T13:46:40Z".into()), // 1,000,000 s
        signed_terms: Some(convert::signed_terms(signed.envelope())),
        ..Default::default()
    };
    spec.buyer.ip = "192.0.2.1:7300".into();
    spec.seller.ip = "192.0.2.2:7300".into();
    for (party, seed) in [(&mut spec.buyer, 1), (&mut spec.seller, 2)] {
        party.additional_information.get_or_insert_default().did = Some(key(seed).id().to_string());
    }
    let mut contract = contracts::contract("c", spec, key(2).id(), None);
    contract.metadata.uid = Some("uid".into());
    contract.metadata.deletion_timestamp = deleted.map(|second| Time(at(second)));
    contract
}

/// One that goes on by 1,000 s, in the last 300 s, twice; at this price for an hour.
fn renewable(price: Price) -> Contract {
    let conditions = Conditions {
        renewal: Some(Renewal { by_seconds: 1000, before_seconds: 300, at_most: Some(2) }),
        ..Conditions::default()
    };
    let agreed = Agreed {
        policy: "p".into(),
        issued: at(0),
        hold_until: at(60),
        ends: Some(at(1_000_000)),
        price,
        conditions,
        service: None,
    };
    let commitment = Commitment {
        served_by: None,
        transaction: "t".into(),
        buyer: key(1).id().to_string(),
        flavor: "f".into(),
        amounts: Amounts { cpu_milli: 1, ..Amounts::default() },
        state: CommitmentState::Held { until: at(60) },
        agreed: Some(agreed),
    };
    let signed = terms::of_commitment(&commitment, key(2).id(), crate::HOLD).unwrap();
    let mut renewable = contract(None);
    renewable.spec.signed_terms = Some(convert::signed_terms(signed.envelope()));
    renewable
}

/// The same after a renewal that these have signed.
fn renewed(number: u32, from: i64, signers: &[u8]) -> Contract {
    let mut contract = renewable(Price::ZERO);
    let signed = terms::of_contract(&contract).unwrap();
    let mut renewal = fluidos_rear::RenewalTerms::of(&signed, number, at(from), at(from + 1000)).unwrap();
    signers.iter().for_each(|seed| renewal.sign(&key(*seed)).unwrap());
    let renewal = Some(convert::signed_terms(renewal.envelope()));
    let both = signers.len() == 2;
    *(if both { &mut contract.spec.renewal } else { &mut contract.spec.renewal_asked }) = renewal;
    let ends = if both { from + 1000 } else { from };
    contract.spec.expiration_time = Some(at(ends).to_string());
    contract
}

#[test]
fn a_contract_goes_on_near_its_end_while_it_is_used_and_as_often_as_it_says() {
    let first = || renewable(Price::ZERO);
    check(1, &first(), &[], 10, expect!["look again at 1970-01-12T13:41:40Z"]);
    let asked = expect!["renew 1 with 8139770e: 1970-01-12T13:46:40Z to 1970-01-12T14:03:20Z"];
    check(1, &first(), &[], 999_700, asked);
    check(1, &first(), &[(1, 999_800)], 999_800, expect!["look again at 1970-01-12T13:43:20.5Z"]);
    check(2, &first(), &[], 999_700, expect!["look again at 1970-01-12T13:46:40Z"]); // its buyer asks
    check(1, &first(), &[], 1_000_000, expect!["expire"]);
    let mut suspended = first();
    suspended.annotations_mut().insert("fluidos.eu/suspended".into(), "winter".into());
    check(1, &suspended, &[], 999_700, expect!["suspend: winter"]);
    let mut ending = first();
    ending.status.get_or_insert_default().ends = Some(at(999_900).to_string());
    check(1, &ending, &[], 999_700, expect!["look again at 1970-01-12T13:45:00Z"]);
    // After the first comes the second, and no third.
    check(1, &renewed(1, 1_000_000, &[1, 2]), &[], 1_000_000, expect!["look again at 1970-01-12T13:58:20Z"]);
    let second = expect!["renew 2 with 8139770e: 1970-01-12T14:03:20Z to 1970-01-12T14:20:00Z"];
    check(1, &renewed(1, 1_000_000, &[1, 2]), &[], 1_000_700, second);
    check(1, &renewed(2, 1_001_000, &[1, 2]), &[], 1_001_900, expect!["look again at 1970-01-12T14:20:00Z"]);
}

#[test]
fn what_was_asked_and_not_answered_is_asked_again_also_at_the_end() {
    let again = expect!["renew 1 with 8139770e: 1970-01-12T13:46:40Z to 1970-01-12T14:03:20Z"];
    check(1, &renewed(1, 1_000_000, &[1]), &[], 1_000_030, again);
    check(
        1,
        &renewed(1, 1_000_000, &[1]),
        &[(1, 1_000_030)],
        1_000_030,
        expect!["look again at 1970-01-12T13:47:10.5Z"],
    );
    check(1, &renewed(1, 1_000_000, &[1]), &[], 1_000_060, expect!["expire"]);
    // Beside the one before, which stands; what was answered meanwhile is not asked again.
    let mut second = renewed(1, 1_000_000, &[1, 2]);
    second.spec.renewal_asked = renewed(2, 1_001_000, &[1]).spec.renewal_asked;
    let again = expect!["renew 2 with 8139770e: 1970-01-12T14:03:20Z to 1970-01-12T14:20:00Z"];
    check(1, &second, &[], 1_001_030, again);
    second.spec.renewal_asked = renewed(1, 1_000_000, &[1]).spec.renewal_asked;
    check(1, &second, &[], 1_000_000, expect!["look again at 1970-01-12T13:58:20Z"]);
    // A node of before has written it in the place of the last one.
    let mut before = renewed(1, 1_000_000, &[1]);
    before.spec.renewal = before.spec.renewal_asked.take();
    check(1, &before, &[], 1_000_030, expect!["renew 1 with 8139770e: 1970-01-12T13:46:40Z to 1970-01-12T14:03:20Z"]);
    // What its buyer has not signed was not asked for.
    let forged = expect!["look again at 1970-01-12T13:41:40Z"];
    check(1, &renewed(1, 1_000_000, &[2]), &[], 10, forged);
}

#[test]
fn what_cannot_be_paid_does_not_go_on() {
    let dear = renewable(Price::parse("0.5", "EUR", "hour").unwrap().unwrap());
    let no = expect!["not renewed: price: 0.5 EUR/hour, needed 0: there is no AcquisitionPolicy"];
    check(1, &dear, &[], 999_700, no);
    let mut told = dear;
    told.status.get_or_insert_default().renewal =
        "not renewed: price: 0.5 EUR/hour, needed 0: there is no AcquisitionPolicy".into();
    check(1, &told, &[], 999_700, expect!["look again at 1970-01-12T13:46:40Z"]);
}

fn check(own: u8, contract: &Contract, tries: &[(u32, i64)], now: i64, expected: Expect) {
    check_with(&Speakers::default(), own, contract, tries, now, expected);
}

fn check_with(speakers: &Speakers, own: u8, contract: &Contract, tries: &[(u32, i64)], now: i64, expected: Expect) {
    let spec = KnownClusterSpec {
        address: "192.0.2.22:7300".into(),
        did: Some(key(2).id().to_string()),
        ..KnownClusterSpec::default()
    };
    let known = KnownCluster::new("k", spec);
    let tries: BTreeMap<String, Try> = tries
        .iter()
        .map(|(failures, last)| {
            ("uid".to_owned(), Try { failures: *failures, last: Some(at(*last)), reason: "no route".into() })
        })
        .collect();
    let view = View {
        own: key(own).id(),
        contracts: vec![contract],
        peers: vec![&known],
        tries: &tries,
        purse: Purse::default(),
        speakers,
    };
    let plan = plan(&view, at(now));
    let mut lines: Vec<String> = plan
        .actions
        .iter()
        .map(|(_, action)| match action {
            Action::Expire { .. } => "expire".into(),
            Action::Void { reason, .. } => format!("void: {reason}"),
            Action::Notice { other, ends, buys, .. } => format!("notice to {}: {ends} buys={buys}", other.tag()),
            Action::Suspend { reason, .. } => format!("suspend: {reason}"),
            Action::Resume { .. } => "resume".into(),
            Action::Renew { other, renewal, .. } => {
                let terms = renewal.value();
                format!("renew {} with {}: {} to {}", terms.number, other.tag(), terms.from, terms.until)
            }
            Action::Stay { reason, .. } => format!("not renewed: {reason}"),
            Action::Tell { other, addresses, sells, .. } => {
                format!("tell {} at {addresses:?} sells={sells}", other.tag())
            }
            Action::Forget { sells, warning, .. } => format!("forget sells={sells} {warning:?}"),
        })
        .collect();
    lines.extend(plan.look_again.map(|at| format!("look again at {at}")));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_contract_lives_until_its_time_is_over() {
    check(1, &contract(None), &[], 10, expect!["look again at 1970-01-12T13:46:40Z"]);
    check(1, &contract(None), &[], 1_000_000, expect!["expire"]);
}

#[test]
fn the_other_side_is_told_where_it_is_known_to_be_first() {
    check(1, &contract(Some(5)), &[], 10, expect!["tell 8139770e at [192.0.2.22:7300, 192.0.2.2:7300] sells=false"]);
    check(2, &contract(Some(5)), &[], 10, expect!["tell 8a88e3dd at [192.0.2.1:7300] sells=true"]);
}

#[test]
fn tries_are_spaced_and_end_after_a_day() {
    check(1, &contract(Some(5)), &[(1, 10)], 10, expect!["look again at 1970-01-01T00:00:10.5Z"]);
    check(
        1,
        &contract(Some(5)),
        &[(1, 10)],
        11,
        expect!["tell 8139770e at [192.0.2.22:7300, 192.0.2.2:7300] sells=false"],
    );
    check(1, &contract(Some(5)), &[(20, 100)], 110, expect!["look again at 1970-01-01T00:02:40Z"]);
    check(
        1,
        &contract(Some(5)),
        &[(20, 86_000)],
        86_405,
        expect![[
            r#"forget sells=false Some("did:key:z6Mko9hTggMwjSTEaJaPUfE6tqcy2xvU6BnNq3e3o8qVBiyH was not told of the end within a day: no route")"#
        ]],
    );
}

#[test]
fn what_is_nobodys_business_is_let_go() {
    check(3, &contract(Some(5)), &[], 10, expect!["forget sells=false None"]);
    let mut unsigned = contract(Some(5));
    unsigned.spec.signed_terms = None;
    check(1, &unsigned, &[], 10, expect!["forget sells=false None"]);
    let mut released = contract(Some(5));
    released.metadata.finalizers = None;
    check(1, &released, &[], 10, expect![[r#""#]]);
}

#[test]
fn a_contract_with_a_revoked_key_ends_and_one_with_a_new_key_goes_on() {
    let speakers = Speakers::default();
    let says = |standing: Standing| speakers.set([(key(2).id(), standing)].into(), BTreeMap::new());
    let now = |deleted, expected| check_with(&speakers, 1, &contract(deleted), &[], 10, expected);
    says(Standing::Current(key(3).id()));
    now(None, expect!["look again at 1970-01-12T13:46:40Z"]);
    // The key that speaks for the seller now is told; where it is has not been said yet but by the contract.
    now(Some(5), expect!["tell ed4928c6 at [192.0.2.2:7300] sells=false"]);
    let reason = "machine stolen".to_owned();
    says(Standing::Revoked { key: key(2).id(), by: key(9).id(), at: at(1), reason });
    now(
        None,
        expect![
            "void: did:key:z6Mko9hTggMwjSTEaJaPUfE6tqcy2xvU6BnNq3e3o8qVBiyH was revoked by did:key:z6MkwVDfCg9LbbY6xjH3EZk8YSFQZujV5Y4y1ZWeER9tDiN3 at 1970-01-01T00:00:01Z: machine stolen"
        ],
    );
    now(
        Some(5),
        expect![[
            r#"forget sells=false Some("did:key:z6Mko9hTggMwjSTEaJaPUfE6tqcy2xvU6BnNq3e3o8qVBiyH is not told: did:key:z6Mko9hTggMwjSTEaJaPUfE6tqcy2xvU6BnNq3e3o8qVBiyH was revoked by did:key:z6MkwVDfCg9LbbY6xjH3EZk8YSFQZujV5Y4y1ZWeER9tDiN3 at 1970-01-01T00:00:01Z: machine stolen")"#
        ]],
    );
    // Nobody can say who it is: nothing is done, and nothing is ended.
    says(Standing::Unknown(fluidos_identity::Doubt::TooLong));
    now(None, expect!["look again at 1970-01-12T13:46:40Z"]);
    // This node has another key itself.
    speakers.set([(key(1).id(), Standing::Current(key(4).id()))].into(), BTreeMap::new());
    check_with(
        &speakers,
        4,
        &contract(Some(5)),
        &[],
        10,
        expect!["tell 8139770e at [192.0.2.22:7300, 192.0.2.2:7300] sells=false"],
    );
}

#[test]
fn what_is_suspended_is_the_buyers_and_comes_back() {
    let mut suspended = contract(None);
    let why = ("fluidos.eu/suspended".to_owned(), "the harvest is over".to_owned());
    suspended.metadata.annotations.get_or_insert_default().extend([why]);
    check(1, &suspended, &[], 10, expect!["suspend: the harvest is over"]);
    check(2, &suspended, &[], 10, expect!["look again at 1970-01-12T13:46:40Z"]);
    suspended.status.get_or_insert_default().phase = fluidos_model::kinds::Phase::Inactive;
    check(1, &suspended, &[], 10, expect!["look again at 1970-01-12T13:46:40Z"]);
    suspended.metadata.annotations = None;
    check(1, &suspended, &[], 10, expect!["resume"]);
}

#[test]
fn who_gives_notice_ends_it_then_and_without_one_at_once() {
    let mut ending = contract(None);
    let why = ("fluidos.eu/end-reason".to_owned(), "the rack moves".to_owned());
    ending.metadata.annotations.get_or_insert_default().extend([why]);
    check(1, &ending, &[], 10, expect!["expire"]);
    ending.status.get_or_insert_default().ends = Some(at(60).to_string());
    check(1, &ending, &[], 10, expect!["look again at 1970-01-01T00:01:00Z"]);
    check(1, &ending, &[], 60, expect!["expire"]);
}
