//! The view: what placement looks at, as plain values. No I/O.

use std::collections::BTreeMap;

use fluidos_model::intent::{self, Attribute, Evidence, Intents, Place};
use fluidos_model::kinds::{Contract, FlavorLocation, KnownCluster, Phase, Solver, names, serving};
use fluidos_model::market::{Amounts, Features, Kept, Location, Quantity, Resource, requested_of_traded};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

/// A node that pods could run on.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether a peer stands behind it.
    pub is_virtual: bool,
    /// DID of that peer.
    pub peer: Option<String>,
    /// Why nothing can go there now; `None` when something can.
    pub closed: Option<String>,
    /// What intents are judged by.
    pub place: Place,
    /// What is free, pods that are on their way counted.
    pub free: Amounts,
    /// Its labels, for node selectors.
    pub labels: BTreeMap<String, String>,
    /// The workload that it was bought for; only its pods go there. `None` is for everybody.
    pub bought_for: Option<String>,
}

/// A pod that waits at the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Uid of the topmost owner.
    pub workload: String,
    /// What it needs.
    pub needs: Amounts,
    /// What it asks for.
    pub intents: Intents,
    /// The intent annotations as they are written, for the Solver.
    pub annotations: BTreeMap<String, String>,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// What was last said about it.
    pub said: String,
}

/// A Solver that this orchestrator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolverView {
    /// Its name.
    pub name: String,
    /// Uid of the workload that it buys for.
    pub workload: String,
    /// How it ended, if it did.
    pub phase: Phase,
    /// Why.
    pub message: String,
    /// When it ended, in seconds since 1970.
    pub ended: Option<i64>,
    /// When a seller was last heard to offer what could serve it, in seconds since 1970.
    pub offered: Option<i64>,
    /// Whether it is on its way out.
    pub deleting: bool,
}

/// What the owner's own pods may take of own nodes where some is promised to buyers and not used yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// What is free beside it, of all own nodes together; without limit of what nobody was promised.
    pub free: Amounts,
    /// What is promised and not used.
    pub kept: Amounts,
    /// In how many contracts and holds.
    pub promises: usize,
}

/// Everything that placement knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// By name.
    pub nodes: Vec<NodeView>,
    /// Waiting at the gate, oldest first.
    pub waiting: Vec<PodView>,
    /// By name.
    pub solvers: Vec<SolverView>,
    /// Workloads that have at least one pod, waiting or not.
    pub workloads: Vec<String>,
    /// What is left of own nodes beside what is kept for buyers; `None` where nothing is.
    pub beside: Option<Beside>,
}

impl View {
    /// The view of these objects.
    pub fn new<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        pods: impl Iterator<Item = &'a Pod>,
        solvers: impl Iterator<Item = &'a Solver>,
        contracts: impl Iterator<Item = &'a Contract>,
        own_location: &Location,
    ) -> Self {
        let pods: Vec<&Pod> = pods.collect();
        let mut view = Self::default();
        let mut used: BTreeMap<&str, Amounts> = BTreeMap::new();
        for pod in &pods {
            if let (Some(node), false) = (target(pod), is_over(pod)) {
                let sum = used.entry(node).or_default();
                // What cannot be counted is more than a node has.
                *sum = sum.checked_add(&needs(pod)).unwrap_or(Amounts::UNLIMITED);
            }
            if let Some(workload) = workload(pod) {
                view.workloads.push(workload.to_owned());
            }
        }
        view.workloads.sort();
        view.workloads.dedup();
        let solvers: Vec<&Solver> = solvers.collect();
        let contracts: Vec<&Contract> = contracts.collect();
        let serving = serving(contracts.iter().copied());
        let buyers = buyers(&solvers, contracts.into_iter());
        view.nodes = nodes.map(|node| node_view(node, used.get(node.name_any().as_str()), own_location)).collect();
        let mut waiting: Vec<&Pod> = pods.into_iter().filter(|pod| is_waiting(pod)).collect();
        waiting.sort_by_key(|pod| (pod.creation_timestamp().map(|t| t.0), pod.name_any()));
        view.waiting = waiting.into_iter().map(pod_view).collect();
        for node in view.nodes.iter_mut().filter(|node| node.is_virtual) {
            let contract = node.labels.get(names::LABEL_CONTRACT);
            if let Some(sold) = contract.and_then(|contract| serving.get(contract)) {
                // Before its taint, too, which follows.
                let sold: Vec<&str> = sold.iter().map(String::as_str).collect();
                node.closed = Some(match sold.as_slice() {
                    [] => "it was bought to be sold on".into(),
                    sold => format!("it is kept to serve {}, which was sold", sold.join(", ")),
                });
                continue;
            }
            match contract.and_then(|contract| buyers.get(contract)) {
                Some(buyer) => node.bought_for.clone_from(buyer),
                // Its contract has not been seen yet: whose it is must be known before anybody takes it.
                None => node.closed = Some("its contract is not known yet".into()),
            }
        }
        view.solvers = solvers.into_iter().filter_map(solver_view).collect();
        view
    }
}

