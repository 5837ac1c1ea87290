//! One Kubernetes client for all: every controller, the kubelet and the managers hold a [`kube::Client`] and
//! do not know what is behind it.
//!
//! ```text
//!                       ┌─ in_process: a tower service of the same process, no socket, no TLS
//! kube::Client ─────────┤
//!                       └─ from_kubeconfig: HTTPS to a cluster's API server
//! Cache<K> ── list, then watch for ever ──▶ one copy of a kind, shared by who needs it
//! ```
//!
//! A *cache* is one list-and-watch of one kind, kept current in the background. It never answers before its
//! first list, recovers from `410 Gone` and lost connections by itself, and tells that something changed, not
//! what: who watches it plans again from the whole view, so nothing is missed and nothing is done twice.

mod cache;
pub mod quantity;

use std::path::Path;

pub use cache::Cache;

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

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct: the file is absent or not a kubeconfig.
    #[error("{path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Correct: what the kubeconfig says cannot be used.
    #[error("{path}: {source}")]
    Client {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<kube::Error>,
    },
}

/// A client for the current context of a kubeconfig file, or of `context` in it.
pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<kube::Client, Error> {
    let named = || path.display().to_string();
    let file =
        kube::config::Kubeconfig::read_from(path).map_err(|source| Error::Kubeconfig { path: named(), source })?;
    let options = kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|source| Error::Kubeconfig { path: named(), source })?;
    kube::Client::try_from(config).map_err(|source| Error::Client { path: named(), source: source.into() })
}
