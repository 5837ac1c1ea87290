//! Services that are sold on: what A is told of an instance that P has made for R, which is here.
//!
//! ```text
//!  A                       R                                                   P
//!  request `service/1` ─▶  contract C, served by X
//!     home of A            request `service/1` for X, with that home ────────▶ the instance lets that home in
//!                          EndpointSlice of C: stand-ins for addresses of P ◀─ endpoints, credentials
//!  ◀── stand-ins, credentials ── from memory
//! ```
//! A *stand-in* is an address of R that stands for one of P: node/fabric carries what A sends there to P, and back. Stand-ins and home are
//! written into an EndpointSlice before A is told of them, so that a restart changes nothing. The credentials are in memory only: R sees them, as
//! it sees the packets, and writes them nowhere.
//!
//! What P does not say any more stays as it was, as with any access; what P has never said A is not told.

mod act;
mod plan;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluidos_identity::fabric_prefix;
use fluidos_model::kinds::{Allocation, AllocationPhase, Contract, names};
use fluidos_model::service::StandIns;
use futures::future::{join_all, select_all};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt as _};
use substrate_client::{Access, Cache};

use crate::answer::Answer;
use crate::buyer::{self, ASK_AGAIN, ASK_SOON};
use crate::home::Home;
use crate::{Deal, Options};

/// What is remembered of what is sold on, by the contract that was sold.
#[derive(Default)]
pub(crate) struct Passed {
    answers: Mutex<BTreeMap<String, Answer>>,
    homes: Mutex<BTreeMap<String, Home>>,
}

impl Passed {
    fn answers(&self) -> MutexGuard<'_, BTreeMap<String, Answer>> {
        // One insertion writes it, so there is never half of it.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn homes(&self) -> MutexGuard<'_, BTreeMap<String, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the buyer of a contract is told.
    pub fn answer(&self, contract: &str) -> Answer {
        let waiting =
            || Answer { message: "who runs the service has not said yet that it is ready".into(), ..Answer::default() };
        self.answers().get(contract).cloned().unwrap_or_else(waiting)
    }

    /// Takes note of who uses a service: its buyer, or whom that one has sold it on to.
    pub fn used_from(&self, deal: &Deal, home: Option<Home>) {
        self.homes().insert(deal.contract.clone(), home.unwrap_or_else(|| Home::of(&deal.buyer_first)));
    }

    /// Forgets what is over.
    fn keep(&self, live: &[&str]) {
        self.answers().retain(|contract, _| live.contains(&contract.as_str()));
        self.homes().retain(|contract, _| live.contains(&contract.as_str()));
    }
}

/// Passes services on, for ever.
pub(crate) async fn run(access: Access, options: Options, passed: std::sync::Arc<Passed>) {
    let Access { client, caches } = access;
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let allocations = caches.namespaced::<Allocation>(names::NAMESPACE);
    let labelled = kube::runtime::watcher::Config::default().labels(names::LABEL_SERVICE_PASSED);
    let slices = Cache::<EndpointSlice>::start_with(Api::namespaced(client.clone(), names::NAMESPACE), labelled);
    tokio::join!(contracts.synced(), allocations.synced(), slices.synced());
    let mut changes = [contracts.changes(), allocations.changes(), slices.changes()];
    loop {
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let (contract_list, allocation_list) = (contracts.list(), allocations.list());
        let deals = contract_list.iter().filter_map(|it| Deal::of(it, &options.speakers, Timestamp::now()));
        let deals: BTreeMap<String, Deal> = deals.map(|deal| (deal.contract.clone(), deal)).collect();
        let pairs = plan::pairs(&deals, options.own);
        let answers = join_all(pairs.iter().map(|(sold, bought)| async {
            let home = passed.homes().get(&sold.contract).copied();
            let known = slices.get(names::NAMESPACE, &plan::slice_name(&sold.contract));
            let home = home.map(|home| home.to_string()).or_else(|| known.as_deref().and_then(plan::home));
            let home = home.unwrap_or_else(|| Home::of(&sold.buyer_first).to_string());
            (home.clone(), buyer::ask(&options, bought, Some(home)).await)
        }))
        .await;
        let live: Vec<&str> = pairs.iter().map(|(sold, _)| sold.contract.as_str()).collect();
        let mut given: BTreeMap<String, StandIns> = slices
            .list()
            .iter()
            .filter_map(|slice| Some((plan::contract(slice)?.to_owned(), plan::stand_ins_of(slice))))
            .filter(|(contract, _)| live.contains(&contract.as_str()))
            .collect();
        let own = fabric_prefix(&options.speakers.first(&options.own), 0);
        let mut all_ready = true;
        for ((sold, bought), (home, answer)) in pairs.iter().zip(answers) {
            let told = match answer {
                Ok(answer) => pass(&client, &own, (sold, &home), answer, &mut given).await,
                Err(reason) => Err(reason),
            };
            let (phase, message) = match told {
                Ok(answer) => {
                    passed.answers().insert(sold.contract.clone(), answer);
                    (AllocationPhase::Active, format!("the service is passed on from contract {}", bought.contract))
                }
                Err(reason) => (AllocationPhase::Provisioning, format!("contract {}: {reason}", bought.contract)),
            };
            all_ready &= phase == AllocationPhase::Active;
            for (contract, message) in [(&sold.contract, message), (&bought.contract, kept(phase, &sold.contract))] {
                let known = allocation_list.iter().find(|it| it.labels().get(names::LABEL_CONTRACT) == Some(contract));
                if let Some(known) = known {
                    say(&client, known, phase, &message).await;
                }
            }
        }
        passed.keep(&live);
        if let Err(error) = act::sweep(&client, &slices.list(), &live).await {
            tracing::warn!(%error, "what is left of services that were passed on is not taken away");
        }
        let changed = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(if all_ready { ASK_AGAIN } else { ASK_SOON }) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // changes come in bursts
    }
}

/// For what a contract that was bought is kept, in words.
fn kept(phase: AllocationPhase, sold: &str) -> String {
    match phase {
        AllocationPhase::Active => format!("it serves contract {sold}, which was sold"),
        _ => format!("it is to serve contract {sold}, which was sold"),
    }
}

/// Writes by which addresses a service is known to who uses it; returns what that one is told.
async fn pass(
    client: &Client,
    own: &fluidos_identity::FabricPrefix,
    (sold, home): (&Deal, &str),
    answer: Answer,
    given: &mut BTreeMap<String, StandIns>,
) -> Result<Answer, String> {
    let stand_ins = plan::choose(own, &sold.contract, &answer, given)?;
    act::write(client, &plan::slice(&sold.contract, home, &stand_ins)).await.map_err(|error| error.to_string())?;
    given.insert(sold.contract.clone(), stand_ins.clone());
    Ok(plan::translated(answer, &stand_ins))
}

/// Says how an Allocation stands, if that is news. What was in use stays so.
async fn say(client: &Client, allocation: &Allocation, phase: AllocationPhase, message: &str) {
    let status = allocation.status.clone().unwrap_or_default();
    let worse = status.status == AllocationPhase::Active && phase != AllocationPhase::Active;
    if worse || (status.status, status.message.as_str()) == (phase, message) {
        return;
    }
    if let Err(error) = buyer::act::say(client, &allocation.name_any(), phase, message, None).await {
        tracing::warn!(%error, "an allocation of a service that is passed on");
    }
}
