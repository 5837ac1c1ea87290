//! Importer: a Solver becomes a contract.
//!
//! ```text
//! Solver ─▶ Discovery: trusted peers are asked, in parallel ─▶ PeeringCandidates, best first
//!              │ what was filtered out, and why, is in its message
//!              ▼
//!           Reservation: the best is held and bought; refused? the next; nobody has all of it? parts of several together
//!              ▼
//!           Transaction ─▶ Contract ─▶ Allocation ─▶ (fabric makes it Active) ─▶ Solver is Solved
//! ```
//! What may be paid is the AcquisitionPolicy's to say; without one only a stated price of 0 is. One purchase at a price is made at a
//! time, so that two do not both take the last of a ceiling.
//!
//! A peer has *refused* if it answered and what it offers is not what is asked for, or if it did not sell it. A peer that
//! does not answer, or about which something is not measured yet, is *pending*. One that offered and then did not answer, or
//! asks to come later, is *away*: others are tried, and it again after a pause that doubles. A peer that offers nothing at all, or a slice
//! of nothing, has refused, but its machine may have started a moment ago and not be ready: it is asked again for as long.
//!
//! | state | goes on when | ends |
//! |---|---|---|
//! | nobody has answered | a KnownCluster changes, every 2 s | `Timed Out` after 5 min |
//! | all have refused, some are pending or away or offer nothing | a KnownCluster changes, every second | `Failed` 5 s after the last refusal |
//! | all have refused | | `Failed` at once |

mod act;
mod ask;
#[cfg(feature = "bench")]
pub mod bench;
mod buy;
mod combine;
pub(crate) mod heard;
mod plain;
mod plan;
pub(crate) mod purse;
pub(crate) mod resale;
mod status;
#[cfg(test)]
mod tests;
mod trade;
pub(crate) mod view;
mod wanted;
pub(crate) mod weigh;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluidos_model::kinds::{AcquisitionPolicy, Allocation, Contract, KnownCluster, Rating, Reservation, Solver, names};
use futures::future::select_all;
use jiff::Timestamp;
use kube::ResourceExt as _;
use substrate_client::Access;
use tokio::task::JoinSet;

pub use self::plain::Acquire;
pub(crate) use self::trade::Stop;

use self::act::Done;
use self::view::{Searches, View};
use crate::Options;

/// Changes come in bursts: they are looked at together.
const GATHER: Duration = Duration::from_millis(5);
/// Time alone ends a search; a search that is under way says itself when to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Solvers that are worked on at the same time; more wait their turn. Each has at most one connection per peer.
const WORKING_MAX: usize = 16;
/// After something that the API did not do.
const PAUSE: Duration = Duration::from_secs(1);

/// Works on Solvers for ever.
pub async fn run(access: impl Into<Access>, options: Options) {
    let Access { client, caches } = access.into();
    let solvers = caches.namespaced::<Solver>(names::NAMESPACE);
    let peers = caches.namespaced::<KnownCluster>(names::NAMESPACE);
    let reservations = caches.namespaced::<Reservation>(names::NAMESPACE);
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let allocations = caches.namespaced::<Allocation>(names::NAMESPACE);
    let policies = caches.namespaced::<AcquisitionPolicy>(names::NAMESPACE);
    tokio::join!(solvers.synced(), peers.synced(), reservations.synced(), contracts.synced(), allocations.synced());
    let ratings = caches.namespaced::<Rating>(names::NAMESPACE);
    tokio::join!(policies.synced(), ratings.synced());
    let mut changes = [
        solvers.changes(),
        peers.changes(),
        reservations.changes(),
        contracts.changes(),
        allocations.changes(),
        policies.changes(),
        ratings.changes(),
    ];
    let mut searches = Searches::default();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut working: JoinSet<(String, Result<Done, act::Error>)> = JoinSet::new();
    loop {
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let now = Timestamp::now();
        let mut solver_list = solvers.list();
        // What is sold on is bought when its buyer buys.
        solver_list.retain(|solver| !solver.labels().contains_key(names::LABEL_RESALE));
        searches.keep(solver_list.iter().filter_map(|solver| solver.metadata.uid.as_deref()));
        let (contract_list, policy_list) = (contracts.list(), policies.list());
        if let Err(error) = purse::judge(&client, &policy_list).await {
            tracing::warn!(%error, "an AcquisitionPolicy's status was not written");
        }
        let contract_names = by_name(&contract_list);
        searches.settle(&contract_names, now);
        let view = View {
            solvers: solver_list.iter().map(AsRef::as_ref).collect(),
            reservations: by_name(&reservations.list()),
            purse: purse::purse(&policy_list, &contract_list),
            contracts: contract_names,
            allocations: by_name(&allocations.list()),
            peers: view::peers(
                peers.list().iter().map(AsRef::as_ref),
                &view::ratings(ratings.list().iter().map(AsRef::as_ref)),
                options.key.id(),
                now,
            ),
            searches: &searches,
        };
        let plan = plan::plan(&view, now);
        for (uid, solver, action) in plan.actions {
            if working.len() >= WORKING_MAX || !busy.insert(uid.clone()) {
                continue;
            }
            if action.pays() {
                searches.pays(&uid);
            }
            let (client, options) = (client.clone(), options.clone());
            working.spawn(async move { (uid, act::act(&client, &options, &solver, action).await) });
        }
        let wait = plan.look_again.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let wait = wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        let changed = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        // Each arm only waits, or takes a result that is kept here: losing the race loses nothing.
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(wait) => {}
            Some(done) = working.join_next() => match done {
                Ok((uid, done)) => {
                    busy.remove(&uid);
                    searches.done(&uid, done, Timestamp::now());
                }
                Err(error) => tracing::error!(%error, "work on a Solver broke off"),
            },
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn by_name<K: kube::Resource>(list: &[std::sync::Arc<K>]) -> BTreeMap<String, std::sync::Arc<K>> {
    list.iter().filter_map(|object| Some((object.meta().name.clone()?, object.clone()))).collect()
}
