//! Writes to the store of a directory with many writers, for ever, and says each write once it is acknowledged: `ack KEY REVISION`; or, as
//! `store_writer DIRECTORY renew`, writes one lease and renews it some times: `renewed REVISION`. The machine on which it runs is killed
//! (`tests/power_loss.rs`).
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is there to be listened to

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use substrate_store::{Precondition, Store};

const WRITERS: usize = 16;
const RENEWALS: usize = 50;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("needed: a directory");
        return ExitCode::FAILURE;
    };
    let renew = std::env::args_os().nth(2).is_some_and(|word| word == "renew");
    match if renew { self::renew(Path::new(&directory)) } else { write(Path::new(&directory)) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    // One write for a line, so that lines of several writers do not mix.
    std::io::stdout().lock().write_all(line.as_bytes())
}

fn renew(directory: &Path) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let store = Store::open(directory)?;
        let mut revision = store.put("/lease", Precondition::Absent, "0".into()).await?;
        say(&format!("ack /lease {revision}\n"))?;
        for n in 1..=RENEWALS {
            revision = store.renew("/lease", Precondition::Revision(revision), n.to_string().into()).await?;
            say(&format!("renewed {revision}\n"))?;
        }
        std::future::pending().await
    })
}

fn write(directory: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(directory)?;
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0_u64.. {
                    let key = format!("/{writer}/{n}");
                    let revision = store.put(&key, Precondition::Absent, format!("{key:<300}").into()).await?;
                    say(&format!("ack {key} {revision}\n"))?;
                }
                anyhow::Ok(())
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await??;
        }
        Ok(())
    })
}
