//! Where the pods of the cluster's other machines are: each Node says its range and its address, and that is a route (as flannel's host-gw).
//!
//! ```text
//! Node { podCIDRs, InternalIP } of others ─▶ route podCIDR via InternalIP of its family, not translated
//! ```
//!
//! Only machines that are reached without a router between. A Node is its machine's word, so it leads no further than its own range: it must
//! be one of those that the cluster gives, and of two Nodes with the same one the older has it.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use engine_packets::Address;
use k8s_openapi::api::core::v1::Node;
use substrate_client::Cache;
use tracing::{debug, warn};

use crate::{Both, Cidr, MachineRoute, NodeNetwork};

/// What the kernel refuses is tried again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// Nodes change all the time; their ranges and addresses hardly ever.
const BURST: Duration = Duration::from_millis(10);

/// Keeps the routes to other machines in step with their Nodes.
pub struct MachineRoutes;

impl MachineRoutes {
    /// Leads the `ranges` of other Nodes than `own` to their machines until dropped, with the rights to list and watch `nodes`.
    pub async fn run(
        nodes: Cache<Node>,
        own: String,
        ranges: Both<Vec<Cidr>, Vec<Cidr<Ipv6Addr>>>,
        network: NodeNetwork,
    ) {
        nodes.synced().await;
        let mut changes = nodes.changes();
        let mut applied = None;
        loop {
            changes.mark_unchanged();
            let (all, options) = (nodes.list(), network.options());
            let v6 = options.ipv6.map(|ipv6| plan(&all, &own, &ranges.v6, ipv6.pods));
            let wanted = Both { v4: plan(&all, &own, &ranges.v4, options.pod_cidr), v6: v6.unwrap_or_default() };
            if applied.as_ref() != Some(&wanted) {
                match network.set_machines(wanted.clone()).await {
                    Ok(()) => {
                        debug!(machines = wanted.v4.len(), of_ipv6 = wanted.v6.len(), "routes to other machines set");
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

fn plan<A: Address>(nodes: &[Arc<Node>], own: &str, ranges: &[Cidr<A>], here: Cidr<A>) -> Vec<MachineRoute<A>> {
    let mut oldest_first: Vec<&Arc<Node>> = nodes.iter().collect();
    oldest_first
        .sort_by_key(|node| (node.metadata.creation_timestamp.clone().map(|at| at.0), node.metadata.name.clone()));
    let mut taken = BTreeSet::from([here]);
    let mut routes = BTreeMap::new();
    for node in oldest_first.into_iter().filter(|node| node.metadata.name.as_deref() != Some(own)) {
        let spec = node.spec.as_ref();
        let all = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
        let range = all.chain(spec.and_then(|spec| spec.pod_cidr.as_ref())).find_map(|range| range.parse().ok());
        let Some(to) = range.filter(|range| ranges.contains(range) && taken.insert(*range)) else { continue };
        routes.extend(address(node).map(|via| (to, via)));
    }
    routes.into_iter().map(|(to, via)| MachineRoute { to, via }).collect()
}

/// The machine's address of this family in its network.
fn address<A: Address>(node: &Node) -> Option<A> {
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    let mut own = addresses.filter(|address| address.type_ == "InternalIP");
    let address: IpAddr = own.find_map(|own| own.address.parse().ok().filter(|ip| A::of(*ip).is_some()))?;
    let unusable = match address {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(), // of which cable it does not say
    };
    let unusable = unusable || address.is_loopback() || address.is_unspecified() || address.is_multicast();
    A::of(address).filter(|_| !unusable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    /// A Node with ranges and addresses of one family or both.
    fn node(name: &str, second: u8, ranges: &str, addresses: &str) -> Arc<Node> {
        let internal = addresses.split(' ').map(|address| json!({ "type": "InternalIP", "address": address }));
        let addresses: Vec<_> = internal.chain([json!({ "type": "Hostname", "address": name })]).collect();
        let metadata = json!({ "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") });
        let ranges: Vec<_> = ranges.split(' ').collect();
        let spec = json!({ "podCIDR": ranges[0], "podCIDRs": ranges });
        let node = json!({ "metadata": metadata, "spec": spec, "status": { "addresses": addresses } });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn told<A: Address>(routes: &[MachineRoute<A>]) -> Vec<String> {
        routes.iter().map(|route| format!("{} {}", route.to, route.via)).collect()
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
        assert_eq!(told(&routes), ["10.1.0.0/21 192.0.2.2", "10.1.10.0/24 192.0.2.6"]);
    }

    #[test]
    fn each_family_goes_its_own_way() {
        let nodes = [
            node("both", 1, "10.1.0.0/24 fd00:1::/80", "192.0.2.1 2001:db8::1"),
            node("old", 2, "10.1.1.0/24", "192.0.2.2"),
            node("cable", 3, "10.1.2.0/24 fd00:1:0:0:2::/80", "192.0.2.3 fe80::1"),
            node("thief", 4, "10.1.3.0/24 fd00:1::/80", "192.0.2.4 2001:db8::4"),
        ];
        let v4 = ["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"].map(|range| range.parse().unwrap());
        let v6: [Cidr<Ipv6Addr>; 2] = ["fd00:1::/80", "fd00:1:0:0:2::/80"].map(|range| range.parse().unwrap());
        assert_eq!(plan::<std::net::Ipv4Addr>(&nodes, "own", &v4, "10.1.9.0/24".parse().unwrap()).len(), 4);
        let routes = plan(&nodes, "own", &v6, "fd00:1:0:0:9::/80".parse().unwrap());
        assert_eq!(told(&routes), ["fd00:1::/80 2001:db8::1"]);
    }
}
