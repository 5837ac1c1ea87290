//! A view that is kept, not made anew: with a thousand pods most rounds change one of them.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};

use crate::guarantee::Guarantee;
use crate::queue::uid;
use crate::storage::Storage;
use crate::view::{View, differs, has_ended, node_name};

/// A view, and of what it was made. What the caches still hold by the same pointer has not changed.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    view: View,
    nodes: HashMap<String, Arc<Node>>,
    /// Those of the last look, as they came.
    seen: Vec<Arc<Node>>,
    /// Where each pod is counted.
    pods: HashMap<String, (Arc<Pod>, String)>,
    generation: u64,
}

impl Tracker {
    pub fn view(&self) -> &View {
        &self.view
    }

    /// For trying something that is undone then.
    pub fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// Grows when something has changed that may make room or take it away. Heartbeats of nodes and states of pods do not.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What is guaranteed now. That less is, may make room.
    pub fn guarantee(&mut self, all: Arc<[Guarantee]>) {
        if self.view.set_guarantees(all) {
            self.generation += 1;
        }
    }

    /// Somebody waits for room on a node no more.
    pub fn room_was_given_up(&mut self) {
        self.generation += 1;
    }

    /// Claims and volumes as they are now.
    pub fn store(&mut self, storage: Storage) {
        self.view.set_storage(storage);
        self.generation += 1;
    }

