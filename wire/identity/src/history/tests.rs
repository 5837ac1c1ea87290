#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{CredentialDraft, CredentialKind, Demands, NodeId, NodeKey, TrustedIssuers, VerifiedCredential};

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

// The keys of the node, of its owner, and of a thief.
const K0: u8 = 1;
const K1: u8 = 2;
const K2: u8 = 3;
const OWNER: u8 = 10;
const THIEF: u8 = 20;

fn handed(old: u8, new: u8, at: i64) -> Statement {
    Handover::by_key(&key(old), &key(new), hours(at)).unwrap().into()
}

fn recovered(owner: u8, old: u8, new: u8, at: i64) -> Statement {
    Handover::by_owner(&key(owner), id(old), &key(new), hours(at)).unwrap().into()
}

fn revoked(what: u8, by: u8, at: i64) -> Statement {
    Revocation::new(id(what), &key(by), "stolen", hours(at)).unwrap().into()
}

/// K0 has shown OWNER's credential, of -100 to +100 hours.
fn owners() -> Owners {
    [(id(K0), Vouch { owner: id(OWNER), from: hours(-100), until: hours(100) })].into_iter().collect()
}

/// `current 2`, `revoked 1 by 1`, `fork of 1 to 2 20`: by seeds, so that a table reads as a table.
fn shown(standing: &Standing) -> String {
    let seed = |did: &NodeId| (0..=255).find(|seed| id(*seed) == *did).unwrap();
    match standing {
        Standing::Current(key) => format!("current {}", seed(key)),
        Standing::Revoked { key, by, .. } => format!("revoked {} by {}", seed(key), seed(by)),
        Standing::Unknown(Doubt::Fork { key, to }) => {
            let mut to: Vec<u8> = to.iter().map(seed).collect();
            to.sort_unstable();
            format!("fork of {} to {to:?}", seed(key))
        }
        Standing::Unknown(doubt) => format!("{doubt:?}").split([' ', '(']).next().unwrap().to_lowercase(),
    }
}

fn stands(statements: &[Statement]) -> String {
    shown(&resolve(id(K0), statements, &owners(), now()))
}

#[test]
fn keys_follow_one_another() {
    assert_eq!(stands(&[]), "current 1");
    assert_eq!(stands(&[handed(K0, K1, -2)]), "current 2");
    assert_eq!(stands(&[handed(K1, K2, -1), handed(K0, K1, -2)]), "current 3");
    assert_eq!(stands(&[handed(K1, K2, -1)]), "current 1", "about another node");
    assert_eq!(stands(&[handed(K0, K1, -2), handed(K0, K1, -1)]), "current 2", "said twice is said once");
}

#[test]
fn a_key_revokes_itself_and_is_not_brought_back() {
    assert_eq!(stands(&[revoked(K0, K0, -1)]), "revoked 1 by 1");
    assert_eq!(stands(&[revoked(K0, K0, -1), handed(K0, THIEF, -2)]), "revoked 1 by 1");
    assert_eq!(stands(&[handed(K0, K1, -2), revoked(K1, K1, -1)]), "revoked 2 by 2");
    assert_eq!(stands(&[handed(K0, K1, -2), revoked(K0, K1, -1)]), "current 2", "a successor retires what it follows");
}

#[test]
fn an_owner_decides() {
    assert_eq!(stands(&[recovered(OWNER, K0, K1, -1)]), "current 2");
    assert_eq!(
        stands(&[recovered(OWNER, K0, K1, -1), handed(K0, THIEF, -2)]),
        "current 2",
        "though the thief was first"
    );
    assert_eq!(stands(&[recovered(OWNER, K0, K1, -1), revoked(K0, K0, -2)]), "current 2");
    assert_eq!(stands(&[recovered(OWNER, K0, K1, -1), revoked(K0, OWNER, -2)]), "current 2");
    assert_eq!(stands(&[revoked(K0, OWNER, -1), handed(K0, THIEF, -2)]), "revoked 1 by 10");
    // It stays the owner of the keys that follow.
    assert_eq!(stands(&[handed(K0, K1, -3), revoked(K1, OWNER, -1)]), "revoked 2 by 10");
    assert_eq!(stands(&[handed(K0, K1, -3), recovered(OWNER, K1, K2, -1)]), "current 3");
    assert_eq!(stands(&[recovered(OWNER, K0, K1, -2), recovered(OWNER, K0, K2, -1)]), "fork of 1 to [2, 3]");
}

