//! Where the pods of the cluster's other machines are: each Node says its range and its address, and that is a route (as flannel's host-gw).
//!
//! ```text
//! Node { podCIDR, InternalIP } of others ─▶ route podCIDR via InternalIP, not translated
//! ```
//!
//! Only machines that are reached without a router between. A Node is its machine's word, so it leads no further than its own range: it must
//! be one of those that the cluster gives, and of two Nodes with the same one the older has it.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use substrate_client::Cache;
use tracing::{debug, warn};

use crate::{Cidr, MachineRoute, NodeNetwork};

/// What the kernel refuses is tried again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// Nodes change all the time; their ranges and addresses hardly ever.
const BURST: Duration = Duration::from_millis(10);

/// Keeps the routes to other machines in step with their Nodes.
pub struct MachineRoutes;

impl MachineRoutes {
    /// Leads the `ranges` of other Nodes than `own` to their machines until dropped, with the rights to list and watch `nodes`.
    pub async fn run(nodes: Cache<Node>, own: String, ranges: Vec<Cidr>, network: NodeNetwork) {
        nodes.synced().await;
        let mut changes = nodes.changes();
        let mut applied = None;
        loop {
            changes.mark_unchanged();
            let wanted = plan(&nodes.list(), &own, &ranges, network.options().pod_cidr);
            if applied.as_ref() != Some(&wanted) {
                match network.set_machines(wanted.clone()).await {
                    Ok(()) => {
                        debug!(machines = wanted.len(), "routes to other machines set");
                        applied = Some(wanted);
                    }
                    Err(error) => {
                        warn!(
                            "{error}; machines are reached that are on a network with this one; it will be tried again"
                        );
                        applied = None;
                    }
                }
            }
            let pause = tokio::time::sleep(PAUSE);
            tokio::select! {
                // Dropping it loses nothing: what has changed stays marked in its receiver.
                changed = changes.changed() => if changed.is_err() { return },
                () = pause, if applied.is_none() => {}
            }
            tokio::time::sleep(BURST).await;
        }
    }
}

fn plan(nodes: &[Arc<Node>], own: &str, ranges: &[Cidr], here: Cidr) -> Vec<MachineRoute> {
    let mut oldest_first: Vec<&Arc<Node>> = nodes.iter().collect();
    oldest_first
        .sort_by_key(|node| (node.metadata.creation_timestamp.clone().map(|at| at.0), node.metadata.name.clone()));
    let mut taken = BTreeSet::from([here]);
    let mut routes = BTreeMap::new();
    for node in oldest_first.into_iter().filter(|node| node.metadata.name.as_deref() != Some(own)) {
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()?.parse::<Cidr>().ok());
        let Some(to) = range.filter(|range| ranges.contains(range) && taken.insert(*range)) else { continue };
        routes.extend(address(node).map(|via| (to, via)));
    }
    routes.into_iter().map(|(to, via)| MachineRoute { to, via }).collect()
}

/// The machine's address in its network.
fn address(node: &Node) -> Option<Ipv4Addr> {
    let mut addresses = node.status.as_ref()?.addresses.iter().flatten();
    let address: Ipv4Addr = addresses.find(|address| address.type_ == "InternalIP")?.address.parse().ok()?;
    let unusable =
        address.is_loopback() || address.is_unspecified() || address.is_multicast() || address.is_broadcast();
    (!unusable).then_some(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    fn node(name: &str, second: u8, range: &str, address: &str) -> Arc<Node> {
        let addresses = json!([{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address }]);
        let metadata = json!({ "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") });
        let node = json!({ "metadata": metadata, "spec": { "podCIDR": range }, "status": { "addresses": addresses } });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_range_leads_to_the_oldest_node_that_has_it_if_the_cluster_gives_it() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let ranges = ["10.1.0.0/21", "10.1.8.0/24", "10.1.9.0/24", "10.1.10.0/24"].map(cidr);
        let nodes = [
            node("own", 1, "10.1.8.0/24", "192.0.2.1"),
            node("server", 2, "10.1.0.0/21", "192.0.2.2"),
            node("thief", 9, "10.1.0.0/21", "192.0.2.9"),
            node("ours", 3, "10.1.8.0/24", "192.0.2.9"),
            node("all", 4, "0.0.0.0/0", "192.0.2.9"),
            node("loop", 5, "10.1.9.0/24", "127.0.0.1"),
            node("late", 6, "10.1.10.0/24", "192.0.2.6"),
        ];
        let routes = plan(&nodes, "own", &ranges, cidr("10.1.8.0/24"));
        let told: Vec<String> = routes.iter().map(|route| format!("{} {}", route.to, route.via)).collect();
        assert_eq!(told, ["10.1.0.0/21 192.0.2.2", "10.1.10.0/24 192.0.2.6"]);
    }
}
