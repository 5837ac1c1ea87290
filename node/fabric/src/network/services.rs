//! What of services matters to packets (`resale`): of those that run here for somebody behind their buyer, and of those that are sold on.
//!
//! ```text
//!  A, who uses it        R, who sells it on                      P, where it runs
//!  a ──▶ s, a stand-in ─▶ EndpointSlice: s stands for p ──▶ p    Namespace of the instance: home is A's prefix
//! ```
//! Both are written by node/services, and read here.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use std::sync::Arc;

use fluidos_model::kinds::names;
use substrate_client::Cache;
use tokio::sync::watch;

/// See the module.
#[derive(Clone)]
pub struct Services {
    pods: Cache<Pod>,
    namespaces: Cache<Namespace>,
    passed: Cache<EndpointSlice>,
}

/// What there is at one moment.
#[derive(Default)]
pub(super) struct Seen {
    pub pods: Vec<Arc<Pod>>,
    pub namespaces: Vec<Arc<Namespace>>,
    pub passed: Vec<Arc<EndpointSlice>>,
}

impl Services {
    /// Begins to watch.
    pub fn start(client: &Client) -> Self {
        let labelled = |label: &str| kube::runtime::watcher::Config::default().labels(label);
        Self {
            pods: Cache::start_with(Api::all(client.clone()), labelled(names::LABEL_SERVICE)),
            namespaces: Cache::start_with(Api::all(client.clone()), labelled(names::LABEL_SERVICE)),
            passed: Cache::start_with(
                Api::namespaced(client.clone(), names::NAMESPACE),
                labelled(names::LABEL_SERVICE_PASSED),
            ),
        }
    }

    pub(super) async fn synced(&self) {
        tokio::join!(self.pods.synced(), self.namespaces.synced(), self.passed.synced());
    }

    pub(super) fn changes(&self) -> [watch::Receiver<u64>; 3] {
        [self.pods.changes(), self.namespaces.changes(), self.passed.changes()]
    }

    pub(super) fn seen(&self) -> Seen {
        Seen { pods: self.pods.list(), namespaces: self.namespaces.list(), passed: self.passed.list() }
    }
}