impl View {
    /// The view in which this is kept for buyers, as the scheduler keeps it: a pod that it would not let onto an own node is not sent to
    /// one.
    pub fn keep<'a>(mut self, kept: &[Kept], pods: impl Iterator<Item = &'a Pod>) -> Self {
        let (mut used, mut coming) = (BTreeMap::<&str, Amounts>::new(), Amounts::default());
        for pod in pods.filter(|pod| !is_over(pod)) {
            let labels = [names::LABEL_CONTRACT, names::LABEL_SERVICE];
            if let Some(contract) = labels.iter().find_map(|label| pod.labels().get(*label)) {
                let sum = used.entry(contract).or_default();
                *sum = sum.checked_add(&needs(pod)).unwrap_or(Amounts::UNLIMITED);
            }
            // Sent to several own nodes and on none yet.
            if target(pod).is_some_and(|nodes| nodes.contains(',')) {
                coming = coming.checked_add(&needs(pod)).unwrap_or(Amounts::UNLIMITED);
            }
        }
        let unused = |kept: &Kept| {
            let used = kept.contract.as_deref().and_then(|contract| used.get(contract));
            used.map_or_else(|| kept.amounts.clone(), |used| kept.amounts.saturating_sub(used))
        };
        let unused: Vec<Amounts> = kept.iter().map(unused).filter(|unused| !unused.is_zero()).collect();
        // What cannot be counted is more than there is.
        let sum = |all: Amounts, one: &Amounts| all.checked_add(one).unwrap_or(Amounts::UNLIMITED);
        let kept = unused.iter().fold(Amounts::default(), sum);
        let own = self.nodes.iter().filter(|node| !node.is_virtual && node.closed.is_none()).map(|node| &node.free);
        let left = own.fold(Amounts::default(), sum).saturating_sub(&coming).saturating_sub(&kept);
        let mut free = Amounts::UNLIMITED;
        for resource in kept.resources().filter(|resource| kept.get(resource) > 0) {
            free.set(&resource, left.get(&resource));
        }
        self.beside = (!unused.is_empty()).then_some(Beside { free, kept, promises: unused.len() });
        self
    }
}

impl View {
    /// The view in which this is known of peers at `now`. What is resold runs at somebody of whom nothing is known here.
    pub fn know<'a>(
        mut self,
        known: impl Iterator<Item = &'a KnownCluster>,
        contracts: impl Iterator<Item = &'a Contract>,
        now: jiff::Timestamp,
    ) -> Self {
        let asks = |pod: &PodView| pod.intents.constraints.iter().any(|constraint| constraint.evidence.is_some());
        if !self.waiting.iter().any(asks) {
            return self;
        }
        let mut attributes: BTreeMap<&str, Vec<Attribute>> = BTreeMap::new();
        for peer in known {
            let Some(identity) = peer.status.as_ref().and_then(|status| status.identity.as_ref()) else { continue };
            // A virtual node names the key that signed its contract, which may have been handed over since.
            for did in peer.spec.did.iter().chain(&identity.origin) {
                attributes.insert(did, intent::known(identity, now).collect());
            }
        }
        let resold: Vec<String> = contracts.filter(|contract| is_resold(contract)).map(ResourceExt::name_any).collect();
        for node in self.nodes.iter_mut().filter(|node| node.is_virtual) {
            let of = node.peer.as_deref().and_then(|did| attributes.get(did));
            let is_resold = node.labels.get(names::LABEL_CONTRACT).is_none_or(|contract| resold.contains(contract));
            node.place.evidence = Evidence::Of(of.filter(|_| !is_resold).cloned().unwrap_or_default());
        }
        self
    }
}

/// What is signed are the conditions of the flavor.
fn is_resold(contract: &Contract) -> bool {
    let said = &contract.spec.flavor.spec.flavor_type.type_data;
    said.pointer("/policies/conditions/resold").and_then(serde_json::Value::as_bool) == Some(true)
}

/// The workload for which each contract was bought; `None` when a person's Solver bought it, for whoever fits.
fn buyers<'a>(solvers: &[&Solver], contracts: impl Iterator<Item = &'a Contract>) -> BTreeMap<String, Option<String>> {
    contracts
        .filter_map(|contract| {
            let owner = contract.owner_references().iter().find(|owner| owner.kind == "Solver")?;
            let solver = solvers.iter().find(|solver| solver.uid().as_deref() == Some(owner.uid.as_str()))?;
            // What is sold on is for nobody here: no workload has this name.
            let label =
                solver.labels().get(names::LABEL_SOLVER_FOR).or_else(|| solver.labels().get(names::LABEL_RESALE));
            Some((contract.name_any(), label.cloned()))
        })
        .collect()
}