    /// Makes the view that of these objects. `assumed` are pods that are not seen on their nodes yet.
    pub fn sync<'a>(
        &mut self,
        nodes: &[Arc<Node>],
        namespaces: &[Arc<Namespace>],
        pods: &[Arc<Pod>],
        assumed: impl Iterator<Item = &'a (Arc<Pod>, String)>,
    ) {
        self.sync_nodes(nodes);
        self.view.set_namespaces(namespaces);
        let mut present: HashSet<&str> = HashSet::with_capacity(pods.len());
        for pod in pods.iter().filter(|pod| !has_ended(pod)) {
            if let Some(node) = node_name(pod) {
                present.insert(uid(pod));
                self.place(pod, node);
            }
        }
        for (pod, node) in assumed {
            if present.insert(uid(pod)) {
                self.place(pod, node);
            }
        }
        let gone: Vec<String> = self.pods.keys().filter(|uid| !present.contains(uid.as_str())).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
    }

    fn sync_nodes(&mut self, nodes: &[Arc<Node>]) {
        if nodes.len() == self.seen.len() && nodes.iter().zip(&self.seen).all(|(node, seen)| Arc::ptr_eq(node, seen)) {
            return;
        }
        self.seen = nodes.to_vec();
        let mut present = HashSet::with_capacity(nodes.len());
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            present.insert(name.clone());
            if self.nodes.get(&name).is_some_and(|known| Arc::ptr_eq(known, node)) {
                continue;
            }
            if self.nodes.get(&name).is_none_or(|known| differs(known, node)) {
                self.generation += 1;
            }
            self.view.put_node(node.clone());
            self.nodes.insert(name, node.clone());
        }
        let gone: Vec<String> = self.nodes.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            self.nodes.remove(&name);
            self.view.remove_node(&name);
            // Counted nowhere: a node that comes back under the name begins anew.
            self.pods.retain(|_, (_, node)| *node != name);
            self.generation += 1;
        }
    }

    /// Counts a pod on a node, whether it is seen there or not yet.
    pub fn place(&mut self, pod: &Arc<Pod>, node: &str) {
        let known = self.pods.get(uid(pod));
        if known.is_some_and(|(known, at)| Arc::ptr_eq(known, pod) && at == node) {
            return;
        }
        let same = known.is_some_and(|(known, at)| at == node && known.metadata.labels == pod.metadata.labels);
        let before = self.generation;
        self.remove(uid(pod));
        if self.nodes.contains_key(node) {
            self.view.assume(pod.clone(), node);
            self.pods.insert(uid(pod).to_owned(), (pod.clone(), node.to_owned()));
            self.generation = if same { before } else { before + 1 };
        }
    }

    fn remove(&mut self, uid: &str) {
        if let Some((pod, node)) = self.pods.remove(uid) {
            self.view.forget(&pod, &node);
            self.generation += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str, heartbeat: &str) -> Arc<Node> {
        let condition =
            json!({"type": "Ready", "status": "True", "lastHeartbeatTime": format!("2026-01-01T00:00:{heartbeat}Z")});
        let status = json!({"allocatable": {"cpu": cpu, "pods": "9"}, "conditions": [condition]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": status})).unwrap())
    }

    fn pod(name: &str, node: Option<&str>, more: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "uid": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// After every step the kept view counts what a new one would.
    fn check(tracker: &Tracker, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) {
        let fresh = View::new(nodes.iter().cloned(), pods.iter().cloned(), []);
        let sums = |view: &View| -> Vec<(String, String, usize)> {
            let sum = |info: &crate::NodeInfo| {
                (
                    info.name().to_owned(),
                    (info.allocatable.get("cpu") - info.requested.get("cpu")).to_string(),
                    info.pods.len(),
                )
            };
            view.nodes().map(sum).collect()
        };
        assert_eq!(sums(tracker.view()), sums(&fresh));
    }

    #[test]
    fn the_kept_view_is_the_one_that_would_be_made() {
        let mut tracker = Tracker::default();
        let (mut nodes, mut pods) = (vec![node("a", "4", "00"), node("b", "4", "00")], vec![]);
        let mut step = |nodes: &[Arc<Node>], pods: &[Arc<Pod>]| {
            let before = tracker.generation();
            tracker.sync(nodes, &[], pods, [].iter());
            check(&tracker, nodes, pods);
            tracker.generation() != before
        };
        assert!(step(&nodes, &pods));
        pods.extend([pod("p", Some("a"), json!({})), pod("q", Some("b"), json!({})), pod("w", None, json!({}))]);
        assert!(step(&nodes, &pods));
        assert!(!step(&nodes, &pods), "nothing has changed");
        pods[0] = pod("p", Some("a"), json!({"status": {"phase": "Running"}}));
        assert!(!step(&nodes, &pods), "a state makes no room");
        nodes[0] = node("a", "4", "10");
        assert!(!step(&nodes, &pods), "nor does a heartbeat");
        nodes[0] = node("a", "8", "20");
        assert!(step(&nodes, &pods), "a larger node does");
        pods[0] = pod("p", Some("a"), json!({"status": {"phase": "Succeeded"}}));
        assert!(step(&nodes, &pods), "the end of a pod does");
        nodes.remove(1);
        assert!(step(&nodes, &pods));
        nodes.push(node("b", "4", "30"));
        assert!(step(&nodes, &pods), "q is counted again");
        pods.clear();
        assert!(step(&nodes, &pods));
    }

    #[test]
    fn an_assumed_pod_is_counted_once() {
        let mut tracker = Tracker::default();
        let nodes = [node("a", "4", "00")];
        let assumed = [(pod("p", None, json!({})), "a".to_owned())];
        tracker.sync(&nodes, &[], &[assumed[0].0.clone()], assumed.iter());
        assert_eq!(tracker.view().node("a").unwrap().pods.len(), 1);
        let generation = tracker.generation();
        let bound = [pod("p", Some("a"), json!({}))];
        tracker.sync(&nodes, &[], &bound, assumed.iter());
        check(&tracker, &nodes, &bound);
        assert_eq!(tracker.generation(), generation, "seen where it was thought to be");
        let (nodes, elsewhere) = ([nodes[0].clone(), node("b", "4", "00")], [pod("p", Some("b"), json!({}))]);
        tracker.sync(&nodes, &[], &elsewhere, assumed.iter());
        check(&tracker, &nodes, &elsewhere);
    }
}
