#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use fluidos_identity::{Envelope, NodeId, NodeKey, Signed};

use crate::book::{Book, Caller, Query, Record, Refusal};
use crate::journal::{Journal, JournalError};
use crate::{Access, Announcement, Feedback, Offer, Statement, Withdrawal, open, seal};

fn key(seed: u16) -> NodeKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    NodeKey::from_seed(bytes).unwrap()
}

fn announcement(seed: u16, sequence: u64) -> Announcement {
    Announcement {
        version: 1,
        did: key(seed).id(),
        name: format!("node{seed}"),
        domain: "grid.example".into(),
        addresses: vec!["192.0.2.7".into(), "grid.example".into()],
        rear_port: 7300,
        link_port: 7300,
        features: [("country".to_owned(), if seed.is_multiple_of(2) { "Italy" } else { "France" }.to_owned())].into(),
        offers: vec![Offer { type_: "K8Slice".into(), price: "0.02 EUR per hour".into(), ..Offer::default() }],
        sequence,
        lifetime_seconds: 60,
    }
}

fn signed(seed: u16, sequence: u64) -> Signed<Announcement> {
    seal(&key(seed), announcement(seed, sequence)).unwrap()
}

fn feedback(author: u16, about: u16, value: u16, sequence: u64) -> Signed<Feedback> {
    let said =
        Feedback { version: 1, author: key(author).id(), about: key(about).id(), value, observations: 3, sequence };
    seal(&key(author), said).unwrap()
}

/// From its own address, unless told.
fn from(seed: u16) -> Caller {
    Caller { node: Some(key(seed).id()), origin: format!("of {seed}") }
}

fn book(members: &[u16]) -> Book {
    let tenants = [("public".to_owned(), Access::Open), ("club".to_owned(), Access::Members)];
    Book::new(tenants, members.iter().map(|seed| key(*seed).id())).unwrap()
}

fn announce(book: &mut Book, seed: u16, sequence: u64, now: u64) -> Result<(), Refusal> {
    let record = book.announce("public", &signed(seed, sequence), &from(seed), now)?;
    book.apply(record).unwrap();
    Ok(())
}

fn dids(book: &Book, query: &Query, now: u64) -> (Vec<NodeId>, Option<NodeId>) {
    let page = book.list("public", query, &from(1), now).unwrap();
    let read = |raw: &std::sync::Arc<serde_json::value::RawValue>| {
        let envelope: Envelope = serde_json::from_str(raw.get()).unwrap();
        open::<Announcement>(&envelope).unwrap().value().did
    };
    (page.envelopes.iter().map(read).collect(), page.more)
}

#[test]
fn what_is_not_signed_by_its_author_alone_or_is_no_announcement_is_refused() {
    let refused = |envelope: &Envelope, needed: &str| {
        let reason = open::<Announcement>(envelope).unwrap_err();
        assert!(reason.contains(needed), "{needed:?} is not in {reason:?}");
    };
    let good = signed(1, 5).envelope();
    open::<Announcement>(&good).unwrap();
    let other = signed(2, 5).envelope();
    refused(&Envelope { payload: other.payload.clone(), ..good.clone() }, "does not hold");
    refused(&Envelope { signatures: vec![], ..good.clone() }, "not signed by");
    let mut both = signed(1, 5);
    both.sign(&key(2)).unwrap();
    refused(&both.envelope(), "2 signatures");
    let withdrawal = seal(&key(1), Withdrawal { version: 1, did: key(1).id(), sequence: 5 }).unwrap();
    refused(&withdrawal.envelope(), "signature is for");
    let mut stolen = Signed::new(Announcement::PURPOSE, announcement(1, 5)).unwrap();
    stolen.sign(&key(2)).unwrap();
    refused(&stolen.envelope(), "not signed by");
    type Change = fn(&mut Announcement);
    let changes: [(Change, &str); 12] = [
        (|a| a.version = 2, "needed 1"),
        (|a| a.name = "\u{1b}[2J".into(), "needed a word"),
        (|a| a.domain = "grid example".into(), "needed a domain"),
        (|a| a.addresses = vec![], "no address"),
        (|a| a.addresses = vec!["192.0.2.1".into(); 9], "9 addresses"),
        (|a| a.addresses = vec!["a/b".into()], "needed an IP"),
        (|a| a.rear_port = 0, "no port"),
        (|a| a.features = (0..17).map(|i| (format!("f{i}"), String::new())).collect(), "17 features"),
        (|a| a.features = [("a b".to_owned(), String::new())].into(), "words of labels"),
        (|a| a.lifetime_seconds = 86_401, "needed 60 to 86400"),
        (|a| a.offers = vec![Offer::default(); 17], "17 offers"),
        (|a| a.sequence = 1 << 53, "number"),
    ];
    for (change, needed) in changes {
        let mut bad = announcement(1, 5);
        change(&mut bad);
        let reason = seal(&key(1), bad).unwrap_err();
        assert!(reason.contains(needed) && !reason.contains('\u{1b}'), "{needed:?} is not in {reason:?}");
    }
}

