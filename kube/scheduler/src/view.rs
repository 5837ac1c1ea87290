//! Nodes and what runs on them: all that a choice is made from.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use substrate_client::quantity::Quantity;

use crate::guarantee::{Guarantee, Guarantees};
use crate::storage::Storage;
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
pub(crate) fn counted(mut requests: Resources) -> Resources {
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
        let requests = pod_requests(&pod);
        self.requested.add(&requests);
        self.counted.add(&counted(requests));
        self.pods.push(pod);
    }

    fn take(&mut self, uid: Option<&str>) -> Option<Arc<Pod>> {
        let at = self.pods.iter().position(|known| known.metadata.uid.as_deref() == uid)?;
        let known = self.pods.swap_remove(at);
        let requests = pod_requests(&known);
        self.requested.subtract(&requests);
        self.counted.subtract(&counted(requests));
        Some(known)
    }
}

/// A pod came to a node or left it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The node's place among all.
    pub node: usize,
    pub pod: Arc<Pod>,
    /// 1 or -1.
    pub by: i64,
}

/// Changes that are remembered: who has seen less of them begins anew. More than come between two looks of a class of pods that is
/// being scheduled, and some 200 KiB.
const LOG_MAX: usize = 8192;

/// All nodes, the labels of namespaces for selectors of those, and what is guaranteed.
///
/// What is made from a view can be kept up to date: as long as its *structure* is the same, nodes keep their places, and what has changed
/// since then is the log of pods that came and left.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By name.
    nodes: Vec<NodeInfo>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    guarantees: Guarantees,
    storage: Arc<Storage>,
    structure: u64,
    log: VecDeque<Change>,
    /// How many changes were forgotten.
    forgotten: u64,
}

impl View {
    /// A view of nodes and of the pods on them. Pods without a node or that have ended are left out.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<Node>>,
        pods: impl IntoIterator<Item = Arc<Pod>>,
        namespaces: impl IntoIterator<Item = Arc<Namespace>>,
    ) -> View {
        let mut view = View::default();
        nodes.into_iter().for_each(|node| view.put_node(node));
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

    /// The view with these claims and volumes.
    pub fn with_storage(mut self, storage: Storage) -> View {
        self.set_storage(storage);
        self
    }

    pub(crate) fn set_storage(&mut self, storage: Storage) {
        self.storage = Arc::new(storage);
        self.structure += 1;
    }

    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Answers whether some of what was guaranteed is not any more.
    pub(crate) fn set_guarantees(&mut self, all: Arc<[Guarantee]>) -> bool {
        if self.guarantees.is(&all) {
            return false;
        }
        let ends = self.guarantees.ends_in(&all);
        let mut guarantees = Guarantees::new(all);
        self.nodes.iter().flat_map(|info| &info.pods).for_each(|pod| guarantees.count(pod));
        self.guarantees = guarantees;
        self.structure += 1;
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
        let all = namespaces.iter().map(labels).collect();
        if self.namespaces != all {
            self.namespaces = all;
            self.structure += 1;
        }
    }

    pub(crate) fn place(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|info| info.name().cmp(name))
    }

    /// Puts a node in, or a newer version of it, which keeps its pods.
    pub(crate) fn put_node(&mut self, node: Arc<Node>) {
        match self.place(node.metadata.name.as_deref().unwrap_or_default()) {
            Ok(at) => {
                let known = &mut self.nodes[at];
                if looks_other(&known.node, &node) {
                    known.allocatable = allocatable(&node);
                    self.structure += 1;
                }
                known.node = node;
            }
            Err(at) => {
                self.nodes.insert(at, NodeInfo::new(node));
                self.structure += 1;
            }
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Ok(at) = self.place(name) {
            let info = self.nodes.remove(at);
            info.pods.iter().for_each(|pod| self.guarantees.uncount(pod));
            self.structure += 1;
        }
    }

    /// Takes a pod off the node where it was counted.
    pub(crate) fn forget(&mut self, pod: &Pod, node: &str) {
        let Ok(at) = self.place(node) else { return };
        if let Some(known) = self.nodes[at].take(pod.metadata.uid.as_deref()) {
            self.guarantees.uncount(&known);
            self.note(Change { node: at, pod: known, by: -1 });
        }
    }

    /// Counts a pod on a node, whether it is bound yet or not.
    pub fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        if let Ok(at) = self.place(node) {
            self.guarantees.count(&pod);
            self.nodes[at].add(pod.clone());
            self.note(Change { node: at, pod, by: 1 });
        }
    }

    fn note(&mut self, change: Change) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
            self.forgotten += 1;
        }
        self.log.push_back(change);
    }

    /// Grows when nodes, namespaces or guarantees are others.
    pub(crate) fn structure(&self) -> u64 {
        self.structure
    }

    /// How many changes there were.
    pub(crate) fn sequence(&self) -> u64 {
        self.forgotten + self.log.len() as u64
    }

    /// The changes after so many; nothing if some of them are forgotten.
    pub(crate) fn since(&self, sequence: u64) -> Option<impl Iterator<Item = &Change>> {
        let seen = usize::try_from(sequence.checked_sub(self.forgotten)?).ok()?;
        Some(self.log.range(seen.min(self.log.len())..))
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter()
    }

    /// All nodes, each at its place.
    pub(crate) fn all(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.place(name).ok().map(|at| &self.nodes[at])
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

/// Whether something that filters or scores look at is other.
fn looks_other(before: &Node, now: &Node) -> bool {
    let images = |node: &Node| node.status.as_ref().and_then(|status| status.images.clone());
    differs(before, now) || images(before) != images(now)
}

/// Whether a node may have become better or worse for pods.
pub(crate) fn differs(before: &Node, now: &Node) -> bool {
    let amounts = |node: &Node| node.status.as_ref().map(|s| (s.allocatable.clone(), s.capacity.clone()));
    before.metadata.uid != now.metadata.uid
        || before.metadata.labels != now.metadata.labels
        || before.spec != now.spec
        || amounts(before) != amounts(now)
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
