//! Writes to the store of a directory with many writers, for ever, and says each write once it is acknowledged: `ack KEY REVISION`. The
//! machine on which it runs is killed (`tests/power_loss.rs`).
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is there to be listened to

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use substrate_store::{Precondition, Store};

const WRITERS: usize = 16;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("needed: a directory");
        return ExitCode::FAILURE;
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
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
                    // One write for a line, so that lines of several writers do not mix.
                    std::io::stdout().lock().write_all(format!("ack {key} {revision}\n").as_bytes())?;
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
