//! Black-box stories: real processes, real containers, network namespaces, kubectl.
//!
//! What the stories and the demo stand on. Nothing here knows the inside of a node: it is started as a user starts it and
//! looked at with kubectl and HTTP.
//!
//! ```text
//! Lan ── one namespace with a bridge, one per machine ── Machine ── Node: a `fluidos up` process ── kubectl
//! images: real programs from Debian packages, packed as OCI layouts
//! ```

pub mod claim;
pub mod clients;
pub mod command;
pub mod disk;
pub mod http;
pub mod images;
pub mod lan;
pub mod market;
pub mod node;
pub mod registry;
pub mod stage;
pub mod terminal;
pub mod virtual_machine;
pub mod wait;

use std::path::PathBuf;

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}
