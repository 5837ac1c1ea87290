//! Inter-pod affinity and anti-affinity: which pods a pod wants near, and which it does not.
//!
//! *Near* is a topology: two nodes with the same value of a label.
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use kube::core::{Selector, SelectorExt};

use super::{Failure, selector_with};
use crate::profile::Profile;
use crate::tally::Tally;
use crate::view::{Change, View};

/// Pods that a term, as it is written in a pod, selects.
struct Term {
    key: String,
    selector: Option<Selector>,
    own: String,
    named: Vec<String>,
    namespaces: Option<Selector>,
}

impl Term {
    fn new(of: &Pod, term: &PodAffinityTerm) -> Term {
        let keys = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
        let selector = term.label_selector.as_ref().and_then(|selector| selector_with(of, selector, keys));
        Term {
            key: term.topology_key.clone(),
            selector,
            own: of.metadata.namespace.clone().unwrap_or_default(),
            named: term.namespaces.clone().unwrap_or_default(),
            namespaces: term.namespace_selector.clone().and_then(|selector| Selector::try_from(selector).ok()),
        }
    }

    fn selects(&self, view: &View, other: &Pod) -> bool {
        let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
        let named = match (&self.namespaces, self.named.is_empty()) {
            (None, true) => namespace == self.own,
            _ => self.named.iter().any(|name| name == namespace),
        };
        let of_namespace = |selector: &Selector| match view.namespace_labels(namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&Default::default()),
        };
        (named || self.namespaces.as_ref().is_some_and(of_namespace)) && matches(self.selector.as_ref(), other)
    }
}

fn matches(selector: Option<&Selector>, pod: &Pod) -> bool {
    selector.is_some_and(|selector| match &pod.metadata.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Default::default()),
    })
}

/// What the affinities of one pod, and those of the pods that run to it, come to in each topology.
pub(crate) struct Affinities {
    pod: Pod,
    /// Required terms, with the pods that *all* of them select.
    near: Vec<(Term, Tally)>,
    /// Terms of anti-affinity, each with those that it selects.
    apart: Vec<(Term, Tally)>,
    /// Preferences, with their weight; below zero away.
    preferred: Vec<(i64, Term)>,
    /// Terms by which pods that run keep this one away.
    theirs: Vec<Tally>,
    /// How much the pod is drawn to each topology.
    pub drawn: Vec<Tally>,
    /// The pod's own terms select the pod itself: it may be the first of its group.
    selects_itself: bool,
    /// The filter is asked.
    asked: bool,
    /// What a pod that requires this one near is happier by with it there (`hardPodAffinityWeight`).
    required_weight: i64,
}

impl Affinities {
    pub fn new(view: &View, pod: &Pod, profile: &Profile) -> Affinities {
        let asked = profile.asks("InterPodAffinity");
        let gather = |terms: &[PodAffinityTerm]| {
            terms
                .iter()
                .filter(|_| asked)
                .map(|term| (Term::new(pod, term), Tally::new(view, &term.topology_key)))
                .collect()
        };
        let near: Vec<(Term, Tally)> = gather(required_near(pod));
        let selects_itself = near.iter().all(|(term, _)| term.selects(view, pod));
        let mut affinities = Affinities {
            pod: Pod { metadata: pod.metadata.clone(), ..Pod::default() },
            near,
            apart: gather(required_apart(pod)),
            preferred: preferred(pod).map(|(weight, term)| (weight, Term::new(pod, term))).collect(),
            theirs: Vec::new(),
            drawn: Vec::new(),
            selects_itself,
            asked,
            required_weight: profile.hard_pod_affinity_weight,
        };
        for (node, info) in view.nodes().enumerate() {
            info.pods.iter().for_each(|other| affinities.count_one(view, node, other, 1));
        }
        affinities
    }

    pub fn count(&mut self, view: &View, change: &Change) {
        self.count_one(view, change.node, &change.pod, change.by);
    }

    fn count_one(&mut self, view: &View, node: usize, other: &Pod, by: i64) {
        if !self.near.is_empty() && self.near.iter().all(|(term, _)| term.selects(view, other)) {
            self.near.iter_mut().for_each(|(_, tally)| tally.add(node, by));
        }
        for (term, tally) in &mut self.apart {
            if term.selects(view, other) {
                tally.add(node, by);
            }
        }
        for (weight, term) in &self.preferred {
            if term.selects(view, other) {
                of(&mut self.drawn, view, &term.key).add(node, by * weight);
            }
        }
        if other.spec.as_ref().is_none_or(|spec| spec.affinity.is_none()) {
            return;
        }
        for term in required_apart(other).iter().filter(|_| self.asked) {
            if Term::new(other, term).selects(view, &self.pod) {
                of(&mut self.theirs, view, &term.topology_key).add(node, by);
            }
        }
        let required = required_near(other).iter().map(|term| (self.required_weight, term));
        for (weight, term) in preferred(other).chain(required) {
            if Term::new(other, term).selects(view, &self.pod) {
                of(&mut self.drawn, view, &term.topology_key).add(node, by * weight);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.near.is_empty() && self.apart.is_empty() && self.theirs.is_empty()
    }

    /// Whether the terms select nobody anywhere but the pod itself.
    pub fn is_first(&self) -> bool {
        self.selects_itself && self.near.iter().all(|(_, tally)| tally.sum == 0)
    }

    fn is_near(&self, node: usize, first: bool) -> bool {
        self.near.iter().all(|(_, tally)| tally.at(node).is_some_and(|count| first || count > 0))
    }

    pub fn passes(&self, node: usize, first: bool) -> bool {
        self.is_near(node, first)
            && !self.apart.iter().any(|(_, tally)| some(tally, node))
            && !self.theirs.iter().any(|tally| some(tally, node))
    }

    pub fn failure(&self, node: usize, first: bool) -> Option<Failure> {
        if !self.is_near(node, first) {
            return Some(Failure::lasting("node(s) didn't match pod affinity rules"));
        }
        if self.apart.iter().any(|(_, tally)| some(tally, node)) {
            return Some(Failure::new("node(s) didn't match pod anti-affinity rules"));
        }
        let refused = self.theirs.iter().any(|tally| some(tally, node));
        refused.then(|| Failure::new("node(s) didn't satisfy existing pods anti-affinity rules"))
    }
}

fn some(tally: &Tally, node: usize) -> bool {
    tally.at(node).is_some_and(|count| count > 0)
}

/// The tally of a label; a new one if there is none yet.
fn of<'a>(tallies: &'a mut Vec<Tally>, view: &View, key: &str) -> &'a mut Tally {
    let at = tallies.iter().position(|tally| tally.key == key).unwrap_or_else(|| {
        tallies.push(Tally::new(view, key));
        tallies.len() - 1
    });
    &mut tallies[at]
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
