//! Scores: how well a pod would do on a node that it fits. Each is 0 to 100; the sum is weighted as the profile says.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use substrate_client::lookup::{node_selector_term_matches, taints, tolerates, tolerations};
use substrate_client::quantity::Quantity;
use substrate_client::requests::Resources;

use crate::filters::Spread;
use crate::prepared::Prepared;
use crate::profile::{FitStrategy, Profile};
use crate::tally::Tally;
use crate::view::{NodeInfo, View, counted};

const MAX: i64 = 100;

/// The scores that look at one node, and what they need of all.
pub(crate) struct Scorer {
    fit: (i64, FitStrategy, BTreeMap<String, i64>),
    balanced: i64,
    images: (i64, Images),
}

impl Scorer {
    pub fn new(view: &View, pod: &Pod, profile: &Profile) -> Scorer {
        Scorer {
            fit: (profile.weight("NodeResourcesFit"), profile.fit.clone(), profile.fit_resources.clone()),
            balanced: profile.weight("NodeResourcesBalancedAllocation"),
            images: (profile.weight("ImageLocality"), Images::new(view, pod)),
        }
    }

    /// The sum of those that stand for themselves; unwanted taints; preferred node affinities.
    pub fn row(&self, pod: &Pod, requests: &Resources, node: &NodeInfo) -> (i64, i64, i64) {
        let own = self.fit.0 * fit(&self.fit.1, &self.fit.2, requests, node)
            + self.balanced * balanced(requests, node)
            + self.images.0 * self.images.1.score(node);
        (own, unwanted_taints(pod, node), preferred_affinity(pod, node))
    }
}

/// The weighted sum of all scores for each of these nodes.
pub(crate) fn total(prepared: &Prepared, nodes: &[usize]) -> Vec<i64> {
    let weight = |plugin| prepared.profile().weight(plugin);
    let mut total: Vec<i64> = nodes.iter().map(|at| prepared.rows.own[*at]).collect();
    let mut add = |weight: i64, column: Vec<i64>| {
        total.iter_mut().zip(column).for_each(|(sum, score)| *sum += weight * score);
    };
    let of = |all: &[i64]| -> Vec<i64> { nodes.iter().map(|at| all[*at]).collect() };
    // Nothing to tell nodes apart by: all would get the same.
    let differ = |all: &[i64]| nodes.iter().any(|at| all[*at] != 0);
    if differ(&prepared.rows.taints) {
        let better = more_is_better(of(&prepared.rows.taints));
        add(weight("TaintToleration"), better.into_iter().map(|score| MAX - score).collect());
    }
    if differ(&prepared.rows.preferred) {
        add(weight("NodeAffinity"), more_is_better(of(&prepared.rows.preferred)));
    }
    if !prepared.soft.all.is_empty() {
        add(weight("PodTopologySpread"), spread(prepared, nodes));
    }
    if !prepared.affinities.drawn.is_empty() {
        add(weight("InterPodAffinity"), inter_pod(&prepared.affinities.drawn, nodes));
    }
    total
}

fn more_is_better(raw: Vec<i64>) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter().map(|value| if most == 0 { 0 } else { value * MAX / most }).collect()
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

/// CPU in thousandths, anything else whole: so kube-scheduler reckons.
fn units(name: &str, amount: Quantity) -> i64 {
    if name == "cpu" { amount.milli_value() } else { amount.value() }
}

fn fit(strategy: &FitStrategy, resources: &BTreeMap<String, i64>, requests: &Resources, node: &NodeInfo) -> i64 {
    let wanted = counted(requests.clone());
    let (mut sum, mut weights) = (0, 0);
    for (name, weight) in resources {
        let all = units(name, node.allocatable.get(name));
        // Who does not ask for something scarce is not judged by it.
        let scarce = !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if all <= 0 || (scarce && requests.get(name).is_zero()) {
            continue;
        }
        let used = units(name, node.counted.get(name) + wanted.get(name)).min(all);
        let score = match strategy {
            FitStrategy::LeastAllocated => (all - used).saturating_mul(MAX) / all,
            FitStrategy::MostAllocated => used.saturating_mul(MAX) / all,
            FitStrategy::RequestedToCapacityRatio(points) => on_line(points, used.saturating_mul(100) / all),
        };
        if score == 0 && matches!(strategy, FitStrategy::RequestedToCapacityRatio(_)) {
            continue;
        }
        sum += score * weight;
        weights += weight;
    }
    match strategy {
        _ if weights == 0 => 0,
        FitStrategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
        _ => sum / weights,
    }
}

