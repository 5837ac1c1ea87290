//! Keeps the machine's rules, and what it answers to health checks, in step with Services and EndpointSlices: what kube-proxy does.
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use substrate_client::{Cache, Caches, Pace};
use tracing::{debug, warn};

use crate::health_check::{self, HealthChecks};
use crate::{Both, NodeNetwork, services};

/// Services and where they lead: the shared copies that the proxy and the cluster's DNS read.
#[derive(Clone)]
pub struct ServiceCaches {
    /// All Services.
    pub services: Cache<Service>,
    /// All EndpointSlices.
    pub slices: Cache<EndpointSlice>,
}

impl ServiceCaches {
    /// Starts to watch, with the rights of the copies: list and watch of `services` and `endpointslices`.
    pub fn start(caches: &Caches) -> ServiceCaches {
        ServiceCaches { services: caches.all(), slices: caches.all() }
    }

    /// Waits until one of the two has changed, then until the burst that it may belong to is over.
    pub(crate) async fn changed(&self, seen: &mut Changes) {
        tokio::select! {
            // Dropping either loses nothing: what has changed stays marked in its receiver.
            _ = seen.services.changed() => {}
            _ = seen.slices.changed() => {}
        }
        tokio::time::sleep(BURST).await;
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes { services: self.services.changes(), slices: self.slices.changes() }
    }
}

/// Two changes of one cause (a Service and its slice, the pods of a roll-out) come within a few milliseconds; 10 ms are
/// still far below what a user notices.
const BURST: Duration = Duration::from_millis(10);

/// What is made of all Services is made anew as a whole: while changes never end, four fifths of the time nothing is.
pub(crate) const RESTS: u32 = 4;

pub(crate) struct Changes {
    services: tokio::sync::watch::Receiver<u64>,
    slices: tokio::sync::watch::Receiver<u64>,
}

impl Changes {
    /// Waits until all may be looked at again; what has changed until then is seen by that look.
    pub(crate) async fn begin(&mut self, pace: &mut Pace) {
        pace.begin().await;
        self.services.mark_unchanged();
        self.slices.mark_unchanged();
    }
}

/// What kube-proxy does, for one machine.
pub struct ServiceProxy;

impl ServiceProxy {
    /// Makes Services work on `network` until dropped. Rules that the kernel refuses are tried again, after 1 s and
    /// twice as long each time up to 30 s, and whenever something changes.
    ///
    /// Limits: TCP and UDP; session affinity ends when endpoints change, and at no time.
    pub async fn run(caches: ServiceCaches, network: NodeNetwork) {
        caches.services.synced().await;
        caches.slices.synced().await;
        let (mut seen, mut pace) = (caches.changes(), Pace::resting(RESTS));
        let mut pause = PAUSE_MIN;
        let mut checks = HealthChecks::new(network.options().ipv6.is_some());
        loop {
            seen.begin(&mut pace).await;
            let (services, all) = (caches.services.list(), caches.slices.list());
            let here = network.here();
            let slices = services::by_service::<Ipv4Addr>(&all);
            let v4 = services::ports(&services, &slices, &here.v4);
            let mut health = health_check::plan(&services, &slices, &here.v4);
            let mut v6 = Vec::new();
            if let Some(here) = &here.v6 {
                let slices = services::by_service::<Ipv6Addr>(&all);
                v6 = services::ports(&services, &slices, here);
                health_check::join(&mut health, health_check::plan(&services, &slices, here));
            }
            checks.set(health.clone()).await;
            let (count, ports) = (v4.len() + v6.len(), Both { v4, v6 });
            let set = network.set_services(ports).await;
            pace.end();
            match set {
                Ok(()) => {
                    debug!(ports = count, "Services set");
                    pause = PAUSE_MIN;
                    while tokio::time::timeout(MEND_EVERY, caches.changed(&mut seen)).await.is_err() {
                        if let Err(error) = network.mend().await {
                            warn!(%error, "the rules could not be looked after");
                        }
                        checks.set(health.clone()).await; // a port that was somebody's may be free
                    }
                }
                Err(error) => {
                    warn!(%error, ?pause, "Services not set; will be tried again");
                    let _ = tokio::time::timeout(pause, caches.changed(&mut seen)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// How long rules that somebody else has removed stay away at most, if nothing changes.
const MEND_EVERY: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(crate) mod tests;
