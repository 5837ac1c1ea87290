//! Instances: one for each contract of a service that this node sells.
//!
//! | contract | instance |
//! |---|---|
//! | live | namespace, credentials and manifests are there; what is missing is made |
//! | ended, over, deleted | the namespace goes, with all that is in it |

mod act;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluidos_model::kinds::{Allocation, Contract, ServiceBlueprint, names};
use futures::future::select_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, ResourceExt as _};
use substrate_client::{Access, Cache, Pace};

use self::plan::{Action, View};
use crate::Options;

pub(crate) use act::{credentials, endpoint, used_from};

/// A contract and its allocation are written together.
const GATHER: Duration = Duration::from_millis(50);
/// What somebody has deleted of an instance is made again within this time; its pods are their controller's to mend.
const MAKE_AGAIN: Duration = Duration::from_secs(30);
/// Time alone ends a contract.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keeps instances for ever.
pub async fn run(access: Access, options: Options) {
    let Access { client, caches } = access;
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let blueprints = caches.namespaced::<ServiceBlueprint>(names::NAMESPACE);
    let allocations = caches.namespaced::<Allocation>(names::NAMESPACE);
    let of_services = kube::runtime::watcher::Config::default().labels(names::LABEL_SERVICE);
    let namespaces = Cache::<Namespace>::start_with(Api::all(client.clone()), of_services.clone());
    let slices = caches.all::<EndpointSlice>();
    tokio::join!(contracts.synced(), blueprints.synced(), allocations.synced(), namespaces.synced(), slices.synced());
    let mut changes =
        [contracts.changes(), blueprints.changes(), allocations.changes(), namespaces.changes(), slices.changes()];
    let mut made: BTreeMap<String, Instant> = BTreeMap::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let (contract_list, blueprint_list, namespace_list) = (contracts.list(), blueprints.list(), namespaces.list());
        let (allocation_list, slice_list) = (allocations.list(), slices.list());
        let view = View::new(
            (options.own, &options.speakers),
            contract_list.iter().map(AsRef::as_ref),
            blueprint_list
                .iter()
                .map(|blueprint| (blueprint.name_any(), blueprint.as_ref()))
                .collect::<BTreeMap<_, _>>(),
            allocation_list.iter().map(AsRef::as_ref),
            namespace_list.iter().map(AsRef::as_ref),
            slice_list.iter().map(AsRef::as_ref),
            Timestamp::now(),
        );
        let actions = plan::plan(&view);
        let making = |contract: &String| {
            actions.iter().any(|action| matches!(action, Action::Make { contract: of, .. } if of == contract))
        };
        made.retain(|contract, at| making(contract) && at.elapsed() < MAKE_AGAIN);
        for action in &actions {
            if matches!(action, Action::Make { contract, .. } if made.contains_key(contract)) {
                continue;
            }
            match (act::act(&client, action).await, action) {
                (Ok(()), Action::Make { contract, .. }) => {
                    made.insert(contract.clone(), Instant::now());
                }
                (Ok(()), _) => {}
                (Err(error), _) => tracing::warn!(%action, %error, "instance of a service"),
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
