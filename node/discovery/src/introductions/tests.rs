//! Who is remembered, what is told, what a KnownCluster says of who a peer is.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use fluidos_identity::{
    Acquaintances, CredentialDraft, CredentialKind, Handover, NodeId, NodeKey, Presentation, Revocation, Shown,
    Speakers, Standing, Statement, StatusList, TrustedIssuers,
};
use fluidos_model::kinds::{
    AdditionalInformation, AttributeLevel, Contract, KnownCluster, KnownClusterLink, KnownClusterMeasurement,
    KnownClusterSource, KnownClusterStatus, LinkState,
};
use jiff::{SignedDuration, Timestamp};

use super::plan::{self, POSITION};
use super::{ACQUAINTANCES_MAX, store};

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

const OWNER: u8 = 10;
const CERTIFIER: u8 = 11;

fn credential(issuer: u8, subject: u8, kind: CredentialKind, claims: &[(&str, &str)]) -> String {
    let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let draft = CredentialDraft {
        kind,
        subject: id(subject),
        claims,
        valid_from: hours(-1),
        valid_until: hours(9),
        status: None,
    };
    draft.sign(&key(issuer)).unwrap().text().to_owned()
}

fn owned(subject: u8) -> String {
    credential(OWNER, subject, CredentialKind::NodeOwnership, &[("domain", "farm.example")])
}

fn handed(old: u8, new: u8) -> Statement {
    Handover::by_key(&key(old), &key(new), hours(-1)).unwrap().into()
}

fn revoked(what: u8, by: u8) -> Statement {
    Revocation::new(id(what), &key(by), "stolen", hours(-1)).unwrap().into()
}

fn shows(credentials: &[String], statements: &[Statement]) -> Presentation {
    let statements = statements.iter().map(Statement::envelope).collect();
    Presentation { credentials: credentials.to_vec(), statements, lists: Vec::new() }
}

fn trusted() -> TrustedIssuers {
    let mut trusted = TrustedIssuers::default();
    trusted.trust_owner_of(id(OWNER), "farm.example");
    trusted.trust_certifier(id(CERTIFIER));
    trusted
}

fn known(seed: u8, source: KnownClusterSource) -> KnownCluster {
    let mut known = KnownCluster::new("k", Default::default());
    (known.spec.did, known.spec.source) = (Some(id(seed).to_string()), Some(source));
    known
}

fn contract(buyer: u8, seller: u8) -> Contract {
    let mut contract = Contract::new("c", Default::default());
    let party = |seed| Some(AdditionalInformation { did: Some(id(seed).to_string()), ..Default::default() });
    contract.spec.buyer.additional_information = party(buyer);
    contract.spec.seller.additional_information = party(seller);
    contract
}

#[test]
fn parties_of_contracts_and_those_who_were_named_are_remembered_and_strangers_are_not() {
    let nodes = [known(3, KnownClusterSource::Static), known(4, KnownClusterSource::Multicast)];
    let wanted = plan::wanted([contract(1, 2)].iter(), nodes.iter());
    assert_eq!(wanted, [id(1), id(2), id(3)].into());
    // This node is 1, and was 9 before.
    let own = plan::own_keys(id(1), &[handed(9, 1)]);
    let mut acquaintances = Acquaintances::default();
    let changes = plan::acquaint(&acquaintances, &[id(1), id(2), id(9)].into(), &own);
    assert_eq!((changes.add, changes.forget), (vec![id(2)], vec![]));
    // It is known under every key that it ever had, and stays when its contract is over.
    acquaintances.add(id(2));
    acquaintances.meet(id(5), &shows(&[], &[handed(2, 5)]), &[], &trusted(), now());
    acquaintances.add(id(6));
    let changes = plan::acquaint(&acquaintances, &[id(5)].into(), &own);
    assert_eq!((changes.add, changes.forget), (vec![], vec![id(6)]));
    assert_eq!(plan::acquaint(&acquaintances, &BTreeSet::new(), &own).forget, [id(6)]);
}

#[test]
fn who_has_a_contract_is_remembered_before_who_had_one() {
    let many = |from: u32, count: usize| -> BTreeSet<NodeId> {
        let one = |n: u32| {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            NodeKey::from_seed(seed).unwrap().id()
        };
        (from..).take(count).map(one).collect()
    };
    let mut acquaintances = Acquaintances::default();
    acquaintances.add(id(2));
    acquaintances.hear(&[revoked(2, 2)], now());
    let wanted = many(1000, ACQUAINTANCES_MAX + 5);
    let changes = plan::acquaint(&acquaintances, &wanted, &BTreeSet::new());
    assert_eq!((changes.add.len(), changes.forget), (ACQUAINTANCES_MAX, vec![id(2)]));
}