#[test]
fn what_nobody_may_say_changes_nothing() {
    for nothing in [
        recovered(THIEF, K0, 21, -1), // no owner
        revoked(K0, THIEF, -1),
        revoked(K0, K1, -1), // no successor
        handed(K0, K1, 1),   // of the future
        recovered(OWNER, K0, K1, 1),
        revoked(K0, K0, 1),
        recovered(OWNER, K0, K1, -101), // before and after its time as an owner
        revoked(K0, OWNER, -101),
    ] {
        assert_eq!(stands(std::slice::from_ref(&nothing)), "current 1", "{nothing:?}");
    }
    let later = |statement| resolve(id(K0), &[statement], &owners(), hours(200));
    assert_eq!(shown(&later(recovered(OWNER, K0, K1, 101))), "current 1", "no owner any more");
    assert_eq!(shown(&later(recovered(OWNER, K0, K1, 99))), "current 2", "said when it was");
    assert_eq!(shown(&resolve(id(K0), &[recovered(OWNER, K0, K1, -1)], &Owners::default(), now())), "current 1");
}

#[test]
fn a_fork_a_loop_and_too_much_are_not_followed() {
    assert_eq!(stands(&[handed(K0, K1, -2), handed(K0, THIEF, -3)]), "fork of 1 to [2, 20]");
    assert_eq!(stands(&[handed(K0, K1, -2), handed(K1, K0, -1)]), "loop");
    let chain = |length: u8| (0..length).map(|i| handed(100 + i, 101 + i, -1)).collect::<Vec<_>>();
    let of = |statements: &[Statement]| shown(&resolve(id(100), statements, &owners(), now()));
    assert_eq!(of(&chain(HANDOVERS_MAX as u8)), format!("current {}", 100 + HANDOVERS_MAX));
    assert_eq!(of(&chain(HANDOVERS_MAX as u8 + 1)), "toolong");
    assert_eq!(of(&vec![handed(K0, K1, -1); STATEMENTS_MAX + 1]), "toomany");
}

#[test]
fn what_was_accepted_is_not_undone_by_a_key_that_is_stolen_later() {
    let mut history = KeyHistory::new(id(K0));
    assert_eq!(shown(&history.learn(&[handed(K0, K1, -5)], &owners(), now())), "current 2");
    for attempt in [handed(K0, THIEF, -9), revoked(K0, K0, -9), revoked(K0, THIEF, -9), handed(THIEF, K0, -1)] {
        assert_eq!(shown(&history.learn(&[attempt], &owners(), now())), "current 2");
    }
    assert_eq!(history.retired().collect::<Vec<_>>(), [id(K0)]);
    // The same with what was kept on disk, a clock that is wrong, and no owner any more.
    let mut kept = KeyHistory::restore(id(K0), history.accepted().to_vec(), history.doubts().to_vec());
    let ever = Timestamp::from_second(0).unwrap();
    assert_eq!(shown(&kept.learn(&[handed(K0, THIEF, -9)], &Owners::default(), ever)), "current 2");
    // A revocation that was accepted stays as well, but for the owner.
    let mut gone = KeyHistory::new(id(K0));
    gone.learn(&[revoked(K0, K0, -5)], &owners(), now());
    assert_eq!(shown(&gone.learn(&[handed(K0, K1, -9)], &owners(), now())), "revoked 1 by 1");
    assert_eq!(shown(&gone.learn(&[recovered(OWNER, K0, K1, -1)], &owners(), now())), "current 2");
    assert_eq!(
        shown(&gone.standing(&Owners::default(), now())),
        "current 2",
        "an owner's word that was accepted lasts"
    );
}

#[test]
fn a_doubt_leaves_what_was_accepted_before_it() {
    let mut history = KeyHistory::new(id(K0));
    history.learn(&[handed(K0, K1, -5)], &owners(), now());
    let fork = [handed(K1, K2, -2), handed(K1, THIEF, -2)];
    assert_eq!(shown(&history.learn(&fork, &owners(), now())), "fork of 2 to [3, 20]");
    // It is not forgotten when only one of the two is shown the next time, nor on disk.
    assert_eq!(shown(&history.learn(&fork[1..], &owners(), now())), "fork of 2 to [3, 20]");
    assert_eq!(shown(&history.standing(&owners(), now())), "fork of 2 to [3, 20]");
    assert_eq!(KeyHistory::restore(id(K0), history.accepted().to_vec(), history.doubts().to_vec()), history);
    assert_eq!(history.accepted(), [handed(K0, K1, -5)]);
    // Nor does anything that leaves more open: two words of the owner about the first key, or too many statements.
    let contradiction = [recovered(OWNER, K0, K2, -1), recovered(OWNER, K0, 4, -1)];
    assert_eq!(shown(&history.learn(&contradiction, &owners(), now())), "fork of 1 to [3, 4]");
    assert_eq!(shown(&history.learn(&vec![handed(K1, K2, -1); STATEMENTS_MAX + 1], &owners(), now())), "toomany");
    assert_eq!((history.accepted(), history.doubts().len()), (&[handed(K0, K1, -5)][..], 2));
    let mut fresh = KeyHistory::restore(id(K0), history.accepted().to_vec(), fork.to_vec());
    assert_eq!(shown(&fresh.learn(&[recovered(OWNER, K1, K2, -1)], &owners(), now())), "current 3");
    assert_eq!(fresh.doubts(), []);
}

