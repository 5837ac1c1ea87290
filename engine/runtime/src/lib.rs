//! A *runtime* runs the containers of pods. The pod worker knows this trait and nothing of namespaces.
//!
//! ```text
//! pod worker ──trait Runtime──▶ Runtimes ──by handler──▶ oci: one supervisor process per pod ──▶ containers
//!                                                        process: the same behind more fences
//!                                                        (cri, wasm, vm: the same trait)
//! ```
//!
//! A *sandbox* is what the containers of one pod share: network, host name, IPC, shared memory. It outlives the
//! kubelet: [`Runtime::list`] finds the sandboxes of an earlier run, [`Runtime::watch`] joins them again.

pub mod capabilities;
pub mod cgroups;
mod hosted;
mod log_end;
mod oci;
pub mod process;
mod runtimes;

pub use hosted::Hosted;
pub use log_end::log_end;
pub use oci::{OciRuntime, runner, supervisor};
pub use runtimes::Runtimes;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use engine_session::{ExecOptions, ExecSession};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a container has no business to read, unless it is privileged (the set of all container engines).
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it may read and not write.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the containers of a pod share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The pod's uid, which names the sandbox.
    pub pod_uid: String,
    /// Which of the machine's [`Runtimes`] runs it, as its RuntimeClass says; none for the default.
    #[serde(default)]
    pub handler: Option<String>,
    /// The network namespace; none for the machine's own.
    pub netns: Option<PathBuf>,
    /// The host name inside; none with the machine's own network, where it is the machine's.
    pub hostname: Option<String>,
    /// Whether to share the machine's System V and POSIX IPC.
    pub host_ipc: bool,
    /// Whether the containers see each other's processes.
    #[serde(default)]
    pub share_processes: bool,
    /// Whether its containers are confined as the handler [`process`] does it, whatever else is said.
    #[serde(default)]
    pub fenced: bool,
    /// Settings of the kernel within the pod's namespaces: `net.ipv4.ip_unprivileged_port_start` → value.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Memory-backed volumes to mount for all containers: host directory → size in bytes (0: half of the machine).
    pub memory_volumes: BTreeMap<PathBuf, u64>,
    /// The pod's cgroup directories, for what a runtime keeps beside its containers.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
}

/// A user as the supervisor can resolve it inside the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `user[:group]` as the image says it, names or numbers; empty is root.
    pub image_user: String,
    /// Overrides the image's user.
    pub uid: Option<u32>,
    /// Overrides the image's group.
    pub gid: Option<u32>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Whether those are all: what the image's files say about its user does not count.
    #[serde(default)]
    pub only_these_groups: bool,
}

/// Something of the host made visible in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// File or directory on the host.
    pub source: PathBuf,
    /// Only what this names below the source, never outside it.
    pub sub_path: Option<PathBuf>,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
    /// Whether what the machine mounts below the source later appears in the container, too.
    #[serde(default)]
    pub follows_host: bool,
}

impl Mount {
    /// All of `source`, to be written to, as it is now.
    pub fn new(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self { source, sub_path: None, destination, read_only: false, follows_host: false }
    }
}

/// Which system calls are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The runtime's own profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile as text: the `seccomp` object of the OCI runtime specification.
    Profile(String),
}

/// What a container sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// An image's layers, unpacked on this machine.
    Layers {
        /// Where all `layers` are.
        dir: PathBuf,
        /// Names of lower directories below `dir`, lowest first.
        layers: Vec<String>,
    },
    /// The machine's own programs, read-only, as [`process`] shows them. Only behind its fences.
    Machine,
    /// An image of a store of blobs, for a runtime that unpacks images itself ([`Runtime::takes_images`]).
    Image {
        /// What it is called, for people.
        name: String,
        /// The digest of its manifest: `sha256:HEX`.
        digest: String,
        /// Where each blob is a file `sha256/HEX`.
        blobs: PathBuf,
    },
}

/// A container, decided in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// 64 hexadecimal digits, never used before.
    pub id: String,
    /// The name in the pod's spec.
    pub name: String,
    /// 0 for the first run, then counted up.
    pub attempt: u32,
    /// What is at `/` inside.
    pub root: Root,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// Words that this program is begun with in their place, to run them itself: see [`runner`]. Empty: the kernel runs `args`.
    #[serde(default)]
    pub runner: Vec<String>,
    /// TCP ports that it is said to listen on, in order: what a runner that listens for it takes.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty is `/`.
    pub cwd: String,
    /// As whom.
    pub user: User,
    /// In order of mounting.
    pub mounts: Vec<Mount>,
    /// Capabilities as a bit set, kernel numbering.
    pub capabilities: u64,
    /// Whether the kernel must refuse set-uid and file capabilities.
    pub no_new_privs: bool,
    /// No masks, no seccomp, all capabilities.
    pub privileged: bool,
    /// Whether the image cannot be written to.
    pub read_only_root: bool,
    /// Which system calls are refused.
    pub seccomp: Seccomp,
    /// Whether it is confined as the handler [`process`] does it; always so in a fenced sandbox.
    #[serde(default)]
    pub fenced: bool,
    /// Whether it sees the machine's processes.
    pub host_pid: bool,
    /// The name of a container of the pod whose processes are its own, too.
    pub beside: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is kept open for who attaches; else it is empty. A terminal is always open.
    pub stdin: bool,
    /// Whether that input ends with the first who was attached to it.
    pub stdin_once: bool,
    /// cgroup directories to be in.
    pub cgroups: Vec<PathBuf>,
    /// The kernel's count of out-of-memory kills for this container.
    pub oom_file: Option<PathBuf>,
    /// Badness for the out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: i32,
    /// The log, in CRI format.
    pub log: PathBuf,
}

