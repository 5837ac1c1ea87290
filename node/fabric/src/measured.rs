//! What running something at a provider shows of it. Its architecture is *seen* if and only if a container of ours is ready there whose image
//! is, by the digest that the provider reports, the one that this node keeps: that is for one architecture, so a machine of it runs there.
//!
//! ```text
//! pods of ours, ready on virtual nodes ─┐
//!            own images, by reference ──┴─▶ plan: provider ─▶ architectures ─▶ KnownCluster status.measured, until in 10 min
//!                                                                               └─▶ discovery weighs it against what is claimed
//! ```
//! Limits: that a container is ready, and of which image, is the provider's word: a liar who keeps it up has to run, or to answer, as the real
//! one would. What is resold is seen of nobody. Emulators are not seen through. Images that this node has not are not looked at.

mod act;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine_images::{Image, ImageStore};
use fluidos_model::kinds::names;
use jiff::Timestamp;
use kube::ResourceExt as _;

use self::plan::{Container, ready};
use crate::deal::Deal;
use crate::fabric::Shared;

/// Pods change together, and who looks for architectures has time.
const GATHER: Duration = Duration::from_secs(1);
/// What was seen is renewed before its time is over.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Looks for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(store) = shared.images.clone() else { return };
    let mut pods = shared.pods.changes();
    // Whether something stands in an entry that could be over; an earlier process may have written it.
    let mut stands = true;
    loop {
        pods.mark_unchanged();
        let containers = containers(&shared);
        let images = images(&store, &containers).await;
        let seen = plan::seen(&containers, &images);
        // A thousand entries are not read every minute to see that nothing was ever measured.
        if stands || !seen.is_empty() {
            match act::write(&shared.client, &seen, Timestamp::now()).await {
                Ok(left) => stands = left,
                Err(error) => tracing::warn!(%error, "what was seen of providers was not written"),
            }
        }
        // Both arms only wait.
        tokio::select! {
            _ = pods.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// The containers of ours that are ready at providers.
fn containers(shared: &Shared) -> Vec<Container> {
    let nodes = shared.nodes.list();
    let virtual_nodes = nodes.iter().filter(|node| node.labels().contains_key(names::VIRTUAL_NODE));
    let contracts: BTreeMap<String, String> = virtual_nodes
        .filter_map(|node| Some((node.name_any(), node.labels().get(names::LABEL_CONTRACT)?.clone())))
        .collect();
    let provider = |node: &str| {
        let contract = shared.contracts.get(names::NAMESPACE, contracts.get(node)?)?;
        Deal::of(&contract, &shared.speakers).ok()?.runs_at(shared.id(), Timestamp::now())
    };
    let pods = shared.pods.list();
    let of_pod = |pod: &Arc<_>| ready(pod, provider);
    pods.iter().flat_map(of_pod).collect()
}

/// The images of this node that are named; one that is not here, or cannot be read, tells nothing.
async fn images(store: &ImageStore, containers: &[Container]) -> BTreeMap<String, Image> {
    let named: BTreeSet<&String> = containers.iter().map(|container| &container.image).collect();
    let mut images = BTreeMap::new();
    for name in named {
        let Ok(reference) = name.parse() else { continue };
        if let Ok(Some(image)) = store.find(&reference).await {
            images.insert(name.clone(), image);
        }
    }
    images
}
