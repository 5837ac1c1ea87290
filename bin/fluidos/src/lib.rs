//! `fluidos`, and `fluidos-agent`, which is the part of it that a machine needs to be one more of a node: parse, compose by role, run.
//!
//! ```text
//!  main.rs ─▶ main ──┬─ first words that are not for people: supervisor, network plug-in, wasm
//!                    └─ cli ───────▶ every verb
//!  bin/fluidos-agent.rs ─▶ agent ─┬─ the same first words
//!                                 └─ cli/agent ─▶ join, image, check, reset, completion
//! ```
//! Whatever neither calls is not linked: the small program has no API server, no market and no scheduler.

mod allocator;
mod backup;
mod check;
mod cli;
mod connection;
mod contracts;
mod credential;
mod exposure;
mod given_back;
mod identity;
mod image;
mod invite;
mod invoice;
mod join;
mod log;
mod look;
mod node;
mod offers;
mod output;
mod peers;
mod policy;
mod receipts;
mod reset;
mod restore;
mod serve;
mod story;
mod trace;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

/// First argument of the process that supervises one pod. It is not for people, so it is in no help text.
const SUPERVISOR: &str = "pod-supervisor";
/// First argument of the process that runs a container's WebAssembly; likewise.
#[cfg(feature = "wasm")]
const WASM_RUNNER: &str = "wasm-runner";
/// First argument of what a container runtime runs for the network of a pod. It is not for people either.
const NETWORK_PLUGIN: &str = "pod-network";

/// The program `fluidos`.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    prepared(&arguments).unwrap_or_else(|| {
        let program = arguments.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
        let as_plugin = program.is_some_and(|name| name == "kubectl-fluidos");
        cli::main(&arguments, as_plugin)
    })
}

/// The program `fluidos-agent`.
pub fn agent() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    prepared(&arguments).unwrap_or_else(|| cli::agent::main(&arguments))
}

/// Does what comes before the command line: what the first word means if it is not for people, or the set-up of the process.
fn prepared(arguments: &[OsString]) -> Option<ExitCode> {
    if arguments.get(1).is_some_and(|first| first == SUPERVISOR) {
        // Before any thread is started: it forks.
        return Some(engine_runtime::supervisor::main(&arguments[2..]));
    }
    if arguments.get(1).is_some_and(|first| first == NETWORK_PLUGIN) {
        // Before any thread is started: it goes into a pod's network.
        return Some(engine_cri::network::plugin());
    }
    allocator::set_up();
    output::end_with_the_reader();
    #[cfg(feature = "wasm")]
    if arguments.get(1).is_some_and(|first| first == WASM_RUNNER) {
        return Some(engine_wasm::main(&arguments[2..])); // before a thread, too
    }
    None
}