/// What a container did last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// As configured.
    pub id: String,
    /// As configured.
    pub name: String,
    /// As configured.
    pub attempt: u32,
    /// Its first process, while it runs.
    pub pid: Option<i32>,
    /// Unix time in nanoseconds.
    pub started_at_ns: i64,
    /// Set once it has ended.
    pub finished: Option<Finished>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Unix time in nanoseconds.
    pub at_ns: i64,
    /// Exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The kernel killed a process of it because memory ran out.
    pub oom_killed: bool,
    /// Its supervisor was gone: how it ended is not known.
    pub lost: bool,
    /// Why it never ran, if it did not.
    pub error: Option<String>,
}

/// A sandbox as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether containers can be started in it.
    pub alive: bool,
    /// Every container that was started in it and not removed.
    pub containers: Vec<ContainerStatus>,
}

/// Why a runtime could not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox's supervisor cannot be reached: its containers are gone with it; start a new one.
    #[error("pod {pod_uid}: the supervisor does not answer")]
    Gone {
        /// The pod.
        pod_uid: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The sandbox could not be made.
    #[error("pod {pod_uid}: the supervisor did not start: {why}")]
    Sandbox {
        /// The pod.
        pod_uid: String,
        /// What it said.
        why: String,
    },
    /// The supervisor refused; the message says what was observed and needed.
    #[error("{0}")]
    Refused(String),
    /// No runtime of this machine has the name.
    #[error("no runtime for {handler:?} is configured, needed one of: {}", known.join(", "))]
    Handler {
        /// What was asked for.
        handler: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Another program that runs containers did not do what it was asked for, or does not answer.
    #[error("container runtime at {at}: {call}: {why}")]
    Call {
        /// Where it is.
        at: String,
        /// What it was asked for.
        call: &'static str,
        /// What it said.
        why: String,
    },
    /// A file of the runtime could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Runs containers. Absence is never an error: stopping what is gone is `Ok`.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Whether a container's root is to be a [`Root::Image`]; else it is [`Root::Layers`].
    fn takes_images(&self) -> bool {
        false
    }

    /// Makes the sandbox, or finds the living one of the same pod.
    ///
    /// # Errors
    /// It cannot be made; the message says what the machine refused.
    async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error>;

    /// Starts a container in a living sandbox.
    ///
    /// # Errors
    /// [`Error::Refused`] when the program, the user or a mount is not to be had.
    async fn start(&self, pod_uid: &str, container: &ContainerConfig) -> Result<ContainerStatus, Error>;

    /// Sends a signal to the container's first process; a container that has ended is fine.
    ///
    /// # Errors
    /// The supervisor does not answer.
    async fn signal(&self, pod_uid: &str, id: &str, signal: i32) -> Result<(), Error>;

    /// Runs a command in a running container.
    ///
    /// # Errors
    /// The container does not run, or the program is not to be had.
    async fn exec(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error>;

    /// Joins the streams of a running container's first process (`options.command` means nothing). The session ends
    /// with the container; dropping it leaves the container running.
    ///
    /// # Errors
    /// The container does not run.
    async fn attach(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error>;

    /// Where what a container has written beside its mounts is on this machine; none where that cannot be told.
    async fn writable_layer(&self, pod_uid: &str, id: &str) -> Option<PathBuf>;

    /// Forgets a container that has ended, with its files (not its log).
    ///
    /// # Errors
    /// It still runs.
    async fn forget(&self, pod_uid: &str, id: &str) -> Result<(), Error>;

    /// The sandbox now and from now on; not alive once its supervisor is gone or if there never was one.
    async fn watch(&self, pod_uid: &str) -> watch::Receiver<Observed>;

    /// Kills everything in the sandbox and removes it with its files.
    ///
    /// # Errors
    /// Something of it stays; try again.
    async fn remove(&self, pod_uid: &str) -> Result<(), Error>;

    /// The uids of pods that have a sandbox, or the remains of one.
    ///
    /// # Errors
    /// The directory cannot be read.
    async fn list(&self) -> Result<Vec<String>, Error>;
}