#[test]
fn a_statement_travels_and_is_bounded() {
    for statement in [handed(K0, K1, -1), recovered(OWNER, K0, K1, -1), revoked(K0, OWNER, -1)] {
        let bytes = serde_json::to_vec(&statement.envelope()).unwrap();
        assert!(bytes.len() < STATEMENT_BYTES_MAX / 2, "{} bytes", bytes.len());
        assert_eq!(Statement::parse(&bytes).unwrap(), statement);
    }
    let many = vec![handed(K0, K1, -1); STATEMENTS_MAX];
    assert_eq!(Statement::parse_all(&Statement::write_all(&many).unwrap()).unwrap(), many);
    assert!(Statement::write_all(&vec![handed(K0, K1, -1); STATEMENTS_MAX + 1]).is_err());
    assert!(Handover::by_key(&key(K0), &key(K0), now()).is_err());
    assert!(Handover::by_owner(&key(OWNER), id(K0), &key(OWNER), now()).is_err());
    assert!(Handover::by_owner(&key(K0), id(K0), &key(K1), now()).is_err());
    assert!(Revocation::new(id(K0), &key(K0), "two\nlines", now()).is_err());
    assert!(Revocation::new(id(K0), &key(K0), &"x".repeat(129), now()).is_err());
}

#[test]
fn a_statement_without_the_right_signatures_is_none() {
    let envelope = handed(K0, K1, -1).envelope();
    let one = |keep: usize| crate::Envelope { signatures: vec![envelope.signatures[keep].clone()], ..envelope.clone() };
    let refused = |envelope: &crate::Envelope| Statement::read(envelope).unwrap_err().to_string();
    assert!(refused(&one(0)).contains("not signed by"), "the new key must agree");
    assert!(refused(&one(1)).contains("not signed by"), "the old key must agree");
    let foreign = handed(K0, K2, -1).envelope().signatures[1].clone();
    let swapped = crate::Envelope { signatures: vec![envelope.signatures[0].clone(), foreign], ..envelope.clone() };
    assert!(refused(&swapped).contains("does not hold"));
    let other_purpose = crate::Envelope { purpose: "fluidos-revocation+jws".into(), ..envelope.clone() };
    assert!(Statement::read(&other_purpose).is_err());
    // Signed by both, and yet: another spelling of the time, or a third who signs.
    let terms = |at: &str| serde_json::json!({"at": at, "by": id(K0), "from": id(K0), "to": id(K1)});
    let made = |at: &str, signers: &[u8]| {
        let mut signed = crate::Signed::new("fluidos-handover+jws", terms(at)).unwrap();
        signers.iter().for_each(|signer| signed.sign(&key(*signer)).unwrap());
        Statement::read(&signed.envelope())
    };
    made("2026-11-25T12:00:00Z", &[K0, K1]).unwrap();
    assert!(made("2026-11-25T13:00:00+01:00", &[K0, K1]).is_err());
    assert!(made("2026-11-25T12:00:00Z", &[K0, K1, THIEF]).unwrap_err().to_string().contains("nothing to say"));
}

fn vouched(owner: u8, from: i64, until: i64) -> VerifiedCredential {
    let draft = CredentialDraft {
        kind: CredentialKind::NodeOwnership,
        subject: id(K0),
        claims: [("domain".into(), "farm.example".into())].into(),
        valid_from: hours(from),
        valid_until: hours(until),
        status: None,
    };
    let at = Demands { now: hours(from), issuer: None, subject: None, status: None };
    draft.sign(&key(owner)).unwrap().verify(&at).unwrap()
}

