//! Every choice about virtual nodes: a pure function from the view to a plan.

use std::collections::{BTreeMap, BTreeSet};

use fluidos_model::kinds::{AllocationPhase, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use kube::ResourceExt as _;

use super::object::{self, State};
use super::view::{BoundPod, Place, View, VirtualNode};

/// A Lease is good for 40 s and renewed four times within.
const RENEW: SignedDuration = SignedDuration::from_secs(10);
/// A DNS label, as a node's name must be to be a label's value.
const NAME_LENGTH_MAX: usize = 50;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Write a new Node, without a status.
    Create(Box<Node>),
    /// Write its status.
    Status { node: String, status: Box<NodeStatus> },
    /// Write its labels, annotations and taints onto the version that was looked at.
    Replace(Box<Node>),
    /// Say that it lives.
    Renew { node: String },
    /// Ask a pod to end.
    Evict { pod: BoundPod },
    /// Remove a pod of which nothing runs any more.
    Remove { pod: BoundPod },
    /// Remove a Node.
    Delete { node: String, uid: String },
    /// Say how the Allocation stands.
    Allocation { name: String, phase: AllocationPhase, message: String, node: String },
}

/// The plan for a view.
pub(crate) fn plan(view: &View, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    // Who has each name, which nobody knows of what is not virtual.
    let mut names: BTreeMap<String, Option<String>> = view.taken.iter().map(|name| (name.clone(), None)).collect();
    names.extend(view.nodes.iter().map(|(name, node)| (name.clone(), Some(node.peer.clone()))));
    for (name, node) in &view.nodes {
        match view.places.get(&node.contract) {
            None => gone(name, node, &mut actions),
            Some(place) if place.ending || place.allocation.is_none() => {
                ending(view, name, node, place, now, &mut actions)
            }
            Some(place) => keep(view, name, node, place, now, &mut actions),
        }
    }
    let served: BTreeSet<&str> = view.nodes.values().map(|node| node.contract.as_str()).collect();
    for place in view.places.values() {
        if place.ending || served.contains(place.deal.name.as_str()) {
            continue;
        }
        if let Some((allocation, _)) = &place.allocation {
            let name = choose_name(view, place, &names);
            names.insert(name.clone(), Some(place.deal.seller_named.to_string()));
            actions.push(Action::Create(Box::new(object::node(&name, &place.deal, latency(view, place)))));
            actions.push(Action::Allocation {
                name: allocation.clone(),
                phase: AllocationPhase::Provisioning,
                message: "the virtual node is there; its provider has not said Ready yet".into(),
                node: name,
            });
        }
    }
    actions
}

/// Its contract is gone: its seller has stopped what ran.
fn gone(name: &str, node: &VirtualNode, actions: &mut Vec<Action>) {
    actions.extend(node.pods.iter().map(|pod| Action::Remove { pod: pod.clone() }));
    actions.push(Action::Delete { node: name.into(), uid: node.object.uid().unwrap_or_default() });
}

/// Its contract is about to end: its pods are asked to end first.
fn ending(view: &View, name: &str, node: &VirtualNode, place: &Place, now: Timestamp, actions: &mut Vec<Action>) {
    if node.pods.is_empty() {
        actions.push(Action::Delete { node: name.into(), uid: node.object.uid().unwrap_or_default() });
        return;
    }
    write(view, name, node, place, now, true, actions);
    actions.extend(node.pods.iter().filter(|pod| !pod.deleting).map(|pod| Action::Evict { pod: pod.clone() }));
}

fn keep(view: &View, name: &str, node: &VirtualNode, place: &Place, now: Timestamp, actions: &mut Vec<Action>) {
    let state = write(view, name, node, place, now, false, actions);
    let Some((allocation, status)) = &place.allocation else { return };
    let is_ours = status.resource_ref.as_ref().is_some_and(|of| of.name == name);
    let (phase, message) = match state {
        State::Ready => (AllocationPhase::Active, "the virtual node is ready"),
        // In use already: what is wrong now is said by the node.
        _ if status.status == AllocationPhase::Active && is_ours => return,
        _ => (AllocationPhase::Provisioning, "the virtual node is there; its provider has not said Ready yet"),
    };
    if status.status != phase || !is_ours {
        let (name, node) = (allocation.clone(), name.to_owned());
        actions.push(Action::Allocation { name, phase, message: message.into(), node });
    }
}

