//! The Kubernetes API: verbs, patches, watch, custom resources, discovery, OpenAPI.
//!
//! ```text
//! TLS connection ─┐                                   ┌─ get, list, watch ── store (bytes, spliced)
//!                 ├─▶ ApiServer::answer ─▶ Call ─▶ verb ─┤─ create, update, patch, apply ─ decode → default → note managers → admit → validate → store
//! in process ─────┘     who? which kind?              └─ log, exec, port-forward ── NodeProxy of the pod's node
//! ```
//!
//! A *kind* is one declarative description ([`kinds`]); kinds of CustomResourceDefinitions are added while the server
//! runs. Objects are kept as JSON text and parsed only where something must be understood.

mod addresses;
pub mod admission;
mod apply;
mod audit;
pub mod auth;
mod authorization;
mod body;
mod bounds;
mod cel;
mod custom;
mod discovery;
mod kinds;
mod metrics;
pub mod node_proxy;
pub mod node_tunnel;
mod object;
mod openapi;
mod patch;
mod protobuf;
pub mod reference;
mod registry;
mod route;
mod schema;
mod selector;
mod server;
pub mod status;
mod table;
pub mod tls;
mod usage;
mod verbs;
mod warnings;
mod webhook;

pub use audit::log::Target as AuditLog;
pub use body::Body;
pub use kinds::core::pod::read as read_pod;
pub use kinds::stored_under;
pub use server::{ApiServer, Options, UserService};
