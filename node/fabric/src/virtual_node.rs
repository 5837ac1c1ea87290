//! Virtual nodes: a *virtual node* is the Node object that stands for a contract at its buyer, of exactly the size bought.
//!
//! ```text
//! Contract, Allocation, links, what providers said ─▶ View ─▶ plan ─▶ act ─▶ Node, Lease, Allocation's status, NodeProxy
//! ```
//! | link | provider's word | Ready | taints of `node.kubernetes.io` |
//! |---|---|---|---|
//! | up | Ready | True | none |
//! | up | not yet | False | `not-ready` |
//! | up | Ready, but what it sold is not there | False, with its reason | `not-ready` |
//! | down | | Unknown | `unreachable` |
//!
//! One that serves contracts which were sold (`resale`) has the taint `fluidos.eu/resale` besides: only their twins tolerate it.
//!
//! The node is written at once, not after its Lease has aged. A contract that ends takes its node with it: first its pods
//! are deleted, then the node; when the contract is gone they go at once, for its seller has stopped them.

mod act;
mod object;
mod plan;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_link::Event;
use jiff::Timestamp;
use substrate_client::Pace;

pub(crate) use self::act::absent_is_well;
pub(crate) use self::object::time;
use self::view::{Link, View};

use crate::fabric::Shared;
use crate::streams::RemoteNode;

/// Several objects of one contract change together.
const GATHER: Duration = Duration::from_millis(5);
/// Latency is measured again, Leases are renewed, and what could not be written is written.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Keeps virtual nodes for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut events = shared.links.events();
    let mut ready = shared.ready.subscribe();
    let mut contracts = shared.contracts.changes();
    let mut allocations = shared.allocations.changes();
    let mut nodes = shared.nodes.changes();
    let mut pods = shared.pods.changes();
    let mut served: BTreeMap<String, (String, NodeId)> = BTreeMap::new();
    let mut leases: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        for changes in [&mut contracts, &mut allocations, &mut nodes, &mut pods] {
            changes.mark_unchanged();
        }
        let said = ready.borrow_and_update().clone();
        let now = Timestamp::now();
        let view = view(&shared, said, &leases, now);
        serve(&shared, &view, &mut served);
        let actions = plan::plan(&view, now);
        leases.retain(|node, _| view.nodes.contains_key(node));
        for action in actions {
            match act::act(&shared, &action).await {
                Ok(()) => {
                    if let plan::Action::Renew { node } = &action {
                        leases.insert(node.clone(), now);
                    }
                }
                Err(error) if error.is_stale() => tracing::debug!(?action, %error, "planned from an older view"),
                Err(error) => tracing::warn!(?action, %error, "virtual node"),
            }
        }
        pace.end();
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            event = events.recv() => if let Ok(Event::Down { peer, .. }) = event { tracing::info!(%peer, "link down") },
            _ = ready.changed() => {}
            _ = contracts.changed() => {}
            _ = allocations.changed() => {}
            _ = nodes.changed() => {}
            _ = pods.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn view(
    shared: &Shared,
    ready: BTreeMap<String, Option<String>>,
    leases: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> View {
    let peers = shared.links.peers();
    let links = peers.into_iter().map(|peer| {
        let latency = shared.links.get(&peer.id).map(|session| session.stats().round_trip);
        let latency_micros = latency.and_then(|latency| u64::try_from(latency.as_micros()).ok());
        (peer.id, Link { name: peer.name, latency_micros })
    });
    let (contracts, allocations, nodes, pods) =
        (shared.contracts.list(), shared.allocations.list(), shared.nodes.list(), shared.pods.list());
    View::new(
        (shared.id(), &shared.speakers),
        &shared.node_name,
        contracts.iter().map(AsRef::as_ref),
        allocations.iter().map(AsRef::as_ref),
        nodes.iter().map(AsRef::as_ref),
        pods.iter().map(AsRef::as_ref),
        links.collect(),
        ready,
        leases.clone(),
        now,
    )
}

/// Answers for the virtual nodes that there are, and for no others.
fn serve(shared: &Arc<Shared>, view: &View, served: &mut BTreeMap<String, (String, NodeId)>) {
    let mut wanted = BTreeMap::new();
    for (name, node) in &view.nodes {
        if let Some(place) = view.places.get(&node.contract) {
            wanted.insert(name.clone(), (node.contract.clone(), place.deal.seller));
        }
    }
    // The peer too: it may have another key now.
    served.retain(|node, known| {
        let keep = wanted.get(node) == Some(known);
        if !keep {
            shared.proxies.unregister(node);
        }
        keep
    });
    for (node, (contract, peer)) in wanted {
        served.entry(node).or_insert_with_key(|node| {
            let remote = RemoteNode { shared: shared.clone(), peer, contract: contract.clone() };
            shared.proxies.register(node, Arc::new(remote));
            (contract, peer)
        });
    }
}
