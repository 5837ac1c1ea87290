//! Placement: opens the gate of each service request onto the node where it shall run.

mod act;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod view;

use std::time::Duration;

use fluidos_model::kinds::{Contract, KnownCluster, Solver, names};
use fluidos_model::market::Location;
use k8s_openapi::api::core::v1::{Node, Pod};
use substrate_client::Access;

use self::view::View;

/// Condition of a pod that waits: why it is not placed.
pub const CONDITION: &str = "fluidos.eu/Placed";
/// Who writes.
pub const MANAGER: &str = "fluidos-orchestrator";

/// Changes come in bursts (a Deployment of ten pods is ten events): they are looked at together.
const GATHER: Duration = Duration::from_millis(10);
/// Time alone changes what is right, too: a Solver may be tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What placement is told.
pub struct Options {
    /// Where the owner's own nodes are, unless a node says otherwise.
    pub location: Location,
}

/// Places pods for ever.
pub async fn run(access: impl Into<Access>, options: Options) {
    let Access { client, caches } = access.into();
    let pods = caches.all::<Pod>();
    let nodes = caches.all::<Node>();
    let solvers = caches.namespaced::<Solver>(names::NAMESPACE);
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let books = fluidos_ledger::View::shared(&caches);
    let known = caches.namespaced::<KnownCluster>(names::NAMESPACE);
    tokio::join!(pods.synced(), nodes.synced(), solvers.synced(), contracts.synced(), books.synced(), known.synced());
    // What is known of peers is looked at with every other change, and after a while: round trips change all the time.
    let (mut contracts_changed, [mut ledgers_changed, mut pages_changed]) = (contracts.changes(), books.changes());
    let (mut pods_changed, mut nodes_changed, mut solvers_changed) =
        (pods.changes(), nodes.changes(), solvers.changes());
    loop {
        for changes in [
            &mut pods_changed,
            &mut nodes_changed,
            &mut solvers_changed,
            &mut contracts_changed,
            &mut ledgers_changed,
            &mut pages_changed,
        ] {
            changes.mark_unchanged();
        }
        let (pod_list, node_list, solver_list) = (pods.list(), nodes.list(), solvers.list());
        let contract_list = contracts.list();
        let view = View::new(
            node_list.iter().map(AsRef::as_ref),
            pod_list.iter().map(AsRef::as_ref),
            solver_list.iter().map(AsRef::as_ref),
            contract_list.iter().map(AsRef::as_ref),
            &options.location,
        );
        let now = jiff::Timestamp::now();
        // From a Ledger that cannot be read nothing is sold, and whoever reads it for the scheduler says so.
        let pool = books.pool().ok().flatten();
        let kept = pool.map(|pool| pool.kept(now)).unwrap_or_default();
        let view = view.keep(&kept, pod_list.iter().map(AsRef::as_ref));
        let known_list = known.list();
        let view = view.know(known_list.iter().map(AsRef::as_ref), contract_list.iter().map(AsRef::as_ref), now);
        for action in plan::plan(&view, now) {
            if let Err(error) = act::act(&client, &action).await {
                tracing::warn!(?action, %error, "placement");
            }
        }
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            _ = pods_changed.changed() => {}
            _ = nodes_changed.changed() => {}
            _ = solvers_changed.changed() => {}
            _ = contracts_changed.changed() => {}
            _ = ledgers_changed.changed() => {}
            _ = pages_changed.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}
