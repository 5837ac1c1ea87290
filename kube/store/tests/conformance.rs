//! What every store promises, run on the one in memory and on the one on disk.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use substrate_store::{Error, EventKind, Precondition, Store};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs `story` on a store of each kind.
fn on_each<F: AsyncFn(Store)>(story: F) {
    let directory = tempfile::tempdir().unwrap();
    for store in [Store::memory().unwrap(), Store::open(directory.path()).unwrap()] {
        runtime().block_on(story(store));
    }
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    let now = store.get(key).map_or(Precondition::Absent, |e| Precondition::Revision(e.revision));
    store.put(key, now, Bytes::copy_from_slice(value.as_bytes())).await.unwrap()
}

fn keys(page: &substrate_store::Page) -> Vec<&str> {
    page.entries.iter().map(|e| &*e.key).collect()
}

#[test]
fn preconditions_decide_and_a_refused_write_has_no_effect() {
    on_each(async |store| {
        let first = store.put("/a", Precondition::Absent, "1".into()).await.unwrap();
        assert_eq!(
            store.put("/a", Precondition::Absent, "2".into()).await,
            Err(Error::Exists { key: "/a".into(), found: first })
        );
        let second = store.put("/a", Precondition::Revision(first), "2".into()).await.unwrap();
        assert_eq!(second, first + 1);
        assert_eq!(
            store.put("/a", Precondition::Revision(first), "3".into()).await,
            Err(Error::Conflict { key: "/a".into(), expected: first, found: second })
        );
        assert_eq!(store.delete("/b", 1).await, Err(Error::NotFound { key: "/b".into() }));
        let entry = store.get("/a").unwrap();
        assert_eq!((entry.revision, &entry.value[..], store.revision()), (second, &b"2"[..], second));
        store.delete("/a", second).await.unwrap();
        assert_eq!(store.get("/a"), None);
    });
}

#[test]
fn one_of_many_writers_wins_each_revision() {
    on_each(async |store| {
        let first = put(&store, "/counter", "0").await;
        let writers = (0..64).map(|i| {
            let store = store.clone();
            async move { store.put("/counter", Precondition::Revision(first), format!("{i}").into()).await }
        });
        let results = futures::future::join_all(writers).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        assert_eq!(store.revision(), first + 1);
    });
}

#[test]
fn a_list_is_a_snapshot_even_when_its_pages_are_read_later() {
    on_each(async |store| {
        for key in ["/p/a", "/p/b", "/p/c", "/q/a"] {
            put(&store, key, "old").await;
        }
        let page = store.list("/p/", None, 2, None).unwrap();
        assert_eq!((keys(&page), page.remaining), (vec!["/p/a", "/p/b"], 1));
        let c = store.get("/p/c").unwrap();
        store.delete("/p/c", c.revision).await.unwrap();
        put(&store, "/p/d", "new").await;
        put(&store, "/p/a", "new").await;
        let rest = store.list("/p/", Some("/p/b"), 2, Some(page.revision)).unwrap();
        assert_eq!((keys(&rest), rest.remaining), (vec!["/p/c"], 0));
        assert_eq!(rest.entries[0], c);
        let whole = store.list("/p/", None, 0, Some(page.revision)).unwrap();
        assert_eq!(keys(&whole), ["/p/a", "/p/b", "/p/c"]);
        assert_eq!(&whole.entries[0].value[..], b"old");
        assert!(matches!(store.list("/p/", None, 0, Some(999)), Err(Error::Future { asked: 999, .. })));
    });
}

#[test]
fn a_watch_from_a_list_misses_nothing_and_repeats_nothing() {
    on_each(async |store| {
        put(&store, "/p/a", "1").await;
        let from = store.list("/p/", None, 0, None).unwrap().revision;
        let mut watch = store.watch("/p/", from).unwrap();
        assert_eq!(watch.ready().unwrap(), []);
        put(&store, "/p/a", "2").await;
        put(&store, "/other", "x").await;
        put(&store, "/p/b", "1").await;
        let a = store.get("/p/a").unwrap();
        store.delete("/p/a", a.revision).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(watch.next().await.unwrap());
        }
        let told: Vec<_> = seen.iter().map(|e| (&*e.key, e.kind, &e.value[..])).collect();
        assert_eq!(
            told,
            [
                ("/p/a", EventKind::Updated, &b"2"[..]),
                ("/p/b", EventKind::Created, &b"1"[..]),
                ("/p/a", EventKind::Deleted, &b"2"[..]),
            ]
        );
        assert_eq!(seen[0].previous.as_ref().unwrap().1, "1");
        assert_eq!(watch.position(), store.revision());
    });
}

