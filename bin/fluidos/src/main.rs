//! `fluidos`: parse, compose by role, run.

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

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == SUPERVISOR) {
        // Before any thread is started: it forks.
        return engine_runtime::supervisor::main(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|first| first == NETWORK_PLUGIN) {
        // Before any thread is started: it goes into a pod's network.
        return engine_cri::network::plugin();
    }
    allocator::set_up();
    output::end_with_the_reader();
    #[cfg(feature = "wasm")]
    if arguments.get(1).is_some_and(|first| first == WASM_RUNNER) {
        return engine_wasm::main(&arguments[2..]); // before a thread, too
    }
    let program = arguments.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    let as_plugin = program.is_some_and(|name| name == "kubectl-fluidos");
    cli::main(&arguments, as_plugin)
}
