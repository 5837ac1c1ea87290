//! One Kubernetes client for all: every controller, the kubelet and the managers hold a [`kube::Client`] and
//! do not know what is behind it.
//!
//! ```text
//!                       ┌─ in_process: a tower service of the same process, no socket, no TLS
//! kube::Client ─────────┤
//!                       └─ HTTPS to a cluster's API server, as kube-rs makes it
//! Cache<K> ── list, then watch for ever ──▶ one copy of a kind, shared by who needs it
//! Caches   ── the copies of a process, each kind once
//! Access   ── what a room gets: its own client to write, everybody's copies to read
//! Brief    ── writes whose answer is the metadata alone
//! Pace     ── how much of its time a room may spend on looking at them again
//! ```
//!
//! A *cache* is one list-and-watch of one kind, kept current in the background. It never answers before its
//! first list, recovers from `410 Gone` and lost connections by itself, and tells that something changed, not
//! what: who watches it plans again from the whole view, so nothing is missed and nothing is done twice.

mod brief;
mod cache;
pub mod certificates;
pub mod lookup;
mod pace;
pub mod quantity;
pub mod quota;
pub mod requests;
pub mod schedule;
pub mod volumes;

pub use brief::Brief;
pub use cache::{Access, Cache, Caches};
pub use pace::Pace;

/// A client whose requests are answered by `service` in this process. The service decides as whom they come.
///
/// Requests wait in a bounded buffer inside [`kube::Client`]; a panic inside the service would end it for every
/// holder, so services turn panics into responses.
pub fn in_process<S, B>(service: S) -> kube::Client
where
    S: tower::Service<http::Request<kube::client::Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    kube::Client::new(service, "default")
}