#[test]
fn what_was_accepted_is_the_same_after_it_was_kept() {
    let mut acquaintances = Acquaintances::default();
    for seed in [2, 3] {
        acquaintances.add(id(seed));
    }
    acquaintances.meet(id(2), &shows(&[owned(2)], &[]), &[], &trusted(), now());
    acquaintances.meet(id(5), &shows(&[], &[handed(2, 5)]), &[], &trusted(), now());
    acquaintances.hear(&[handed(3, 6), handed(3, 7)], now());
    let specs: Vec<_> = acquaintances.histories().map(|h| store::record(h, acquaintances.owners())).collect();
    assert_eq!(specs[0].vouches.len() + specs[1].vouches.len(), 1);
    assert_eq!(store::restore(&specs), acquaintances);
    // What somebody has written into it does not make a key speak.
    let mut forged = specs.clone();
    for spec in &mut forged {
        spec.accepted = vec!["{}".into(), serde_json::to_string(&handed(4, 8).envelope()).unwrap()];
    }
    let restored = store::restore(&forged);
    assert_eq!(restored.standings(now()).get(&id(2)), Some(&Standing::Current(id(2))));
    let status = |seed| store::status(acquaintances.standings(now()).get(&id(seed)).unwrap(), "farm".into());
    assert_eq!(status(2).key, id(5).to_string());
    assert!(status(3).message.contains("was handed over to 2 keys"), "{:?}", status(3));
}

#[test]
fn acquaintances_are_told_of_others_and_strangers_are_not() {
    let mut acquaintances = Acquaintances::default();
    acquaintances.add(id(2));
    acquaintances.hear(&[handed(2, 5), revoked(5, 5)], now());
    let shown = Shown { own: shows(&[owned(1)], &[handed(9, 1)]), history: vec![handed(9, 1)], ..Shown::default() };
    let shown = Shown { told: vec![revoked(8, 8)], ..shown };
    let read =
        |knows| plan::statements(&Presentation::parse(&plan::presentation(&shown, &acquaintances, knows)).unwrap());
    assert_eq!(read(false), [handed(9, 1)]);
    assert_eq!(read(true), [handed(9, 1), revoked(8, 8), revoked(5, 5), handed(2, 5)], "its own, then revocations");
}

#[test]
fn a_known_cluster_tells_what_is_proven_and_how_well() {
    let feature = credential(CERTIFIER, 2, CredentialKind::Feature, &[("country", "Italy"), ("iso", "27001")]);
    let of_nobody = credential(30, 2, CredentialKind::Feature, &[("country", "Mars")]);
    let shown = shows(&[owned(2), feature, of_nobody], &[]);
    let mut acquaintances = Acquaintances::default();
    let met = acquaintances.meet(id(2), &shown, &[], &trusted(), now());
    let features = ["country=Italy".to_owned(), "city=Turin".to_owned()];
    let told = plan::identity(id(2), &met, None, &features, &[], &trusted(), now());
    assert_eq!(told.owner.unwrap().value, id(OWNER).to_string());
    assert_eq!(told.domain.unwrap().value, "farm.example");
    let evidence: Vec<_> =
        told.evidence.iter().map(|e| (e.name.as_str(), e.value.as_str(), e.level.unwrap())).collect();
    let (claimed, audited) = (AttributeLevel::Claimed, AttributeLevel::Audited);
    assert_eq!(evidence, [("city", "Turin", claimed), ("country", "Italy", audited), ("iso", "27001", audited)]);
    assert_eq!(told.evidence[1].by, id(CERTIFIER).to_string());
    assert!(told.notes.iter().any(|note| note.contains("its issuer is not trusted")), "{:?}", told.notes);
    // A key that counts no more proves nothing.
    let told = plan::identity(id(2), &met, Some("was revoked".into()), &features, &[], &trusted(), now());
    assert_eq!((told.owner, told.domain, told.evidence.len()), (None, None, 0));
    assert_eq!(told.refused, "was revoked");
    // Another's credential is nobody's.
    let met = acquaintances.meet(id(3), &shown, &[], &trusted(), now());
    let told = plan::identity(id(3), &met, None, &features, &[], &trusted(), now());
    assert_eq!((told.owner, told.domain), (None, None));
    assert!(told.evidence.iter().all(|e| e.level == Some(claimed)));
}

