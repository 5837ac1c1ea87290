//! Carries the judgement of nodes out.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tracing::{debug, info, warn};

use super::plan::{Heartbeats, Plan, plan};
use crate::objects::{name, namespace, stamp};
use crate::recorder::{Kind, Recorder};
use crate::work::{Caches, Next, Rounds};

/// Watches over all nodes until dropped.
pub(crate) async fn run(client: Client, caches: Caches, grace: Duration) {
    let recorder = Recorder { client: client.clone(), component: "node-controller" };
    let mut heartbeats = Heartbeats::default();
    let changes = vec![caches.nodes.changes(), caches.leases.changes(), caches.pods.changes()];
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let nodes = caches.nodes.list();
        let now = Timestamp::now();
        heartbeats.listen(&nodes, &caches.leases.list(), now);
        let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in caches.pods.list() {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                pods.entry(node).or_default().push(pod);
            }
        }
        let mut next = Next::default();
        for node in nodes {
            let own = pods.get(name(&node.metadata)).map(Vec::as_slice).unwrap_or_default();
            let plan = plan(&node, own, &heartbeats, grace, now);
            next.wake_in(plan.wake);
            match carry_out(&client, &recorder, &node, plan, now).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    debug!(node = name(&node.metadata), status.message, "planned from an older view");
                    next.failed = true;
                }
                Err(error) => {
                    warn!(node = name(&node.metadata), %error, "will be tried again");
                    next.failed = true;
                }
            }
        }
        rounds.wait(next).await;
    }
}

async fn carry_out(
    client: &Client,
    recorder: &Recorder,
    node: &Node,
    plan: Plan,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let title = name(&node.metadata);
    if !plan.conditions.is_empty() {
        info!(node = title, "silent: its state is unknown");
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": plan.conditions}});
        nodes.patch_status(title, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        let message = format!("Node {title} status is now: NodeNotReady");
        recorder.event(("v1", "Node", &node.metadata), Kind::Normal, "NodeNotReady", &message).await;
    }
    if let Some(taints) = plan.taints {
        // The whole list: two taints may have one key. The status above has changed the version, so the list is guarded
        // by what it was made from only when nothing was written before it.
        let version = plan.conditions.is_empty().then(|| node.metadata.resource_version.clone()).flatten();
        let patch =
            json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": version}, "spec": {"taints": taints}});
        nodes.patch(title, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    for pod in plan.doubt {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": stamp(now)});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(&pod.metadata));
        absent_is_fine(
            pods.patch_status(name(&pod.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await,
        )?;
    }
    for pod in plan.evict {
        let message = format!("Marking for deletion Pod {}/{}", namespace(&pod.metadata), name(&pod.metadata));
        recorder.event(("v1", "Pod", &pod.metadata), Kind::Normal, "TaintManagerEviction", &message).await;
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(&pod.metadata));
        // Said first: a Job may count a disruption otherwise than a failure (KEP-3329).
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": stamp(now),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        absent_is_fine(
            pods.patch_status(name(&pod.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await,
        )?;
        absent_is_fine(pods.delete(name(&pod.metadata), &DeleteParams::default().preconditions(same)).await)?;
    }
    Ok(())
}

fn absent_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}
