//! Access to services that this node buys: asks their sellers, and keeps Secret and Service as they say.
//!
//! | contract | access |
//! |---|---|
//! | live, seller answers that it is ready | Secret, Service and EndpointSlice are as it says; Allocation Active |
//! | live, seller does not answer | stays as it was |
//! | ended, over, deleted | goes |

mod act;
pub mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use fluidos_identity::fabric_prefix;
use fluidos_model::kinds::{Allocation, AllocationPhase, Contract, names};
use futures::future::{join_all, select_all};
use jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use substrate_client::Access;

use crate::answer::{Answer, KIND, Question};
use crate::{Deal, Options};

/// A service that is being made is asked for so often.
const ASK_SOON: Duration = Duration::from_secs(2);
/// The pods behind a service may have moved: so long a connection to it may fail.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A peer on the same continent answers within two tenths of a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps access for ever.
pub async fn run(access: Access, options: Options) {
    let Access { client, caches } = access;
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let allocations = caches.namespaced::<Allocation>(names::NAMESPACE);
    tokio::join!(contracts.synced(), allocations.synced());
    let mut changes = [contracts.changes(), allocations.changes()];
    loop {
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let (contract_list, allocation_list) = (contracts.list(), allocations.list());
        let of_contract = allocation_list.iter().filter_map(|allocation| {
            Some((allocation.labels().get(names::LABEL_CONTRACT)?.clone(), allocation.as_ref()))
        });
        let allocations_of: BTreeMap<String, &Allocation> = of_contract.collect();
        let bought: Vec<(Deal, &Contract)> = contract_list
            .iter()
            .filter_map(|contract| Some((Deal::of(contract, &options.speakers, Timestamp::now())?, contract.as_ref())))
            .filter(|(deal, _)| deal.buyer == options.own && deal.live && allocations_of.contains_key(&deal.contract))
            .collect();
        let all_ready = join_all(bought.iter().map(|(deal, contract)| async {
            let allocation = allocations_of.get(&deal.contract)?;
            Some(keep(&client, &options, deal, contract, allocation).await)
        }));
        let all_ready = all_ready.await.into_iter().flatten().all(|ready| ready);
        let live: Vec<&str> = bought.iter().map(|(deal, _)| deal.contract.as_str()).collect();
        if let Err(error) = act::sweep(&client, &live).await {
            tracing::warn!(%error, "what is left of services that were bought is not taken away");
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

/// Brings access to one service up to date; returns whether it can be used.
async fn keep(client: &Client, options: &Options, deal: &Deal, contract: &Contract, allocation: &Allocation) -> bool {
    let (phase, message, secret) = match access(client, options, deal, contract).await {
        Ok(secret) => {
            let message = format!("the service is used by Secret {} in namespace {}", secret.name, secret.namespace);
            (AllocationPhase::Active, message, Some(secret))
        }
        Err(reason) => (AllocationPhase::Provisioning, reason, None),
    };
    let status = allocation.status.clone().unwrap_or_default();
    // One that was in use stays so: what it has leads to the instance as long as there is one.
    let worse = status.status == AllocationPhase::Active && secret.is_none();
    if !worse && (status.status, status.message.as_str()) != (phase, message.as_str()) {
        let said = act::say(client, &allocation.name_any(), phase, &message, secret.as_ref()).await;
        if let Err(error) = said {
            tracing::warn!(%error, "an allocation of a service");
        }
    }
    phase == AllocationPhase::Active
}

/// Asks the seller and writes what it says; returns where, or why it cannot be used yet.
async fn access(client: &Client, options: &Options, deal: &Deal, contract: &Contract) -> Result<plan::Place, String> {
    let question = Question { contract: deal.contract.clone() };
    let answer: Result<Answer, _> = options.links.request(&deal.seller, KIND, &question, PATIENCE).await;
    let answer = answer.map_err(|error| format!("its seller does not answer: {error}"))?;
    let answer =
        answer.checked(&fabric_prefix(&deal.seller_first, 0)).map_err(|reason| format!("its seller: {reason}"))?;
    if !answer.ready {
        return Err(format!("its seller: {}", answer.message));
    }
    let place = plan::place(contract, &deal.contract)?;
    let wanted = plan::access(contract, &deal.contract, &place, &answer);
    act::write(client, &wanted, &deal.contract).await?;
    Ok(place)
}
