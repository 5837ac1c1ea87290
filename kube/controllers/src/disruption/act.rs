//! Writes what budgets allow.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use substrate_client::{Cache, Caches};

use super::plan::{Plan, plan};
use crate::objects::{controller_of, name, namespace, uid};
use crate::pods::by_namespace;
use crate::recorder::{Kind, Recorder};
use crate::work::{Next, Rounds};

/// Counts until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (budgets, pods) = (caches.all::<PodDisruptionBudget>(), caches.all::<Pod>());
    let managers = Managers {
        deployments: caches.all(),
        replica_sets: caches.all(),
        stateful_sets: caches.all(),
        replication_controllers: caches.all(),
    };
    let recorder = Recorder { client: client.clone(), component: "controllermanager" };
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut changes = vec![budgets.changes(), pods.changes()];
    changes.extend([managers.deployments.changes(), managers.replica_sets.changes()]);
    changes.extend([managers.stateful_sets.changes(), managers.replication_controllers.changes()]);
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let budgets = budgets.list();
        let there: BTreeSet<&str> = budgets.iter().map(|budget| uid(&budget.metadata)).collect();
        said.retain(|uid, _| there.contains(uid.as_str()));
        let sorted = by_namespace(&pods.list());
        let mut next = Next::default();
        for budget in &budgets {
            let home = namespace(&budget.metadata);
            let candidates = sorted.get(home).map(Vec::as_slice).unwrap_or_default();
            let plan = plan(budget, candidates, &|owner| managers.size_of(home, owner), Timestamp::now());
            next.wake_in(plan.wake);
            let messages = messages(budget, &plan);
            let before = said.insert(uid(&budget.metadata).to_owned(), messages.keys().cloned().collect());
            for (message, reason) in messages {
                if before.as_ref().is_none_or(|before| !before.contains(&message)) {
                    let of = ("policy/v1", "PodDisruptionBudget", &budget.metadata);
                    recorder.event(of, Kind::Warning, reason, &message).await;
                }
            }
            let result = write(&client, budget, plan).await;
            next.judge("PodDisruptionBudget", &budget.metadata, result);
        }
        rounds.wait(next).await;
    }
}

/// What is said of it, which stays said while it stays so.
fn messages(budget: &PodDisruptionBudget, plan: &Plan) -> BTreeMap<String, &'static str> {
    let mut messages = BTreeMap::new();
    if let Some(failure) = &plan.failure {
        let message = format!("Failed to calculate the number of expected pods: {failure}");
        messages.insert(message, "CalculateExpectedPodCountFailed");
    }
    for pod in &plan.kept {
        let title = format!("{}/{}", namespace(&budget.metadata), name(&budget.metadata));
        messages.insert(format!("Pod {pod} was expected by PDB {title} to be deleted but it wasn't"), "NotDeleted");
    }
    messages
}

/// The whole status, of exactly the budget that was counted: an eviction may have noted a pod meanwhile.
async fn write(client: &Client, budget: &PodDisruptionBudget, plan: Plan) -> Result<(), kube::Error> {
    let Some(status) = plan.status else { return Ok(()) };
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace(&budget.metadata));
    let wanted =
        PodDisruptionBudget { metadata: budget.metadata.clone(), spec: budget.spec.clone(), status: Some(status) };
    budgets.replace_status(name(&budget.metadata), &PostParams::default(), &wanted).await.map(|_| ())
}

/// Who may manage pods.
struct Managers {
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    stateful_sets: Cache<StatefulSet>,
    replication_controllers: Cache<ReplicationController>,
}

impl Managers {
    /// Who says how many there are to be, and how many.
    fn size_of(&self, home: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let same = |uid: &Option<String>| uid.as_deref() == Some(owner.uid.as_str());
        let sized = |size: Option<i32>| Some((owner.uid.clone(), size.unwrap_or(1)));
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set: Arc<ReplicaSet> =
                    self.replica_sets.get(home, &owner.name).filter(|set| same(&set.metadata.uid))?;
                match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                    Some(above) => {
                        let found = self.deployments.get(home, &above.name)?;
                        let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                        (uid(&found.metadata) == above.uid).then(|| (above.uid.clone(), wanted))
                    }
                    None => sized(set.spec.as_ref()?.replicas),
                }
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(home, &owner.name).filter(|set| same(&set.metadata.uid))?;
                sized(set.spec.as_ref()?.replicas)
            }
            "ReplicationController" => {
                let set = self.replication_controllers.get(home, &owner.name).filter(|set| same(&set.metadata.uid))?;
                sized(set.spec.as_ref()?.replicas)
            }
            _ => None,
        }
    }
}
