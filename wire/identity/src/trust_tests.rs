//! Tables of what is proven and how well it is known.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::*;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn id(seed: u8) -> NodeId {
    key(seed).id()
}

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

const PEER: u8 = 2;
const OWNER: u8 = 1;
const CERTIFIER: u8 = 5;
const ATTESTER: u8 = 6;

fn said(
    issuer: u8,
    subject: u8,
    kind: CredentialKind,
    claim: (&str, &str),
    from: i64,
    until: i64,
) -> VerifiedCredential {
    let draft = CredentialDraft {
        kind,
        subject: id(subject),
        claims: [(claim.0.into(), claim.1.into())].into(),
        valid_from: hours(from),
        valid_until: hours(until),
        status: None,
    };
    let at_its_time = Demands { now: hours(from), issuer: None, subject: None, status: None };
    draft.sign(&key(issuer)).unwrap().verify(&at_its_time).unwrap()
}

fn owns(issuer: u8, domain: &str) -> VerifiedCredential {
    said(issuer, PEER, CredentialKind::NodeOwnership, ("domain", domain), -1, 24)
}

fn feature(issuer: u8, from: i64, until: i64) -> VerifiedCredential {
    said(issuer, PEER, CredentialKind::Feature, ("region", "EU"), from, until)
}

fn trusted() -> TrustedIssuers {
    let mut trusted = TrustedIssuers::default();
    trusted.trust_owner_of(id(OWNER), "farm.example");
    trusted.trust_certifier(id(CERTIFIER));
    trusted.trust_attester(id(ATTESTER));
    trusted
}

#[test]
fn an_owner_whom_we_trust_proves_owner_and_its_domain() {
    let proven = proven(&id(PEER), &[owns(OWNER, "farm.example")], &trusted(), now());
    let owner = proven.owner.unwrap();
    assert_eq!((owner.value, owner.until), (id(OWNER), hours(24)));
    assert_eq!(proven.domain.unwrap().value, "farm.example");
    assert_eq!(proven.passed_over, Vec::<String>::new());
}

#[test]
fn a_typed_domain_and_a_word_of_anybody_prove_nothing() {
    let nothing = |credentials: &[VerifiedCredential], needed: &str| {
        let proven = proven(&id(PEER), credentials, &trusted(), now());
        assert_eq!((proven.owner, proven.domain, proven.features.len()), (None, None, 0));
        assert!(proven.passed_over.join(" ").contains(needed), "needed {needed}: {:?}", proven.passed_over);
    };
    let none = proven(&id(PEER), &[], &trusted(), now());
    assert_eq!((none.owner, none.domain), (None, None));
    nothing(&[owns(PEER, "farm.example")], "not trusted"); // itself
    nothing(&[owns(9, "farm.example")], "not trusted");
    nothing(&[owns(CERTIFIER, "farm.example")], "not trusted"); // for features only
    nothing(&[feature(OWNER, -1, 1)], "not trusted"); // for its nodes only
    nothing(&[said(OWNER, 9, CredentialKind::NodeOwnership, ("domain", "farm.example"), -1, 1)], "not about this peer");
    nothing(&[feature(CERTIFIER, -48, -24)], "expired");
}

#[test]
fn an_owner_has_no_domain_of_others() {
    let mut trusted = trusted();
    let claims_bank = [owns(OWNER, "bank.example")];
    let before = proven(&id(PEER), &claims_bank, &trusted, now());
    assert_eq!((before.owner.is_some(), before.domain), (true, None));
    assert!(before.passed_over[0].contains("bank.example"), "{:?}", before.passed_over);
    assert_eq!(before.asks_web, Some((id(OWNER), "bank.example".to_owned())), "the domain is to be asked");
    assert_eq!(proven(&id(PEER), &[owns(OWNER, "farm.example")], &trusted, now()).asks_web, None, "we were told");
    assert_eq!(
        proven(&id(PEER), &[owns(9, "bank.example")], &trusted, now()).asks_web,
        None,
        "no stranger makes us ask"
    );
    // The domain says itself that the key is its own, for as long as that was looked up.
    let web: DidWeb = "did:web:bank.example".parse().unwrap();
    let document = web.document(&id(OWNER)).to_string();
    assert!(trusted.learn_document(&web, document.as_bytes(), id(9), hours(2)).is_err());
    trusted.learn_document(&web, document.as_bytes(), id(OWNER), hours(2)).unwrap();
    let domain = proven(&id(PEER), &claims_bank, &trusted, now()).domain.unwrap();
    assert_eq!((domain.value.as_str(), domain.until), ("bank.example", hours(2)));
    assert_eq!(proven(&id(PEER), &claims_bank, &trusted, hours(3)).domain, None);
}

#[test]
fn a_node_of_two_owners_is_nobodys() {
    let mut trusted = trusted();
    trusted.trust_owner_of(id(9), "grid.example");
    let proven = proven(&id(PEER), &[owns(OWNER, "farm.example"), owns(9, "grid.example")], &trusted, now());
    assert_eq!((proven.owner, proven.domain), (None, None));
    assert!(proven.passed_over[0].contains("2 trusted owners claim it"));
}

#[test]
fn of_two_words_about_a_feature_the_better_one_is_kept() {
    let words = [feature(CERTIFIER, -1, 90), feature(ATTESTER, -1, 2), feature(CERTIFIER, -1, 24)];
    let proven = proven(&id(PEER), &words, &trusted(), now());
    let features: Vec<_> = proven.features.iter().map(|f| (f.value.level, f.by, f.until)).collect();
    assert_eq!(features, [(EvidenceLevel::Attested, id(ATTESTER), hours(2))]);
}

