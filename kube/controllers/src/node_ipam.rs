//! Ranges of addresses for pods (`spec.podCIDR`, with that of IPv6 beside it `spec.podCIDRs`): each node has one, nobody else has the same, and
//! it never changes.
//!
//! ```text
//! Node without a range ─┬─ reserved for its name ─▶ that one
//!                       ├─ one of the pool is free ─▶ the first
//!                       └─ none is left ─▶ event CIDRNotAvailable; looked at again when a Node goes
//! ```
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::Cache;

use crate::objects::{name, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Next, Rounds};

/// What one node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRange {
    /// Of IPv4, as `10.1.0.0/24`: by it ranges are told from each other.
    pub v4: String,
    /// Of IPv6, if the cluster has it.
    pub v6: Option<String>,
}

/// Which ranges nodes get.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// For nodes by their names.
    pub reserved: BTreeMap<String, PodRange>,
    /// For all others, one each, in this order.
    pub pool: Vec<PodRange>,
    /// Nodes with this label have no machine whose pods need addresses here.
    pub not_for: Option<String>,
}

/// Gives ranges until dropped.
pub(crate) async fn run(client: Client, nodes: Cache<Node>, ranges: Ranges) {
    let recorder = Recorder { client: client.clone(), component: "cidrAllocator" };
    let api: Api<Node> = Api::all(client);
    let mut rounds = Rounds::begin(vec![nodes.changes()]).await;
    let mut told = BTreeSet::new();
    loop {
        let mut next = Next::default();
        let all = nodes.list();
        told.retain(|told: &String| all.iter().any(|node| uid(&node.metadata) == told));
        for (node, range) in plan(&all, &ranges) {
            let metadata = &node.metadata;
            let Some(range) = range else {
                if told.insert(uid(metadata).to_owned()) {
                    let message = format!("Node {} status is now: CIDRNotAvailable", name(metadata));
                    recorder.event(("v1", "Node", metadata), Kind::Normal, "CIDRNotAvailable", &message).await;
                }
                continue;
            };
            // Of exactly the Node that was read: two rounds never give two.
            let all: Vec<&String> = [Some(&range.v4), range.v6.as_ref()].into_iter().flatten().collect();
            let spec = json!({ "podCIDR": range.v4, "podCIDRs": all });
            let patch = json!({ "metadata": { "resourceVersion": metadata.resource_version }, "spec": spec });
            let written = api.patch(name(metadata), &PatchParams::default(), &Patch::Merge(&patch)).await;
            next.judge("Node", metadata, written.map(drop));
        }
        rounds.wait(next).await;
    }
}

/// The nodes that need a range, and which each gets: `None` when there is none.
fn plan<'a>(nodes: &'a [Arc<Node>], ranges: &'a Ranges) -> Vec<(&'a Arc<Node>, Option<&'a PodRange>)> {
    let range_of = |node: &'a Arc<Node>| node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
    let mut taken: BTreeSet<&str> = nodes.iter().filter_map(range_of).collect();
    let excluded = |node: &Node| {
        let labels = node.metadata.labels.as_ref();
        ranges.not_for.as_ref().is_some_and(|label| labels.is_some_and(|labels| labels.contains_key(label)))
    };
    let mut waiting: Vec<&Arc<Node>> =
        nodes.iter().filter(|node| range_of(node).is_none() && !excluded(node)).collect();
    waiting.sort_by_key(|node| (node.metadata.creation_timestamp.clone().map(|at| at.0), name(&node.metadata)));
    let give = |node: &'a Arc<Node>| {
        let range = match ranges.reserved.get(name(&node.metadata)) {
            Some(reserved) => Some(reserved),
            None => ranges.pool.iter().find(|range| !taken.contains(range.v4.as_str())),
        };
        taken.extend(range.map(|range| range.v4.as_str()));
        (node, range)
    };
    waiting.into_iter().map(give).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    fn node(name: &str, second: u8, range: Option<&str>, label: Option<&str>) -> Arc<Node> {
        let labels: BTreeMap<&str, &str> = label.map(|label| (label, "true")).into_iter().collect();
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let metadata = json!({ "name": name, "labels": labels, "creationTimestamp": created });
        Arc::new(serde_json::from_value(json!({ "metadata": metadata, "spec": { "podCIDR": range } })).unwrap())
    }

    #[test]
    fn each_node_gets_a_range_that_nobody_has_the_oldest_first() {
        let of = |text: &str| PodRange { v4: text.to_owned(), v6: None };
        let ranges = Ranges {
            reserved: [("own".to_owned(), of("10.1.0.0/21"))].into(),
            pool: ["10.1.8.0/24", "10.1.9.0/24", "10.1.10.0/24"].map(of).to_vec(),
            not_for: Some("virtual".to_owned()),
        };
        let nodes = [
            node("b", 9, None, None),
            node("a", 8, None, None),
            node("has", 1, Some("10.1.8.0/24"), None),
            node("last", 20, None, None),
            node("own", 30, None, None),
            node("elsewhere", 2, None, Some("virtual")),
        ];
        let given: Vec<_> =
            plan(&nodes, &ranges).into_iter().map(|(node, range)| (name(&node.metadata), range)).collect();
        let range = |text: &str| ranges.pool.iter().chain(ranges.reserved.values()).find(|range| range.v4 == text);
        let expected =
            [("a", range("10.1.9.0/24")), ("b", range("10.1.10.0/24")), ("last", None), ("own", range("10.1.0.0/21"))];
        assert_eq!(given, expected);
    }
}
