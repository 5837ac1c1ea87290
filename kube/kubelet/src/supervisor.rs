//! A *supervisor* is the parent of one pod's containers: a small process of its own that outlives the kubelet.
//!
//! ```text
//! kubelet ──spawn──▶ main ──fork──▶ supervisor (own session, in the pod's namespaces)
//!    ▲                                  │ one thread, one poll loop
//!    └──── DIR/socket: start, exec, ────┤ writes  DIR/containers/ID/status.json  (durably)
//!          signal, watch, shutdown      │ writes  logs
//!                                       └──▶ containers (killed by the kernel when it dies)
//! ```
//!
//! It has a single thread because only such a process can safely become a container, no runtime because it must
//! stay small (one per pod), and no opinion: what to start comes whole from the kubelet.

mod channel;
mod child;
mod containers;
mod identity;
mod log;
mod root;
mod sandbox;
mod seccomp;
mod server;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, pipe, setsid};

use crate::runtime::SandboxConfig;
use crate::sys;

/// The socket's name in the sandbox's directory.
pub(crate) const SOCKET: &str = "socket";
/// The sandbox's description in its directory.
pub(crate) const SANDBOX_FILE: &str = "sandbox.json";
/// A container's state in its directory.
pub(crate) const STATUS_FILE: &str = "status.json";

/// Runs a supervisor; `args` is the sandbox's directory. Call it before the process has a second thread.
///
/// Returns once the supervisor serves (in a child of its own), or with what went wrong on standard error.
pub fn main(args: &[OsString]) -> ExitCode {
    let [dir] = args else {
        let _ = writeln!(io::stderr(), "the supervisor needs exactly one argument, its directory");
        return ExitCode::from(64);
    };
    match launch(&PathBuf::from(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "{e}"); // with standard error closed there is nobody to tell
            ExitCode::FAILURE
        }
    }
}

/// Forks; the parent waits until the child serves or has said why not.
fn launch(dir: &Path) -> io::Result<()> {
    let (read, write) = pipe()?;
    match sys::fork()? {
        ForkResult::Parent { .. } => {
            drop(write);
            let mut said = String::new();
            File::from(read).read_to_string(&mut said)?;
            match said.as_str() {
                "ok" => Ok(()),
                "" => Err(io::Error::other("the supervisor died before it served")),
                why => Err(io::Error::other(why.to_owned())),
            }
        }
        ForkResult::Child => {
            drop(read);
            let mut launcher = File::from(write);
            let served = set_up(dir).and_then(|(listener, config)| {
                launcher.write_all(b"ok")?;
                Ok((listener, config))
            });
            let code = match served {
                Ok((listener, config)) => {
                    drop(launcher);
                    match server::serve(dir, &config, &listener) {
                        Ok(()) => 0,
                        Err(e) => note(dir, &format!("the supervisor of pod {} failed: {e}", config.pod_uid)),
                    }
                }
                Err(e) => {
                    let _ = launcher.write_all(e.to_string().as_bytes()); // the launcher then says that we died
                    1
                }
            };
            sys::exit_now(code)
        }
    }
}

fn set_up(dir: &Path) -> io::Result<(UnixListener, SandboxConfig)> {
    setsid()?;
    let path = dir.join(SANDBOX_FILE);
    let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    let config: SandboxConfig =
        serde_json::from_slice(&bytes).map_err(io::Error::from).context(|| format!("read {}", path.display()))?;
    sandbox::enter(dir, &config)?;
    // The path may be longer than a socket's name can be: go there instead.
    nix::unistd::chdir(dir)?;
    match std::fs::remove_file(SOCKET) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET).context(|| "bind the socket".into())?;
    listener.set_nonblocking(true)?;
    nix::unistd::chdir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok((listener, config))
}

/// Leaves a last word where the kubelet finds it.
fn note(dir: &Path, text: &str) -> i32 {
    let _ = std::fs::write(dir.join("supervisor.error"), text); // it already is the last resort
    1
}

/// Says what was being done when an error came.
pub(crate) trait Context<T> {
    /// Puts `what` before the error.
    fn context(self, what: impl FnOnce() -> String) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> io::Result<T> {
        self.map_err(|e| {
            let e = e.into();
            io::Error::new(e.kind(), format!("{}: {e}", what()))
        })
    }
}