#[test]
fn only_a_higher_sequence_of_the_same_key_takes_the_place_and_the_same_words_renew() {
    let mut book = book(&[]);
    announce(&mut book, 1, 5, 0).unwrap();
    let changes = book.changes("public", &from(1)).unwrap();
    // The same words: the lifetime begins again, readers see no change.
    announce(&mut book, 1, 5, 50_000).unwrap();
    assert_eq!(book.changes("public", &from(1)).unwrap(), changes);
    assert_eq!(dids(&book, &Query::default(), 109_999).0.len(), 1);
    assert_eq!(dids(&book, &Query::default(), 110_000).0.len(), 0, "60 s from the last receipt");
    let other_words = seal(&key(1), Announcement { name: "other".into(), ..announcement(1, 5) }).unwrap();
    let now = 60_000;
    assert_eq!(book.announce("public", &other_words, &from(1), now).unwrap_err(), Refusal::Conflict { held: 5 });
    assert_eq!(announce(&mut book, 1, 4, now), Err(Refusal::Conflict { held: 5 }));
    // Recorded and sent again, or made, by somebody else.
    let sent_by = |caller: Caller| book.announce("public", &signed(1, 9), &caller, now).unwrap_err();
    assert!(matches!(sent_by(from(2)), Refusal::Forbidden(_)));
    assert!(matches!(sent_by(Caller { node: None, ..from(2) }), Refusal::Unauthenticated(_)));
    let withdrawal = |sequence| seal(&key(1), Withdrawal { version: 1, did: key(1).id(), sequence }).unwrap();
    assert!(matches!(book.withdraw("public", &withdrawal(9), &from(2), now), Err(Refusal::Forbidden(_))));
    assert!(matches!(book.withdraw("public", &withdrawal(4), &from(1), now), Err(Refusal::Conflict { held: 5 })));
    let record = book.withdraw("public", &withdrawal(5), &from(1), now).unwrap();
    book.apply(record).unwrap();
    assert_eq!(dids(&book, &Query::default(), now).0, []);
}

#[test]
fn pages_are_in_order_and_miss_nothing_that_stays() {
    let mut book = book(&[]);
    for seed in 0..20 {
        announce(&mut book, seed, 1, 0).unwrap();
    }
    let (mut query, mut read) = (Query { limit: 3, ..Query::default() }, Vec::new());
    loop {
        let (page, more) = dids(&book, &query, 0);
        assert!(page.len() <= 3);
        // Meanwhile somebody who was read goes, and others come.
        let gone = page[0];
        book.apply(Record::Withdraw {
            tenant: "public".into(),
            envelope: (0..20)
                .find(|seed| key(*seed).id() == gone)
                .map(|s| seal(&key(s), Withdrawal { version: 1, did: gone, sequence: 9 }).unwrap().envelope())
                .unwrap(),
        })
        .unwrap();
        read.extend(page);
        query.after = more;
        if more.is_none() {
            break;
        }
    }
    let mut all: Vec<NodeId> = (0..20).map(|seed| key(seed).id()).collect();
    all.sort();
    assert_eq!(read, all);
    let query = Query { features: vec![("country".into(), "Italy".into())], ..Query::default() };
    assert!(dids(&book, &query, 0).0.iter().all(|did| (0..20).any(|s| s % 2 == 0 && key(s).id() == *did)));
}

