//! Scores: how well a pod would do on a node that it fits. Each is 0 to 100; the sum is weighted as in kube-scheduler.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::filters::{Spread, Spreads, attraction};
use crate::view::{NodeInfo, View, counted};
use substrate_client::lookup::{node_selector_term_matches, taints, tolerates, tolerations};

const MAX: i64 = 100;

/// The weighted sum of all scores for each feasible node.
pub(crate) fn total(view: &View, pod: &Pod, nodes: &[&NodeInfo]) -> BTreeMap<String, i64> {
    let columns: [(i64, Vec<i64>); 7] = [
        (3, more_is_worse(nodes.iter().map(|node| unwanted_taints(pod, node)).collect())),
        (2, more_is_better(nodes.iter().map(|node| preferred_affinity(pod, node)).collect())),
        (2, spread(view, pod, nodes)),
        (2, inter_pod(view, pod, nodes)),
        (1, nodes.iter().map(|node| least_allocated(pod, node)).collect()),
        (1, nodes.iter().map(|node| balanced(pod, node)).collect()),
        (1, nodes.iter().map(|node| image_locality(view, pod, node)).collect()),
    ];
    let sum = |row: usize| columns.iter().map(|(weight, column)| weight * column.get(row).copied().unwrap_or(0)).sum();
    nodes.iter().enumerate().map(|(row, node)| (node.name().to_owned(), sum(row))).collect()
}

fn more_is_better(raw: Vec<i64>) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter().map(|value| if most == 0 { 0 } else { value * MAX / most }).collect()
}

fn more_is_worse(raw: Vec<i64>) -> Vec<i64> {
    more_is_better(raw).into_iter().map(|value| MAX - value).collect()
}

fn unwanted_taints(pod: &Pod, node: &NodeInfo) -> i64 {
    let soft = taints(&node.node).iter().filter(|taint| taint.effect == "PreferNoSchedule");
    i64::try_from(soft.filter(|taint| !tolerates(tolerations(pod), taint)).count()).unwrap_or(i64::MAX / MAX)
}

fn preferred_affinity(pod: &Pod, node: &NodeInfo) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = terms.into_iter().flatten().filter(|term| node_selector_term_matches(&term.preference, &node.node));
    matching.map(|term| i64::from(term.weight)).sum()
}

/// How much of CPU and memory would be in use, each between 0 and 1.
fn fractions(pod: &Pod, node: &NodeInfo) -> Vec<f64> {
    let wanted = counted(pod);
    let names = ["cpu", "memory"].into_iter().filter(|name| !node.allocatable.get(name).is_zero());
    let used = |name: &str| (node.counted.get(name) + wanted.get(name)).as_f64() / node.allocatable.get(name).as_f64();
    names.map(|name| used(name).clamp(0.0, 1.0)).collect()
}

fn least_allocated(pod: &Pod, node: &NodeInfo) -> i64 {
    let fractions = fractions(pod, node);
    let free: f64 = fractions.iter().map(|used| 1.0 - used).sum();
    if fractions.is_empty() { 0 } else { (free / fractions.len() as f64 * MAX as f64) as i64 }
}

/// CPU and memory used alike leave no remainder of one that nobody can use.
fn balanced(pod: &Pod, node: &NodeInfo) -> i64 {
    match fractions(pod, node)[..] {
        [cpu, memory] => ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64,
        _ => MAX,
    }
}

/// Bytes of the pod's images that the node has, those that few nodes have counting less, so that one node with an image
/// does not get everything (`imagelocality`: 23 MB to 1000 MB per container).
fn image_locality(view: &View, pod: &Pod, node: &NodeInfo) -> i64 {
    const LEAST: i64 = 23 << 20;
    const MOST: i64 = 1000 << 20;
    let has = |node: &NodeInfo, image: &str| {
        let images = node.node.status.iter().flat_map(|status| status.images.iter().flatten());
        let mut found = images.filter(|found| found.names.iter().flatten().any(|name| name == image));
        found.next().map(|found| found.size_bytes.unwrap_or(0).max(0))
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let images: Vec<String> = containers.filter_map(|container| container.image.as_deref()).map(full_name).collect();
    let mut sum = 0;
    for image in &images {
        if let Some(size) = has(node, image) {
            let holders = view.nodes().filter(|node| has(node, image).is_some()).count();
            sum += (size as f64 * holders as f64 / view.len().max(1) as f64) as i64;
        }
    }
    let most = MOST * i64::try_from(images.len()).unwrap_or(1).max(1);
    (sum.clamp(LEAST, most) - LEAST) * MAX / (most - LEAST)
}

/// Nodes list names with a tag.
fn full_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn inter_pod(view: &View, pod: &Pod, nodes: &[&NodeInfo]) -> Vec<i64> {
    let drawn = attraction(view, pod);
    let raw = |node: &&NodeInfo| -> i64 {
        drawn.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| weight).sum()
    };
    let raw: Vec<i64> = nodes.iter().map(raw).collect();
    let (least, most) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    raw.into_iter().map(|value| if most == least { 0 } else { (value - least) * MAX / (most - least) }).collect()
}

/// Fewer pods of the group in the node's topologies is better. A pod without constraints keeps away from pods of the same
/// owner, which is what the default constraints of kube-scheduler are for.
fn spread(view: &View, pod: &Pod, nodes: &[&NodeInfo]) -> Vec<i64> {
    let constrained = pod.spec.as_ref().is_some_and(|spec| spec.topology_spread_constraints.is_some());
    let spreads = Spreads::new(view, pod, "ScheduleAnyway");
    let raw = |node: &&NodeInfo| -> i64 {
        if !constrained {
            return siblings(pod, node);
        }
        let of = |spread: &Spread| {
            let count = node.label(&spread.constraint.topology_key).and_then(|value| spread.counts.get(value));
            // A topology with many values has few pods in each: the logarithm makes the constraints comparable.
            count.map_or(0.0, |count| *count as f64 * (spread.counts.len() as f64 + 2.0).ln() * 100.0) as i64
        };
        spreads.0.iter().map(of).sum()
    };
    let raw: Vec<i64> = nodes.iter().map(raw).collect();
    let (least, most) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    raw.into_iter().map(|value| if most == 0 { MAX } else { MAX * (most + least - value) / most }).collect()
}

fn siblings(pod: &Pod, node: &NodeInfo) -> i64 {
    let owner = |pod: &Pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
    };
    let Some(own) = owner(pod) else { return 0 };
    i64::try_from(node.pods.iter().filter(|other| owner(other).as_ref() == Some(&own)).count()).unwrap_or(i64::MAX)
}
