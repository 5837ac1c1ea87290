//! Guarantees: capacity that is kept for pods that are not there yet.
//!
//! ```text
//!  free on the pool ─ what guarantees have and their own pods do not use ─▶ what other pods may take
//! ```
//! A *guarantee* is an amount of each resource for the pods that carry one of its labels, whatever their namespace. What they do not
//! use of it is *kept*. The *pool* is the nodes that any pod may use: not cordoned, without a taint that keeps pods away; a pod that
//! goes elsewhere takes nothing of it. It is what `min` of an ElasticQuota is (scheduler-plugins), for labels instead of a namespace,
//! and kept instead of taken back by preemption; unlike a placeholder pod of low priority or a Reservation (Koordinator) it is bound
//! to no node.
//!
//! Kept is the sum over the pool; and as long as one node has room for all that a guarantee keeps, one will have. Which is looked at
//! greedily, and among few ([`PACKED_MAX`]).
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use substrate_client::quantity::Quantity;

use crate::view::{NodeInfo, View};
use substrate_client::lookup::taints;
use substrate_client::requests::{Resources, pod_requests};

/// Guarantees times nodes that are looked at for one pod, some 0.1 ms; beyond that sums alone count.
const PACKED_MAX: usize = 4096;
/// Guarantees that are named in a reason; the others are counted.
const NAMED_MAX: usize = 3;

/// Capacity for certain pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarantee {
    /// What it is called in reasons.
    pub name: String,
    /// Labels, of which its pods carry one; without any nobody may use it yet.
    pub labels: Vec<(String, String)>,
    /// How much, in the names of Kubernetes; `pods` too.
    pub amounts: Resources,
}

/// Guarantees, and what their pods use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guarantees {
    all: Arc<[Guarantee]>,
    by_label: BTreeMap<(String, String), usize>,
    used: Vec<Resources>,
}

/// What a pod takes, itself counted.
fn takes(pod: &Pod) -> Resources {
    let mut requests = pod_requests(pod);
    requests.0.insert("pods".to_owned(), Quantity::whole(1));
    requests
}

impl Guarantees {
    /// Guarantees of which nothing is used.
    pub fn new(all: Arc<[Guarantee]>) -> Guarantees {
        let labels = all.iter().enumerate().flat_map(|(at, known)| known.labels.iter().map(move |l| (l.clone(), at)));
        let (by_label, used) = (labels.collect(), vec![Resources::default(); all.len()]);
        Guarantees { all, by_label, used }
    }

    pub fn is(&self, all: &Arc<[Guarantee]>) -> bool {
        Arc::ptr_eq(&self.all, all) || self.all == *all
    }

    /// Whether some of it is not kept any more.
    pub fn ends_in(&self, next: &[Guarantee]) -> bool {
        // By name: there may be a thousand, and any of them may have changed.
        let by_name: BTreeMap<&str, &Guarantee> = next.iter().map(|other| (other.name.as_str(), other)).collect();
        let less = |known: &Guarantee| {
            let there = by_name.get(known.name.as_str()).filter(|other| other.labels == known.labels);
            let has = |name: &str| there.map_or(Quantity::ZERO, |other| other.amounts.get(name));
            known.amounts.0.iter().any(|(name, amount)| has(name) < *amount)
        };
        self.all.iter().any(less)
    }

    fn of(&self, pod: &Pod) -> Option<usize> {
        if self.by_label.is_empty() {
            return None;
        }
        let labels = pod.metadata.labels.iter().flatten();
        labels.filter_map(|(key, value)| self.by_label.get(&(key.clone(), value.clone())).copied()).next()
    }

    /// Whether a pod has its place by a guarantee that the other has no part in.
    pub fn protects(&self, pod: &Pod, from: &Pod) -> bool {
        self.of(pod).is_some_and(|at| self.of(from) != Some(at))
    }

    pub fn count(&mut self, pod: &Pod) {
        if let Some(at) = self.of(pod) {
            self.used[at].add(&takes(pod));
        }
    }

    pub fn uncount(&mut self, pod: &Pod) {
        if let Some(at) = self.of(pod) {
            self.used[at].subtract(&takes(pod));
        }
    }

    /// What each keeps when `more` is used of one.
    fn kept(&self, more: Option<(usize, &Resources)>) -> Vec<Resources> {
        let left = |(at, known): (usize, &Guarantee)| {
            let mut left = known.amounts.clone();
            left.subtract(&self.used[at]);
            if let Some((_, more)) = more.filter(|(of, _)| *of == at) {
                left.subtract(more);
            }
            left.0.retain(|name, amount| *amount > Quantity::ZERO && known.amounts.0.contains_key(name));
            left
        };
        self.all.iter().enumerate().map(left).collect()
    }

    /// `contract-1, contract-2 and 3 more`.
    fn names(&self, of: &[usize]) -> String {
        let named: Vec<&str> = of.iter().take(NAMED_MAX).map(|at| self.all[*at].name.as_str()).collect();
        let more = of.len().saturating_sub(NAMED_MAX);
        if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
    }
}

fn is_in_pool(node: &NodeInfo) -> bool {
    let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    !cordoned && !taints(&node.node).iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
}

fn free(node: &NodeInfo) -> Resources {
    let mut free = node.allocatable.clone();
    free.subtract(&node.requested);
    let pods = Quantity::whole(i64::try_from(node.pods.len()).unwrap_or(i64::MAX));
    *free.0.entry("pods".to_owned()).or_default() -= pods;
    free
}

/// What one pod may not take, worked out once.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Why it may go to no node of the pool.
    sum: Option<String>,
    pieces: Option<Pieces>,
}

