//! Meetings: who is it, and may it go on.
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

const K0: u8 = 1;
const K1: u8 = 2;
const OWNER: u8 = 10;
const THIEF: u8 = 20;
const LIST: &str = "https://owner.example/status";

fn handed(old: u8, new: u8) -> Statement {
    Handover::by_key(&key(old), &key(new), hours(-1)).unwrap().into()
}

fn recovered(old: u8, new: u8) -> Statement {
    Handover::by_owner(&key(OWNER), id(old), &key(new), hours(-1)).unwrap().into()
}

fn revoked(what: u8, by: u8) -> Statement {
    Revocation::new(id(what), &key(by), "stolen", hours(-1)).unwrap().into()
}

fn vouched(owner: u8, node: u8, status: Option<usize>) -> String {
    let draft = CredentialDraft {
        kind: CredentialKind::NodeOwnership,
        subject: id(node),
        claims: [("domain".into(), "farm.example".into())].into(),
        valid_from: hours(-10),
        valid_until: hours(100),
        status: status.map(|index| StatusEntry { list: LIST.into(), index }),
    };
    draft.sign(&key(owner)).unwrap().text().to_owned()
}

fn shows(credentials: &[String], statements: &[Statement]) -> Presentation {
    let statements = statements.iter().map(Statement::envelope).collect();
    let shown = Presentation { credentials: credentials.to_vec(), statements, lists: Vec::new() };
    Presentation::parse(&shown.to_bytes().unwrap()).unwrap()
}

fn trusted() -> TrustedIssuers {
    let mut trusted = TrustedIssuers::default();
    trusted.trust_owner_of(id(OWNER), "farm.example");
    trusted
}

/// Meets without anybody trusted beforehand.
fn meet(known: &mut Acquaintances, peer: u8, shown: &Presentation) -> Met {
    known.meet(id(peer), shown, &[], &TrustedIssuers::default(), now())
}

/// Somebody who has met K0, who has shown its owner.
fn friend() -> Acquaintances {
    let mut known = Acquaintances::default();
    known.add(id(K0));
    let met = meet(&mut known, K0, &shows(&[vouched(OWNER, K0, None)], &[]));
    assert_eq!((met.admission, met.origin, met.notes), (Ok(()), Some(id(K0)), vec![]));
    assert_eq!(known.owners().of(&id(K0)).map(|vouch| vouch.owner), Some(id(OWNER)));
    known
}

fn refused(met: &Met, needed: &str) {
    let reason = met.admission.clone().expect_err("should be refused");
    assert!(reason.contains(needed), "{needed:?} is not in {reason}");
}

#[test]
fn a_node_with_another_key_is_known_again_and_its_old_key_is_refused() {
    let mut known = friend();
    let met = meet(&mut known, K1, &shows(&[], &[handed(K0, K1)]));
    assert_eq!((met.admission, met.origin), (Ok(()), Some(id(K0))));
    refused(&meet(&mut known, K0, &shows(&[], &[])), "was handed over to");
    // Without its statements as well: what was accepted is remembered.
    assert_eq!(meet(&mut known, K1, &shows(&[], &[])).origin, Some(id(K0)));
    let thief = meet(&mut known, THIEF, &shows(&[], &[handed(K0, THIEF)]));
    assert_eq!((thief.admission, thief.origin), (Ok(()), None), "a stranger, and no more");
    assert!(thief.notes[0].contains("it says that it follows"), "{:?}", thief.notes);
    assert_eq!(meet(&mut known, K1, &shows(&[], &[])).origin, Some(id(K0)));
    let kept: Vec<KeyHistory> = known.histories().cloned().collect();
    assert_eq!(Acquaintances::restore(kept, known.owners().clone()), known);
}

