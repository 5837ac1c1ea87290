//! Reflection, the remote service handler: what happens on a virtual node happens at its provider.
//!
//! A pod bound to a virtual node is *wanted* there from its binding to its deletion. What is wanted is said on one stream
//! per contract; what the provider says about it is written on the pod.
//!
//! ```text
//! pods, ConfigMaps, Secrets, Services ─▶ View ─▶ plan ─▶ act ─┬─ desired/1: Begin, Put…, Synced; Put, Delete
//!                        what was said and heard (State) ─┘   ├─ pods' status
//!          Observed, Refused, Gone, Ready ──────────▶ State   └─ pods removed when nothing of them runs any more
//! ```
//! What serves contracts that were sold is for their twins (`resale`): another pod that was put there is not sent, and told so. Its provider
//! hears nothing until one of the buyers has said, since this process started, what it wants.
//!
//! A deleted pod stays until its provider says that it is gone. If the provider cannot be reached the pod goes when its grace
//! is over: it will not be named in the next `Begin`, which stops its twin before the node is Ready again.

mod act;
mod package;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_link::{Event, Session};
use fluidos_model::kinds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use substrate_client::Pace;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

pub use self::package::{Named, named};
use self::plan::{State, View};
use crate::Error;
use crate::deal::Deal;
use crate::fabric::Shared;
use crate::frames::{self, Change, Desired, FRAME_BYTES_MAX, Header, Reported};
use crate::tasks::Task;
use crate::{resale, twins};

/// A pod and what goes with it change together.
const GATHER: Duration = Duration::from_millis(5);
/// Graces end and refusals are tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A provider that refuses the stream is asked again: soon at first, then no more often than this.
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(200);
/// A provider that does not take a frame for this long does not work.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a provider may say ahead of our writing it down; then the stream holds it back.
const HEARD_MAX: usize = 64;

