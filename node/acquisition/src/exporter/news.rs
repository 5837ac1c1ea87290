//! News: whether what is said to buyers may have changed. What exactly is seen by asking again, for each of them.

use fluidos_model::kinds::{AccessPolicy, Flavor, Ledger, Offer, ServiceBlueprint, SharingPolicy, names};
use futures::future::select_all;
use substrate_client::Caches;
use tokio::sync::watch;

/// Counts changes of everything that a list is made of, for ever.
pub(super) async fn watch(caches: &Caches, news: &watch::Sender<u64>) {
    let flavors = caches.namespaced::<Flavor>(names::NAMESPACE);
    let policies = caches.namespaced::<SharingPolicy>(names::NAMESPACE);
    let ledgers = caches.namespaced::<Ledger>(names::NAMESPACE);
    let rights = caches.namespaced::<AccessPolicy>(names::NAMESPACE);
    let offers = caches.namespaced::<Offer>(names::NAMESPACE);
    let blueprints = caches.namespaced::<ServiceBlueprint>(names::NAMESPACE);
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