#[test]
fn tenants_of_members_answer_members_only_and_strangers_leave_them_room() {
    let mut book = book(&[1]);
    let list =
        |book: &Book, caller: &Caller| book.list("club", &Query::default(), caller, 0).map(|p| p.envelopes.len());
    assert!(matches!(list(&book, &Caller { node: None, ..from(1) }), Err(Refusal::Unauthenticated(_))));
    assert!(matches!(list(&book, &from(2)), Err(Refusal::Forbidden(_))));
    assert!(matches!(book.announce("club", &signed(2, 1), &from(2), 0), Err(Refusal::Forbidden(_))));
    assert!(matches!(book.list("none", &Query::default(), &from(1), 0), Err(Refusal::NotFound(_))));
    assert_eq!(list(&book, &from(1)), Ok(0));
    // One address with many keys.
    let crowd = |seed| Caller { origin: "crowd".into(), ..from(seed) };
    for seed in 100..164 {
        let record = book.announce("public", &signed(seed, 1), &crowd(seed), 0).unwrap();
        book.apply(record).unwrap();
    }
    assert!(matches!(book.announce("public", &signed(99, 1), &crowd(99), 0), Err(Refusal::Full(_))));
    assert!(book.announce("public", &signed(100, 2), &crowd(100), 0).is_ok(), "who is there may change its words");
    assert!(book.announce("public", &signed(1, 1), &crowd(1), 0).is_ok(), "a member has room");
    assert!(book.announce("public", &signed(99, 1), &from(99), 0).is_ok(), "so has another address");
}

#[test]
fn an_opinion_is_one_of_an_author_who_is_known_here() {
    let mut book = book(&[3]);
    let said = |book: &Book, signed: &Signed<Feedback>, by| book.say("public", signed, &from(by), 0);
    assert!(matches!(said(&book, &feedback(1, 9, 0, 1), 1), Err(Refusal::Forbidden(_))));
    announce(&mut book, 1, 1, 0).unwrap();
    for (author, value, sequence) in [(1, 1000, 1), (3, 0, 1), (1, 500, 2)] {
        let record = said(&book, &feedback(author, 9, value, sequence), author).unwrap().unwrap();
        book.apply(record).unwrap();
    }
    assert!(said(&book, &feedback(1, 9, 500, 2), 1).unwrap().is_none(), "it stands there");
    assert_eq!(said(&book, &feedback(1, 9, 400, 2), 1).unwrap_err(), Refusal::Conflict { held: 2 });
    assert!(matches!(said(&book, &feedback(1, 9, 400, 3), 3), Err(Refusal::Forbidden(_))), "another's words");
    let (page, mean, count) = book.reputation("public", key(9).id(), &Query::default(), &from(1), 0).unwrap();
    assert_eq!((page.envelopes.len(), mean, count), (2, Some(250), 2));
    let nobody = book.reputation("public", key(8).id(), &Query::default(), &from(1), 0).unwrap();
    assert_eq!((nobody.1, nobody.2), (None, 0));
    let itself = Feedback { about: key(1).id(), ..feedback(1, 9, 0, 9).value().clone() };
    assert!(seal(&key(1), itself).unwrap_err().contains("about itself"));
}

