//! Buffers: capacity is bought before somebody needs it, as the AcquisitionPolicy says (D2.1 §6.4.3, proactive acquisition).
//!
//! ```text
//! AcquisitionPolicy.buffers ─┐
//! Solvers of buffers ────────┼─▶ view ─▶ plan (market::buffer_plan) ─▶ act ─┬─▶ a Solver more: the importer buys
//! Contracts, Nodes, Pods ────┘                                              ├─▶ a Solver less: its contracts end
//!                                                                           └─▶ AcquisitionPolicy.status.buffers
//! ```
//! A *lot* is one Solver with the label `fluidos.eu/buffer` and what it has bought. It is bought like anything else: with the same
//! ranking, conditions and ceilings, and renewed by its own terms. Workloads that fit are placed onto it by the orchestrator.
//!
//! Limits: how long a lot was unused is counted from the start of this process on; a pod that comes at the very moment in which an unused
//! lot is released is moved like one whose contract ends.

mod act;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use fluidos_model::kinds::{AcquisitionPolicy, Contract, Solver, names};
use fluidos_model::market::buffer_plan;
use futures::future::select_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use substrate_client::Access;

use self::view::{Unused, View};

/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(200);
/// Time alone releases what is unused and replaces what ends.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Keeps the buffers for ever.
pub async fn run(access: impl Into<Access>) {
    let Access { client, caches } = access.into();
    let policies = caches.namespaced::<AcquisitionPolicy>(names::NAMESPACE);
    let solvers = caches.namespaced::<Solver>(names::NAMESPACE);
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let nodes = caches.all::<Node>();
    let pods = caches.all::<Pod>();
    tokio::join!(policies.synced(), solvers.synced(), contracts.synced(), nodes.synced(), pods.synced());
    let mut changes = [policies.changes(), solvers.changes(), contracts.changes(), nodes.changes(), pods.changes()];
    let mut unused = Unused::new();
    // Written or deleted, and not seen so yet.
    let mut pending: BTreeMap<String, Timestamp> = BTreeMap::new();
    loop {
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let now = Timestamp::now();
        let mut next = None::<Timestamp>;
        let view = View::new(&policies.list(), &solvers.list(), &contracts.list(), &nodes.list(), &pods.list());
        let lots = view.lots(&mut unused, now);
        if let Some(policy) = &view.policy {
            let mut told = Vec::new();
            for buffer in &view.buffers {
                let of = lots.get(&buffer.name).cloned().unwrap_or_default();
                let plan = buffer_plan(buffer, &of, now);
                let waits = pending.get(&buffer.name).is_some_and(|until| *until > now);
                if let Some(step) = plan.step.as_ref().filter(|_| !waits) {
                    match act::act(&client, buffer, step).await {
                        // The caches show it within milliseconds; nothing is done twice meanwhile.
                        Ok(()) => drop(
                            pending
                                .insert(buffer.name.clone(), crate::terms::shifted(now, GATHER * 5, 1).unwrap_or(now)),
                        ),
                        Err(error) => tracing::warn!(buffer = buffer.name, %error, "a buffer is not brought forward"),
                    }
                }
                let soon = pending.get(&buffer.name).copied().filter(|until| *until > now);
                next = [next, plan.look_again, soon].into_iter().flatten().min();
                if !buffer.amounts.is_zero() {
                    told.push((buffer.clone(), plan, of.len()));
                }
            }
            if let Err(error) = act::tell(&client, policy, &told).await {
                tracing::warn!(policy = policy.name_any(), %error, "how buffers stand is not written");
            }
        }
        let wait = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or(LOOK_AGAIN);
        let changed = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}
