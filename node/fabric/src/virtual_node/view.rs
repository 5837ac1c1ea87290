//! The view: what virtual nodes are planned from, as plain values. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Allocation, AllocationStatus, Contract, FlavorType, names, serving};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::deal::Deal;

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The name that the peer says.
    pub name: String,
    /// Measured round trip.
    pub latency_micros: Option<u64>,
}

/// A contract that this node has bought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub deal: Deal,
    /// Name and status of its Allocation.
    pub allocation: Option<(String, AllocationStatus)>,
    /// It is over, or about to be.
    pub ending: bool,
    /// It serves contracts that were sold, and is for their twins alone.
    pub serves: bool,
}

/// A virtual node that there is.
#[derive(Clone, Debug)]
pub(crate) struct VirtualNode {
    pub contract: String,
    pub peer: String,
    pub object: Node,
    /// Pods bound to it.
    pub pods: Vec<BoundPod>,
}

/// A pod on a virtual node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub deleting: bool,
}

/// Everything that virtual nodes are planned from.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// By the contract's name.
    pub places: BTreeMap<String, Place>,
    /// By name.
    pub nodes: BTreeMap<String, VirtualNode>,
    /// Names of all Nodes that are not virtual, and of this machine.
    pub taken: BTreeSet<String>,
    pub links: BTreeMap<NodeId, Link>,
    /// Contracts whose provider has said Ready, with why what was sold is not there, if it is not.
    pub ready: BTreeMap<String, Option<String>>,
    /// When each Lease was renewed.
    pub leases: BTreeMap<String, Timestamp>,
    /// Contracts that cannot be served, and why.
    pub odd: Vec<(String, String)>,
}

impl View {
    #[allow(clippy::too_many_arguments)] // one per kind that is looked at
    pub(crate) fn new<'a>(
        (own, speakers): (NodeId, &Speakers),
        own_name: &str,
        contracts: impl Iterator<Item = &'a Contract>,
        allocations: impl Iterator<Item = &'a Allocation>,
        nodes: impl Iterator<Item = &'a Node>,
        pods: impl Iterator<Item = &'a Pod>,
        links: BTreeMap<NodeId, Link>,
        ready: BTreeMap<String, Option<String>>,
        leases: BTreeMap<String, Timestamp>,
        now: Timestamp,
    ) -> Self {
        let mut view = Self { links, ready, leases, taken: BTreeSet::from([own_name.to_owned()]), ..Self::default() };
        let allocations: BTreeMap<String, &Allocation> = allocations
            .filter(|allocation| allocation.metadata.deletion_timestamp.is_none())
            .map(|allocation| (allocation.spec.contract.name.clone(), allocation))
            .collect();
        // A service has no node: it runs at its seller.
        let is_service =
            |contract: &&Contract| contract.spec.flavor.spec.flavor_type.type_identifier == FlavorType::Service;
        let contracts: Vec<&Contract> = contracts.collect();
        let serving = serving(contracts.iter().copied());
        for contract in contracts.into_iter().filter(|contract| !is_service(contract)) {
            match Deal::of(contract, speakers) {
                Ok(deal) if deal.buyer == own => {
                    let allocation = allocations.get(&deal.name);
                    let allocation =
                        allocation.map(|found| (found.name_any(), found.status.clone().unwrap_or_default()));
                    let ending = !deal.is_live(now);
                    let serves = serving.contains_key(&deal.name);
                    view.places.insert(deal.name.clone(), Place { deal, allocation, ending, serves });
                }
                Ok(_) => {}
                Err(reason) => view.odd.push((contract.name_any(), reason)),
            }
        }
        for node in nodes {
            match node.labels().get(names::LABEL_CONTRACT).filter(|_| node.labels().contains_key(names::VIRTUAL_NODE)) {
                Some(contract) => {
                    let peer = node.annotations().get(names::ANNOTATION_PEER_DID).cloned().unwrap_or_default();
                    let found =
                        VirtualNode { contract: contract.clone(), peer, object: node.clone(), pods: Vec::new() };
                    view.nodes.insert(node.name_any(), found);
                }
                None => drop(view.taken.insert(node.name_any())),
            }
        }
        for pod in pods {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            if let Some(node) = node.and_then(|node| view.nodes.get_mut(node)) {
                node.pods.push(BoundPod {
                    namespace: pod.namespace().unwrap_or_default(),
                    name: pod.name_any(),
                    uid: pod.uid().unwrap_or_default(),
                    deleting: pod.metadata.deletion_timestamp.is_some(),
                });
            }
        }
        view
    }
}
