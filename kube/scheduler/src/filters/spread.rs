//! Topology spread: as many pods of a group here as there.
//!
//! The *skew* of a topology is how many pods of the group it would have more than the topology with the fewest.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::view::{NodeInfo, View};
use substrate_client::lookup::{label_selector_matches, node_matches_affinity, taints, tolerates, tolerations};

/// One constraint, with how many pods of the group run in each value of its label.
pub(crate) struct Spread {
    pub constraint: TopologySpreadConstraint,
    pub counts: BTreeMap<String, i64>,
    /// The pod is one of the group.
    own: i64,
}

pub(crate) struct Spreads(pub Vec<Spread>);

/// Whether a node is one that a constraint counts (KEP-3094).
fn takes_part(constraint: &TopologySpreadConstraint, pod: &Pod, node: &NodeInfo) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taint = constraint.node_taints_policy.as_deref() == Some("Honor");
    let mut hard = taints(&node.node).iter().filter(|taint| taint.effect != "PreferNoSchedule");
    (!affinity || node_matches_affinity(pod, &node.node))
        && (!taint || hard.all(|taint| tolerates(tolerations(pod), taint)))
}

impl Spreads {
    /// The constraints of a pod with this `whenUnsatisfiable`.
    pub fn new(view: &View, pod: &Pod, when_unsatisfiable: &str) -> Spreads {
        let constraints = pod.spec.iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
        let constraints: Vec<&TopologySpreadConstraint> =
            constraints.filter(|constraint| constraint.when_unsatisfiable == when_unsatisfiable).collect();
        let keys: Vec<&str> = constraints.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        let spread = |constraint: &&TopologySpreadConstraint| {
            let selector = selector(pod, constraint);
            let mut counts = BTreeMap::new();
            for node in view.nodes() {
                // Only nodes with all the labels are part of the picture.
                let complete = keys.iter().all(|key| node.label(key).is_some());
                if !complete || !takes_part(constraint, pod, node) {
                    continue;
                }
                let Some(value) = node.label(&constraint.topology_key) else { continue };
                let group = node.pods.iter().filter(|other| in_group(&selector, pod, other)).count();
                *counts.entry(value.to_owned()).or_default() += i64::try_from(group).unwrap_or(i64::MAX);
            }
            let own = i64::from(label_selector_matches(selector.as_ref(), pod.metadata.labels.as_ref()));
            Spread { constraint: (*constraint).clone(), counts, own }
        };
        Spreads(constraints.iter().map(spread).collect())
    }

    pub fn failure(&self, node: &NodeInfo) -> Option<String> {
        for spread in &self.0 {
            let Some(value) = node.label(&spread.constraint.topology_key) else {
                return Some(
                    "node(s) didn't match pod topology spread constraints (missing required label)".to_owned(),
                );
            };
            let domains = i32::try_from(spread.counts.len()).unwrap_or(i32::MAX);
            // With fewer domains than asked for, an imagined empty one counts.
            let too_few = spread.constraint.min_domains.is_some_and(|wanted| domains < wanted);
            let fewest = if too_few { 0 } else { spread.counts.values().min().copied().unwrap_or(0) };
            let here = spread.counts.get(value).copied().unwrap_or(0);
            if here + spread.own - fewest > i64::from(spread.constraint.max_skew) {
                return Some("node(s) didn't match pod topology spread constraints".to_owned());
            }
        }
        None
    }
}

fn in_group(selector: &Option<LabelSelector>, pod: &Pod, other: &Pod) -> bool {
    other.metadata.namespace == pod.metadata.namespace
        && other.metadata.deletion_timestamp.is_none()
        && label_selector_matches(selector.as_ref(), other.metadata.labels.as_ref())
}

fn selector(pod: &Pod, constraint: &TopologySpreadConstraint) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone()?;
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Some(selector)
}
