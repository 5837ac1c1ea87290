//! Inter-pod affinity and anti-affinity: which pods a pod wants near, and which it does not.
//!
//! *Near* is a topology: two nodes with the same value of a label. A topology is known here as (label, value).
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::view::{NodeInfo, View};
use substrate_client::lookup::label_selector_matches;

type Topology = (String, String);

pub(crate) struct Affinities {
    /// For each required term of the pod: the topologies where a pod that it selects runs.
    near: Vec<(PodAffinityTerm, BTreeSet<String>)>,
    /// For each anti-affinity term of the pod: the same.
    apart: Vec<(PodAffinityTerm, BTreeSet<String>)>,
    /// Topologies from which pods that run there keep this pod away.
    unwelcome: BTreeSet<Topology>,
    /// The pod's own affinity terms select the pod itself, and nobody else anywhere: the first of its group.
    first_of_its_group: bool,
}

impl Affinities {
    pub fn new(view: &View, pod: &Pod) -> Affinities {
        let topologies = |term: &PodAffinityTerm| -> BTreeSet<String> {
            let with_value = view.nodes().filter_map(|node| Some((node, node.label(&term.topology_key)?)));
            let holding =
                with_value.filter(|(node, _)| node.pods.iter().any(|other| selects_pod(view, pod, term, other)));
            holding.map(|(_, value)| value.to_owned()).collect()
        };
        let gather = |terms: &[PodAffinityTerm]| terms.iter().map(|term| (term.clone(), topologies(term))).collect();
        let near: Vec<(PodAffinityTerm, BTreeSet<String>)> = gather(required_near(pod));
        let mut unwelcome = BTreeSet::new();
        for node in view.nodes() {
            for other in &node.pods {
                for term in required_apart(other).iter().filter(|term| selects_pod(view, other, term, pod)) {
                    if let Some(value) = node.label(&term.topology_key) {
                        unwelcome.insert((term.topology_key.clone(), value.to_owned()));
                    }
                }
            }
        }
        let alone = near.iter().all(|(_, topologies)| topologies.is_empty());
        let first_of_its_group = alone && near.iter().all(|(term, _)| selects_pod(view, pod, term, pod));
        Affinities { near, apart: gather(required_apart(pod)), unwelcome, first_of_its_group }
    }

    pub fn failure(&self, node: &NodeInfo) -> Option<String> {
        let holds = |(term, topologies): &(PodAffinityTerm, BTreeSet<String>)| {
            node.label(&term.topology_key).is_some_and(|value| topologies.contains(value))
        };
        let has_topologies = self.near.iter().all(|(term, _)| node.label(&term.topology_key).is_some());
        let near = self.near.iter().all(holds) || (self.first_of_its_group && has_topologies);
        if !near {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
        if self.apart.iter().any(holds) {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
        let refused = self.unwelcome.iter().any(|(key, value)| node.label(key) == Some(value));
        refused.then(|| "node(s) didn't satisfy existing pods anti-affinity rules".to_owned())
    }
}

/// Whether `term`, as written in pod `of`, selects `other`.
fn selects_pod(view: &View, of: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    let own = of.metadata.namespace.as_deref().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match (&term.namespace_selector, named.is_empty()) {
        (None, true) => namespace == own,
        (selector, _) => {
            let selected = selector.as_ref().is_some_and(|selector| {
                label_selector_matches(
                    Some(selector),
                    Some(view.namespace_labels(namespace).unwrap_or(&BTreeMap::new())),
                )
            });
            selected || named.iter().any(|name| name == namespace)
        }
    };
    in_namespace
        && label_selector_matches(Some(&selector(of, term)), other.metadata.labels.as_ref())
        && term.label_selector.is_some()
}

/// The term's selector with the values of `matchLabelKeys` and `mismatchLabelKeys` of the pod it is written in.
fn selector(of: &Pod, term: &PodAffinityTerm) -> LabelSelector {
    let mut selector = term.label_selector.clone().unwrap_or_default();
    let label = |key: &String| of.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    let requirements = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
    for (keys, operator) in requirements {
        for key in keys.iter().flatten() {
            if let Some(value) = label(key) {
                selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value]),
                });
            }
        }
    }
    selector
}

fn required_near(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn required_apart(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn preferred(pod: &Pod) -> impl Iterator<Item = (i64, &PodAffinityTerm)> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near =
        affinity.and_then(|a| a.pod_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity
        .and_then(|a| a.pod_anti_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref());
    let signed = |sign: i64| move |term: &WeightedPodAffinityTerm| sign * i64::from(term.weight);
    let near = near.into_iter().flatten().map(move |term| (signed(1)(term), &term.pod_affinity_term));
    near.chain(apart.into_iter().flatten().map(move |term| (signed(-1)(term), &term.pod_affinity_term)))
}

/// How much the pod is drawn to each topology: by its own preferences, and by those of pods that run.
pub(crate) fn attraction(view: &View, pod: &Pod) -> BTreeMap<Topology, i64> {
    let mut attraction: BTreeMap<Topology, i64> = BTreeMap::new();
    let mine: Vec<(i64, &PodAffinityTerm)> = preferred(pod).collect();
    for node in view.nodes() {
        for other in &node.pods {
            // A pod that requires this one near is happier with it there (hardPodAffinityWeight is 1).
            let theirs = preferred(other).chain(required_near(other).iter().map(|term| (1, term)));
            let theirs = theirs.filter(|(_, term)| selects_pod(view, other, term, pod));
            let ours = mine.iter().copied().filter(|(_, term)| selects_pod(view, pod, term, other));
            for (weight, term) in ours.chain(theirs) {
                if let Some(value) = node.label(&term.topology_key) {
                    *attraction.entry((term.topology_key.clone(), value.to_owned())).or_default() += weight;
                }
            }
        }
    }
    attraction
}