#[test]
fn credentials_beyond_the_bound_are_passed_over() {
    let mut many = vec![feature(9, -1, 1); PEER_CREDENTIALS_MAX];
    many.push(owns(OWNER, "farm.example"));
    let proven = proven(&id(PEER), &many, &trusted(), now());
    assert_eq!(proven.owner, None);
    assert!(proven.passed_over.iter().any(|reason| reason.starts_with("1 credentials beyond")));
}

fn attribute() -> Attribute<'static> {
    Attribute { node: id(PEER), name: "region", value: "EU", claimed_until: Some(hours(1)) }
}

fn measured(confirms: bool, at: i64) -> Measurement {
    let (name, value) = ("region".into(), "EU".into());
    Measurement { node: id(PEER), name, value, confirms, by: id(7), at: hours(at), until: hours(at + 12) }
}

/// `level by seed; was level` for a case, so that a table reads as a table.
fn shown(credentials: &[VerifiedCredential], measurements: &[Measurement]) -> String {
    let known = evidence(&attribute(), credentials, measurements, &trusted(), now());
    let seed = |did: NodeId| (1..10).find(|seed| id(*seed) == did).unwrap();
    let level = known.level.zip(known.by).map_or("none".into(), |(level, by)| format!("{level} by {}", seed(by)));
    let demoted = known.demoted.map_or(String::new(), |d| format!("; was {} by {}", d.from, seed(d.from_by)));
    level + &demoted
}

#[test]
fn the_best_word_of_now_counts() {
    let (audit, attest) = (feature(CERTIFIER, -2, 24), feature(ATTESTER, -2, 24));
    assert_eq!(shown(&[], &[]), "claimed by 2");
    assert_eq!(shown(&[], &[measured(true, -1)]), "measured by 7");
    assert_eq!(shown(std::slice::from_ref(&audit), &[measured(true, -1)]), "audited by 5");
    assert_eq!(shown(&[attest, audit], &[]), "attested by 6");
    // Not of now, of nobody we trust, of the future
    assert_eq!(shown(&[feature(CERTIFIER, -48, -24), feature(9, -1, 24)], &[measured(true, -13)]), "claimed by 2");
    assert_eq!(shown(&[], &[measured(true, 1)]), "claimed by 2");
    let other_value = Measurement { value: "US".into(), ..measured(true, -1) };
    assert_eq!(shown(&[], &[other_value]), "claimed by 2");
    let silent = Attribute { claimed_until: Some(hours(-1)), ..attribute() };
    assert_eq!(evidence(&silent, &[], &[], &trusted(), now()).level, None);
}

#[test]
fn what_a_probe_refutes_is_demoted() {
    let audit = feature(CERTIFIER, -2, 24);
    assert_eq!(shown(&[], &[measured(false, -1)]), "none; was claimed by 2");
    assert_eq!(shown(std::slice::from_ref(&audit), &[measured(false, -1)]), "claimed by 5; was audited by 5");
    // A newer measurement, an expired one, or a newer audit takes it back.
    assert_eq!(shown(&[], &[measured(false, -2), measured(true, -1)]), "measured by 7");
    assert_eq!(shown(&[], &[measured(true, -2), measured(false, -1)]), "none; was claimed by 2");
    assert_eq!(shown(&[], &[measured(false, -12)]), "claimed by 2");
    assert_eq!(shown(std::slice::from_ref(&audit), &[measured(false, -3)]), "audited by 5");
    let words = [audit, feature(ATTESTER, -20, 24)];
    assert_eq!(shown(&words, &[measured(false, -3)]), "audited by 5", "the attestation was before the measurement");
    let line = evidence(&attribute(), &[], &[measured(false, -1)], &trusted(), now()).to_string();
    assert!(
        line.starts_with("not known; was claimed by did:key:") && line.contains("refuted by a measurement"),
        "{line}"
    );
}

#[test]
fn levels_are_in_order_and_have_names() {
    use EvidenceLevel::{Attested, Audited, Claimed, Measured};
    assert!(Claimed < Measured && Measured < Audited && Audited < Attested);
    for level in [Claimed, Measured, Audited, Attested] {
        assert_eq!(level.name().parse(), Ok(level));
    }
    assert!("certain".parse::<EvidenceLevel>().is_err());
    let known = evidence(&attribute(), &[], &[], &trusted(), now());
    assert!(known.reaches(Claimed) && !known.reaches(Measured));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_order_of_words_does_not_matter(order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle()) {
        let credentials = [
            feature(CERTIFIER, -2, 24), feature(ATTESTER, -5, 24), feature(9, -1, 24), feature(CERTIFIER, -9, 48),
            owns(OWNER, "farm.example"), owns(OWNER, "bank.example"), owns(9, "farm.example"), feature(OWNER, -1, 1),
        ];
        let measurements: Vec<_> = (0..8).map(|i| measured(i % 3 == 0, -i)).collect();
        let shuffled: Vec<_> = order.iter().map(|i| credentials[*i].clone()).collect();
        let probes: Vec<_> = order.iter().map(|i| measurements[*i].clone()).collect();
        prop_assert_eq!(proven(&id(PEER), &shuffled, &trusted(), now()), proven(&id(PEER), &credentials, &trusted(), now()));
        let known = |c: &[VerifiedCredential], m: &[Measurement]| evidence(&attribute(), c, m, &trusted(), now());
        prop_assert_eq!(known(&shuffled, &probes), known(&credentials, &measurements));
    }
}
