//! What is known about one workload, gathered for `why` and `trace`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use fluidos_model::kinds::{Contract, Solver, names};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{ApiResource, ListParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};

/// One workload: the object that was asked for, its pods, and what was bought for it.
pub struct Story {
    /// As `deployment/api`.
    pub asked: String,
    /// Its pods; for a pod, itself.
    pub pods: Vec<Pod>,
    /// Solvers that the orchestrator wrote for it.
    pub solvers: Vec<Solver>,
    /// Contracts, by the name of their virtual node.
    pub contracts: BTreeMap<String, Contract>,
    /// Events of its pods.
    pub events: Vec<Event>,
}

/// Kinds that can be asked for besides pods, with their group, version and names.
const KINDS: &[(&str, &str, &str, &[&str])] = &[
    ("apps", "v1", "Deployment", &["deployment", "deployments", "deploy"]),
    ("apps", "v1", "ReplicaSet", &["replicaset", "replicasets", "rs"]),
];

impl Story {
    /// Gathers it for `TYPE/NAME`; a bare name is a pod.
    pub async fn of(client: &Client, namespace: &str, asked: &str) -> Result<Self> {
        let (kind, name) = asked.split_once('/').unwrap_or(("pod", asked));
        let all = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
        let all = all.with_context(|| format!("list pods in namespace {namespace}"))?.items;
        let pods = match kind.to_lowercase().as_str() {
            "pod" | "pods" | "po" => {
                let pods: Vec<Pod> = all.into_iter().filter(|p| p.name_any() == name).collect();
                if pods.is_empty() {
                    bail!("pods {name:?} not found in namespace {namespace:?}; -n names another");
                }
                pods
            }
            other => {
                let Some((group, version, kind, _)) = KINDS.iter().find(|(.., names)| names.contains(&other)) else {
                    bail!("{other}/{name}: needed pod, deployment or replicaset");
                };
                let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
                let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
                let object = api.get(name).await.with_context(|| format!("{asked} in namespace {namespace}"))?;
                owned(&object.uid().unwrap_or_default(), all, client, namespace).await?
            }
        };
        let solvers =
            Api::<Solver>::namespaced(client.clone(), names::NAMESPACE).list(&ListParams::default()).await?.items;
        let workloads: Vec<String> = pods.iter().filter_map(workload).collect();
        let solvers = solvers
            .into_iter()
            .filter(|s| s.labels().get(names::LABEL_SOLVER_FOR).is_some_and(|w| workloads.contains(w)))
            .collect();
        let events = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
        let uids: Vec<String> = pods.iter().filter_map(ResourceExt::uid).collect();
        let events = events
            .into_iter()
            .filter(|e| e.involved_object.uid.as_ref().is_some_and(|uid| uids.contains(uid)))
            .collect();
        let contracts = contracts(client).await?;
        Ok(Self { asked: asked.to_owned(), pods, solvers, contracts, events })
    }
}

/// The uid of the workload for which the orchestrator places a pod.
fn workload(pod: &Pod) -> Option<String> {
    pod.annotations().get(names::ANNOTATION_WORKLOAD)?.rsplit('/').next().map(str::to_owned)
}

/// Pods that an object owns, directly or through a replica set.
async fn owned(uid: &str, pods: Vec<Pod>, client: &Client, namespace: &str) -> Result<Vec<Pod>> {
    let sets = Api::<k8s_openapi::api::apps::v1::ReplicaSet>::namespaced(client.clone(), namespace);
    let sets = sets.list(&ListParams::default()).await?.items;
    let mut owners = vec![uid.to_owned()];
    owners
        .extend(sets.iter().filter(|s| s.owner_references().iter().any(|o| o.uid == uid)).filter_map(ResourceExt::uid));
    Ok(pods.into_iter().filter(|p| p.owner_references().iter().any(|o| owners.contains(&o.uid))).collect())
}

async fn contracts(client: &Client) -> Result<BTreeMap<String, Contract>> {
    let contracts =
        Api::<Contract>::namespaced(client.clone(), names::NAMESPACE).list(&ListParams::default()).await?.items;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    Ok(nodes
        .iter()
        .filter_map(|node| {
            let name = node.labels().get(names::LABEL_CONTRACT)?;
            Some((node.name_any(), contracts.iter().find(|c| c.name_any() == *name)?.clone()))
        })
        .collect())
}