/// Brings the objects of a node up to date; returns how it stands.
fn write(
    view: &View,
    name: &str,
    node: &VirtualNode,
    place: &Place,
    now: Timestamp,
    cordoned: bool,
    actions: &mut Vec<Action>,
) -> State {
    let up = view.links.contains_key(&place.deal.seller);
    let state = match (up, view.ready.get(&place.deal.name)) {
        (true, Some(None)) => State::Ready,
        (true, Some(Some(why))) => State::Missing(why.clone()),
        (true, None) => State::Waiting,
        (false, _) => State::Unreachable,
    };
    // Status before taints: whoever looks after all nodes writes the taints that follow from the status.
    if let Some(status) = object::status(&node.object, &place.deal, &state, now) {
        actions.push(Action::Status { node: name.into(), status: Box::new(status) });
    }
    if let Some(changed) = replaced(
        &node.object,
        &object::node(name, &place.deal, latency(view, place)),
        (&state, place.serves),
        cordoned,
        now,
    ) {
        actions.push(Action::Replace(Box::new(changed)));
    }
    if up && view.leases.get(name).is_none_or(|at| now.duration_since(*at) >= RENEW) {
        actions.push(Action::Renew { node: name.into() });
    }
    state
}

/// The node with what we say about it; `None` if it says so already. What others wrote stays.
fn replaced(
    found: &Node,
    wanted: &Node,
    (state, serves): (&State, bool),
    cordoned: bool,
    now: Timestamp,
) -> Option<Node> {
    let mut node = found.clone();
    node.labels_mut().extend(wanted.labels().clone());
    for (key, value) in wanted.annotations() {
        let is_latency = key == names::ANNOTATION_LATENCY;
        if !is_latency || found.annotations().get(key).is_none_or(|old| is_other_latency(old, value)) {
            node.annotations_mut().insert(key.clone(), value.clone());
        }
    }
    let spec = node.spec.get_or_insert_default();
    spec.taints = Some(taints(spec.taints.as_deref().unwrap_or_default(), state, serves, now));
    if cordoned {
        spec.unschedulable = Some(true);
    }
    (node != *found).then_some(node)
}

/// A quarter more or less is another latency, and a millisecond: every measurement is a little different, and a short way
/// differs by more than itself.
fn is_other_latency(old: &str, new: &str) -> bool {
    const LEAST_MICROS: u64 = 1000;
    match (old.parse::<u64>(), new.parse::<u64>()) {
        (Ok(old), Ok(new)) => old.abs_diff(new) > (old / 4).max(LEAST_MICROS),
        _ => true,
    }
}

fn taints(found: &[Taint], state: &State, serves: bool, now: Timestamp) -> Vec<Taint> {
    const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
    const NOT_READY: &str = "node.kubernetes.io/not-ready";
    let mut wanted = vec![(names::VIRTUAL_NODE, "NoSchedule")];
    let about_state = match state {
        State::Ready => None,
        State::Waiting | State::Missing(_) => Some(NOT_READY),
        State::Unreachable => Some(UNREACHABLE),
    };
    wanted.extend(about_state.into_iter().flat_map(|key| [(key, "NoSchedule"), (key, "NoExecute")]));
    wanted.extend(serves.then_some((names::LABEL_RESALE, "NoSchedule")));
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let ours = |taint: &Taint| [UNREACHABLE, NOT_READY, names::LABEL_RESALE].contains(&taint.key.as_str());
    let mut taints: Vec<Taint> =
        found.iter().filter(|taint| !ours(taint) || wanted.iter().any(|w| is(taint, w))).cloned().collect();
    for want in &wanted {
        if !taints.iter().any(|taint| is(taint, want)) {
            taints.push(Taint {
                key: want.0.into(),
                effect: want.1.into(),
                value: (want.0 == names::VIRTUAL_NODE).then(|| "true".to_owned()),
                time_added: (want.1 == "NoExecute").then(|| object::time(now)),
            });
        }
    }
    taints
}

fn latency(view: &View, place: &Place) -> Option<u64> {
    view.links.get(&place.deal.seller).and_then(|link| link.latency_micros)
}

/// The peer's name; with its tag when another has the name; numbered for further contracts.
fn choose_name(view: &View, place: &Place, names: &BTreeMap<String, Option<String>>) -> String {
    let said = view.links.get(&place.deal.seller).map_or(place.deal.seller_name.as_str(), |link| link.name.as_str());
    let peer = place.deal.seller_named.to_string();
    let is_own = |name: &str| names.get(name).is_some_and(|of| of.as_deref() == Some(peer.as_str()));
    let plain = label(said);
    let tag = place.deal.seller_named.tag();
    let base = match plain {
        Some(plain) if !names.contains_key(&plain) || is_own(&plain) => plain,
        Some(plain) => format!("{plain}-{tag}"),
        None => format!("peer-{tag}"),
    };
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    // There are fewer nodes than numbers.
    std::iter::once(base.clone()).chain(numbered).find(|name| !names.contains_key(name)).unwrap_or(base)
}

/// What may be a node's name of what a peer calls itself.
fn label(text: &str) -> Option<String> {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().take(NAME_LENGTH_MAX).map(allowed).collect();
    let text = text.trim_matches('-');
    (!text.is_empty()).then(|| text.to_owned())
}
