//! Nothing that was acknowledged is lost, and nothing that was shown is taken back, when the process is killed at any instant. A child
//! writes with many writers and watches, says what it was told, and is killed in the middle; the store it leaves must hold just that.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use substrate_store::{Error, Precondition, Store};

const CHILD: &str = "FLT_STORE_CRASH_DIR";
const ROUNDS: usize = 200;
const WRITERS: usize = 64;
const WATCHERS: usize = 4;

/// The state of a writer's key after its `n`th write: every seventh deletes. 0 is the state before.
fn after(n: u64, before: Option<String>) -> Option<String> {
    if n == 0 { before } else { (!n.is_multiple_of(7)).then(|| n.to_string()) }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    if let Ok(directory) = std::env::var(CHILD) {
        return write_for_ever(directory.as_ref());
    }
    let directory = tempfile::Builder::new().prefix("flt-").tempdir().unwrap();
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    let (mut draw, mut acknowledged, mut seen) = (0x9E37_79B9_7F4A_7C15_u64, 0, 0);
    for round in 0..ROUNDS {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let told = run_and_kill(directory.path(), 50 + (draw >> 33) as usize % 600);
        let store = open(directory.path());
        for writer in 0..WRITERS {
            let done = told.writes.get(&writer).copied().unwrap_or_default();
            let found = store.get(&format!("/w/{writer}")).map(|entry| entry.value.clone());
            let found = found.map(|value| String::from_utf8(value.to_vec()).unwrap().trim_end().to_owned());
            let known = after(done.0, before.get(&writer).cloned());
            // A writer has one write under way; it may have become durable without the word of it getting out.
            let possible = [known, after(done.0 + 1, None)];
            assert!(
                possible.contains(&found),
                "round {round}, writer {writer}: {found:?} after {done:?}: {possible:?}"
            );
            before.remove(&writer);
            before.extend(found.map(|value| (writer, value)));
            assert!(store.revision() >= done.1, "round {round}: revision {} was given", done.1);
        }
        for (watcher, revisions) in &told.watches {
            let gap = revisions.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(gap, None, "round {round}: watcher {watcher} missed or repeated something");
            assert!(revisions.last().unwrap() <= &store.revision(), "round {round}: shown, and not there");
            seen += revisions.len();
        }
        acknowledged += told.acknowledged;
        drop(store);
    }
    assert!(seen > 0 && acknowledged > ROUNDS * 50);
}

#[derive(Default)]
struct Told {
    /// Of each writer: the number and the revision of the last write that was acknowledged.
    writes: BTreeMap<usize, (u64, u64)>,
    watches: BTreeMap<usize, Vec<u64>>,
    acknowledged: usize,
}

impl Told {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", writer, n, revision] => {
                self.writes.insert(writer.parse().unwrap(), (n.parse().unwrap(), revision.parse().unwrap()));
                self.acknowledged += 1;
            }
            ["see", watcher, revision] => {
                self.watches.entry(watcher.parse().unwrap()).or_default().push(revision.parse().unwrap());
            }
            _ => {}
        }
    }
}

fn run_and_kill(directory: &Path, enough: usize) -> Told {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_acknowledged_is_lost_when_the_process_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut told = Told::default();
    let mut line = String::new();
    while told.acknowledged < enough {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        told.line(&line);
    }
    child.kill().unwrap();
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
    let rest = String::from_utf8_lossy(&rest);
    // What follows the last end of a line was torn.
    rest.rsplit_once('\n').into_iter().flat_map(|(whole, _)| whole.lines()).for_each(|line| told.line(line));
    told
}

fn open(directory: &Path) -> Store {
    loop {
        match Store::open(directory) {
            Err(Error::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(1)),
            other => return other.unwrap(),
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn write_for_ever(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(directory);
        let base = store.revision();
        let watch = |watcher: usize| {
            let mut events = store.watch("/", base).unwrap();
            tokio::spawn(async move {
                loop {
                    for event in events.next().await.unwrap() {
                        say(&format!("see {watcher} {}\n", event.revision));
                    }
                }
            })
        };
        let mut tasks: Vec<_> = (0..WATCHERS).map(watch).collect();
        tasks.extend((0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = format!("/w/{writer}");
                for n in 1_u64.. {
                    let current =
                        store.get(&key).map_or(Precondition::Absent, |it| Precondition::Revision(it.revision));
                    let revision = match (after(n, None), current) {
                        // Padded, so that logs are rotated in many lives.
                        (Some(value), current) => store.put(&key, current, format!("{value:<2000}").into()).await,
                        (None, Precondition::Revision(revision)) => store.delete(&key, revision).await,
                        (None, Precondition::Absent) => continue,
                    };
                    say(&format!("ack {writer} {n} {}\n", revision.unwrap()));
                }
            })
        }));
        for task in tasks {
            task.await.unwrap();
        }
    });
}
