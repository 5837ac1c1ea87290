//! Nodes and what runs on them: all that a choice is made from.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use substrate_client::quantity::Quantity;

use crate::guarantee::{Guarantee, Guarantees};
use substrate_client::requests::{Resources, allocatable, pod_requests};

/// A node with its pods.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// Pods on it that have not ended, assumed ones too.
    pub pods: Vec<Arc<Pod>>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// The sum of what its pods ask for.
    pub requested: Resources,
    /// The sum with a little for containers that ask for nothing, so that those spread too.
    pub counted: Resources,
}

/// What CPU and memory count for in scores when a container does not say (`DefaultMilliCPURequest`,
/// `DefaultMemoryRequest` of kube-scheduler).
pub(crate) fn counted(pod: &Pod) -> Resources {
    let mut requests = pod_requests(pod);
    for (name, default) in [("cpu", Quantity::millis(100)), ("memory", Quantity::bytes(200 << 20))] {
        let entry = requests.0.entry(name.to_owned()).or_default();
        if entry.is_zero() {
            *entry = default;
        }
    }
    requests
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> NodeInfo {
        let allocatable = allocatable(&node);
        let none = Resources::default();
        NodeInfo { node, pods: Vec::new(), allocatable, requested: none.clone(), counted: none }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// One of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.add(&pod_requests(&pod));
        self.counted.add(&counted(&pod));
        self.pods.push(pod);
    }
}

/// All nodes, the labels of namespaces for selectors of those, and what is guaranteed.
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: BTreeMap<String, NodeInfo>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    guarantees: Guarantees,
}

impl View {
    /// A view of nodes and of the pods on them. Pods without a node or that have ended are left out.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<Node>>,
        pods: impl IntoIterator<Item = Arc<Pod>>,
        namespaces: impl IntoIterator<Item = Arc<Namespace>>,
    ) -> View {
        let mut view = View::default();
        for node in nodes {
            let info = NodeInfo::new(node);
            view.nodes.insert(info.name().to_owned(), info);
        }
        view.set_namespaces(&namespaces.into_iter().collect::<Vec<_>>());
        for pod in pods.into_iter().filter(|pod| !has_ended(pod)) {
            if let Some(node) = node_name(&pod).map(str::to_owned) {
                view.assume(pod, &node);
            }
        }
        view
    }

    /// The view in which this is guaranteed.
    pub fn with_guarantees(mut self, guarantees: impl Into<Arc<[Guarantee]>>) -> View {
        self.set_guarantees(guarantees.into());
        self
    }

    /// Answers whether some of what was guaranteed is not any more.
    pub(crate) fn set_guarantees(&mut self, all: Arc<[Guarantee]>) -> bool {
        if self.guarantees.is(&all) {
            return false;
        }
        let ends = self.guarantees.ends_in(&all);
        let mut guarantees = Guarantees::new(all);
        self.nodes.values().flat_map(|info| &info.pods).for_each(|pod| guarantees.count(pod));
        self.guarantees = guarantees;
        ends
    }

    pub(crate) fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    pub(crate) fn set_namespaces(&mut self, namespaces: &[Arc<Namespace>]) {
        let labels = |namespace: &Arc<Namespace>| {
            let metadata = &namespace.metadata;
            (metadata.name.clone().unwrap_or_default(), metadata.labels.clone().unwrap_or_default())
        };
        self.namespaces = namespaces.iter().map(labels).collect();
    }

    /// Puts a node in, or a newer version of it, which keeps its pods.
    pub(crate) fn put_node(&mut self, node: Arc<Node>) {
        let mut fresh = NodeInfo::new(node);
        if let Some(known) = self.nodes.remove(fresh.name()) {
            (fresh.pods, fresh.requested, fresh.counted) = (known.pods, known.requested, known.counted);
        }
        self.nodes.insert(fresh.name().to_owned(), fresh);
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        let pods = self.nodes.remove(name).map(|info| info.pods);
        pods.iter().flatten().for_each(|pod| self.guarantees.uncount(pod));
    }

    /// Takes a pod off the node where it was counted.
    pub(crate) fn forget(&mut self, pod: &Pod, node: &str) {
        let Some(info) = self.nodes.get_mut(node) else { return };
        if let Some(at) = info.pods.iter().position(|known| known.metadata.uid == pod.metadata.uid) {
            let known = info.pods.swap_remove(at);
            info.requested.subtract(&pod_requests(&known));
            info.counted.subtract(&counted(&known));
            self.guarantees.uncount(&known);
        }
    }

    /// Counts a pod on a node, whether it is bound yet or not.
    pub fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        if let Some(info) = self.nodes.get_mut(node) {
            self.guarantees.count(&pod);
            info.add(pod);
        }
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }
}

/// The node that a pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a pod has ended for good and holds nothing any more.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