/// The node that a pod is on, or that its gate was opened onto.
fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(node);
    }
    pod.annotations().get(names::ANNOTATION_DECISION).and_then(|d| d.split_once(':')).map(|(node, _)| node)
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_waiting(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && gates.iter().any(|gate| gate.name == names::GATE)
}

fn workload(pod: &Pod) -> Option<&str> {
    pod.annotations().get(names::ANNOTATION_WORKLOAD)?.rsplit('/').next()
}

/// What a pod asks for; what is no amount, or beyond counting, fits nowhere.
pub fn needs(pod: &Pod) -> Amounts {
    let spec = pod.spec.as_ref().map(requested_of_traded);
    spec.unwrap_or_else(|| Ok(Amounts { pods: 1, ..Amounts::default() })).unwrap_or(Amounts::UNLIMITED)
}

fn node_view(node: &Node, used: Option<&Amounts>, own_location: &Location) -> NodeView {
    let status = node.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let spec = node.spec.clone().unwrap_or_default();
    let is_virtual = node.labels().contains_key(names::VIRTUAL_NODE);
    let taint = spec
        .taints
        .iter()
        .flatten()
        .find(|t| t.key != names::VIRTUAL_NODE && (t.effect == "NoSchedule" || t.effect == "NoExecute"));
    let closed = match ready {
        _ if spec.unschedulable == Some(true) => Some("it is cordoned".to_owned()),
        Some(ready) if ready.status == "True" => taint.map(|t| format!("it has the taint {}", t.key)),
        Some(ready) => Some(format!("it is not ready: {}", ready.message.as_deref().unwrap_or("no word from it"))),
        None => Some("it has not reported yet".to_owned()),
    };
    let allocatable = status.allocatable.unwrap_or_default();
    let mut free = Amounts::default();
    for (name, text) in &allocatable {
        if let (Ok(resource), Ok(quantity)) = (Resource::parse(name), Quantity::parse(&text.0)) {
            free.set(&resource, resource.offered(quantity));
        }
    }
    if let Some(used) = used {
        free = free.saturating_sub(used);
    }
    let annotation = |key: &str| node.annotations().get(key);
    let location = match annotation(names::ANNOTATION_LOCATION) {
        Some(json) => serde_json::from_str::<FlavorLocation>(json).map(Into::into).unwrap_or_default(),
        None if is_virtual => Location::default(),
        None => own_location.clone(),
    };
    let latency =
        if is_virtual { annotation(names::ANNOTATION_LATENCY).and_then(|text| text.parse().ok()) } else { Some(0) };
    let place = Place {
        name: node.name_any(),
        location,
        architecture: node.labels().get("kubernetes.io/arch").cloned().unwrap_or_default(),
        cpu_milli: Some(free.cpu_milli),
        memory_bytes: Some(free.memory_bytes),
        latency_micros: latency,
        features: annotation(names::ANNOTATION_FEATURES).map(|text| Features::of_annotation(text)).unwrap_or_default(),
        evidence: if is_virtual { Evidence::default() } else { Evidence::Own },
    };
    let peer = annotation(names::ANNOTATION_PEER_DID).cloned();
    NodeView {
        name: node.name_any(),
        is_virtual,
        peer,
        closed,
        place,
        free,
        labels: node.labels().clone(),
        bought_for: None,
    }
}

fn pod_view(pod: &Pod) -> PodView {
    let said = pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == super::CONDITION);
    let annotations: BTreeMap<String, String> = pod
        .annotations()
        .iter()
        .filter(|(k, _)| {
            k.starts_with(intent::INTENT_PREFIX)
                || [intent::SOFT_INTENTS, intent::INTENT_EVIDENCE].contains(&k.as_str())
        })
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    PodView {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        workload: workload(pod).unwrap_or_default().to_owned(),
        needs: needs(pod),
        intents: intent::parse(annotations.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        annotations,
        node_selector: pod.spec.as_ref().and_then(|s| s.node_selector.clone()).unwrap_or_default(),
        said: said.and_then(|c| c.message.clone()).unwrap_or_default(),
    }
}

fn solver_view(solver: &Solver) -> Option<SolverView> {
    let workload = solver.labels().get(names::LABEL_SOLVER_FOR)?.clone();
    let status = solver.status.clone().unwrap_or_default().solver_phase;
    let ended = status.end_time.or(status.last_change_time).and_then(|t| t.parse::<jiff::Timestamp>().ok());
    Some(SolverView {
        name: solver.name_any(),
        workload,
        phase: status.phase,
        message: status.message,
        ended: ended.map(jiff::Timestamp::as_second),
        offered: solver
            .annotations()
            .get(names::ANNOTATION_OFFERED)
            .and_then(|text| names::offered_at(text))
            .map(jiff::Timestamp::as_second),
        deleting: solver.metadata.deletion_timestamp.is_some(),
    })
}
