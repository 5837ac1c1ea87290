//! Topology spread: as many pods of a group here as there.
//!
//! The *skew* of a topology is how many pods of the group it would have more than the topology with the fewest.
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::core::{Selector, SelectorExt};

use super::{Failure, selector_with};
use crate::profile::Profile;
use crate::tally::Tally;
use crate::view::{Change, NodeInfo, View};
use substrate_client::lookup::{node_matches_affinity, taints, tolerates, tolerations};

/// Whose number is made even.
enum Group {
    Selected(Option<Selector>),
    /// Those of the same controller: constraints that the pod did not write.
    Siblings(String),
}

/// One constraint, with how many pods of the group run in each value of its label.
pub(crate) struct Spread {
    pub max_skew: i64,
    min_domains: Option<i32>,
    pub tally: Tally,
    group: Group,
    /// Whether pods on each node are counted (KEP-3094).
    counts: Vec<bool>,
    /// Whether a node that is counted has the value.
    domains: Vec<bool>,
    /// The pod is one of the group.
    own: i64,
}

#[derive(Default)]
pub(crate) struct Spreads {
    namespace: Option<String>,
    pub all: Vec<Spread>,
    /// A node without one of the labels is no part of the picture.
    pub complete: bool,
}

fn controller(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

fn takes_part(constraint: &TopologySpreadConstraint, pod: &Pod, node: &NodeInfo) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taint = constraint.node_taints_policy.as_deref() == Some("Honor");
    let mut hard = taints(&node.node).iter().filter(|taint| taint.effect != "PreferNoSchedule");
    (!affinity || node_matches_affinity(pod, &node.node))
        && (!taint || hard.all(|taint| tolerates(tolerations(pod), taint)))
}

impl Spreads {
    /// The constraints of a pod with this `whenUnsatisfiable`; those of the profile if the pod has none.
    pub fn new(view: &View, pod: &Pod, profile: &Profile, when_unsatisfiable: &str) -> Spreads {
        let own = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
        let siblings = if own.is_empty() { controller(pod) } else { None };
        let all = if siblings.is_some() { &profile.default_constraints } else { own };
        let constraints: Vec<_> = all.iter().filter(|one| one.when_unsatisfiable == when_unsatisfiable).collect();
        let complete = siblings.is_none() || !profile.defaults_are_upstream;
        let keys: Vec<&str> = constraints.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        let spread = |constraint: &&TopologySpreadConstraint| {
            let group = siblings.map_or_else(
                || Group::Selected(selector(pod, constraint)),
                |controller| Group::Siblings(controller.to_owned()),
            );
            let tally = Tally::new(view, &constraint.topology_key);
            let is_whole = |node: &NodeInfo| !complete || keys.iter().all(|key| node.label(key).is_some());
            let counts: Vec<bool> =
                view.nodes().map(|node| is_whole(node) && takes_part(constraint, pod, node)).collect();
            let mut domains = vec![false; tally.counts.len()];
            for (node, _) in counts.iter().enumerate().filter(|(_, counts)| **counts) {
                if let Some(value) = tally.value(node) {
                    domains[value] = true;
                }
            }
            let own = i64::from(group.has(pod));
            let max_skew = i64::from(constraint.max_skew);
            Spread { max_skew, min_domains: constraint.min_domains, tally, group, counts, domains, own }
        };
        let all = constraints.iter().map(spread).collect();
        let mut spreads = Spreads { namespace: pod.metadata.namespace.clone(), all, complete };
        if !spreads.all.is_empty() {
            for (node, info) in view.nodes().enumerate() {
                info.pods.iter().for_each(|other| spreads.count_one(node, other, 1));
            }
        }
        spreads
    }

    pub fn count(&mut self, change: &Change) {
        self.count_one(change.node, &change.pod, change.by);
    }

    fn count_one(&mut self, node: usize, other: &Pod, by: i64) {
        if self.all.is_empty()
            || other.metadata.namespace != self.namespace
            || other.metadata.deletion_timestamp.is_some()
        {
            return;
        }
        for spread in self.all.iter_mut().filter(|spread| spread.counts[node] && spread.group.has(other)) {
            spread.tally.add(node, by);
        }
    }

    /// How many pods the topology with the fewest has, for each constraint.
    pub fn fewest(&self) -> Vec<i64> {
        let fewest = |spread: &Spread| {
            let known = || spread.tally.counts.iter().zip(&spread.domains).filter(|(_, domain)| **domain);
            // With fewer domains than asked for, an imagined empty one counts.
            let too_few =
                spread.min_domains.is_some_and(|wanted| known().count() < usize::try_from(wanted).unwrap_or(0));
            if too_few { 0 } else { known().map(|(count, _)| *count).min().unwrap_or(0) }
        };
        self.all.iter().map(fewest).collect()
    }

    pub fn passes(&self, node: usize, fewest: &[i64]) -> bool {
        let even = |(spread, fewest): (&Spread, &i64)| {
            spread.tally.at(node).is_some_and(|here| here + spread.own - fewest <= spread.max_skew)
        };
        self.all.iter().zip(fewest).all(even)
    }

    pub fn failure(&self, node: usize, fewest: &[i64]) -> Option<Failure> {
        for (spread, fewest) in self.all.iter().zip(fewest) {
            let Some(here) = spread.tally.at(node) else {
                let words = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some(Failure::lasting(words));
            };
            if here + spread.own - fewest > spread.max_skew {
                return Some(Failure::new("node(s) didn't match pod topology spread constraints"));
            }
        }
        None
    }
}

impl Group {
    fn has(&self, pod: &Pod) -> bool {
        match self {
            Group::Selected(None) => false,
            Group::Selected(Some(selector)) => match &pod.metadata.labels {
                Some(labels) => selector.matches(labels),
                None => selector.matches(&Default::default()),
            },
            Group::Siblings(uid) => controller(pod) == Some(uid),
        }
    }
}

fn selector(pod: &Pod, constraint: &TopologySpreadConstraint) -> Option<Selector> {
    selector_with(pod, constraint.label_selector.as_ref()?, [(&constraint.match_label_keys, "In")])
}
