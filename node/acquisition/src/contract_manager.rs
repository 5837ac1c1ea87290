//! Contract manager: ends contracts on both sides, and has them go on.
//!
//! A contract *ends* when somebody deletes it, its time is over, or the other side releases it. One that is deleted here is
//! told to the other side, signed, before it goes (finalizer `fluidos.eu/release`).
//!
//! ```text
//! deleted ─▶ Allocation goes, Ledger is freed ─▶ tell ─┬─ told, or nothing to tell ─▶ gone
//!                                                 ▲    ├─ unreachable: later ──┐
//!                                                 └────┼───────────────────────┘
//!                                                      └─ a day is over: gone, with a Warning event
//! ```
//! One with the annotation `fluidos.eu/end-reason` ends after the *notice* that both have signed, without one at once: the other side
//! is told when, both write it into `status.ends`, and the buyer stops using it, so that its pods move while there is time. A buyer
//! that deletes it goes at once and pays until the notice is over; the seller keeps it until then.
//!
//! One whose conditions have a *renewal* goes on beyond its end while its buyer uses it and its policy can pay it: the same contract,
//! so nothing that runs moves. What is asked for is written before it is sent, and asked again until it is answered:
//!
//! ```text
//! near its end ─▶ spec.renewalAsked, signed by the buyer ─▶ seller ─▶ spec.renewal, signed by both, spec.expirationTime
//!                                                        └─ no: status.renewal says why; asked again each minute until its end
//! ```
//! One that was bought and has the annotation `fluidos.eu/suspended` is *suspended*: its Allocation goes, what it costs and what is
//! promised stays, and without the annotation it comes back.
//!
//! What the other side releases comes through the exporter, which lets the contract go without an answer.

mod act;
mod plan;
mod renewal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluidos_model::kinds::{AcquisitionPolicy, Contract, KnownCluster, names};
use jiff::Timestamp;
use substrate_client::{Access, Pace};
use tokio::task::JoinSet;

use self::plan::{Try, View};
use crate::Options;
use crate::importer::purse::purse;
use fluidos_ledger::Books;

/// Deleting a Solver ends its contracts together: they are looked at together.
const GATHER: Duration = Duration::from_millis(10);
/// Time alone ends contracts, and so do keys that are revoked; what could not be written is written later.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Others are told at the same time; each is one small request. More wait their turn.
const TELLING_MAX: usize = 16;

/// Ends contracts for ever.
pub async fn run(access: impl Into<Access>, options: Options) {
    let access = access.into();
    let books = Books::shared(&access);
    let Access { client, caches } = access;
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let peers = caches.namespaced::<KnownCluster>(names::NAMESPACE);
    let policies = caches.namespaced::<AcquisitionPolicy>(names::NAMESPACE);
    tokio::join!(contracts.synced(), peers.synced(), policies.synced());
    let (mut contracts_changed, mut peers_changed) = (contracts.changes(), peers.changes());
    let mut tries: BTreeMap<String, Try> = BTreeMap::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut working = JoinSet::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        contracts_changed.mark_unchanged();
        peers_changed.mark_unchanged();
        let (contract_list, peer_list, now) = (contracts.list(), peers.list(), Timestamp::now());
        let view = View {
            own: options.key.id(),
            contracts: contract_list.iter().map(AsRef::as_ref).collect(),
            peers: peer_list.iter().map(AsRef::as_ref).collect(),
            tries: &tries,
            purse: purse(&policies.list(), &contract_list),
            speakers: &options.speakers,
        };
        let plan = plan::plan(&view, now);
        let known: BTreeSet<&str> = contract_list.iter().filter_map(|known| known.metadata.uid.as_deref()).collect();
        tries.retain(|uid, _| known.contains(uid.as_str()));
        for (uid, action) in plan.actions {
            if working.len() >= TELLING_MAX || !busy.insert(uid.clone()) {
                continue;
            }
            let (client, options, books) = (client.clone(), options.clone(), books.clone());
            working.spawn(async move {
                let done = act::act(&client, &options, &books, &action).await;
                (uid, done)
            });
        }
        pace.end();
        let wait = plan.look_again.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let wait = wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        // Each arm only waits, or takes a result that is kept here: losing the race loses nothing.
        tokio::select! {
            _ = contracts_changed.changed() => {}
            _ = peers_changed.changed() => {}
            () = tokio::time::sleep(wait) => {}
            Some(done) = working.join_next() => match done {
                Ok((uid, done)) => {
                    busy.remove(&uid);
                    match done {
                        Ok(()) => drop(tries.remove(&uid)),
                        Err(error) => {
                            tracing::debug!(%error, "what is to be done with a contract is tried again");
                            tries.entry(uid).or_default().failed(Timestamp::now(), error.to_string());
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "ending a contract broke off"),
            },
        }
        tokio::time::sleep(GATHER).await;
    }
}
