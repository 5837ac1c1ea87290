//! `cargo xtask demo --undo`: takes away what a demo left, by the process numbers that it wrote down.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use fluidos_e2e::command;
use fluidos_e2e::lan::{Lan, Machine};
use fluidos_e2e::node::Setup;
use fluidos_e2e::wait::until;

use super::{NAME, directory};

/// What a node is given to end by itself.
const END: Duration = Duration::from_secs(20);

/// Where a demo writes down its nodes' processes, one number a line.
pub fn pids_file() -> PathBuf {
    directory().join("pids")
}

/// Ends the process, if it still is a node of ours: a number may have been given to somebody else meanwhile.
fn end(pid: &str) -> Result<()> {
    let ours = || {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line.contains(&directory().display().to_string()))
    };
    if !ours() {
        return Ok(());
    }
    command::run("kill", &["-TERM", pid])?;
    let ended = || if ours() { Err(format!("process {pid} runs")) } else { Ok(()) };
    until(&format!("process {pid} ends"), END, ended)
}

/// Does it. The caller has claimed the demo's name.
///
/// # Errors
/// What could not be taken away; running it again goes on from there.
pub fn run() -> Result<()> {
    let directory = directory();
    if !directory.exists() {
        println!("there is nothing to take away");
        return Ok(());
    }
    for pid in fs::read_to_string(pids_file()).unwrap_or_default().lines() {
        end(pid)?;
    }
    for name in ["farm", "grid", "cloud"] {
        let mut setup = Setup::new(name, &directory);
        setup.machine = Some(Machine::found(NAME, name));
        if setup.directory.join("identity").exists() {
            print!("{name}: {}", setup.reset()?);
        }
    }
    drop(Lan::found(NAME));
    fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
    println!("nothing is left");
    Ok(())
}
