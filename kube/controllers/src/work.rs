//! The loop that all controllers share, and the caches that they read.
//!
//! A **round** plans from the whole view and carries the plan out. It is made when something in the view has changed, when
//! the plan asked to be woken, and again, later and later, when something could not be done.
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use substrate_client::Cache;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::objects::{name, namespace};

/// One shared copy per kind.
#[derive(Clone)]
pub(crate) struct Caches {
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
    pub leases: Cache<Lease>,
    pub namespaces: Cache<Namespace>,
    pub services: Cache<Service>,
    pub slices: Cache<EndpointSlice>,
    pub endpoints: Cache<Endpoints>,
    pub replica_sets: Cache<ReplicaSet>,
    pub deployments: Cache<Deployment>,
    pub service_accounts: Cache<ServiceAccount>,
    pub root_certificates: Cache<ConfigMap>,
}

/// The ConfigMap in every namespace that says whom pods may believe to be the API server.
pub(crate) const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";

impl Caches {
    pub fn start(client: &Client, caches: &substrate_client::Caches) -> Caches {
        let root = watcher::Config::default().fields(&format!("metadata.name={ROOT_CERTIFICATE}"));
        Caches {
            pods: caches.all(),
            nodes: caches.all(),
            leases: caches.namespaced("kube-node-lease"),
            namespaces: caches.all(),
            services: caches.all(),
            slices: caches.all(),
            endpoints: caches.all(),
            replica_sets: caches.all(),
            deployments: caches.all(),
            service_accounts: caches.all(),
            root_certificates: Cache::start_with(Api::all(client.clone()), root),
        }
    }
}

/// What a round asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// Come back after this time even if nothing changes.
    pub wake: Option<Duration>,
    /// Something could not be done.
    pub failed: bool,
}

impl Next {
    /// Notes what has become of one object's plan: one that was planned from an older view is planned again.
    pub fn judge(&mut self, kind: &str, metadata: &ObjectMeta, result: Result<(), kube::Error>) {
        let title = format_args!("{}/{}", namespace(metadata), name(metadata));
        match result {
            Ok(()) => return,
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                debug!(kind, object = %title, status.message, "planned from an older view");
            }
            Err(error) => warn!(kind, object = %title, %error, "will be tried again"),
        }
        self.failed = true;
    }

    /// The sooner of two wishes.
    pub fn wake_in(&mut self, after: Option<Duration>) {
        self.wake = match (self.wake, after) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Changes of one cause come together; waiting this long makes one round of them and is not noticed.
const BURST: Duration = Duration::from_millis(3);
/// A first retry comes at once for a user, and a lasting failure costs nothing.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// A round without a reason, in case one was lost.
const RESYNC: Duration = Duration::from_secs(600);

/// Says when the next round is due. The receivers are those of the caches in the view.
pub(crate) struct Rounds {
    changes: Vec<watch::Receiver<u64>>,
    retry: Duration,
}

impl Rounds {
    /// Waits until every cache of the view is complete: the first round is due.
    pub async fn begin(mut changes: Vec<watch::Receiver<u64>>) -> Rounds {
        for change in &mut changes {
            // The sender lives in the cache's task, which the caller keeps alive.
            let _ = change.wait_for(|generation| *generation > 0).await;
            change.mark_unchanged();
        }
        Rounds { changes, retry: RETRY_FIRST }
    }

    /// Waits until the round after one with this outcome is due. What changes while a round is made is not missed.
    pub async fn wait(&mut self, next: Next) {
        let mut pause = next.wake.unwrap_or(RESYNC).min(RESYNC);
        if next.failed {
            pause = pause.min(self.retry);
            self.retry = (self.retry * 2).min(RETRY_MOST);
        } else {
            self.retry = RETRY_FIRST;
        }
        let waits: Vec<_> = self.changes.iter_mut().map(|change| change.changed().boxed()).collect();
        // Dropping the wait loses nothing: a change stays marked in its receiver.
        if tokio::time::timeout(pause, select_all(waits)).await.is_ok() {
            tokio::time::sleep(BURST).await;
        }
        self.changes.iter_mut().for_each(|change| change.mark_unchanged());
    }
}
