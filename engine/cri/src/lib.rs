//! A *container runtime* that is on the machine already runs the containers: containerd, over its socket.
//!
//! ```text
//! trait Runtime ──▶ CriRuntime ── gRPC ──▶ runtime.v1 (CRI): sandboxes, containers, their state, logs, streams
//!                       │                  containerd's own: blobs and names of images, signals, a word when something ends
//!                       ├── mounts on the machine that CRI does not know: parts of volumes, volumes in memory
//!                       └── network: a plug-in that puts the pod's own namespace in the place of the runtime's
//! ```
//!
//! What differs from the built-in runtime: the runtime's own user, its shim for each pod and its store of images are outside; there is no signal
//! number in an end (CRI tells none), a command whose session is dropped runs on, and a pod of the machine's own IPC or processes has what the runtime gives.
//! A container's cgroup is inside the one that it was given, which keeps the limits and the account.
//!
//! Limits: containerd with cgroupfs (not the driver `systemd`); CRI-O has no service that takes images, so it is refused; nobody else's CNI configuration.

mod calls;
mod found;
mod grpc;
mod images;
mod kept;
mod making;
mod memory;
mod messages;
mod mounts;
pub mod network;
mod plan;
mod runtime;
mod spdy;
mod stream;
mod watcher;

/// What RuntimeClasses call it; other names are handlers of the runtime itself.
pub const HANDLER: &str = "cri";

pub use found::Found;
pub use runtime::{CriRuntime, Options};
