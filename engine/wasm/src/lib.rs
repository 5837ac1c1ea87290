//! *WebAssembly* as a container's process: a [runner](engine_runtime::runner) that runs what an image's `.wasm` file says.
//!
//! ```text
//!                        ┌ module of WASI preview 1     `_start`                     ┐ a command: arguments, variables, streams,
//! args[0], a file ──────▶│ component of WASI 0.2        `wasi:cli/run`               ┘ files; its exit code is the container's
//! of the image           └ component of WASI 0.2        `wasi:http/incoming-handler`   a function: HTTP on the container's first port
//!        │
//!        └─ SHA-256 ──▶ code, compiled once and kept by root ──▶ mapped
//! ```
//!
//! Nothing of the machine is given but what the container has: `/` is the container's root, which is read-only, with its volumes; addresses
//! are those of its network namespace. Linear memory ends where the container's limit does.
//!
//! Limits: WASI 0.2 and preview 1 (no threads, no garbage-collected types, no WASI 0.3); functions speak HTTP/1.1.

mod code;
mod command;
mod ending;
mod function;
mod host;
mod limit;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use engine_runtime::runner;

use self::code::{Found, Kind};

/// What a container ends with whose file cannot be made a program, as a shell says it.
const NOT_EXECUTABLE: u8 = 126;

/// Runs a container's WebAssembly; `words` are a directory for compiled code that only root can write to, and what the supervisor adds. Call
/// it before the process has a second thread.
pub fn main(words: &[OsString]) -> ExitCode {
    let Some((directory, words)) = words.split_first() else {
        say("a runner is only begun by its supervisor");
        return ExitCode::from(64);
    };
    let engine = match code::engine() {
        Ok(engine) => engine,
        Err(why) => {
            say(&format!("the engine of WebAssembly does not start: {why:#}"));
            return ExitCode::from(NOT_EXECUTABLE);
        }
    };
    let held = match ending::Held::hold() {
        Ok(held) => held,
        Err(why) => {
            say(&format!("signals cannot be held: {why}"));
            return ExitCode::from(NOT_EXECUTABLE);
        }
    };
    let entered = runner::enter(words, |view| {
        let memory_max = limit::memory(&view.config().cgroups);
        Ok((code::find(&engine, view, Path::new(directory))?, memory_max))
    });
    let (container, (found, memory_max)) = match entered {
        Ok(entered) => entered,
        Err(code) => return code,
    };
    let guest = host::Guest { args: container.args, env: container.env, cwd: container.cwd, memory_max };
    let ended = held.listen().map_err(wasmtime::Error::from).and_then(|ending| {
        let code = ready(&engine, found)?;
        match code.kind {
            Kind::Module => command::module(&engine, &code, &guest),
            Kind::Component if code.is_function(&engine)? => {
                function::serve(&engine, code, guest, &container.ports, &ending)
            }
            Kind::Component => command::component(&engine, &code, &guest),
        }
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            say(&format!("{why:#}"));
            ExitCode::from(NOT_EXECUTABLE)
        }
    }
}

fn ready(engine: &wasmtime::Engine, found: Found) -> wasmtime::Result<code::Code> {
    match found {
        Found::Compiled(code) => Ok(code),
        Found::Source(source) => source.compile(engine),
    }
}

/// A line of ours in the container's log.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "wasm: {line}"); // with standard error closed there is nobody to tell
}
