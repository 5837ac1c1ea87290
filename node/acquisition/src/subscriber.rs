//! Subscriber: keeps PeeringCandidates as their sellers say they are.
//!
//! A candidate is *current* if and only if its flavor is what its seller last told this node, and `available` if and only if that can be
//! bought. A seller is *followed* while there is a candidate of it, which is as long as a Solver is interested, and it is trusted.
//!
//! ```text
//! PeeringCandidates, KnownClusters ─▶ plan: whom to follow ─▶ for each of them
//!      ▲                                                        │ subscription: REFRESH, WITHDRAW
//!      │                                                        │ no such route: its list, every 30 s
//!      └──────────── changed flavors, availability ◀── plan ────┘ no answer: again after 1 s, 2 s … 60 s
//! ```
//! While a Solver of the orchestrator waits, whoever is trusted is followed, too, and [`news`] that could serve it is told to it by an
//! annotation: a search that is under way asks again, one that has failed is made anew.
//!
//! Watches PeeringCandidates, KnownClusters and Solvers; writes `flavor`, `available` and the times of candidates, and the annotation
//! `fluidos.eu/offered` of Solvers. What a Solver decides is not changed by it: whoever buys asks again.

mod act;
mod news;
pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fluidos_model::kinds::{AcquisitionPolicy, KnownCluster, PeeringCandidate, Rating, Solver, names};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::Client;
use substrate_client::{Access, Cache, Caches};
use tokio::task::{AbortHandle, JoinSet};

use self::news::{Inbox, Known};
use self::plan::Seller;
use crate::Options;
use crate::importer::{purse, view};

/// Changes come in bursts: a search writes all its candidates.
const GATHER: Duration = Duration::from_millis(100);
/// Time alone ends a KnownCluster.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A seller that tells no changes is asked so often: what is said of its flavors is so old at most.
const POLL: Duration = Duration::from_secs(30);
/// After a seller did not answer; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// News is gathered for so long: a seller that changes a thousand times a second is looked at once.
const NEWS_GATHER: Duration = Duration::from_secs(1);

