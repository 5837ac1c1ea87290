//! The ratings and metrics database: what this node sees of its peers, kept as one Rating for each.
//!
//! A Rating begins with a deal: who was only met on the network has none, so keys made for the purpose fill nothing. It ends
//! when what was seen weighs nothing any more.
//!
//! ```text
//! Reservations: sold or refused what was offered ─┐
//! Allocations: came into use or did not           ├─▶ plan ─▶ Rating.status (value, weight, observations)
//! Contracts: over before their time, not by us    │
//! Accounts, Invoices: buyers that pay, or sign not┤
//! TransparencyLog: who has rewritten its history  ┤
//! KnownClusters: link up or lost, each once a day ┤
//! KnownClusters: what others say in catalogs ─────┴─▶ Rating.status.global
//! ```
//! Limits: buyers are rated by paid invoices and withheld receipts only, as what costs nothing proves nothing; latency is kept and not judged, as nobody promises one; there are no disputes
//! before there are receipts. What others say is read in catalogs by discovery, which keeps it in KnownClusters; here it is weighed.

mod act;
mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    Account, Allocation, Contract, Invoice, KnownCluster, Rating, Reservation, TransparencyLog, names,
};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use substrate_client::{Access, Pace};

use self::plan::{Deal, View};

/// A deal is several changes: they are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Weights fade slowly; round trips are written as often.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Keeps the Ratings current, for ever. `own` is this node's key.
pub async fn run(access: impl Into<Access>, own: NodeId) {
    let Access { client, caches } = access.into();
    let known = caches.namespaced::<KnownCluster>(names::NAMESPACE);
    let reservations = caches.namespaced::<Reservation>(names::NAMESPACE);
    let allocations = caches.namespaced::<Allocation>(names::NAMESPACE);
    let ratings = caches.namespaced::<Rating>(names::NAMESPACE);
    let accounts = caches.namespaced::<Account>(names::NAMESPACE);
    let invoices = caches.namespaced::<Invoice>(names::NAMESPACE);
    tokio::join!(known.synced(), reservations.synced(), allocations.synced(), ratings.synced());
    let logs = caches.namespaced::<TransparencyLog>(names::NAMESPACE);
    tokio::join!(accounts.synced(), invoices.synced(), logs.synced());
    let (mut known_changed, mut reservations_changed) = (known.changes(), reservations.changes());
    let mut allocations_changed = allocations.changes();
    let (mut accounts_changed, mut invoices_changed) = (accounts.changes(), invoices.changes());
    let mut logs_changed = logs.changes();
    // Of a contract that goes, the last state says whose doing it was: a shared copy would only show that it is gone.
    let contracts = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let mut events = std::pin::pin!(watcher::watcher(contracts, watcher::Config::default()).default_backoff());
    let own = own.to_string();
    let mut deals: BTreeMap<String, Deal> = BTreeMap::new();
    let mut broken: Vec<(Deal, Timestamp)> = Vec::new();
    let mut tick = tokio::time::interval(LOOK_AGAIN);
    let mut all = false;
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        for changes in [&mut known_changed, &mut reservations_changed, &mut allocations_changed] {
            changes.mark_unchanged();
        }
        accounts_changed.mark_unchanged();
        invoices_changed.mark_unchanged();
        logs_changed.mark_unchanged();
        let (known_list, reservation_list) = (known.list(), reservations.list());
        let (account_list, invoice_list) = (accounts.list(), invoices.list());
        let (allocation_list, rating_list, log_list) = (allocations.list(), ratings.list(), logs.list());
        let view = View {
            own: &own,
            known: known_list.iter().map(AsRef::as_ref).collect(),
            reservations: reservation_list.iter().map(AsRef::as_ref).collect(),
            allocations: allocation_list.iter().map(AsRef::as_ref).collect(),
            accounts: account_list.iter().map(AsRef::as_ref).collect(),
            invoices: invoice_list.iter().map(AsRef::as_ref).collect(),
            rewriters: log_list.iter().filter_map(|log| log.status.as_ref()).flat_map(|s| s.rewriters()).collect(),
            ratings: rating_list.iter().map(AsRef::as_ref).collect(),
            deals: &deals,
            broken: &broken,
        };
        let mut done = true;
        for action in plan::plan(&view, all, Timestamp::now()) {
            if let Err(error) = act::act(&client, &action).await {
                tracing::warn!(%error, %action, "a rating could not be written");
                done = false;
            }
        }
        if done {
            broken.clear();
        }
        all = false;
        pace.end();
        let mut next = None;
        // Each arm only waits, or takes one whole event: losing the race loses nothing.
        tokio::select! {
            _ = known_changed.changed() => {}
            _ = reservations_changed.changed() => {}
            _ = allocations_changed.changed() => {}
            _ = accounts_changed.changed() => {}
            _ = invoices_changed.changed() => {}
            _ = logs_changed.changed() => {}
            _ = tick.tick() => all = true,
            Some(event) = events.next() => next = Some(event),
        }
        tokio::time::sleep(GATHER).await;
        // What has come meanwhile is looked at together, as far as there is room for what it says.
        next = next.or_else(|| events.next().now_or_never().flatten());
        while let Some(event) = next {
            match event {
                Ok(Event::Init) => deals.clear(),
                Ok(Event::Apply(contract) | Event::InitApply(contract)) => {
                    deals.insert(contract.name_any(), plan::deal(&contract));
                }
                Ok(Event::Delete(contract)) => {
                    deals.remove(&contract.name_any());
                    let now = Timestamp::now();
                    if plan::is_broken(&contract, &own, now) && broken.len() < plan::BROKEN_MAX {
                        broken.push((plan::deal(&contract), now));
                    }
                }
                Ok(Event::InitDone) => {}
                Err(error) => tracing::debug!(%error, "watch interrupted; it is resumed with back-off"),
            }
            let room = broken.len() < plan::BROKEN_MAX;
            next = if room { events.next().now_or_never().flatten() } else { None };
        }
    }
}
