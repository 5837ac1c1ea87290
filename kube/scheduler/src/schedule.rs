//! The choice of a node for one pod. No effects.
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::Pod;

use crate::filters::{self, Prepared};
use crate::scores;
use crate::view::View;

/// The chosen node, and how well each feasible one would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node's name.
    pub node: String,
    /// The weighted score of every feasible node.
    pub scores: BTreeMap<String, i64>,
}

/// No node fits. Printed in the words of kube-scheduler: `0/3 nodes are available: 1 Insufficient cpu, …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FitError {
    /// Why each node does not fit.
    pub reasons: BTreeMap<String, Vec<String>>,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return write!(f, "no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.reasons.values().flatten() {
            *counts.entry(reason).or_default() += 1;
        }
        // Sorted as text, count first, as kube-scheduler does.
        let mut texts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, "0/{} nodes are available: {}.", self.reasons.len(), texts.join(", "))
    }
}

/// The node for a pod. Among equally good nodes the pod's identity decides, so the same view gives the same answer and
/// many equal pods do not all begin with one node.
///
/// # Errors
/// No node fits: the reasons for each.
pub fn schedule(view: &View, pod: &Pod) -> Result<Choice, FitError> {
    let prepared = Prepared::new(view, pod);
    let mut feasible = Vec::new();
    let mut reasons = BTreeMap::new();
    for node in view.nodes() {
        match filters::first_failure(&prepared, pod, node) {
            None => feasible.push(node),
            Some(failure) => {
                reasons.insert(node.name().to_owned(), failure);
            }
        }
    }
    let scores = scores::total(view, pod, &feasible);
    let identity = (&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid);
    let draw = |name: &str| {
        let mut hasher = DefaultHasher::new();
        (identity, name).hash(&mut hasher);
        hasher.finish()
    };
    match scores.iter().max_by_key(|(name, score)| (**score, draw(name))) {
        Some((node, _)) => Ok(Choice { node: node.clone(), scores: scores.clone() }),
        None => Err(FitError { reasons }),
    }
}

#[cfg(test)]
mod tests;