/// Follows sellers for ever.
pub async fn run(access: impl Into<Access>, options: Options) {
    let Access { client, caches } = access.into();
    let candidates = caches.namespaced::<PeeringCandidate>(names::NAMESPACE);
    let known = caches.namespaced::<KnownCluster>(names::NAMESPACE);
    let solvers = caches.namespaced::<Solver>(names::NAMESPACE);
    tokio::join!(candidates.synced(), known.synced(), solvers.synced());
    let (mut candidates_changed, mut known_changed) = (candidates.changes(), known.changes());
    let mut solvers_changed = solvers.changes();
    let inbox = Arc::new(Inbox::default());
    let mut waker = JoinSet::new();
    waker.spawn(wake(client.clone(), caches, options.clone(), inbox.clone()));
    let mut tasks = JoinSet::new();
    let mut followed: HashMap<Seller, AbortHandle> = HashMap::new();
    loop {
        candidates_changed.mark_unchanged();
        known_changed.mark_unchanged();
        solvers_changed.mark_unchanged();
        let list = known.list();
        let none = std::collections::BTreeMap::new();
        let peers = view::peers(list.iter().map(AsRef::as_ref), &none, options.key.id(), Timestamp::now());
        let waiting = solvers.list().iter().any(|solver| news::waits(solver));
        let wanted = plan::followed(candidates.list().iter().map(AsRef::as_ref), waiting, &peers);
        followed.retain(|seller, task| {
            let stays = wanted.contains(seller);
            if !stays {
                task.abort();
            }
            stays
        });
        for seller in wanted {
            let (client, options, of, inbox) = (client.clone(), options.clone(), seller.clone(), inbox.clone());
            let follow = async move { follow(&client, &options, &of, &inbox).await };
            followed.entry(seller).or_insert_with(|| tasks.spawn(follow));
        }
        // Each arm only waits, or takes what is over: losing the race loses nothing.
        tokio::select! {
            _ = candidates_changed.changed() => {}
            _ = known_changed.changed() => {}
            _ = solvers_changed.changed() => {}
            Some(_) = tasks.join_next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Wakes the Solvers that news could serve, for ever.
async fn wake(client: Client, caches: Caches, options: Options, inbox: Arc<Inbox>) {
    let solvers: Cache<Solver> = caches.namespaced(names::NAMESPACE);
    let known: Cache<KnownCluster> = caches.namespaced(names::NAMESPACE);
    let policies: Cache<AcquisitionPolicy> = caches.namespaced(names::NAMESPACE);
    let ratings: Cache<Rating> = caches.namespaced(names::NAMESPACE);
    tokio::join!(solvers.synced(), known.synced(), policies.synced(), ratings.synced());
    loop {
        inbox.there().await;
        tokio::time::sleep(NEWS_GATHER).await;
        let now = Timestamp::now();
        let ratings = view::ratings(ratings.list().iter().map(AsRef::as_ref));
        let peers = view::peers(known.list().iter().map(AsRef::as_ref), &ratings, options.key.id(), now);
        // What may be paid is decided when it is bought.
        let policy = purse::purse(&policies.list(), &[]).policy.and_then(Result::ok);
        let list = solvers.list();
        let woken = news::woken(list.iter().map(AsRef::as_ref), &peers, inbox.take(), policy.as_ref(), now);
        for (solver, seller) in woken {
            tracing::info!(solver, seller, "a seller has changed what it offers, and could serve this Solver now");
            if let Err(error) = act::tell(&client, &solver, &seller, now).await {
                tracing::warn!(solver, %error, "it was not told, and looks again by itself");
            }
        }
    }
}

/// Keeps the candidates of one seller current, for ever.
async fn follow(client: &Client, options: &Options, seller: &Seller, inbox: &Inbox) {
    let mut known = Known::default();
    let mut pause = PAUSE_FIRST;
    loop {
        match once(client, options, seller, (&mut known, inbox)).await {
            Ok(next) => {
                pause = PAUSE_FIRST;
                tokio::time::sleep(next).await;
            }
            // What was said stays: unreachable is not withdrawn. Who buys will see.
            Err(reason) => {
                tracing::debug!(seller = seller.name, reason, "a seller is not followed for a while");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

/// Follows a seller by a subscription until it ends, or by its list; returns when to do it again.
async fn once(
    client: &Client,
    options: &Options,
    seller: &Seller,
    (known, inbox): (&mut Known, &Inbox),
) -> Result<Duration, String> {
    let target = rear::Target { address: seller.address, expected: Some(seller.did) };
    let peer = (options.dial)(target)?;
    let all = rear::Selector { flavor_type: None, filters: Vec::new() };
    let told = |error: rear::ClientError| error.to_string();
    let Some(mut subscription) = peer.subscribe(&all).await.map_err(told)? else {
        let flavors = peer.list_flavors(&all).await.map_err(told)?;
        act::everything(client, seller.did, &flavors).await.map_err(|error| error.to_string())?;
        inbox.put(seller.did, known.all(seller.did, &flavors));
        return Ok(POLL);
    };
    let mut first = Some(Vec::new());
    while let Some(change) = subscription.next().await.map_err(told)? {
        let done = match (change, first.as_mut()) {
            // What is there from the beginning is complete with the first heartbeat: the rest is gone.
            (rear::Change::Refresh(flavor), Some(first)) if first.len() < plan::FLAVORS_MAX => {
                first.push(*flavor);
                Ok(())
            }
            (rear::Change::Refresh(flavor), None) => {
                inbox.put(seller.did, known.one(seller.did, &flavor));
                act::refresh(client, seller.did, &flavor).await
            }
            (rear::Change::Withdraw { flavor_id }, None) => {
                known.gone(&flavor_id);
                act::withdraw(client, seller.did, &flavor_id).await
            }
            (rear::Change::Heartbeat, Some(_)) => {
                let all = first.take().unwrap_or_default();
                inbox.put(seller.did, known.all(seller.did, &all));
                act::everything(client, seller.did, &all).await
            }
            _ => Ok(()),
        };
        done.map_err(|error| error.to_string())?;
    }
    Ok(PAUSE_FIRST)
}
