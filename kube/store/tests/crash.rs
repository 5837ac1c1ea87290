//! An acknowledged write survives the death of its process: a child process writes and reports each
//! acknowledgement, is killed in the middle, and the store it leaves must hold all that it reported.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use substrate_store::{Precondition, Store};

const CHILD: &str = "FLT_STORE_CRASH_DIR";

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    if let Ok(directory) = std::env::var(CHILD) {
        return write_for_ever(&directory);
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_acknowledged_write_is_lost_when_the_process_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 200 {
            let line = lines.next().unwrap().unwrap();
            acknowledged.extend(line.strip_prefix("ack ").map(str::to_owned));
        }
        child.kill().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("ack ").map(str::to_owned)));
        child.wait().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let last_line_may_be_torn = &acknowledged[..acknowledged.len() - 1];
        for key in last_line_may_be_torn {
            assert!(store.get(key).is_some(), "{key} was acknowledged in round {round} and is gone");
        }
        let newest = store.list("/", None, 0, None).unwrap().entries.iter().map(|e| e.revision).max().unwrap();
        assert_eq!(store.revision(), newest, "the stored revision goes with the rows");
        drop(store);
    }
}

fn write_for_ever(directory: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let store = loop {
            match Store::open(directory.as_ref()) {
                Err(substrate_store::Error::InUse { .. }) if std::time::Instant::now() < until => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                other => break other.unwrap(),
            }
        };
        let base = store.revision();
        let tasks: Vec<_> = (0..8)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..u32::MAX {
                        let key = format!("/{base}/{writer}/{n}");
                        store.put(&key, Precondition::Absent, "x".into()).await.unwrap();
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "ack {key}").unwrap();
                        out.flush().unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}
