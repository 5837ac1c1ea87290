//! News: whether what is said to buyers may have changed. What exactly is seen by asking again, for each of them.

use fluidos_model::kinds::{AccessPolicy, Flavor, Ledger, Offer, ServiceBlueprint, SharingPolicy, names};
use futures::future::select_all;
use kube::{Api, Client};
use substrate_client::Cache;
use tokio::sync::watch;

/// Counts changes of everything that a list is made of, for ever.
pub(super) async fn watch(client: &Client, news: &watch::Sender<u64>) {
    let flavors = Cache::<Flavor>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let policies = Cache::<SharingPolicy>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let ledgers = Cache::<Ledger>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let rights = Cache::<AccessPolicy>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let offers = Cache::<Offer>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let blueprints = Cache::<ServiceBlueprint>::start(Api::namespaced(client.clone(), names::NAMESPACE));
    let mut changes = [
        flavors.changes(),
        policies.changes(),
        ledgers.changes(),
        rights.changes(),
        offers.changes(),
        blueprints.changes(),
    ];
    loop {
        // Each only waits: losing the race loses nothing.
        let (changed, ..) = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed()))).await;
        if changed.is_err() {
            return; // the caches have ended, and with them the node
        }
        news.send_modify(|count| *count = count.wrapping_add(1));
    }
}