/// The height of the line through points at `at`; scores of points go to 10.
fn on_line(points: &[(i64, i64)], at: i64) -> i64 {
    let scaled = |score: i64| score * MAX / 10;
    let Some(next) = points.iter().position(|(utilization, _)| at <= *utilization) else {
        return points.last().map_or(0, |(_, score)| scaled(*score));
    };
    let (x1, y1) = points[next];
    let Some((x0, y0)) = next.checked_sub(1).map(|before| points[before]) else { return scaled(y1) };
    scaled(y0) + (scaled(y1) - scaled(y0)) * (at - x0) / (x1 - x0).max(1)
}

/// CPU and memory used alike leave no remainder of one that nobody can use. Who asks for neither does not disturb it.
fn balanced(requests: &Resources, node: &NodeInfo) -> i64 {
    const NAMES: [&str; 2] = ["cpu", "memory"];
    if NAMES.iter().all(|name| requests.get(name).is_zero()) {
        return 0;
    }
    let used = |name: &&str| {
        let all = units(name, node.allocatable.get(name));
        let used = units(name, node.requested.get(name) + requests.get(name));
        (all > 0).then(|| (used as f64 / all as f64).min(1.0))
    };
    match NAMES.iter().filter_map(used).collect::<Vec<f64>>()[..] {
        [cpu, memory] => ((1.0 - ((cpu - memory) / 2.0).abs()) * MAX as f64) as i64,
        _ => MAX,
    }
}

/// Bytes of the pod's images that a node has, those that few nodes have counting less, so that one node with an image
/// does not get everything (`imagelocality`: 23 MB to 1000 MB per container).
struct Images {
    /// With the part of the nodes that have each.
    wanted: Vec<(String, f64)>,
    containers: i64,
}

impl Images {
    fn new(view: &View, pod: &Pod) -> Images {
        let spec = pod.spec.iter();
        let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let names: Vec<String> = all.filter_map(|container| container.image.as_deref()).map(full_name).collect();
        let containers = i64::try_from(names.len()).unwrap_or(1).max(1);
        let part = |name: String| {
            let holders = view.nodes().filter(|node| size_of(node, &name).is_some()).count();
            (holders > 0).then(|| (name, holders as f64 / view.len().max(1) as f64))
        };
        Images { wanted: names.into_iter().filter_map(part).collect(), containers }
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        const LEAST: i64 = 23 << 20;
        const MOST: i64 = 1000 << 20;
        let of = |(name, part): &(String, f64)| size_of(node, name).map_or(0, |size| (size as f64 * part) as i64);
        let (sum, most) = (self.wanted.iter().map(of).sum::<i64>(), MOST * self.containers);
        (sum.clamp(LEAST, most) - LEAST) * MAX / (most - LEAST)
    }
}

fn size_of(node: &NodeInfo, image: &str) -> Option<i64> {
    let images = node.node.status.iter().flat_map(|status| status.images.iter().flatten());
    let mut found = images.filter(|found| found.names.iter().flatten().any(|name| name == image));
    found.next().map(|found| found.size_bytes.unwrap_or(0).max(0))
}

/// Nodes list names with a tag.
fn full_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn inter_pod(drawn: &[Tally], nodes: &[usize]) -> Vec<i64> {
    let raw: Vec<i64> = nodes.iter().map(|at| drawn.iter().filter_map(|tally| tally.at(*at)).sum::<i64>()).collect();
    let (least, most) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    raw.into_iter().map(|value| if most == least { 0 } else { (value - least) * MAX / (most - least) }).collect()
}

/// Fewer pods of the group in the node's topologies is better.
fn spread(prepared: &Prepared, nodes: &[usize]) -> Vec<i64> {
    let spreads = &prepared.soft;
    let whole = |at: usize| !spreads.complete || spreads.all.iter().all(|spread| spread.tally.value(at).is_some());
    let is_whole: Vec<bool> = nodes.iter().map(|at| whole(*at)).collect();
    // A topology with many values has few pods in each: the logarithm makes the constraints comparable.
    let weight = |spread: &Spread| {
        let mut seen = vec![false; spread.tally.counts.len()];
        let whole = nodes.iter().zip(&is_whole).filter(|(_, whole)| **whole);
        whole.filter_map(|(at, _)| spread.tally.value(*at)).for_each(|value| seen[value] = true);
        (seen.iter().filter(|seen| **seen).count() as f64 + 2.0).ln()
    };
    let weights: Vec<f64> = spreads.all.iter().map(weight).collect();
    let of = |at: usize| {
        let each = spreads.all.iter().zip(&weights).map(|(spread, weight)| {
            spread.tally.at(at).map_or(0.0, |count| count as f64 * weight + (spread.max_skew - 1) as f64)
        });
        each.sum::<f64>().round() as i64
    };
    let raw: Vec<Option<i64>> = nodes.iter().zip(&is_whole).map(|(at, whole)| whole.then(|| of(*at))).collect();
    let known = || raw.iter().flatten().copied();
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let scaled = |value: i64| if most == 0 { MAX } else { MAX * (most + least - value) / most };
    raw.iter().map(|value| value.map_or(0, scaled)).collect()
}
