//! Pods that nobody will ever clear away: of nodes that are gone, never bound and deleted, and too many that have ended.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tracing::{info, warn};

use crate::objects::{has_ended, name, namespace, stamp};
use crate::work::{Caches, Next, Rounds};

/// What is to be removed, and when to look again.
#[derive(Debug, Default)]
struct Plan {
    /// Their node is gone; with its name.
    orphaned: Vec<(Arc<Pod>, String)>,
    /// No kubelet has them.
    unbound: Vec<Arc<Pod>>,
    /// Ended, and more than are kept.
    ended: Vec<Arc<Pod>>,
    wake: Option<Duration>,
}

/// Since when each node that pods name has been missing.
type Missing = BTreeMap<String, Timestamp>;

/// Clears away until dropped. `grace` is how long a node may be missing: it may be about to come back under its name.
pub(crate) async fn run(client: Client, caches: Caches, grace: Duration, ended_max: usize) {
    let mut missing = Missing::new();
    let mut rounds = Rounds::begin(vec![caches.pods.changes(), caches.nodes.changes()]).await;
    loop {
        let plan = plan(&caches.pods.list(), &caches.nodes.list(), &mut missing, grace, ended_max, Timestamp::now());
        let mut next = Next { wake: plan.wake, failed: false };
        for (pod, node) in &plan.orphaned {
            next.failed |= !done(pod, remove_orphan(&client, pod, node).await);
        }
        for pod in plan.unbound.iter().chain(&plan.ended) {
            next.failed |= !done(pod, remove(&client, pod).await);
        }
        rounds.wait(next).await;
    }
}

fn plan(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    missing: &mut Missing,
    grace: Duration,
    ended_max: usize,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let known: BTreeSet<&str> = nodes.iter().map(|node| name(&node.metadata)).collect();
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let named: BTreeSet<String> = pods.iter().filter_map(|pod| node(pod)).collect();
    missing.retain(|name, _| named.contains(name) && !known.contains(name.as_str()));
    for name in named.into_iter().filter(|name| !known.contains(name.as_str())) {
        missing.entry(name).or_insert(now);
    }
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let mut ended: Vec<Arc<Pod>> = Vec::new();
    for pod in pods {
        match node(pod) {
            Some(node) => {
                let Some(since) = missing.get(&node) else {
                    if has_ended(pod) && pod.metadata.deletion_timestamp.is_none() {
                        ended.push(pod.clone());
                    }
                    continue;
                };
                let left = grace - now.duration_since(*since);
                if left <= SignedDuration::ZERO {
                    plan.orphaned.push((pod.clone(), node));
                } else {
                    let left = Duration::try_from(left).unwrap_or_default();
                    plan.wake = Some(plan.wake.map_or(left, |wake| wake.min(left)));
                }
            }
            None if pod.metadata.deletion_timestamp.is_some() => plan.unbound.push(pod.clone()),
            None if has_ended(pod) => ended.push(pod.clone()),
            None => {}
        }
    }
    ended.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    ended.truncate(ended.len().saturating_sub(ended_max));
    plan.ended = ended;
    plan
}

/// Says first what has become of the pod: who waits for its end sees a failure, not a disappearance (KEP-3329).
async fn remove_orphan(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    // The cache may be behind: asked once more, because the pod may still run there.
    let nodes: Api<Node> = Api::all(client.clone());
    if nodes.get_opt(node).await?.is_some() {
        return Ok(());
    }
    if !has_ended(pod) {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": stamp(Timestamp::now()),
        });
        let patch =
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(&pod.metadata));
        pods.patch_status(name(&pod.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    info!(pod = %format_args!("{}/{}", namespace(&pod.metadata), name(&pod.metadata)), node, "its node is gone");
    remove(client, pod).await
}

async fn remove(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(&pod.metadata));
    let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let at_once = DeleteParams::default().grace_period(0).preconditions(same);
    pods.delete(name(&pod.metadata), &at_once).await.map(|_| ())
}

fn done(pod: &Pod, result: Result<(), kube::Error>) -> bool {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            warn!(pod = name(&pod.metadata), %error, "not removed; will be tried again");
            false
        }
        Ok(()) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, more: Value) -> Arc<Pod> {
        let mut metadata =
            json!({"name": name, "namespace": "d", "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}}),
            )
            .unwrap(),
        )
    }

    #[test]
    fn what_nobody_else_will_clear_away() {
        let nodes: [Arc<Node>; 1] = [Arc::new(serde_json::from_value(json!({"metadata": {"name": "here"}})).unwrap())];
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let pods = [
            pod("runs", Some("here"), "Running", json!({})),
            pod("lost", Some("gone"), "Running", json!({})),
            pod("waits", None, "Pending", json!({})),
            pod("unbound", None, "Pending", leaving),
            pod("e", Some("here"), "Succeeded", json!({})),
            pod("ee", Some("here"), "Failed", json!({})),
            pod("eee", Some("here"), "Failed", json!({})),
        ];
        let mut missing = Missing::new();
        let mut at = |time: &str, nodes: &[Arc<Node>]| {
            let now = format!("2026-01-01T01:00:{time}Z").parse().unwrap();
            let plan = plan(&pods, nodes, &mut missing, Duration::from_secs(40), 2, now);
            let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| name(&p.metadata).to_owned()).collect::<Vec<_>>();
            let orphaned: Vec<Arc<Pod>> = plan.orphaned.into_iter().map(|(pod, _)| pod).collect();
            (names(&orphaned), names(&plan.unbound), names(&plan.ended), plan.wake)
        };
        let none = Vec::<String>::new;
        let rest = || (vec!["unbound".to_owned()], vec!["e".to_owned()]);
        assert_eq!(at("00", &nodes), (none(), rest().0, rest().1, Some(Duration::from_secs(40))));
        assert_eq!(at("40", &nodes), (vec!["lost".to_owned()], rest().0, rest().1, None));
        let back: [Arc<Node>; 2] =
            [nodes[0].clone(), Arc::new(serde_json::from_value(json!({"metadata": {"name": "gone"}})).unwrap())];
        assert_eq!(at("41", &back), (none(), rest().0, rest().1, None));
        assert_eq!(at("42", &nodes).3, Some(Duration::from_secs(40)), "missing anew");
    }
}