#[test]
fn history_is_bounded_and_says_so() {
    on_each(async |store| {
        let first = put(&store, "/a", "0").await;
        let mut watch = store.watch("/", first).unwrap();
        // 20 values of 1 MiB: more than the history keeps.
        for _ in 0..10 {
            let now = store.get("/a").unwrap().revision;
            store.put("/a", Precondition::Revision(now), Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
        }
        assert!(matches!(watch.next().await, Err(Error::Compacted { asked, .. }) if asked == first));
        assert!(matches!(store.watch("/", first), Err(Error::Compacted { .. })));
        assert!(matches!(store.list("/", None, 0, Some(first)), Err(Error::Compacted { .. })));
        assert!(store.watch("/", store.revision()).is_ok());
    });
}

#[test]
fn a_value_beyond_the_limit_is_refused() {
    on_each(async |store| {
        let big = Bytes::from(vec![0; substrate_store::VALUE_BYTES_MAX + 1]);
        assert!(matches!(store.put("/a", Precondition::Absent, big).await, Err(Error::TooLarge { .. })));
    });
}

#[test]
fn what_was_acknowledged_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(Error::InUse { .. })));
        put(&store, "/a", "1").await;
        let b = put(&store, "/b", "1").await;
        store.delete("/b", b).await.unwrap();
    });
    // The committer ends after the last handle is gone; the lock with it.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let store = loop {
        match Store::open(directory.path()) {
            Err(Error::InUse { .. }) if std::time::Instant::now() < until => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(store.revision(), 3);
    assert_eq!(&store.get("/a").unwrap().value[..], b"1");
    assert_eq!(store.get("/b"), None);
    assert!(matches!(store.watch("/", 1), Err(Error::Compacted { asked: 1, oldest: 3 })));
    runtime().block_on(async { assert_eq!(put(&store, "/c", "1").await, 4) });
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..6u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)), (0..6u8).prop_map(Step::Delete)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written: a watch from 0 replays to the state, and each old list equals what was there then.
    #[test]
    fn watch_and_old_lists_agree_with_a_model(steps in prop::collection::vec(step(), 1..60)) {
        runtime().block_on(async {
            let store = Store::memory().unwrap();
            let mut watch = store.watch("/", 0).unwrap();
            let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            let mut at: Vec<BTreeMap<String, Vec<u8>>> = vec![model.clone()];
            for step in steps {
                match step {
                    Step::Put(k, v) => {
                        put(&store, &format!("/{k}"), &v.to_string()).await;
                        model.insert(format!("/{k}"), v.to_string().into_bytes());
                        at.push(model.clone());
                    }
                    Step::Delete(k) => {
                        let key = format!("/{k}");
                        if let Some(entry) = store.get(&key) {
                            store.delete(&key, entry.revision).await.unwrap();
                            model.remove(&key);
                            at.push(model.clone());
                        }
                    }
                }
            }
            let mut replayed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for event in watch.ready().unwrap() {
                if event.kind == EventKind::Deleted {
                    replayed.remove(&*event.key);
                } else {
                    replayed.insert(event.key.to_string(), event.value.to_vec());
                }
            }
            assert_eq!(replayed, model);
            for (revision, then) in at.iter().enumerate() {
                let page = store.list("/", None, 0, Some(revision as u64)).unwrap();
                let listed: BTreeMap<_, _> =
                    page.entries.iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect();
                assert_eq!(&listed, then, "at revision {revision}");
            }
        });
    }
}

/// Counts how often a task would be polled again.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_watcher_sleeps_while_others_are_written_to() {
    on_each(async |store| {
        let mut watcher = store.watch("/a/", store.revision()).unwrap();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut next = std::pin::pin!(watcher.next());
        assert!(next.as_mut().poll(&mut context).is_pending());
        for _ in 0..10 {
            put(&store, "/b/1", "1").await;
        }
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 0, "woken for what does not concern it");
        put(&store, "/a/1", "1").await;
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        let std::task::Poll::Ready(Ok(events)) = next.as_mut().poll(&mut context) else { panic!("no event") };
        assert_eq!(&*events[0].key, "/a/1");
    });
}

#[test]
fn a_watcher_that_nothing_concerns_does_not_fall_behind_the_history() {
    on_each(async |store| {
        let mut watcher = store.watch("/quiet/", store.revision()).unwrap();
        let quiet = tokio::spawn(async move { watcher.next().await.map(|events| events[0].key.to_string()) });
        tokio::task::yield_now().await;
        // Four times what the history keeps.
        let large = Bytes::from(vec![b'x'; 256 * 1024]);
        for _ in 0..64 {
            let now = store.get("/busy/1").map_or(Precondition::Absent, |e| Precondition::Revision(e.revision));
            store.put("/busy/1", now, large.clone()).await.unwrap();
            // A store in memory may answer before this task has waited once, and the other would never come to run.
            tokio::task::yield_now().await;
        }
        put(&store, "/quiet/1", "1").await;
        assert_eq!(quiet.await.unwrap(), Ok("/quiet/1".to_owned()));
    });
}

#[test]
fn a_watcher_ends_with_the_store() {
    on_each(async |store| {
        let mut watcher = store.watch("/a/", store.revision()).unwrap();
        drop(store);
        assert_eq!(watcher.next().await, Err(Error::Closed));
    });
}