#[test]
fn an_owners_word_ends_the_thiefs_time_wherever_it_comes_from() {
    let mut known = friend();
    assert_eq!(
        meet(&mut known, THIEF, &shows(&[vouched(THIEF + 1, THIEF, None)], &[handed(K0, THIEF)])).origin,
        Some(id(K0))
    );
    assert_eq!(known.hear(&[revoked(K0, 99), handed(5, 6)], now()), [], "nobody's word");
    assert_eq!(known.hear(&[recovered(K0, K1)], now()), [(id(K0), Standing::Current(id(K1)))]);
    assert_eq!(known.hear(&[recovered(K0, K1)], now()), [], "heard twice");
    assert_eq!(meet(&mut known, THIEF, &shows(&[], &[handed(K0, THIEF)])).origin, None);
    assert_eq!(meet(&mut known, K1, &shows(&[], &[])).origin, Some(id(K0)));
}

#[test]
fn a_revoked_key_may_not_go_on() {
    let mut known = friend();
    refused(&meet(&mut known, K0, &shows(&[], &[revoked(K0, K0)])), "was revoked by");
    refused(&meet(&mut known, K0, &shows(&[], &[])), "was revoked by");
    let mut known = friend();
    let changed = known.hear(&[revoked(K0, OWNER)], now());
    assert!(matches!(changed[..], [(_, Standing::Revoked { .. })]), "{changed:?}");
    refused(&meet(&mut known, K0, &shows(&[], &[])), "was revoked by");
}

#[test]
fn a_fork_is_nobody_until_the_owner_decides() {
    let mut known = friend();
    let both = shows(&[], &[handed(K0, K1), handed(K0, THIEF)]);
    assert_eq!(meet(&mut known, K1, &both).origin, None);
    assert_eq!(meet(&mut known, THIEF, &shows(&[], &[handed(K0, THIEF)])).origin, None, "the fork is remembered");
    refused(&meet(&mut known, K0, &shows(&[], &[])), "was handed over to 2 keys");
    assert_eq!(meet(&mut known, K1, &shows(&[], &[recovered(K0, K1)])).origin, Some(id(K0)));
}

#[test]
fn strangers_are_judged_and_not_remembered() {
    let mut known = friend();
    let before = known.clone();
    let met = meet(&mut known, 30, &shows(&[vouched(OWNER, 30, None)], &[handed(29, 30)]));
    assert_eq!((met.admission, met.origin), (Ok(()), None));
    refused(&meet(&mut known, 30, &shows(&[], &[handed(30, 31)])), "by its own statements");
    refused(&meet(&mut known, 30, &shows(&[], &[revoked(30, 30)])), "by its own statements");
    assert_eq!(known, before);
    known.remove(&id(K0));
    assert_eq!(known, Acquaintances::default(), "with its owner");
}

#[test]
fn what_is_proven_comes_from_credentials_that_count() {
    let mut known = friend();
    let list = |from: i64, revoked: Option<usize>| {
        let mut list = StatusList::new(id(OWNER), LIST, hours(from), hours(100));
        revoked.into_iter().for_each(|index| assert!(list.revoke(index)));
        list
    };
    let shown = shows(&[vouched(OWNER, K0, Some(4)), "garbage".into()], &[]);
    let mut proven = |lists: &[StatusList]| {
        let met = known.meet(id(K0), &shown, lists, &trusted(), now());
        (met.proven.domain.map(|domain| domain.value), met.notes)
    };
    let (domain, notes) = proven(&[list(-5, None)]);
    assert_eq!((domain.as_deref(), notes.len()), (Some("farm.example"), 1), "{notes:?}");
    let (domain, notes) = proven(&[]);
    assert!(domain.is_none() && notes[0].contains("is not known"), "{notes:?}");
    let (domain, notes) = proven(&[list(-1, Some(4)), list(-5, None)]);
    assert!(domain.is_none() && notes[0].contains("revoked by its issuer"), "the newer list counts: {notes:?}");
    // The node shows the list itself; one of somebody else says nothing, and a newer one that is at hand counts more.
    let mut known = friend();
    let mut proven = |signed_by: u8, at_hand: &[StatusList]| {
        let text = StatusList::new(id(signed_by), LIST, hours(-5), hours(100)).sign(&key(signed_by)).unwrap();
        let shown = Presentation { lists: vec![text], ..shows(&[vouched(OWNER, K0, Some(4))], &[]) };
        let met = known.meet(id(K0), &shown, at_hand, &trusted(), now());
        (met.proven.domain.is_some(), met.lists.len(), met.notes.join("; "))
    };
    assert_eq!(proven(OWNER, &[]), (true, 1, String::new()));
    assert!(!proven(THIEF, &[]).0);
    let (is_proven, _, notes) = proven(OWNER, &[list(-1, Some(4))]);
    assert!(!is_proven && notes.contains("revoked by its issuer"), "{notes}");
}

