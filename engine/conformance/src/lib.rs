//! The *conformance suite* of [`Runtime`]: what a runtime of containers does, tried with real namespaces on every handler that claims it.
//!
//! ```text
//! tests/X.rs: impl Handler ──▶ run ──for each handler, for each case that it claims──▶ World ──▶ case ──▶ sweep: is anything left?
//!    its name, what it claims,                    │
//!    how a client of it is made                   └── and the cases that only this handler has
//! ```
//!
//! Only tests link it. A test of a handler is a program without the usual harness: it may be its own supervisor, runner or plug-in, which must
//! be so before a second thread exists. Needs root and busybox-static; [`containerd`] needs Debian's packages, which are downloaded and not
//! installed. Claim nothing that does not hold: a case that is left out is named in what the test prints.

// A case fails by a panic, and its name is what is printed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod cases;
pub mod containerd;
#[path = "../../images/tests/support/mod.rs"]
pub mod images;
mod netns;
mod world;

pub use netns::Netns;
pub use world::{POD, World, last, wait_for, words};

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use engine_runtime::{ContainerConfig, Runtime};

/// What not every runtime can do. A case names those that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Images have programs for the kernel, and a shell.
    Shell,
    /// Commands are run in running containers.
    Exec,
    /// Such a command ends when nobody has its session any more.
    ExecEndsWithSession,
    /// The streams of a container's first process are joined, and its input is kept open for who does.
    Attach,
    /// Who has attached has the streams from then on. Without this claim the first moment may be lost.
    AttachIsTold,
    /// Who is attached and reads slowly holds up the container, and loses nothing.
    SlowReaders,
    /// There are terminals, of containers and of commands.
    Terminal,
    /// A container may be among the processes of another one.
    Beside,
    /// The containers of a pod may see each other's processes.
    SharedProcesses,
    /// A container gets what it is given: root, capabilities, all privileges.
    Privileges,
    /// What the machine mounts later appears in the container, where that is asked for.
    Propagation,
    /// What is mounted for a container is seen by nobody else.
    PrivateMounts,
    /// An end tells which signal it was.
    SignalNumber,
    /// Who counts what a container has written finds it.
    WritableLayer,
}

/// A program of an image, which each handler has in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Says `hello`, and on its standard error `to stderr`; ends with 0.
    Says,
    /// Ends with 7 and says nothing.
    Ends,
    /// Says `up` and runs until it is told to end (signal 15), then ends with 143.
    Runs,
    /// Is not in the image.
    Missing,
}

/// What a handler says where runtimes have words of their own.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Of a program that is not there.
    pub missing: &'static str,
    /// Of a program that is a directory.
    pub directory: &'static str,
    /// Of a user `ghost`, whom the image does not know.
    pub ghost: &'static str,
}

/// A handler whose runtime is tried.
#[async_trait(?Send)]
pub trait Handler {
    /// As RuntimeClasses name it.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn claims(&self) -> &'static [Claim];

    /// How it says no.
    fn words(&self) -> Words;

    /// A client of the runtime that keeps what it has below `dir`.
    fn client(&self, dir: &Path) -> Arc<dyn Runtime>;

    /// Another one, as after a restart: it must find what there is, and need not be able to begin anything.
    fn again(&self, dir: &Path) -> Arc<dyn Runtime> {
        self.client(dir)
    }

    /// The layer of the image that containers are made from.
    fn layer(&self) -> images::Layer {
        images::busybox()
    }

    /// The words that begin a program of it.
    fn program(&self, program: Program) -> Vec<String> {
        let script = match program {
            Program::Says => "echo hello; echo to stderr >&2",
            Program::Ends => "exit 7",
            Program::Runs => "trap 'exit 143' TERM; echo up; while true; do sleep 0.05; done",
            Program::Missing => return vec!["nope".into()],
        };
        ["sh", "-c", script].map(String::from).to_vec()
    }

    /// Whether each pod needs a network namespace of its own; else it has the machine's.
    fn needs_network(&self) -> bool {
        false
    }

    /// What containers of this handler have besides.
    fn adapt(&self, _config: &mut ContainerConfig) {}

    /// Looks for what a case has left after the last pod has gone.
    async fn swept(&self, _world: &World) {}
}

/// A case of the suite.
type Case = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
/// A case that a handler alone has.
pub type Own<H> = for<'a> fn(Rc<H>, &'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs the suite on each handler as far as it claims, and those of `own` that have its name beside them (none: all of them). The first
/// argument of the program is a part of the names to run (`HANDLER::CASE`).
pub fn run<H: Handler + 'static>(handlers: &[Rc<H>], own: &[(&str, &[&str], Own<H>)]) -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let wanted = args.get(1).and_then(|a| a.to_str()).filter(|a| !a.starts_with('-')).unwrap_or("").to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    for handler in handlers {
        let claims = handler.claims();
        let claimed = |needed: &[Claim]| needed.iter().all(|claim| claims.contains(claim));
        #[allow(clippy::type_complexity)] // it stands here alone
        let mut run = |name: &str, case: &dyn for<'a> Fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>| {
            let name = format!("{}::{name}", handler.name());
            if !name.contains(&wanted) {
                return;
            }
            let started = Instant::now();
            let world = runtime.block_on(World::new(Rc::clone(handler) as Rc<dyn Handler>));
            let tried = |what: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_ok();
            if tried(&|| runtime.block_on(case(&world))) && tried(&|| runtime.block_on(world.sweep())) {
                println!("test {name} ... ok ({} ms)", started.elapsed().as_millis());
                return;
            }
            println!("test {name} ... FAILED");
            failed.push(name);
            // As much as there is, that the next case finds a machine as it is to be.
            tried(&|| runtime.block_on(world.leave()));
        };
        for (name, _, case) in cases::ALL.iter().filter(|(_, needed, _)| claimed(needed)) {
            run(name, case);
        }
        for (name, _, case) in own.iter().filter(|(_, of, _)| of.is_empty() || of.contains(&handler.name())) {
            run(name, &|world| case(Rc::clone(handler), world));
        }
        let unclaimed: Vec<&str> =
            cases::ALL.iter().filter(|(_, needed, _)| !claimed(needed)).map(|(name, ..)| *name).collect();
        println!("{} does not claim: {}", handler.name(), unclaimed.join(", "));
    }
    println!("{} failed: {}", failed.len(), failed.join(", "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