#[test]
fn the_first_owner_that_a_node_shows_stays_until_its_word_ends() {
    let nobody = TrustedIssuers::default();
    let mut owners = Owners::default();
    let of = |owners: &Owners| owners.of(&id(K0)).map(|vouch| vouch.owner);
    assert!(owners.shown(id(K1), &vouched(OWNER, -1, 10), &nobody, now()).is_err(), "about another node");
    assert!(owners.shown(id(K0), &vouched(OWNER, -9, -5), &nobody, now()).is_err(), "over");
    owners.shown(id(K0), &vouched(OWNER, -1, 10), &nobody, now()).unwrap();
    let thief = owners.shown(id(K0), &vouched(THIEF, -1, 99), &nobody, now());
    assert!(matches!(thief, Err(OwnerError::AnotherOwner { .. })));
    owners.shown(id(K0), &vouched(OWNER, 5, 20), &nobody, hours(5)).unwrap();
    assert_eq!(owners.of(&id(K0)).map(|vouch| (vouch.from, vouch.until)), Some((hours(-1), hours(20))));
    let mut trusted = TrustedIssuers::default();
    trusted.trust_owner(id(11));
    owners.shown(id(K0), &vouched(11, -1, 30), &trusted, now()).unwrap();
    assert_eq!(of(&owners), Some(id(11)), "whom this node trusts");
    assert!(owners.shown(id(K0), &vouched(OWNER, -1, 99), &trusted, now()).is_err());
    owners.shown(id(K0), &vouched(OWNER, -1, 99), &nobody, hours(31)).unwrap();
    assert_eq!(of(&owners), Some(id(OWNER)), "after the end");
    assert_eq!(owners.iter().map(|(key, vouch)| (*key, *vouch)).collect::<Owners>(), owners);
}

#[test]
fn a_rotation_changes_the_key_and_survives_a_crash_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("identity");
    let first = NodeKey::load_or_create(&home).unwrap().id();
    let mut identity = IdentityDirectory::open(&home, false).unwrap();
    let handover = identity.rotate(now()).unwrap();
    assert_eq!((handover.from(), Some(handover.to())), (first, identity.key().map(NodeKey::id)));
    drop(identity);
    assert_eq!(NodeKey::load_or_create(&home).unwrap().id(), handover.to());
    assert!(!home.join("next.key").exists());

    // Crash after the hand-over was written: the old key is still there, the next start finishes.
    let old = std::fs::read(home.join("node.key")).unwrap();
    let second = IdentityDirectory::open(&home, false).unwrap().rotate(now()).unwrap();
    std::fs::rename(home.join("node.key"), home.join("next.key")).unwrap();
    std::fs::write(home.join("node.key"), &old).unwrap();
    set_private(&home.join("node.key"));
    assert_eq!(NodeKey::load_or_create(&home).unwrap().id(), second.to());

    // Crash before: a next key that nobody has signed for counts for nothing and is in nobody's way.
    NodeKey::create(&home.join("next.key")).unwrap();
    assert_eq!(NodeKey::load_or_create(&home).unwrap().id(), second.to());
    let mut identity = IdentityDirectory::open(&home, false).unwrap();
    let third = identity.rotate(now()).unwrap();
    assert_eq!(
        identity.predecessors().iter().map(|h| h.from()).collect::<Vec<_>>(),
        [second.to(), second.from(), first]
    );
    assert_eq!(resolve(first, identity.statements(), &Owners::default(), now()), Standing::Current(third.to()));
}

#[test]
fn an_old_key_that_comes_back_is_not_handed_over_twice() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    NodeKey::load_or_create(home).unwrap();
    let old = std::fs::read(home.join("node.key")).unwrap();
    IdentityDirectory::open(home, false).unwrap().rotate(now()).unwrap();
    std::fs::write(home.join("node.key"), &old).unwrap(); // from a backup
    let refused = IdentityDirectory::open(home, false).unwrap().rotate(now()).unwrap_err().to_string();
    assert!(refused.contains("was handed over to"), "{refused}");
    let refused = IdentityDirectory::key_to_run(home).unwrap_err().to_string();
    assert!(refused.contains("was handed over to"), "it does not run either: {refused}");
}

