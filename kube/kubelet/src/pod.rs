//! The *pod worker*: one task per pod that makes the machine be what the pod says, and says what the machine is.
//!
//! ```text
//!  API ── pod ──▶ worker ── plan (pure) ──▶ starter: place, image, environment ──▶ runtime
//!   ▲               ▲  ▲                                                             │
//!   └── status ─────┘  └── probes ◀───────────── observed runs ◀─────────────────────┘
//! ```
//!
//! Reading order: [`plan`] decides, [`status`] words it, [`worker`] listens and acts, `start` does what a start needs.
//!
//! Limits: see [`support`], which says them to the user.

mod ask;
pub mod environment;
mod hooks;
mod host_ports;
pub mod image;
pub mod last_words;
pub mod located;
pub mod names;
pub mod plan;
mod probes;
pub mod resize;
pub mod resources;
mod runtime_class;
pub mod security;
mod start;
pub(crate) mod tokens;
pub(crate) use start::chain;
pub mod status;
pub mod support;
pub mod volumes;
pub mod worker;

use std::borrow::Cow;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// The container of that name, an ephemeral one as the container that it is.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    all_containers(pod).find(|c| c.name == name)
}

/// Every container: those that come first, those that the pod is made of, the ephemeral ones.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    let later = ephemeral(pod).map(|c| Cow::Owned(as_container(c)));
    init(pod).chain(pod.spec.iter().flat_map(|s| &s.containers)).map(Cow::Borrowed).chain(later)
}

/// Containers that come before the others, sidecars among them.
pub(crate) fn init(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten())
}

/// Containers that were added to look into the pod.
pub(crate) fn ephemeral(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten())
}

/// What an ephemeral container has is what any has, but for its target; the API lets it have no ports, probes,
/// hooks or resources.
fn as_container(of: &EphemeralContainer) -> Container {
    let of = of.clone();
    Container {
        name: of.name,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        command: of.command,
        args: of.args,
        working_dir: of.working_dir,
        env: of.env,
        env_from: of.env_from,
        volume_mounts: of.volume_mounts,
        volume_devices: of.volume_devices,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        ..Container::default()
    }
}

/// Why a container cannot be configured; the pod waits and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An object it needs is not there (yet): tried again.
    #[error("{0}")]
    Missing(String),
    /// The pod contradicts itself or the image: tried again, since the objects it refers to may change.
    #[error("{0}")]
    Invalid(String),
    /// This node does not do that: waits until the pod is replaced.
    #[error("not supported on this node: {0}")]
    Unsupported(String),
}

/// Where things of a pod are, below the kubelet's directory.
#[derive(Clone, Debug)]
pub struct PodDir(PathBuf);

impl PodDir {
    /// The directory of the pod `uid` below `root`.
    pub fn new(root: &std::path::Path, uid: &str) -> Self {
        Self(root.join("pods").join(uid))
    }

    /// The directory itself.
    pub fn root(&self) -> &std::path::Path {
        &self.0
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// A file that is mounted into `/etc`.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.0.join("etc").join(name)
    }

    /// The log of a run.
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("logs").join(container).join(format!("{attempt}.log"))
    }

    /// Where a run writes its last words.
    pub fn termination(&self, id: &str) -> PathBuf {
        self.0.join("termination").join(id)
    }
}