impl Kept {
    pub fn new(view: &View, pod: &Pod) -> Kept {
        let guarantees = view.guarantees();
        if guarantees.all.is_empty() {
            return Kept::default();
        }
        let (own, takes) = (guarantees.of(pod), takes(pod));
        let before = guarantees.kept(None);
        let own_left = own.map(|own| before[own].clone()).unwrap_or_default();
        let kept_by_others = |name: &str| {
            (0..before.len()).filter(|at| Some(*at) != own && !before[*at].get(name).is_zero()).collect::<Vec<usize>>()
        };
        let over: Vec<(&String, &Quantity)> = takes
            .0
            .iter()
            .filter(|(name, amount)| {
                **amount > own_left.get(name) && !amount.is_zero() && !kept_by_others(name).is_empty()
            })
            .collect();
        // What is its own it may take, whatever has become of the rest.
        if own.is_some() && over.is_empty() {
            return Kept::default();
        }
        let mut room = Resources::default();
        let pool: Vec<&NodeInfo> = view.nodes().filter(|node| is_in_pool(node)).collect();
        pool.iter().for_each(|node| room.add(&free(node)));
        let mut short = Vec::new();
        for (name, amount) in over {
            let keeping = kept_by_others(name);
            let kept = keeping.iter().fold(Quantity::ZERO, |sum, at| sum + before[*at].get(name));
            let beside = (room.get(name) - kept).max(Quantity::ZERO);
            if *amount > beside {
                let (number, names) = (keeping.len(), guarantees.names(&keeping));
                short.push(format!(
                    "{name}: {beside} free, needed {amount}, {kept} kept for {number} guarantee(s): {names}"
                ));
            }
        }
        if !short.is_empty() {
            return Kept {
                sum: Some(format!("node(s) keep what is guaranteed to others ({})", short.join("; "))),
                pieces: None,
            };
        }
        let after = guarantees.kept(own.map(|own| (own, &takes)));
        Kept { sum: None, pieces: Pieces::new(guarantees, &pool, (&before, &after), &takes) }
    }

    pub fn is_empty(&self) -> bool {
        self.sum.is_none() && self.pieces.is_none()
    }

    /// Why the pod would take what is kept, if it went to this node.
    pub fn failure(&self, node: &NodeInfo) -> Option<String> {
        if !is_in_pool(node) {
            return None;
        }
        self.sum.clone().or_else(|| self.pieces.as_ref()?.failure(node))
    }
}

/// Amounts in billionths, in the order of the names that are kept.
type Vector = Vec<i128>;

/// What guarantees keep as pieces that each fit a node, and the room of the nodes.
#[derive(Debug)]
struct Pieces {
    nodes: BTreeMap<String, usize>,
    room: Vec<Vector>,
    takes: Vector,
    /// Name, and what it keeps beside this pod.
    pieces: Vec<(String, Vector)>,
    /// Which of them have room in one piece now.
    placed: Vec<bool>,
}

impl Pieces {
    fn new(
        guarantees: &Guarantees,
        pool: &[&NodeInfo],
        (before, after): (&[Resources], &[Resources]),
        takes: &Resources,
    ) -> Option<Pieces> {
        let keeping: Vec<usize> = (0..before.len()).filter(|at| !after[*at].0.is_empty()).collect();
        if keeping.is_empty() || keeping.len().saturating_mul(pool.len()) > PACKED_MAX {
            return None;
        }
        // What no node says that it has cannot be looked for.
        let is_there = |name: &&String| pool.iter().any(|node| !node.allocatable.get(name).is_zero());
        let mut names: Vec<&String> = keeping.iter().flat_map(|at| before[*at].0.keys()).filter(is_there).collect();
        names.sort();
        names.dedup();
        let vector = |amounts: &Resources| names.iter().map(|name| amounts.get(name).nano_value()).collect::<Vector>();
        let room: Vec<Vector> = pool.iter().map(|node| vector(&free(node))).collect();
        let now: Vec<Vector> = keeping.iter().map(|at| vector(&before[*at])).collect();
        let placed = pack(room.clone(), &now);
        let nodes = pool.iter().enumerate().map(|(at, node)| (node.name().to_owned(), at)).collect();
        let named = |at: &usize| (guarantees.all[*at].name.clone(), vector(&after[*at]));
        let pieces = keeping.iter().map(named).collect();
        Some(Pieces { nodes, room, takes: vector(takes), pieces, placed })
    }

    fn failure(&self, node: &NodeInfo) -> Option<String> {
        let at = *self.nodes.get(node.name())?;
        let mut room = self.room.clone();
        room[at].iter_mut().zip(&self.takes).for_each(|(free, takes)| *free -= takes);
        let pieces: Vec<Vector> = self.pieces.iter().map(|(_, piece)| piece.clone()).collect();
        let placed = pack(room, &pieces);
        let fewer =
            placed.iter().filter(|placed| **placed).count() < self.placed.iter().filter(|placed| **placed).count();
        let lost = placed.iter().zip(&self.placed).position(|(now, before)| *before && !now).filter(|_| fewer)?;
        Some(format!("node(s) keep room in one piece for what is guaranteed to {}", self.pieces[lost].0))
    }
}

/// Which pieces have room, each on one node: the large ones first, each where it leaves least.
fn pack(mut room: Vec<Vector>, pieces: &[Vector]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by(|a, b| pieces[*b].cmp(&pieces[*a]));
    let mut placed = vec![false; pieces.len()];
    for at in order {
        let piece = &pieces[at];
        let fits = |free: &&mut Vector| free.iter().zip(piece).all(|(free, needs)| needs <= free || *needs == 0);
        if let Some(best) = room.iter_mut().filter(fits).min_by(|a, b| a.cmp(b)) {
            best.iter_mut().zip(piece).for_each(|(free, needs)| *free -= needs);
            placed[at] = true;
        }
    }
    placed
}

#[cfg(test)]
mod tests;