#[test]
fn an_owner_brings_back_a_node_that_lost_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("identity");
    let mut identity = IdentityDirectory::open(&home, true).unwrap();
    assert!(identity.rotate(now()).is_err(), "there is no key");
    let handover = identity.recover(&key(OWNER), id(K0), now()).unwrap();
    assert_eq!(resolve(id(K0), identity.statements(), &owners(), now()), Standing::Current(handover.to()));
    let other = identity.recover(&key(OWNER), id(K2), now()).unwrap_err().to_string();
    assert!(other.contains("here is the key of"), "{other}");
    drop(identity);
    // A key that is revoked is not rotated, only recovered.
    let mut identity = IdentityDirectory::open(&home, false).unwrap();
    let current = identity.key().unwrap().clone();
    identity.revoke(Revocation::new(current.id(), &current, "stolen", now()).unwrap()).unwrap();
    assert!(identity.rotate(now()).unwrap_err().to_string().contains("was revoked"));
    drop(identity);
    assert!(IdentityDirectory::key_to_run(&home).unwrap_err().to_string().contains("was revoked"));
    let recovered = IdentityDirectory::open(&home, false).unwrap().recover(&key(OWNER), current.id(), now()).unwrap();
    assert_eq!(IdentityDirectory::key_to_run(&home).unwrap().id(), recovered.to());
}

fn set_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What somebody could say who has K0, a stranger's keys, and everything that was ever said.
fn thiefs() -> impl Strategy<Value = Statement> {
    let (own, at) = (prop_oneof![Just(THIEF), Just(21u8), Just(22u8)], -50i64..50);
    (own.clone(), own, at, 0..9).prop_map(|(a, b, at, what)| match what {
        0 => handed(K0, a, at),
        1 => handed(a, if a == b { 23 } else { b }, at),
        2 => revoked(K0, K0, at),
        3 => revoked(K1, K0, at),
        4 => revoked(K1, a, at),
        5 => recovered(a, K0, if a == b { 23 } else { b }, at),
        6 => recovered(K0, K1, a, at),
        7 => handed(K0, K1, -5),
        _ => handed(a, K0, at),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_stolen_old_key_changes_nothing_for_who_has_accepted_or_has_the_owners_word(
        attempts in proptest::collection::vec(proptest::collection::vec(thiefs(), 0..6), 0..4),
    ) {
        let mut met = KeyHistory::new(id(K0));
        met.learn(&[handed(K0, K1, -5)], &owners(), now());
        let mut told = KeyHistory::new(id(K0));
        for attempt in &attempts {
            prop_assert_eq!(met.learn(attempt, &owners(), now()), Standing::Current(id(K1)));
            told.learn(attempt, &owners(), now());
        }
        // Who has heard only the thief is put right by the owner.
        prop_assert_eq!(told.learn(&[recovered(OWNER, K0, K1, -1)], &owners(), now()), Standing::Current(id(K1)));
        // And who hears all at once, without having accepted anything, never takes the thief's key for the node's.
        let mut all: Vec<Statement> = attempts.concat();
        all.push(handed(K0, K1, -5));
        let standing = resolve(id(K0), &all, &owners(), now());
        prop_assert!(!matches!(&standing, Standing::Current(key) if *key != id(K1)), "{}", shown(&standing));
    }

    #[test]
    fn no_order_of_arrival_changes_the_outcome(
        mut statements in proptest::collection::vec(thiefs(), 0..6),
        order in any::<prop::sample::Index>(), cut in 0usize..8,
    ) {
        statements.extend([handed(K0, K1, -5), recovered(OWNER, K1, K2, -2), revoked(K0, K1, -4)]);
        let mut shuffled = statements.clone();
        let middle = order.index(shuffled.len());
        shuffled.rotate_left(middle);
        shuffled[..middle].reverse();
        prop_assert_eq!(
            resolve(id(K0), &statements, &owners(), now()),
            resolve(id(K0), &shuffled, &owners(), now())
        );
        // In pieces as well, once the owner has spoken for the first key.
        shuffled.insert(order.index(shuffled.len()), recovered(OWNER, K0, K1, -3));
        let (first, second) = shuffled.split_at(cut.min(shuffled.len()));
        let mut history = KeyHistory::new(id(K0));
        history.learn(first, &owners(), now());
        history.learn(second, &owners(), now());
        prop_assert_eq!(history.learn(first, &owners(), now()), Standing::Current(id(K2)));
    }

    #[test]
    fn no_bytes_make_a_panic_or_a_statement(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Statement::parse(&bytes).is_err());
        prop_assert!(Statement::parse_all(&bytes).is_err() || bytes.starts_with(b"[]"));
    }

    #[test]
    fn a_changed_statement_is_none_or_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>(), revocation in any::<bool>()) {
        let statement = if revocation { revoked(K0, K0, -1) } else { handed(K0, K1, -1) };
        let mut bytes = serde_json::to_vec(&statement.envelope()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Statement::parse(&bytes) {
            prop_assert_eq!(read, statement);
        }
    }
}
