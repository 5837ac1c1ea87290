//! What there is of each buffer: pure, from the objects of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluidos_model::kinds::{AcquisitionPolicy, Contract, Phase, Solver, names};
use fluidos_model::market::{Amounts, Buffer, Lot, LotState, requested};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::expenses;

/// Since when nobody has used a lot, by the name of its Solver.
pub(super) type Unused = BTreeMap<String, Timestamp>;

pub(super) struct View {
    /// The policy that counts, if it is accepted.
    pub policy: Option<Arc<AcquisitionPolicy>>,
    /// Its buffers; and those that it had, with amounts of 0, as long as there are lots of them.
    pub buffers: Vec<Buffer>,
    solvers: Vec<Arc<Solver>>,
    contracts: Vec<Arc<Contract>>,
    /// What pods ask for, by contract.
    used: BTreeMap<String, Amounts>,
}

impl View {
    pub fn new(
        policies: &[Arc<AcquisitionPolicy>],
        solvers: &[Arc<Solver>],
        contracts: &[Arc<Contract>],
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
    ) -> Self {
        let counting = expenses::counting(policies.iter().map(AsRef::as_ref)).map(|policy| policy.name_any());
        let policy = policies.iter().find(|policy| Some(policy.name_any()) == counting).cloned();
        let rules = policy.as_ref().and_then(|policy| policy.spec.rules(&policy.name_any()).ok());
        let mut solvers: Vec<Arc<Solver>> =
            solvers.iter().filter(|solver| buffer_of(solver).is_some()).cloned().collect();
        solvers.sort_by_key(|solver| (solver.creation_timestamp().map(|at| at.0), solver.name_any()));
        let mut buffers = rules.as_ref().map(|rules| rules.buffers.clone()).unwrap_or_default();
        for solver in &solvers {
            let name = buffer_of(solver).unwrap_or_default();
            if buffers.iter().all(|buffer| buffer.name != name) {
                buffers.push(Buffer::released(name));
            }
        }
        let by_node: BTreeMap<String, &String> = nodes
            .iter()
            .filter(|node| node.labels().contains_key(names::VIRTUAL_NODE))
            .filter_map(|node| Some((node.name_any(), node.labels().get(names::LABEL_CONTRACT)?)))
            .collect();
        let mut used: BTreeMap<String, Amounts> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| takes(pod)) {
            let Some(contract) = node_of(pod).and_then(|node| by_node.get(node).copied()) else { continue };
            let one = Amounts { pods: 1, ..Amounts::default() };
            let asks = pod.spec.as_ref().and_then(|spec| requested(spec).ok()).unwrap_or(one);
            let sum = used.entry(contract.clone()).or_default();
            *sum = sum.checked_add(&asks).unwrap_or_else(|| sum.clone());
        }
        let policy = policy.filter(|_| rules.is_some());
        Self { policy, buffers, solvers, contracts: contracts.to_vec(), used }
    }

    /// Returns the lots of each buffer, oldest first.
    pub fn lots(&self, unused: &mut Unused, now: Timestamp) -> BTreeMap<String, Vec<Lot>> {
        let there: Vec<String> = self.solvers.iter().map(|solver| solver.name_any()).collect();
        unused.retain(|name, _| there.contains(name));
        let mut lots: BTreeMap<String, Vec<Lot>> = BTreeMap::new();
        for solver in self.solvers.iter().filter(|solver| solver.metadata.deletion_timestamp.is_none()) {
            let (name, state) = (solver.name_any(), self.state(solver, unused, now));
            lots.entry(buffer_of(solver).unwrap_or_default().to_owned()).or_default().push(Lot { name, state });
        }
        lots
    }

    fn state(&self, solver: &Solver, unused: &mut Unused, now: Timestamp) -> LotState {
        let status = solver.status.clone().unwrap_or_default();
        let phase = &status.solver_phase;
        if matches!(phase.phase, Phase::Failed | Phase::TimedOut) {
            let at = phase.end_time.as_ref().and_then(|at| at.parse().ok()).unwrap_or(now);
            return LotState::Failed { at, why: phase.message.clone() };
        }
        let of = |contract: &&Arc<Contract>| {
            contract.owner_references().iter().any(|owner| Some(&owner.uid) == solver.metadata.uid.as_ref())
                && contract.metadata.deletion_timestamp.is_none()
        };
        let contracts: Vec<&Arc<Contract>> = self.contracts.iter().filter(of).collect();
        if phase.phase != Phase::Solved || contracts.is_empty() {
            return LotState::Buying;
        }
        let sum = |amounts: Vec<Amounts>| {
            amounts.iter().try_fold(Amounts::default(), |sum, more| sum.checked_add(more)).unwrap_or_default()
        };
        let size = |contract: &&Arc<Contract>| contract.spec.configuration.as_ref()?.amounts().ok();
        let used: Vec<Amounts> =
            contracts.iter().filter_map(|contract| self.used.get(&contract.name_any()).cloned()).collect();
        let used = sum(used);
        let unused_since = if used.is_zero() {
            Some(*unused.entry(solver.name_any()).or_insert(now))
        } else {
            unused.remove(&solver.name_any());
            None
        };
        let ends = contracts.iter().filter_map(|contract| ends(contract)).min();
        LotState::Bought { size: sum(contracts.iter().filter_map(size).collect()), used, ends, unused_since }
    }
}

/// When a contract ends: by itself, or by a notice.
fn ends(contract: &Contract) -> Option<Timestamp> {
    let said = contract.status.as_ref().and_then(|status| status.ends.as_ref());
    [contract.spec.expiration_time.as_ref(), said].into_iter().flatten().filter_map(|text| text.parse().ok()).min()
}

fn buffer_of(solver: &Solver) -> Option<&str> {
    solver.labels().get(names::LABEL_BUFFER).map(String::as_str)
}

fn takes(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The node that a pod is on, or that it was placed on a moment ago.
fn node_of(pod: &Pod) -> Option<&str> {
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    bound.or_else(|| pod.annotations().get(names::ANNOTATION_DECISION)?.split_once(':').map(|(node, _)| node))
}
