//! Local Resource Manager (§6.4.1): what this node offers, and who it says it is.
//!
//! A *local flavor* is what can still be sold of what the owner offers: the Ledger's capacity without what is held and
//! committed, at the price and in the blocks that the SharingPolicies say to anybody. It is *available* if and only if something of
//! everything that is offered can be sold. Beside it there is one of fixed size for each *plan* of an Offer, which is available if and only
//! if all of it can be sold, and one for each ServiceBlueprint, which is available while there is room for an instance more.
//!
//! ```text
//! --offer, --location ─┐
//! Ledger, policies ────┼─▶ View ─▶ plan(&View, now) ─▶ act: Flavors, ConfigMap `fluidos-node-identity`
//! Offers, their plans ─┤
//! what is there now ───┘
//! ```
//! Watches the Ledger, SharingPolicies, Offers, ServiceBlueprints, own Flavors and the identity; is the only writer of own Flavors and of
//! the status of Offers and ServiceBlueprints.
//!
//! Limits: the offer is what the owner said, not measured; no GPUs and storage unless they are offered.

mod act;
pub mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Flavor, NodeIdentity, Offer, ServiceBlueprint, SharingPolicy, names};
use fluidos_model::market::{Amounts, Location, Sharing};
use futures::future::select_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, ResourceExt as _};
use substrate_client::{Access, Cache, Pace};

use self::plan::View;

/// Changes come in bursts (a hold and its sale are two): they are looked at together.
const GATHER: Duration = Duration::from_millis(10);
/// Time alone changes what is free, when a promise ends; and a write may have failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the Local Resource Manager is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's key, from which the flavor's name is made.
    pub node: NodeId,
    /// Who the node says it is: domain, id, `ip:port` where REAR answers.
    pub identity: NodeIdentity,
    /// What the owner offers; `None` offers nothing.
    pub offer: Option<Amounts>,
    /// Where it is.
    pub location: Location,
    /// Of its processors, as Kubernetes spells it: `amd64`.
    pub architecture: String,
    /// Which keys were handed over to this one: what was offered under them is taken back.
    pub speakers: Speakers,
}

/// Keeps the flavor and the identity current for ever.
pub async fn run(access: impl Into<Access>, mut options: Options) {
    let Access { client, caches } = access.into();
    // By it own flavors are told from others'.
    options.identity.additional_information.get_or_insert_default().did = Some(options.node.to_string());
    let flavors = caches.namespaced::<Flavor>(names::NAMESPACE);
    let books = fluidos_ledger::View::shared(&caches);
    let only =
        kube::runtime::watcher::Config::default().fields(&format!("metadata.name={}", names::IDENTITY_CONFIG_MAP));
    let identities = Cache::<ConfigMap>::start_with(Api::namespaced(client.clone(), names::NAMESPACE), only);
    let policies = caches.namespaced::<SharingPolicy>(names::NAMESPACE);
    let offers = caches.namespaced::<Offer>(names::NAMESPACE);
    let blueprints = caches.namespaced::<ServiceBlueprint>(names::NAMESPACE);
    let nodes = caches.all::<Node>();
    tokio::join!(blueprints.synced(), nodes.synced());
    tokio::join!(flavors.synced(), books.synced(), identities.synced(), policies.synced(), offers.synced());
    let [ledger_changes, page_changes] = books.changes();
    let mut changes = [
        ledger_changes,
        page_changes,
        flavors.changes(),
        identities.changes(),
        policies.changes(),
        offers.changes(),
        blueprints.changes(),
        nodes.changes(),
    ];
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        // A cache lists by name, which is the order in which policies count.
        let rules: Vec<Option<Sharing>> =
            policies.list().iter().map(|policy| policy.spec.rules(&policy.name_any()).ok()).collect();
        let pool = books.pool();
        let identity = identities.get(names::NAMESPACE, names::IDENTITY_CONFIG_MAP);
        let (flavor_list, offer_list, now) = (flavors.list(), offers.list(), Timestamp::now());
        let blueprint_list = blueprints.list();
        let view = View {
            options: &options,
            pool: pool.as_ref().map(|pool| pool.as_deref()).transpose(),
            policies: &rules,
            offers: offer_list.iter().map(AsRef::as_ref).collect(),
            blueprints: blueprint_list.iter().map(AsRef::as_ref).collect(),
            handlers: plan::handlers(&nodes.list()),
            flavors: flavor_list.iter().map(AsRef::as_ref).collect(),
            identity: identity.as_deref(),
        };
        for action in plan::plan(&view, now) {
            if let Err(error) = act::act(&client, &action).await {
                tracing::warn!(%action, %error, "local resources");
            }
        }
        pace.end();
        let changed = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}
