//! Which pods are missed least when some have to go. No effects.
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::objects::{available_at, is_ready};

/// The pods that are missed least (KEP-2255, and `ActivePodsWithRanks`): without a node, pending, not ready, of low
/// deletion cost, on a crowded node, ready for a short time, restarted often, young.
pub(crate) fn expendable(active: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let nodes: Vec<String> = active.iter().map(|pod| node(pod)).collect();
    nodes.iter().for_each(|node| *on_node.entry(node).or_default() += 1);
    let mut ranked: Vec<(Arc<Pod>, usize)> = active
        .iter()
        .zip(&nodes)
        .map(|(pod, node)| (pod.clone(), on_node.get(node.as_str()).copied().unwrap_or(0)))
        .collect();
    ranked.sort_by_cached_key(|(pod, crowd)| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let phase = ["Pending", "Unknown"].iter().position(|known| *known == phase).unwrap_or(2);
        let cost = pod.metadata.annotations.as_ref().and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
        let cost: i32 = cost.and_then(|text| text.parse().ok()).unwrap_or(0);
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarts = statuses.map(|status| status.restart_count).max().unwrap_or(0);
        let ready_since = available_at(pod, 0).unwrap_or(now);
        let created = pod.metadata.creation_timestamp.clone();
        let first = (!node(pod).is_empty(), phase, is_ready(pod), cost, Reverse(*crowd));
        (first, Reverse(ready_since), Reverse(restarts), Reverse(created), pod.metadata.name.clone())
    });
    ranked.into_iter().take(count).map(|(pod, _)| pod).collect()
}
