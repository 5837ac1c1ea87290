//! Keeps the machine's rules in step with NetworkPolicies: what a network plug-in's agent does.
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use substrate_client::{Cache, Caches};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{Both, NodeNetwork, policies};

/// A pod and the change of its address, its labels and its end come one after the other; a policy must not wait much longer than they do.
const BURST: Duration = Duration::from_millis(10);
/// Rules that the kernel refuses are tried again after this.
const PAUSE: Duration = Duration::from_secs(5);

/// What a network plug-in's agent does for policies, for one machine.
pub struct PolicyAgent;

impl PolicyAgent {
    /// Makes NetworkPolicies hold on `network` until dropped, with the rights of the copies: list and watch of `networkpolicies`, and,
    /// once there is a policy, of `pods` and `namespaces`.
    ///
    /// Limits: TCP and UDP. A pod is isolated once its address is known, some 20 ms after it got it. Connections that are open when
    /// a policy comes stay. Pods in the machine's own network are neither isolated nor anybody's peer, and the machine reaches its pods.
    pub async fn run(caches: Caches, network: NodeNetwork) {
        let known: Cache<NetworkPolicy> = caches.all();
        known.synced().await;
        let mut changes = known.changes();
        loop {
            changes.mark_unchanged();
            if !known.list().is_empty() {
                follow(&caches, &known, &mut changes, &network).await;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// As long as there is a policy.
async fn follow(
    caches: &Caches,
    known: &Cache<NetworkPolicy>,
    changes: &mut watch::Receiver<u64>,
    network: &NodeNetwork,
) {
    let (pods, namespaces): (Cache<Pod>, Cache<Namespace>) = (caches.all(), caches.all());
    pods.synced().await;
    namespaces.synced().await;
    let (mut of_pods, mut of_namespaces) = (pods.changes(), namespaces.changes());
    loop {
        for seen in [&mut *changes, &mut of_pods, &mut of_namespaces] {
            seen.mark_unchanged();
        }
        let known = known.list();
        let (pods, namespaces) = (pods.list(), namespaces.list());
        let here = network.here();
        let v4 = policies::plan(&known, &pods, &namespaces, &here.v4, Some(network.gateway()));
        let of_v6 = |here| policies::plan(&known, &pods, &namespaces, here, None);
        let v6 = here.v6.as_ref().map(of_v6).unwrap_or_default();
        let (policies, count) = (known.len(), v4.len());
        let isolated = Both { v4, v6 };
        let applied = network.set_isolated(isolated).await;
        match &applied {
            Ok(()) if policies == 0 => return,
            Ok(()) => debug!(policies, isolated = count, "NetworkPolicies set"),
            Err(error) => warn!(%error, "NetworkPolicies not set; will be tried again"),
        }
        tokio::select! {
            // Dropping any of them loses nothing: what has changed stays marked in its receiver.
            _ = changes.changed() => {}
            _ = of_pods.changed() => {}
            _ = of_namespaces.changed() => {}
            () = tokio::time::sleep(PAUSE), if applied.is_err() => {}
        }
        tokio::time::sleep(BURST).await;
    }
}

#[cfg(test)]
mod tests;
