//! Virtual Fabric Manager (§6.4.4): virtual nodes, reflection, network.
//!
//! The *fabric* is what turns a contract into a place where pods run. At the buyer (here: consumer) a contract is a
//! *virtual node*; a pod bound to it is *reflected*: the provider makes a *twin* of it, and what the twin does is seen on
//! the consumer's pod. Neither side sees the other's API server: all of it crosses the link.
//!
//! ```text
//! consumer                                                        provider
//! virtual_node   Contract ─▶ Node, Lease, NodeProxy
//! reflection     pods on it ──────── desired/1, signed ─────────▶ twins    namespace, ConfigMaps, Secrets, pod
//!                pods' status ◀───── observed, gone, refused ──── twins
//! streams        kubectl logs, exec, port-forward ──────────────▶ streams  the provider's own node proxies
//! images         its image store ◀── image/1, blob/1 ──────────── images   a source of the kubelet
//! ```
//! Every node is both, and what it has sold it may serve with what it has bought (`resale`). Reading order: [`Options`], `frames`,
//! `virtual_node`, `reflection`, `twins`, `resale`, `streams`, `images`, `measured`.
//!
//! Limits: a twin's spec is what it was when it was made (a changed image makes no new one); downward API volumes say what
//! the twin is called at the provider; volumes other than configMap, secret, emptyDir, projected and downwardAPI are refused.

mod deal;
mod error;
mod fabric;
mod frames;
pub mod guests;
mod images;
mod measured;
pub mod network;
mod reflection;
mod resale;
mod streams;
mod tasks;
mod twins;
mod virtual_node;

pub use error::Error;
pub use fabric::{Admit, Fabric, Options, PrefixOf};
pub use reflection::{Named, named};
