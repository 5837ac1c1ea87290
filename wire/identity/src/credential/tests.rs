#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{NodeKey, canonical_json};

const NOW: &str = "2026-11-25T12:00:00Z";
const LIST: &str = "https://owner.example/status";

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn days(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

fn draft(status: Option<usize>) -> CredentialDraft {
    CredentialDraft {
        kind: CredentialKind::NodeOwnership,
        subject: key(2).id(),
        claims: [("domain".into(), "farm.example".into())].into(),
        valid_from: now(),
        valid_until: days(90),
        status: status.map(|index| StatusEntry { list: LIST.into(), index }),
    }
}

fn demands() -> Demands<'static> {
    Demands { now: now(), issuer: None, subject: None, status: None }
}

/// A payload as ours, changed, and signed by the owner all the same.
fn signed(change: impl FnOnce(&mut Value)) -> String {
    let mut payload = payload(&draft(None).sign(&key(1)).unwrap());
    change(&mut payload);
    jwt::sign(&key(1), &payload).unwrap()
}

fn payload(credential: &Credential) -> Value {
    part(credential.text(), 1)
}

fn part(text: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

/// Any header and payload, properly signed by the owner.
fn signed_bytes(header: &str, payload: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(key(1).sign(input.as_bytes())))
}

fn refused(text: &str) -> String {
    Credential::parse(text).unwrap_err().to_string()
}

#[test]
fn a_credential_is_in_the_form_of_the_standard() {
    let credential = draft(Some(7)).sign(&key(1)).unwrap();
    let owner = key(1).id().to_string();
    let multibase = owner.trim_start_matches("did:key:");
    assert_eq!(
        part(credential.text(), 0),
        json!({"alg": "EdDSA", "cty": "vc", "kid": format!("{owner}#{multibase}"), "typ": "vc+jwt"})
    );
    assert_eq!(
        payload(&credential),
        json!({
            "@context": ["https://www.w3.org/ns/credentials/v2", "https://www.w3.org/ns/credentials/undefined-terms/v2"],
            "type": ["VerifiableCredential", "NodeOwnershipCredential"],
            "issuer": owner,
            "validFrom": "2026-11-25T12:00:00Z",
            "validUntil": "2027-02-23T12:00:00Z",
            "credentialSubject": {"id": key(2).id().to_string(), "domain": "farm.example"},
            "credentialStatus": {"type": "BitstringStatusListEntry", "statusPurpose": "revocation",
                                 "statusListIndex": "7", "statusListCredential": LIST},
        })
    );
    assert_eq!(Credential::parse(&format!("{}\n", credential.text())).unwrap(), credential);
}

#[test]
fn every_question_is_answered_by_itself() {
    let credential = draft(None).sign(&key(1)).unwrap();
    credential.clone().verify(&demands()).unwrap();
    let wrong = Demands { issuer: Some(key(3).id()), subject: Some(key(4).id()), now: days(91), status: None };
    let failed: Vec<CheckStep> =
        credential.check(&wrong).into_iter().filter(|f| f.result.is_err()).map(|f| f.step).collect();
    assert_eq!(failed, [CheckStep::Issuer, CheckStep::Subject, CheckStep::Validity]);
    assert!(matches!(credential.verify(&wrong), Err(CredentialError::OtherIssuer { .. })));
}

#[test]
fn clocks_may_differ_by_the_leeway_and_no_more() {
    let credential = draft(None).sign(&key(1)).unwrap();
    let at = |now: Timestamp| credential.clone().verify(&Demands { now, ..demands() }).map(drop);
    let second = SignedDuration::from_secs(1);
    assert_eq!(at(now() - CLOCK_SKEW_LEEWAY), Ok(()));
    assert!(matches!(at(now() - CLOCK_SKEW_LEEWAY - second), Err(CredentialError::NotYet { .. })));
    assert_eq!(at(days(90) + CLOCK_SKEW_LEEWAY - second), Ok(()));
    assert!(matches!(at(days(90) + CLOCK_SKEW_LEEWAY), Err(CredentialError::Expired { .. })));
    assert_eq!(at(Timestamp::MIN).is_err(), at(Timestamp::MAX).is_err());
}

