//! The files of a store: sealed values, snapshots that are taken out and put back, and how long they get.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use substrate_store::{Error, Key, Precondition, Sealing, Store};

const SECRET: &[u8] = b"the combination is 1-2-3-4-5";

fn sealing(names: &[&str]) -> Sealing {
    // A key is made of its name, so that equal names are equal keys.
    let key = |name: &&str| Key::new(name, &[name.as_bytes()[0]; 32]).unwrap();
    Sealing { prefixes: vec!["/secrets/".into()], keys: names.iter().map(key).collect(), open: false }
}

/// A store that was dropped has let go of its directory.
fn open(directory: &Path, sealing: &Sealing) -> Result<Store, Error> {
    Store::open_sealed(directory, sealing.clone())
}

fn anywhere(directory: &Path, wanted: &[u8]) -> bool {
    let files =
        std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap_or_default());
    files.into_iter().any(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "waited 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn sealed_values_are_nowhere_on_the_disk_and_keys_can_be_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let none = Sealing::default();
    let store = open(directory, &none).unwrap();
    store.put("/secrets/a", Precondition::Absent, SECRET.into()).await.unwrap();
    store.put("/others/a", Precondition::Absent, "plain as day".into()).await.unwrap();
    drop(store);
    drop(open(directory, &none).unwrap());
    assert!(anywhere(directory, SECRET), "without a key it is there to be read");

    // What was open is sealed at the next start, in snapshot and log.
    let store = open(directory, &sealing(&["one"])).unwrap();
    store.put("/secrets/b", Precondition::Absent, SECRET.into()).await.unwrap();
    until("the open value is gone", || !anywhere(directory, SECRET));
    assert!(anywhere(directory, b"plain as day"));
    drop(store);

    let error = open(directory, &none).err().unwrap().to_string();
    assert!(error.contains("/secrets/a is sealed by key \"one\", and the keys given are []"), "{error}");
    let mut other = sealing(&["one"]);
    other.keys = vec![Key::new("one", &[9; 32]).unwrap()];
    let error = open(directory, &other).err().unwrap().to_string();
    assert!(error.contains("does not open"), "{error}");

    // Another key is put first; once it has been opened with that, the old one is not needed.
    let store = open(directory, &sealing(&["two", "one"])).unwrap();
    until("all is sealed by the new key", || !anywhere(directory, b"one"));
    drop(store);
    let store = open(directory, &sealing(&["two"])).unwrap();
    assert_eq!(store.get("/secrets/a").unwrap().value, SECRET);
    assert_eq!(store.get("/secrets/b").unwrap().value, SECRET);
    drop(store);

    // And opened again.
    let store = open(directory, &Sealing { open: true, ..sealing(&["two"]) }).unwrap();
    until("it is open", || !anywhere(directory, b"two"));
    drop(store);
    assert_eq!(open(directory, &none).unwrap().get("/secrets/a").unwrap().value, SECRET);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_of_one_moment_and_makes_the_same_store_again() {
    let scratch = tempfile::tempdir().unwrap();
    let store = open(&scratch.path().join("old"), &Sealing::default()).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut left, mut right) = (Precondition::Absent, Precondition::Absent);
                for n in 0..400 {
                    let value = || format!("{n}").into();
                    left = Precondition::Revision(store.put(&format!("/{writer}/left"), left, value()).await.unwrap());
                    right =
                        Precondition::Revision(store.put(&format!("/{writer}/right"), right, value()).await.unwrap());
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut backup = Vec::new();
    let revision = store.snapshot(&mut backup).unwrap();
    let then = store.list("", None, 0, Some(revision)).unwrap().entries;
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(store.revision() > revision, "it was taken while writes went on");

    let new = scratch.path().join("new");
    let begins = Store::restore(&new, &mut &backup[..], &Sealing::default()).unwrap();
    let restored = open(&new, &Sealing::default()).unwrap();
    assert_eq!(restored.list("", None, 0, None).unwrap().entries, then);
    assert!(begins > store.revision() && restored.revision() >= begins, "no revision that was seen comes again");
    drop(restored);
    let again = Store::restore(&new, &mut &backup[..], &Sealing::default());
    assert!(matches!(again, Err(Error::Exists { .. })), "a store is not overwritten: {again:?}");

    for at in (0..backup.len()).step_by(backup.len() / 200) {
        let mut damaged = backup.clone();
        damaged[at] ^= 1;
        let target = scratch.path().join("damaged");
        let refused = Store::restore(&target, &mut &damaged[..], &Sealing::default());
        assert!(matches!(refused, Err(Error::Damaged { .. })), "a bit of byte {at}: {refused:?}");
        let cut = Store::restore(&target, &mut &backup[..at], &Sealing::default());
        assert!(matches!(cut, Err(Error::Damaged { .. })), "cut at {at}: {cut:?}");
        assert!(!target.exists(), "nothing was made of a damaged backup");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_do_not_grow_with_what_was_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let store = open(scratch.path(), &Sealing::default()).unwrap();
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut current = Precondition::Absent;
                for n in 0..1_000_u32 {
                    let value = format!("{n:<1000}").into();
                    current = Precondition::Revision(store.put(&format!("/{writer}"), current, value).await.unwrap());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let bytes = || -> u64 {
        let files = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        files.sum()
    };
    // 50 MB were written and 50 KiB hold; a log is rotated at 4 MiB.
    until("old logs are gone", || bytes() < 10 << 20);
    drop(store);
    assert_eq!(open(scratch.path(), &Sealing::default()).unwrap().get("/7").unwrap().value[..3], *b"999");
}

#[tokio::test]
async fn a_directory_of_another_version_or_kind_is_refused_in_one_line() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("0.jnl"), b"FJL").unwrap();
    let error = open(scratch.path(), &Sealing::default()).err().unwrap().to_string();
    assert!(error.ends_with("is in 0.jnl of another kind of store; known here is format 1"), "{error}");
}