#[test]
fn who_takes_all_places_about_a_node_keeps_nobody_from_being_heard() {
    const LIARS: u16 = 1024;
    let (member, honest, about) = (1, 2, 9);
    let mut book = book(&[member]);
    announce(&mut book, honest, 1, 0).unwrap();
    let crowd = |seed: u16| Caller { origin: format!("crowd {}", seed / 64), ..from(seed) };
    let say = |book: &mut Book, author: u16, caller: &Caller, at| -> Result<(), Refusal> {
        let record = book.say("public", &feedback(author, about, 0, 1), caller, at)?;
        // As it comes back from the journal.
        let line = serde_json::to_string(&record.unwrap()).unwrap();
        book.apply(serde_json::from_str(&line).unwrap()).unwrap();
        Ok(())
    };
    // As many keys of an address as a tenant takes, at sixteen addresses.
    for seed in 64..64 + LIARS {
        let record = book.announce("public", &signed(seed, 1), &crowd(seed), 0).unwrap();
        book.apply(record).unwrap();
        say(&mut book, seed, &crowd(seed), u64::from(seed)).unwrap();
    }
    let count = |book: &Book| book.reputation("public", key(about).id(), &Query::default(), &from(1), 0).unwrap().2;
    assert_eq!(count(&book), 1024);
    // One more of theirs has no place, one from elsewhere has, and so have members.
    let one_more = 64 + LIARS - 1;
    assert!(announce(&mut book, 3, 1, 0).is_ok());
    assert!(matches!(
        say(&mut book, 3, &Caller { origin: crowd(one_more).origin, ..from(3) }, 5000),
        Err(Refusal::Full(_))
    ));
    say(&mut book, honest, &from(honest), 5000).unwrap();
    assert_eq!(count(&book), 1024, "for it another yields");
    say(&mut book, member, &from(member), 5000).unwrap();
    assert_eq!(count(&book), 1025);
    let authors = |book: &Book| {
        let (mut query, mut authors) = (Query::default(), BTreeSet::new());
        loop {
            let page = book.reputation("public", key(about).id(), &query, &from(1), 0).unwrap().0;
            for said in &page.envelopes {
                let said: Envelope = serde_json::from_str(said.get()).unwrap();
                authors.insert(open::<Feedback>(&said).unwrap().value().author);
            }
            let Some(more) = page.more else { return authors };
            query.after = Some(more);
        }
    };
    let heard = authors(&book);
    assert!(heard.contains(&key(honest).id()) && heard.contains(&key(member).id()));
    let gone: Vec<u16> = (64..64 + LIARS).filter(|seed| !heard.contains(&key(*seed).id())).collect();
    assert_eq!(gone, [9 * 64 + 63], "the newest of one address");
    // Read again from what the book writes, it is the same.
    let mut again = self::book(&[member]);
    book.records().for_each(|record| again.apply(record).unwrap());
    assert_eq!(authors(&again), heard);
}

/// Writes so many announcements, each acknowledged; returns the length of the journal after each.
fn write(directory: &Path, count: u16) -> Vec<u64> {
    let mut book = book(&[]);
    let mut journal = Journal::open(directory, &mut book).unwrap();
    let length = || std::fs::metadata(directory.join("journal")).unwrap().len();
    let mut lengths = vec![length()];
    for seed in 0..count {
        let record = book.announce("public", &signed(seed, 1), &from(seed), 0).unwrap();
        journal.append(&record, &book).unwrap();
        book.apply(record).unwrap();
        lengths.push(length());
    }
    lengths
}

#[test]
fn a_journal_cut_at_any_byte_has_all_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let lengths = write(directory.path(), 2);
    let bytes = std::fs::read(directory.path().join("journal")).unwrap();
    // Every byte of the last line, and some of the first: each is opened twice and synced several times.
    let last = lengths[1] as usize;
    for cut in (0..last).step_by(97).chain(last - 2..=bytes.len()) {
        let (copy, mut book) = (tempfile::tempdir().unwrap(), book(&[]));
        std::fs::write(copy.path().join("journal"), &bytes[..cut]).unwrap();
        let mut journal = Journal::open(copy.path(), &mut book).unwrap();
        let whole = lengths.iter().filter(|length| **length <= cut as u64).count() - 1;
        assert_eq!(dids(&book, &Query::default(), 0).0.len(), whole, "cut at {cut}");
        if cut % 16 != 0 {
            continue;
        }
        // It goes on after what is whole.
        let record = book.announce("public", &signed(9, 1), &from(9), 0).unwrap();
        journal.append(&record, &book).unwrap();
        drop(journal);
        let mut again = self::book(&[]);
        Journal::open(copy.path(), &mut again).unwrap();
        assert_eq!(dids(&again, &Query::default(), 0).0.len(), whole + 1, "cut at {cut}");
    }
}

