//! A file of the store that was damaged is reported when the store is opened; what it held is never served as if it were whole.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use substrate_store::{Error, Key, Precondition, Sealing, Store};

/// Writes and closes a store of 400 keys, a third of which were written again and a third deleted.
async fn written(directory: &Path) {
    let store = Store::open(directory).unwrap();
    for n in 0..400_u32 {
        let key = format!("/registry/things/{n:04}");
        let revision = store.put(&key, Precondition::Absent, vec![n as u8; 200].into()).await.unwrap();
        match n % 3 {
            0 => drop(store.put(&key, Precondition::Revision(revision), vec![!n as u8; 300].into()).await.unwrap()),
            1 => drop(store.delete(&key, revision).await.unwrap()),
            _ => {}
        }
    }
}

fn held(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let entries = store.list("/", None, 0, None).unwrap().entries;
    entries.into_iter().map(|entry| (entry.key.to_string(), entry.value.to_vec())).collect()
}

fn sealing() -> Sealing {
    let key = Key::new("flt", &[7; 32]).unwrap();
    Sealing { prefixes: vec!["/registry/things/000".into()], keys: vec![key], open: false }
}

/// A store that was dropped has let go of its directory.
fn open(directory: &Path, sealing: &Sealing) -> Result<Store, Error> {
    Store::open_sealed(directory, sealing.clone())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A store in all its parts: a snapshot, the log after it, closed once and gone on.
async fn whole(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    written(directory).await;
    // What is to be sealed makes a snapshot due.
    let store = open(directory, &sealing()).unwrap();
    let snapshot = directory.join("0000000002.snapshot");
    while !snapshot.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    for n in 0..40 {
        store.put(&format!("/registry/later/{n}"), Precondition::Absent, vec![1; 200].into()).await.unwrap();
    }
    drop(store);
    let store = open(directory, &sealing()).unwrap();
    store.put("/registry/last", Precondition::Absent, vec![2; 200].into()).await.unwrap();
    held(&store)
}

#[tokio::test]
async fn a_damage_anywhere_is_reported_or_harmless() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("whole");
    let expected = whole(&directory).await;
    drop(open(&directory, &sealing()).unwrap());
    let (mut reported, mut served) = (0, Vec::new());
    let mut judge = |what: String, damage: &dyn Fn(&Path)| {
        let damaged = scratch.path().join("damaged");
        copy(&directory, &damaged);
        damage(&damaged);
        match open(&damaged, &sealing()) {
            Err(_) => reported += 1,
            Ok(store) if held(&store) == expected => {}
            Ok(store) => served.push(format!("{what}: {} keys of {}", held(&store).len(), expected.len())),
        }
        std::fs::remove_dir_all(&damaged).unwrap();
    };
    for file in files(&directory) {
        let name = file.file_name().unwrap().to_owned();
        let whole = std::fs::read(&file).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..used).step_by((used / 70).max(1)) {
            judge(format!("a bit of byte {at} of {name:?}"), &|damaged| {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                std::fs::write(damaged.join(&name), bytes).unwrap();
            });
            judge(format!("a block of zeros at {at} of {name:?}"), &|damaged| {
                let mut bytes = whole.clone();
                let end = (at + 512).min(used);
                bytes[at..end].fill(0);
                std::fs::write(damaged.join(&name), bytes).unwrap();
            });
        }
        // As a crash leaves it, only later records say that this one had been durable. Nothing does of the last one, which is the word that it
        // was closed.
        let last = if name.to_str().unwrap().ends_with("log") { used - 40 } else { 0 };
        for at in (0..last).step_by((used / 70).max(1)) {
            judge(format!("a bit of byte {at} of {name:?}, not closed"), &|damaged| {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                std::fs::write(damaged.join(&name), bytes).unwrap();
                std::fs::write(damaged.join("lock"), "").unwrap();
            });
        }
        for cut in [0, used / 2, used - 1] {
            judge(format!("{name:?} cut at {cut}"), &|damaged| {
                std::fs::write(damaged.join(&name), &whole[..cut]).unwrap()
            });
        }
        judge(format!("without {name:?}"), &|damaged| std::fs::remove_file(damaged.join(&name)).unwrap());
    }
    assert!(
        served.is_empty(),
        "{} damages were served, {reported} reported: {:#?}",
        served.len(),
        &served[..served.len().min(5)]
    );
    assert!(reported > 200, "only {reported} damages were reported");
}
