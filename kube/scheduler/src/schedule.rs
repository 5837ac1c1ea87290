//! The choice of a node for one pod. No effects.
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::filters::Failure;
use crate::prepared::{Prepared, shape};
use crate::profile::Profile;
use crate::scores;
use crate::view::View;

/// The chosen node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub node: String,
    /// Its weighted score.
    pub score: i64,
}

/// No node fits. Printed in the words of kube-scheduler: `0/3 nodes are available: 1 Insufficient cpu, …`.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// Why no node at all would do, where that is known before any is looked at.
    pub refused: Option<String>,
    /// Why each node does not fit.
    pub reasons: BTreeMap<String, Vec<String>>,
    /// Why taking others away does not help, if that was thought about.
    pub preemption: Option<String>,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return write!(f, "no nodes available to schedule pods");
        }
        let why = self.refused.clone().unwrap_or_else(|| histogram(self.reasons.values().flatten()));
        write!(f, "0/{} nodes are available: {why}.", self.nodes)?;
        self.preemption.as_ref().map_or(Ok(()), |words| write!(f, " preemption: {words}"))
    }
}

/// How often each reason was given; sorted as text, count first, as kube-scheduler does.
pub(crate) fn histogram<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut texts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

/// Equal pods that are kept prepared: a queue has pods of few sets at its head, and each takes some 50 bytes a node.
const KEPT_MAX: usize = 16;

/// What was prepared for pods that were tried, the last first.
#[derive(Default)]
pub(crate) struct Kept(Vec<Prepared>);

impl Kept {
    /// What is prepared for pods like this one, up to date.
    pub fn of(&mut self, view: &View, pod: &Pod, profile: &Arc<Profile>) -> &mut Prepared {
        let shape = shape(pod);
        let mut prepared = match self.0.iter().position(|known| known.is_of(&shape, profile)) {
            Some(at) => self.0.remove(at),
            None => Prepared::new(view, shape, profile.clone()),
        };
        prepared.catch_up(view);
        self.0.truncate(KEPT_MAX - 1);
        self.0.insert(0, prepared);
        &mut self.0[0]
    }
}

/// The node for a pod. Among equally good nodes the pod's identity decides, so the same view gives the same answer and
/// many equal pods do not all begin with one node.
///
/// # Errors
/// No node fits: the reasons for each.
pub fn schedule(view: &View, pod: &Pod) -> Result<Choice, FitError> {
    schedule_by(view, pod, &Arc::new(Profile::default()))
}

/// The same by a profile.
///
/// # Errors
/// No node fits: the reasons for each.
pub fn schedule_by(view: &View, pod: &Pod, profile: &Arc<Profile>) -> Result<Choice, FitError> {
    let prepared = Prepared::new(view, shape(pod), profile.clone());
    choose(view, pod, &prepared, &[], None).map_err(|failures| fit_error(view, &prepared, failures))
}

/// Places many pods, one after the other: a view, and what is kept prepared for equal pods.
pub struct Placement {
    view: View,
    kept: Kept,
    profile: Arc<Profile>,
}

impl Placement {
    /// Nothing is placed yet.
    pub fn new(view: View, profile: Profile) -> Placement {
        Placement { view, kept: Kept::default(), profile: Arc::new(profile) }
    }

    /// The view with what was placed.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Chooses a node as [`schedule_by`] would, and counts the pod there.
    ///
    /// # Errors
    /// No node fits: the reasons for each.
    pub fn place(&mut self, pod: Arc<Pod>) -> Result<Choice, FitError> {
        let prepared = self.kept.of(&self.view, &pod, &self.profile);
        let choice = choose(&self.view, &pod, prepared, &[], None)
            .map_err(|failures| fit_error(&self.view, prepared, failures))?;
        self.view.assume(pod, &choice.node);
        Ok(choice)
    }
}

/// The best node, from what is prepared. `with_nominated` says of each node why it would not do if pods that wait for room on some nodes
/// were there already; `wish` is a node where room is kept for this one.
///
/// # Errors
/// Why each node would not do.
pub(crate) fn choose(
    view: &View,
    pod: &Pod,
    prepared: &Prepared,
    with_nominated: &[Option<Failure>],
    wish: Option<&str>,
) -> Result<Choice, Vec<Failure>> {
    if let Some(words) = prepared.refused() {
        return Err(vec![Failure::lasting(words); view.len()]);
    }
    let judge = prepared.judge();
    let passes = |at: &usize| with_nominated.get(*at).is_none_or(Option::is_none) && judge.passes(view, *at);
    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let nominated = nominated.or(wish).and_then(|name| view.place(name).ok()).filter(passes);
    let feasible: Vec<usize> = match nominated {
        // Room was made for it there.
        Some(at) => vec![at],
        None => (0..view.len()).filter(passes).collect(),
    };
    if feasible.is_empty() {
        let why = |at: usize| with_nominated.get(at).cloned().flatten().or_else(|| judge.failure(view, at));
        return Err((0..view.len()).filter_map(why).collect());
    }
    let scores = if let [_] = feasible[..] { vec![0] } else { scores::total(prepared, &feasible) };
    let best = scores.iter().copied().max().unwrap_or(0);
    let mut hasher = DefaultHasher::new();
    (&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid).hash(&mut hasher);
    let equal = scores.iter().filter(|score| **score == best).count().max(1);
    let drawn = usize::try_from(hasher.finish() % equal as u64).unwrap_or(0);
    let chosen = feasible.iter().zip(&scores).filter(|(_, score)| **score == best).nth(drawn);
    let node = chosen.map(|(at, _)| view.all()[*at].name().to_owned()).unwrap_or_default();
    Ok(Choice { node, score: best })
}

/// What is told of failures, one for each node.
pub(crate) fn fit_error(view: &View, prepared: &Prepared, failures: Vec<Failure>) -> FitError {
    let named = |(node, failure): (&crate::NodeInfo, Failure)| (node.name().to_owned(), failure.reasons);
    let reasons = view.nodes().zip(failures).map(named).collect();
    FitError { nodes: view.len(), refused: prepared.refused(), reasons, preemption: None }
}

#[cfg(test)]
mod tests;