#[test]
fn damage_before_whole_lines_is_told_and_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let lengths = write(directory.path(), 3);
    let path = directory.path().join("journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[lengths[1] as usize + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    match Journal::open(directory.path(), &mut book(&[])) {
        Err(JournalError::Damaged { offset, .. }) => assert_eq!(offset, lengths[1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "what the owner may want to look at is untouched");
}

#[test]
fn a_full_disk_keeps_what_was_acknowledged_and_is_recovered_from() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = book(&[]);
    let mut journal = Journal::open(directory.path(), &mut book).unwrap();
    let add = |journal: &mut Journal, book: &mut Book, seed| {
        let record = book.announce("public", &signed(seed, 1), &from(seed), 0).unwrap();
        journal.append(&record, book)?;
        book.apply(record).unwrap();
        Ok::<(), JournalError>(())
    };
    add(&mut journal, &mut book, 1).unwrap();
    journal.on_a_full_disk();
    let error = add(&mut journal, &mut book, 2).unwrap_err();
    assert!(error.is_full(), "{error}");
    // There is room again: the file is made anew from what stands, and it goes on.
    add(&mut journal, &mut book, 3).unwrap();
    assert!(Journal::open(directory.path(), &mut self::book(&[])).is_err(), "one process has it");
    drop(journal);
    let mut again = self::book(&[]);
    Journal::open(directory.path(), &mut again).unwrap();
    let mut needed = [key(1).id(), key(3).id()];
    needed.sort();
    assert_eq!(dids(&again, &Query::default(), 0).0, needed);
}

#[test]
fn renewals_do_not_make_the_journal_grow_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = book(&[]);
    let mut journal = Journal::open(directory.path(), &mut book).unwrap();
    journal.compact_beyond(4096);
    for now in 0..100 {
        let record = book.announce("public", &signed(1, 1), &from(1), now).unwrap();
        journal.append(&record, &book).unwrap();
        book.apply(record).unwrap();
        let length = std::fs::metadata(directory.path().join("journal")).unwrap().len();
        assert!(length < 8192, "{length}");
    }
    drop(journal);
    let mut again = self::book(&[]);
    Journal::open(directory.path(), &mut again).unwrap();
    assert_eq!(dids(&again, &Query::default(), 60_098).0.len(), 1, "the last renewal is kept");
    assert_eq!(dids(&again, &Query::default(), 60_099).0.len(), 0);
}

proptest::proptest! {
    /// No panic; what was changed after it was signed is not taken, and what any author signs is taken only within its bounds.
    #[test]
    fn a_changed_statement_is_not_taken(at in 0usize..4000, to: u8, name in "\\PC{0,300}", port: u16, lifetime: u32, sequence: u32) {
        let good = signed(1, 5).envelope();
        let mut json = serde_json::to_vec(&good).unwrap();
        let length = json.len();
        json[at % length] = to;
        if let Ok(changed) = serde_json::from_slice::<Envelope>(&json) && changed != good {
            proptest::prop_assert!(open::<Announcement>(&changed).is_err(), "{:?}", changed);
        }
        proptest::prop_assert!(open::<Feedback>(&good).is_err(), "an announcement is no opinion");
        let odd = Announcement {
            name, rear_port: port, lifetime_seconds: lifetime, ..announcement(2, sequence.into())
        };
        let mut odd = Signed::new(Announcement::PURPOSE, odd).unwrap();
        odd.sign(&key(2)).unwrap();
        if let Ok(taken) = open::<Announcement>(&odd.envelope()) {
            proptest::prop_assert!(taken.value().name.len() <= 253 && taken.value().rear_port > 0, "{:?}", taken.value());
        }
    }
}