#[test]
fn addresses_follow_the_first_key_that_handed_over_by_itself() {
    let chain = [handed(K0, K1), handed(K1, 3)];
    assert_eq!(
        (first_key(id(3), &chain), first_key(id(K1), &chain), first_key(id(9), &chain)),
        (id(K0), id(K0), id(9))
    );
    assert_eq!(first_key(id(K1), &[recovered(K0, K1)]), id(K1), "an owner's word begins anew");
    assert_eq!(first_key(id(3), &[handed(K0, 3), handed(K1, 3)]), id(3), "of two nobody is the first");
    assert_eq!(first_key(id(K0), &[handed(K0, K1), handed(K1, K0)]), id(K1), "a loop ends");
    let met = meet(&mut friend(), K1, &shows(&[], &[handed(K0, K1)]));
    assert_eq!(met.first, id(K0));
}

#[test]
fn every_key_of_an_acquaintance_stands_as_its_node() {
    let mut known = friend();
    meet(&mut known, K1, &shows(&[], &[handed(K0, K1)]));
    let current = Standing::Current(id(K1));
    assert_eq!(known.standings(now()), [(id(K0), current.clone()), (id(K1), current)].into());
}

#[test]
fn a_presentation_is_bounded() {
    let refused = |shown: &Presentation| shown.to_bytes().unwrap_err();
    let many = Presentation { credentials: vec![String::new(); PEER_CREDENTIALS_MAX + 1], ..Presentation::default() };
    assert!(refused(&many).contains("credentials"));
    assert!(Presentation::parse(&serde_json::to_vec(&many).unwrap()).is_err());
    let statements = vec![handed(K0, K1).envelope(); STATEMENTS_MAX + 1];
    assert!(refused(&Presentation { statements, ..Presentation::default() }).contains("statements"));
    let full = vec![handed(K0, K1).envelope(); STATEMENTS_MAX];
    let bytes = Presentation { statements: full, ..Presentation::default() }.to_bytes().unwrap();
    assert!(bytes.len() < PRESENTATION_BYTES_MAX * 3 / 4, "{} bytes leave room for credentials", bytes.len());
    assert!(Presentation::parse(&vec![b' '; PRESENTATION_BYTES_MAX + 1]).is_err());
    let lists = vec![String::new(); PRESENTED_LISTS_MAX + 1];
    assert!(refused(&Presentation { lists, ..Presentation::default() }).contains("status lists"));
    let lists = vec!["x".repeat(STATUS_TEXT_LENGTH_MAX + 1)];
    assert!(refused(&Presentation { lists, ..Presentation::default() }).contains("in a status list"));
    assert!(Presentation::parse(br#"{"credentials":[],"more":1}"#).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_panic_or_an_acquaintance(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        prop_assert!(Presentation::parse(&bytes).is_err());
        let mut good = shows(&[], &[handed(K0, THIEF)]).to_bytes().unwrap();
        let at = at.index(good.len());
        prop_assume!(good[at] != to);
        good[at] = to;
        if let Ok(shown) = Presentation::parse(&good) {
            let mut known = friend();
            // The hand-over is changed, so K0 is whom it was; or what was changed is no part of it.
            let met = meet(&mut known, THIEF, &shown);
            prop_assert!(met.origin.is_none() || shown == shows(&[], &[handed(K0, THIEF)]));
        }
    }
}