#[test]
fn another_key_than_the_issuers_signs_nothing() {
    let text = draft(None).sign(&key(1)).unwrap().text().to_owned();
    let other = draft(None).sign(&key(3)).unwrap().text().to_owned();
    let parts = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (mine, theirs) = (parts(&text), parts(&other));
    let mixed = format!("{}.{}.{}", mine[0], mine[1], theirs[2]);
    assert_eq!(Credential::parse(&mixed), Err(CredentialError::Forged { issuer: key(1).id() }));
    let stolen = jwt::sign(&key(3), &payload(&Credential::parse(&text).unwrap())).unwrap();
    assert!(refused(&stolen).contains("issuer: it is"), "{}", refused(&stolen));
}

#[test]
fn headers_that_say_anything_else_are_refused() {
    let body = canonical_json(&payload(&draft(None).sign(&key(1)).unwrap())).unwrap();
    let kid = jwt::key_name(&key(1).id());
    let header = |alg: &str, rest: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"vc+jwt"{rest}}}"#);
    Credential::parse(&signed_bytes(&header("EdDSA", ""), &body)).unwrap();
    Credential::parse(&signed_bytes(&header("EdDSA", r#","cty":"application/VC","iat":1"#), &body)).unwrap();
    for (header, needed) in [
        (header("none", ""), "alg"),
        (header("HS256", ""), "alg"),
        (header("EdDSA", r#","alg":"EdDSA""#), "member `alg` twice"),
        (header("EdDSA", r#","crit":["exp"],"exp":1"#), "crit"),
        (header("EdDSA", r#","b64":false"#), "b64"),
        (header("EdDSA", r#","cty":"vp""#), "cty"),
        (format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), "typ"),
        (format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#), "typ"),
        (r#"{"alg":"EdDSA","typ":"vc+jwt"}"#.into(), "kid"),
        (format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"vc+jwt"}}"#, key(1).id()), "kid"),
        (format!(r#"{{"alg":"EdDSA","kid":"{}#other","typ":"vc+jwt"}}"#, key(1).id()), "kid"),
        ("[]".into(), "no JSON object"),
    ] {
        let reason = refused(&signed_bytes(&header, &body));
        assert!(reason.contains(needed), "{header}: {reason}");
    }
}

fn entry(list: &str, index: &str) -> Value {
    json!({"type": "BitstringStatusListEntry", "statusPurpose": "revocation",
           "statusListCredential": list, "statusListIndex": index})
}

#[test]
fn payloads_that_are_no_such_credential_are_refused_though_signed() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|p| p["@context"] = json!(["https://example.org"]), "@context"),
        (|p| p["type"] = json!(["VerifiableCredential"]), "type"),
        (|p| p["type"] = json!(["NodeOwnershipCredential"]), "type"),
        (|p| p["type"] = json!(["VerifiableCredential", "NodeOwnershipCredential", "FeatureCredential"]), "type"),
        (|p| p["issuer"] = json!("did:web:owner.example"), "issuer"),
        (|p| p["validFrom"] = json!("yesterday"), "validFrom"),
        (|p| p["validFrom"] = json!("2026-11-25T12:00:00"), "validFrom"),
        (|p| p["validUntil"] = Value::Null, "validUntil"),
        (|p| drop(p.as_object_mut().unwrap().remove("validUntil")), "it must end"),
        (|p| p["validUntil"] = p["validFrom"].clone(), "not after"),
        (|p| p["exp"] = json!(1), "not after"),
        (|p| p["exp"] = json!("soon"), "claim `exp`"),
        (|p| p["iss"] = json!("did:key:z"), "claim `iss`"),
        (|p| p["sub"] = json!("did:key:z"), "claim `sub`"),
        (|p| p["jti"] = json!("urn:x"), "claim `jti`"),
        (|p| p["vc"] = json!({}), "claim `vc`"),
        (|p| p["credentialSubject"] = json!([p["credentialSubject"]]), "one object"),
        (|p| p["credentialSubject"]["id"] = json!("did:web:farm.example"), "needed a node's did:key"),
        (|p| p["credentialSubject"]["domain"] = json!("Farm example"), "claim `domain`"),
        (|p| p["credentialSubject"]["domain"] = json!(["a.example"]), "no single value"),
        (|p| p["credentialSubject"]["x"] = json!("\u{1b}[2J"), "control characters"),
        (|p| p["credentialSubject"]["x"] = json!("x".repeat(257)), "at most 256"),
        (|p| (0..65).for_each(|i| p["credentialSubject"][format!("c{i}")] = json!(1)), "at most 64"),
        (|p| p["credentialStatus"] = json!({"type": "StatusList2021Entry"}), "credentialStatus"),
        (|p| p["credentialStatus"] = json!([]), "credentialStatus"),
        (|p| p["credentialStatus"] = entry("\u{1b}[2J", "1"), "needed a list and an index"),
        (|p| p["credentialStatus"] = entry(LIST, "-1"), "needed a list and an index"),
        (|p| p["credentialStatus"] = entry(LIST, "99999999999999999999"), "needed a list and an index"),
    ];
    for (change, needed) in cases {
        let reason = refused(&signed(change));
        assert!(reason.contains(needed), "needed {needed}: {reason}");
    }
    let twice = r#"{"type":"a","type":"b"}"#;
    let kid = jwt::key_name(&key(1).id());
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"vc+jwt"}}"#);
    assert!(refused(&signed_bytes(&header, twice.as_bytes())).contains("member `type` twice"));
    assert!(refused(&signed_bytes(&header, "[".repeat(5000).as_bytes())).contains("levels"));
    assert!(refused(&"x".repeat(CREDENTIAL_LENGTH_MAX + 1)).contains("at most"));
}

#[test]
fn the_time_of_a_signature_narrows_the_time_of_what_it_signs() {
    let text = signed(|p| p["exp"] = json!(days(1).as_second()));
    let credential = Credential::parse(&text).unwrap();
    assert_eq!(credential.valid_until(), days(1));
}

#[test]
fn what_others_would_refuse_is_not_issued() {
    let no_domain = CredentialDraft { claims: [("x".into(), "y".into())].into(), ..draft(None) };
    let no_claim = CredentialDraft { kind: CredentialKind::Feature, claims: Default::default(), ..draft(None) };
    let of_subject = CredentialDraft { claims: [("id".into(), "y".into())].into(), ..draft(None) };
    let over = CredentialDraft { valid_until: now(), ..draft(None) };
    for draft in [no_domain, no_claim, of_subject, over] {
        assert!(draft.sign(&key(1)).is_err(), "{draft:?}");
    }
}

fn list(days_valid: i64, revoked: &[usize]) -> StatusList {
    let mut list = StatusList::new(key(1).id(), LIST, now(), days(days_valid));
    revoked.iter().for_each(|index| assert!(list.revoke(*index)));
    StatusList::parse(&list.sign(&key(1)).unwrap()).unwrap()
}

#[test]
fn a_revoked_credential_does_not_count_and_its_neighbours_do() {
    let check = |index, list: &StatusList| {
        let credential = draft(Some(index)).sign(&key(1)).unwrap();
        credential.verify(&Demands { status: Some(list), ..demands() })
    };
    let list = list(7, &[7, 1000, STATUS_ENTRIES - 1]);
    assert_eq!(list.revoked_count(), 3);
    // Others read the same bit: index 0 is the left-most of the first byte, so 7 is the right-most.
    assert_eq!((list.bits[0], list.bits[125]), (0b0000_0001, 0b1000_0000));
    for index in [0, 3, 6, 8, 999, 1001, STATUS_ENTRIES - 2] {
        assert_eq!(check(index, &list).unwrap().counts_until(), days(7), "no longer than the list");
    }
    for index in [7, 1000, STATUS_ENTRIES - 1] {
        assert_eq!(check(index, &list).unwrap_err(), CredentialError::Revoked { index, list: LIST.into() });
    }
    assert!(matches!(check(STATUS_ENTRIES, &list), Err(CredentialError::StatusUnknown { .. })));
}

#[test]
fn without_the_right_list_nothing_is_known() {
    let credential = draft(Some(7)).sign(&key(1)).unwrap();
    let unknown = |status: Option<&StatusList>, now| {
        let error = credential.clone().verify(&Demands { status, now, ..demands() }).unwrap_err();
        assert!(matches!(error, CredentialError::StatusUnknown { .. }), "{error}");
    };
    unknown(None, now());
    unknown(Some(&list(7, &[])), days(8)); // an old list, in which nobody was revoked yet
    unknown(Some(&StatusList::new(key(3).id(), LIST, now(), days(7))), now());
    unknown(Some(&StatusList::new(key(1).id(), "https://owner.example/other", now(), days(7))), now());
}

#[test]
fn a_list_is_of_its_issuer_bounded_and_for_revocation() {
    assert!(StatusList::new(key(1).id(), LIST, now(), days(1)).sign(&key(3)).is_err());
    let mut random = StatusList::new(key(1).id(), LIST, now(), days(1));
    let mut state = 1u64; // Knuth's linear congruential generator: bits that do not compress
    for index in 0..STATUS_ENTRIES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        assert!(state >> 63 == 0 || random.revoke(index));
    }
    let text = random.sign(&key(1)).unwrap();
    assert!(text.len() < STATUS_TEXT_LENGTH_MAX, "the worst list has {} characters", text.len());
    assert_eq!(StatusList::parse(&text).unwrap(), random);

    let good = part(&list(1, &[]).sign(&key(1)).unwrap(), 1);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut payload = good.clone();
        change(&mut payload);
        StatusList::parse(&jwt::sign(&key(1), &payload).unwrap())
    };
    changed(&|_| ()).unwrap();
    let bomb = super::status::pack_for_test(&vec![0; 20 << 20]);
    let short = super::status::pack_for_test(&[0; 100]);
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 6] = [
        (&|p| p["credentialSubject"]["statusPurpose"] = json!("message"), "statusPurpose"),
        (&|p| p["credentialSubject"]["encodedList"] = json!(bomb), "bytes of bits"),
        (&|p| p["credentialSubject"]["encodedList"] = json!(short), "bytes of bits"),
        (&|p| p["credentialSubject"]["encodedList"] = json!("uAAAA"), "not GZIP"),
        (&|p| p["credentialSubject"]["encodedList"] = json!("zAAAA"), "multibase"),
        (&|p| p["type"] = json!(["VerifiableCredential"]), "type"),
    ];
    for (change, needed) in cases {
        let reason = changed(change).unwrap_err().to_string();
        assert!(reason.contains(needed), "needed {needed}: {reason}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_panic_or_a_credential(text in "\\PC{0,400}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Credential::parse(&text).is_err());
        prop_assert!(StatusList::parse(&text).is_err());
        // The same with a signature that holds, so that what lies behind it is reached.
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"vc+jwt"}}"#, jwt::key_name(&key(1).id()));
        prop_assert!(Credential::parse(&signed_bytes(&header, &bytes)).is_err());
        prop_assert!(StatusList::parse(&signed_bytes(&header, &bytes)).is_err());
        prop_assert!(Credential::parse(&signed_bytes(&text, &bytes)).is_err());
    }

    #[test]
    fn one_changed_character_and_it_is_no_credential(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.=+/-]") {
        let credential = draft(Some(3)).sign(&key(1)).unwrap();
        let at = at.index(credential.text().len());
        let mut text = credential.text().to_owned();
        text.replace_range(at..=at, &to);
        prop_assume!(text != credential.text());
        prop_assert!(Credential::parse(&text).is_err(), "{text}");
    }

    #[test]
    fn a_changed_payload_that_is_signed_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = canonical_json(&payload(&draft(Some(3)).sign(&key(1)).unwrap())).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"vc+jwt"}}"#, jwt::key_name(&key(1).id()));
        if let Ok(credential) = Credential::parse(&signed_bytes(&header, &body)) {
            prop_assert_eq!(credential.issuer(), key(1).id());
        }
    }
}