#[test]
fn nothing_is_farther_than_light_goes() {
    let (turin, tokyo) = ((45.07, 7.69), (35.68, 139.69));
    let word = plan::position_word(tokyo.0, tokyo.1);
    assert_eq!((word.as_str(), plan::position(&word)), ("35.6800N_139.6900E", Some(tokyo)));
    assert_eq!(plan::position(&plan::position_word(-33.4, -70.6)), Some((-33.4, -70.6)));
    for wrong in ["", "x", "91N_0E", "45.0N", "45.0E_7.0N", "-1N_1E", "NaNN_1E"] {
        assert_eq!(plan::position(wrong), None, "{wrong}");
    }
    let mut peer = known(2, KnownClusterSource::Multicast);
    peer.spec.features = vec![format!("{POSITION}={word}")];
    let mut measured = |micros| {
        let since = now().to_string();
        let link =
            KnownClusterLink { state: LinkState::Up, since, round_trip_micros: Some(micros), message: String::new() };
        peer.status = Some(Default::default());
        peer.status.as_mut().unwrap().link = Some(link);
        plan::measured(&peer, id(2), id(1), Some(turin), now())
    };
    // Some 9,700 km: 65 ms there and back for light in vacuum.
    assert_eq!(measured(70_000), [], "it may be there");
    let refuted = measured(20_000);
    assert!(!refuted[0].confirms);
    let met = Acquaintances::default().meet(id(2), &shows(&[], &[]), &[], &trusted(), now());
    let told = plan::identity(id(2), &met, None, &[format!("{POSITION}={word}")], &refuted, &trusted(), now());
    assert_eq!(
        (told.evidence[0].level, told.evidence[0].message.as_str()),
        (None, "was claimed, refuted by a measurement")
    );
}

#[test]
fn what_ran_there_measures_the_architecture_until_its_time_is_over_and_refutes_another_claim() {
    let told = |claims: &[&str], seen: &str, at: Timestamp| {
        let features: Vec<String> = claims.iter().map(|claim| format!("arch={claim}")).collect();
        let mut peer = KnownCluster::new("k", Default::default());
        peer.spec.features.clone_from(&features);
        let (since, until) = (hours(-1).to_string(), hours(1).to_string());
        let one = KnownClusterMeasurement { name: "arch".into(), value: seen.into(), at: since, until };
        peer.status = Some(KnownClusterStatus { measured: vec![one], ..Default::default() });
        let measured = plan::seen(&peer, id(2), id(1));
        let met = Acquaintances::default().meet(id(2), &shows(&[], &[]), &[], &trusted(), at);
        let known = plan::identity(id(2), &met, None, &features, &measured, &trusted(), at);
        let told = known.evidence.into_iter();
        told.map(|one| format!("{} {:?} {}", one.value, one.level, one.message).trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(&["amd64"], "amd64", now()), ["amd64 Some(Measured)"]);
    assert_eq!(told(&["amd64"], "amd64", hours(2)), ["amd64 Some(Claimed)"], "it was seen too long ago");
    assert_eq!(
        told(&["amd64"], "arm64", now()),
        ["amd64 None was claimed, refuted by a measurement", "arm64 Some(Measured)"]
    );
    assert_eq!(told(&["amd64"], "arm64", hours(2)), ["amd64 Some(Claimed)"]);
    assert_eq!(
        told(&["amd64", "arm64"], "arm64", now()),
        ["amd64 Some(Claimed)", "arm64 Some(Measured)"],
        "it has both"
    );
    assert_eq!(told(&[], "arm64", now()), ["arm64 Some(Measured)"], "nobody has claimed it");
}

#[test]
fn a_newer_list_of_a_trusted_issuer_is_kept() {
    let list = |issuer: u8, from: i64| StatusList::new(id(issuer), "https://x.example/l", hours(from), hours(9));
    let mut lists = Vec::new();
    for (issuer, from) in [(OWNER, -2), (30, -1), (OWNER, -1), (OWNER, -3)] {
        plan::keep_list(&mut lists, &list(issuer, from), &trusted());
    }
    assert_eq!(lists.iter().map(|l| (l.issuer(), l.valid_from())).collect::<Vec<_>>(), [(id(OWNER), hours(-1))]);
}

#[test]
fn keys_that_count_no_more_are_refused() {
    let mut acquaintances = Acquaintances::default();
    for seed in [2, 3, 4] {
        acquaintances.add(id(seed));
    }
    acquaintances.hear(&[handed(2, 5), revoked(3, 3)], now());
    let standings = acquaintances.standings(now());
    let refused = plan::refused(&standings);
    assert_eq!(refused.keys().copied().collect::<BTreeSet<_>>(), [id(2), id(3)].into());
    let speakers = Speakers::default();
    speakers.set(standings, Default::default());
    assert_eq!((speakers.current(&id(2)), speakers.counts(&id(4))), (id(5), Ok(())));
}
