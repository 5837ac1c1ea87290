//! *Code*: what a module or component is compiled to, kept by the digest of its bytes.
//!
//! ```text
//! in_between (root)   bytes ─SHA-256─▶ DIR/HEX-ENGINE.cwasm ─ there ─▶ mounted read-only
//!                                          └─ not there ─▶ DIR/….part, mounted read-only
//! keeper (root, forked)                                       ▲   └─ whole, synced ─▶ its name
//! inside (the user)   bytes ─compile─▶ code ──── pipe ────────┘
//! ```
//!
//! Only root writes: the *keeper* is forked before anything is given up, holds the file, and writes what the pipe brings under the digest
//! that it has computed itself. What is compiled are the very bytes that were hashed, not the file, which may be in a volume and change
//! meanwhile. The compiler works inside, with the container's user and limits, and before anything else the container says is looked at;
//! code that it was made to write wrongly belongs to the bytes that made it do so, and is fenced like them.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use engine_runtime::Mount;
use engine_runtime::runner::View;
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::error::Context as _;
use wasmtime::{Config, Engine, Module, Result};

mod keeper;
mod mapped;

/// Bytes of one module or component: those that carry an interpreter for a language have some 30 MiB.
const SOURCE_MAX: u64 = 128 << 20;
/// Where code is inside.
const INSIDE: &str = "/.wasm-code";
/// What the C library may ask about names: without this file an image could name a library of its own there, which would be loaded.
const NSSWITCH: &str = "hosts: files dns\n";

/// The two formats (WebAssembly core specification, "Binary Format"; component model, "Binary").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    Component,
}

/// Compiled code, in a file.
pub(crate) struct Code {
    pub kind: Kind,
    path: PathBuf,
}

/// What is to be run, as root has found it.
pub(crate) enum Found {
    Compiled(Code),
    Source(Source),
}

/// Bytes that are to be compiled, and who keeps the code.
pub(crate) struct Source {
    kind: Kind,
    name: String,
    bytes: Vec<u8>,
    keeper: Pid,
    code: PipeWriter,
    answer: PipeReader,
}

/// The engine of all code; what it is set to is part of the code's name.
pub(crate) fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Looks for the code of the container's file, and has it brought inside.
pub(crate) fn find(engine: &Engine, view: &View<'_>, directory: &Path) -> io::Result<Found> {
    let switch = directory.join("nsswitch.conf");
    if !switch.exists() {
        engine_host::files::write_durably(&switch, NSSWITCH.as_bytes(), 0o644)?;
    }
    let read_only = |source: &Path, at: &str| Mount { read_only: true, ..Mount::new(source, at) };
    view.mount(&read_only(&switch, "/etc/nsswitch.conf"))?;

    let name = view.config().args[0].clone();
    let bytes = bytes(&name, view.program()?)?;
    let kind = kind(&name, &bytes)?;
    let path = directory.join(format!("{}.cwasm", key(engine, &bytes)));
    if let Ok(file) = File::open(&path) {
        file.set_modified(SystemTime::now())?; // what is used is kept longest
        view.mount(&read_only(&path, INSIDE))?;
        return Ok(Found::Compiled(Code { kind, path: INSIDE.into() }));
    }
    let part = directory.join(format!("{}.part", view.config().id));
    let file = create(&part)?;
    view.mount(&read_only(&part, INSIDE))?;
    let (code_read, code) = io::pipe()?;
    let (answer, answer_write) = io::pipe()?;
    let numbers = [code.as_raw_fd(), answer.as_raw_fd()];
    let keeper = view.beside(|| {
        for number in numbers {
            let _ = nix::unistd::close(number); // open here, too, they would never end
        }
        keeper::keep(file, &part, &path, code_read, answer_write)
    })?;
    Ok(Found::Source(Source { kind, name, bytes, keeper, code, answer }))
}

fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // The user inside reads it; the directory is root's alone.
    let file = File::options().write(true).create_new(true).mode(0o644).open(path);
    file.map_err(|e| io::Error::new(e.kind(), format!("create {}: {e}", path.display())))
}

fn bytes(name: &str, file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SOURCE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > SOURCE_MAX {
        true => Err(refused(name, &format!("is larger than {SOURCE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

fn kind(name: &str, bytes: &[u8]) -> io::Result<Kind> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Ok(Kind::Module),
        Some([0, b'a', b's', b'm', _, 0, 1, 0]) => Ok(Kind::Component),
        Some([0, b'a', b's', b'm', ..]) => Err(refused(name, "is WebAssembly of another version, needed 1")),
        _ => Err(refused(name, "is no WebAssembly, needed a .wasm file (the text format has to be assembled first)")),
    }
}

fn refused(name: &str, why: &str) -> io::Error {
    io::Error::other(format!("exec: {name:?}: {why}"))
}

/// Code of another engine, or for another processor, has another name.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}-{:016x}", hasher.finish())
}

impl Source {
    /// Compiles, and has the code kept. Runs inside, before anything else does.
    pub fn compile(self, engine: &Engine) -> Result<Code> {
        let Self { kind, name, bytes, keeper, mut code, mut answer } = self;
        let compiled = match kind {
            Kind::Module => engine.precompile_module(&bytes),
            Kind::Component => engine.precompile_component(&bytes),
        };
        drop(bytes);
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(why) => {
                drop(code);
                answer.read_to_end(&mut Vec::new())?; // so that nothing of it is there when the container has ended
                return Err(why.context(format!("{name} cannot be compiled")));
            }
        };
        code.write_all(&(compiled.len() as u64).to_le_bytes())?;
        code.write_all(&compiled)?;
        drop((code, compiled));
        let mut said = String::new();
        answer.read_to_string(&mut said)?;
        let _ = nix::sys::wait::waitpid(keeper, None); // whoever reaped it meanwhile
        match said.as_str() {
            keeper::KEPT => Ok(Code { kind, path: INSIDE.into() }),
            "" => Err(wasmtime::format_err!("the code of {name} was not kept: its keeper died")),
            why => Err(wasmtime::format_err!("the code of {name} was not kept: {why}")),
        }
    }
}

impl Code {
    pub fn module(&self, engine: &Engine) -> Result<Module> {
        mapped::module(engine, &self.path).context("map the code")
    }

    pub fn component(&self, engine: &Engine) -> Result<Component> {
        mapped::component(engine, &self.path).context("map the code")
    }

    /// Whether it answers requests.
    pub fn is_function(&self, engine: &Engine) -> Result<bool> {
        let component = self.component(engine)?;
        let kind = component.component_type();
        Ok(kind.exports(engine).any(|(name, _)| name.starts_with("wasi:http/incoming-handler@0.2.")))
    }
}
