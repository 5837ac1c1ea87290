//! Pods on a machine: runtimes, images, volumes, probes, logs, exec.
//!
//! A *kubelet* makes one machine do what the API says and says back what the machine does.
//!
//! ```text
//!            ┌ manager ── one worker per pod ── runtime ── supervisor process per pod ── containers
//!  API ◀──▶ ─┤ node: Node and lease                images: content-addressed store, sources
//!            └ proxy: logs, exec, port-forward     network: attach, detach
//! ```
//!
//! Reading order: [`pod`], [`runtime`], [`supervisor`], [`images`], [`node`].
//!
//! It knows the built-in runtime (`oci`) and a container runtime of the machine (`cri`), and what [`pod::support`] lists it does not do; a pod that asks
//! for it waits and says so.

mod events;
pub mod eviction;
mod guests;
mod image_source;
mod images;
mod kubelet;
pub mod local_path;
mod manager;
pub mod node;
pub mod pod;
mod proxy;
mod static_pods;
mod stats;

pub use guests::Guests;
pub use image_source::ImageSource;
pub(crate) use kubelet::Shared;
pub use kubelet::{ContainerRuntime, Error, Handle, Kubelet, Options, StopPods};