/// Reflects all contracts that this node has bought, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut contracts = shared.contracts.changes();
    // Each with the key of its provider: with another one it begins anew.
    let mut tasks: BTreeMap<String, (NodeId, Task)> = BTreeMap::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        contracts.mark_unchanged();
        let list = shared.contracts.list();
        let deals = list.iter().filter_map(|contract| Deal::of(contract, &shared.speakers).ok());
        let deals = deals.filter(|deal| deal.buyer == shared.id());
        let deals: BTreeMap<String, Deal> = deals.map(|deal| (deal.name.clone(), deal)).collect();
        tasks.retain(|name, (seller, _)| deals.get(name).is_some_and(|deal| deal.seller == *seller));
        shared.keep_epochs(|contract| deals.contains_key(contract));
        for (name, deal) in deals {
            let shared = shared.clone();
            tasks.entry(name).or_insert_with(|| (deal.seller, Task::spawn(reflect(shared, deal))));
        }
        let known: BTreeSet<&String> = tasks.keys().collect();
        shared.ready.send_if_modified(|ready| {
            let before = ready.len();
            ready.retain(|contract, _| known.contains(contract));
            ready.len() != before
        });
        pace.end();
        // Losing the race loses nothing: what has changed stays marked. Keys change without a contract that does.
        tokio::select! {
            changed = contracts.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// An open stream to the provider.
struct Stream {
    to: tokio::io::WriteHalf<fluidos_link::LinkStream>,
    heard: mpsc::Receiver<Result<Reported, Error>>,
    _reader: Task,
}

/// Reflects one contract until dropped.
async fn reflect(shared: Arc<Shared>, deal: Deal) {
    let mut events = shared.links.events();
    let mut confirmed = shared.confirmed_changes();
    let mut changes = [
        shared.pods.changes(),
        shared.config_maps.changes(),
        shared.secrets.changes(),
        shared.services.changes(),
        shared.nodes.changes(),
    ];
    let mut stream: Option<Stream> = None;
    let mut state = State::new(Timestamp::now());
    let mut retry = RETRY_MIN;
    let mut retry_at = tokio::time::Instant::now();
    loop {
        changes.iter_mut().for_each(|changes| drop(changes.borrow_and_update()));
        let mut failed = None;
        confirmed.mark_unchanged();
        let waits = shared.waits_for_buyers(&deal.name);
        if stream.is_none()
            && !waits
            && tokio::time::Instant::now() >= retry_at
            && let Some(session) = shared.links.get(&deal.seller)
        {
            let (since, was_connected) = (state.since, state.was_connected);
            match begin(&shared, &deal, &session, &mut state).await {
                Ok(opened) => stream = Some(opened),
                Err(error) => {
                    // It is still the same silence.
                    state = State { since, was_connected, ..State::default() };
                    failed = Some(error);
                }
            }
        }
        let now = Timestamp::now();
        let view = view(&shared, &deal);
        state.tidy(&view);
        for action in plan::plan(&view, &state, now) {
            let sending = stream.as_mut().map(|stream| &mut stream.to);
            match act::act(&shared, &deal, &mut state, sending, action).await {
                Ok(()) => {}
                Err(act::Failure::Stream(error)) => {
                    failed = Some(error);
                    break;
                }
                Err(act::Failure::Here(error)) if error.is_stale() => {
                    tracing::debug!(%error, "planned from an older view")
                }
                Err(act::Failure::Here(error)) => tracing::warn!(contract = deal.name, %error, "reflection"),
            }
        }
        if state.connected {
            twins::tell_yielding(&shared, &deal.name, state.yielding.len()).await;
        }
        if failed.is_none() {
            let next_retry =
                if stream.is_none() && !waits { retry_at } else { tokio::time::Instant::now() + LOOK_AGAIN };
            let [pods, config_maps, secrets, services, nodes] = &mut changes;
            // Each arm only waits or takes one whole message: losing the race loses nothing.
            tokio::select! {
                heard = next(&mut stream) => match heard {
                    Ok(reported) => {
                        hear(&shared, &deal, &mut state, reported, &mut failed);
                        // What has been said by now is looked at together.
                        while let Some(more) = stream.as_mut().and_then(|s| s.heard.try_recv().ok()) {
                            match more {
                                Ok(reported) => hear(&shared, &deal, &mut state, reported, &mut failed),
                                Err(error) => failed = Some(error),
                            }
                        }
                        retry = RETRY_MIN;
                    }
                    Err(error) => failed = Some(error),
                },
                event = events.recv() => if matches!(&event, Ok(Event::Up(peer)) if peer.id == deal.seller) {
                    retry_at = tokio::time::Instant::now();
                },
                _ = pods.changed() => tokio::time::sleep(GATHER).await,
                _ = config_maps.changed() => tokio::time::sleep(GATHER).await,
                _ = secrets.changed() => tokio::time::sleep(GATHER).await,
                _ = services.changed() => tokio::time::sleep(GATHER).await,
                _ = nodes.changed() => {}
                _ = confirmed.changed(), if waits => {}
                () = tokio::time::sleep_until(next_retry), if shared.links.get(&deal.seller).is_some() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
        if let Some(error) = failed {
            tracing::info!(contract = deal.name, peer = %deal.seller, %error, "the stream of desired state ended");
            stream = None;
            state.disconnect(Timestamp::now());
            say_ready(&shared, &deal.name, &state);
            retry_at = tokio::time::Instant::now() + retry;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}

/// Opens the stream and says what shall exist.
async fn begin(shared: &Shared, deal: &Deal, session: &Session, state: &mut State) -> Result<Stream, Error> {
    let opened = session.open(frames::DESIRED, &Header { contract: deal.name.clone() }).await?;
    let (mut from, mut to) = tokio::io::split(opened);
    let (sender, heard) = mpsc::channel(HEARD_MAX);
    let reader = Task::spawn(async move {
        loop {
            let reported = frames::read::<Reported>(&mut from, "observed state", FRAME_BYTES_MAX).await;
            let is_last = reported.is_err();
            if sender.send(reported).await.is_err() || is_last {
                return;
            }
        }
    });
    let view = view(shared, deal);
    state.connect(&view);
    let named = state.named.iter().cloned().collect();
    send(shared, deal, &mut to, Change::Begin { pods: named }).await?;
    for action in plan::puts(&view, state) {
        match act::act(shared, deal, state, Some(&mut to), action).await {
            Ok(()) => {}
            Err(act::Failure::Stream(error)) => return Err(error),
            Err(act::Failure::Here(error)) => tracing::warn!(contract = deal.name, %error, "reflection"),
        }
    }
    send(shared, deal, &mut to, Change::Synced).await?;
    Ok(Stream { to, heard, _reader: reader })
}

/// Signs a change and sends it.
async fn send(
    shared: &Shared,
    deal: &Deal,
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    change: Change,
) -> Result<(), Error> {
    let desired = Desired {
        contract: deal.name.clone(),
        consumer: shared.id(),
        provider: deal.seller,
        epoch: shared.epoch(&deal.name),
        sequence: shared.next_sequence(),
        change,
    };
    let envelope = frames::seal(&shared.key, &desired)?;
    let writing = async {
        frames::write(to, "desired state", &envelope).await?;
        to.flush().await.map_err(Error::stream("desired state"))
    };
    tokio::time::timeout(WRITE_TIMEOUT, writing).await.unwrap_or_else(|_| {
        Err(Error::stream("desired state")(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the provider does not read",
        )))
    })
}

/// The next word of the provider; for ever nothing without a stream.
async fn next(stream: &mut Option<Stream>) -> Result<Reported, Error> {
    match stream {
        Some(stream) => stream
            .heard
            .recv()
            .await
            .unwrap_or_else(|| Err(Error::stream("observed state")(std::io::ErrorKind::UnexpectedEof.into()))),
        None => std::future::pending().await,
    }
}

fn hear(shared: &Shared, deal: &Deal, state: &mut State, reported: Reported, failed: &mut Option<Error>) {
    match reported {
        Reported::Ready => {
            state.ready = true;
            say_ready(shared, &deal.name, state);
        }
        Reported::Capacity { missing } => {
            state.missing = missing.map(|why| frames::cut(&why, plan::REASON_LENGTH_MAX));
            say_ready(shared, &deal.name, state);
        }
        Reported::Closing { reason, newest_epoch } => {
            if let Some(newest) = newest_epoch {
                shared.go_on_after(&deal.name, newest);
            }
            *failed = Some(Error::Closing(frames::cut(&reason, 512)));
        }
        other => state.hear(other, Timestamp::now()),
    }
}

fn say_ready(shared: &Shared, contract: &str, state: &State) {
    let said = state.ready.then(|| state.missing.clone());
    shared.ready.send_if_modified(|ready| {
        let before = match &said {
            Some(missing) => ready.insert(contract.into(), missing.clone()),
            None => ready.remove(contract),
        };
        before != said
    });
}

fn view(shared: &Shared, deal: &Deal) -> View {
    let is_ours = |node: &str| {
        shared.nodes.get("", node).is_some_and(|node| {
            node.labels().contains_key(names::VIRTUAL_NODE)
                && node.labels().get(names::LABEL_CONTRACT) == Some(&deal.name)
        })
    };
    let on_it = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(is_ours);
    let pods: Vec<Arc<Pod>> = shared.pods.list().into_iter().filter(|pod| on_it(pod)).collect();
    let serving = shared.serving();
    let sold = serving.get(&deal.name);
    let why_not = |pod: &Arc<Pod>| Some((pod.uid()?, resale::barred(&deal.name, sold, pod)?));
    let barred: BTreeMap<String, String> = pods.iter().filter_map(why_not).collect();
    let packages = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| !pod.uid().is_some_and(|uid| barred.contains_key(&uid)))
        .filter_map(|pod| {
            let namespace = pod.namespace().unwrap_or_default();
            let around = package::Around {
                config_map: &|name| shared.config_maps.get(&namespace, name),
                secret: &|name| shared.secrets.get(&namespace, name),
                services: shared.services.list_in(&namespace),
                dns_address: shared.dns_address,
                cluster_domain: &shared.cluster_domain,
            };
            let package = package::package(pod, &around);
            let package = match sold {
                Some(_) => resale::onward(package, pod, shared.home_of(pod)?),
                None => package,
            };
            Some((pod.uid().unwrap_or_default(), package))
        })
        .collect();
    View { pods, packages, barred, prefix: (shared.prefix_of)(&deal.seller) }
}
