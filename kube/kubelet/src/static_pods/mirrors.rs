//! Mirrors: what the API shows of static pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;

use super::{HASH, MIRROR, Said, Statics, annotation};
use crate::Shared;

/// The mirrors in the API, by namespace and name; none while the API has not said.
pub(crate) type Mirrors = Option<BTreeMap<(String, String), Arc<Pod>>>;

/// What the API refused is tried again this much later.
const RETRY: Duration = Duration::from_secs(2);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// Show the static pod of this uid.
    Create(String),
    /// Take away a mirror: namespace, name, uid.
    Delete(String, String, String),
}

/// What makes the API show what there is. A mirror of something else, or that somebody has deleted, goes before the new one comes.
fn plan(statics: &Statics, mirrors: &BTreeMap<(String, String), Arc<Pod>>) -> Vec<Change> {
    let shown =
        |uid: &str, mirror: &Pod| annotation(mirror, HASH) == Some(uid) && mirror.metadata.deletion_timestamp.is_none();
    let wanted: BTreeMap<_, &String> = statics.iter().map(|(uid, pod)| (mirror_key(pod), uid)).collect();
    let wrong = mirrors.iter().filter(|(name, mirror)| !wanted.get(*name).is_some_and(|uid| shown(uid, mirror)));
    let mut changes: Vec<Change> = wrong
        .map(|((namespace, name), mirror)| {
            Change::Delete(namespace.clone(), name.clone(), mirror.metadata.uid.clone().unwrap_or_default())
        })
        .collect();
    let missing = wanted.iter().filter(|(name, uid)| !mirrors.get(*name).is_some_and(|mirror| shown(uid, mirror)));
    changes.extend(missing.map(|(_, uid)| Change::Create((*uid).clone())));
    changes
}

/// Namespace and name.
pub(crate) fn mirror_key(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// Keeps the API told until dropped.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    mut statics: watch::Receiver<Said>,
    mut mirrors: watch::Receiver<Mirrors>,
) {
    loop {
        let (wanted, seen) = (statics.borrow_and_update().clone(), mirrors.borrow_and_update().clone());
        // Neither side is believed to have nothing before it has said so.
        let Some(wanted) = wanted else {
            if statics.changed().await.is_err() {
                return;
            }
            continue;
        };
        let changes = seen.map(|seen| plan(&wanted, &seen)).unwrap_or_default();
        let mut failed = false;
        for change in &changes {
            if let Err(why) = act(&shared, &wanted, change).await {
                tracing::warn!("show a static pod: {why}");
                failed = true;
                break; // what comes after may need it
            }
        }
        let again = if failed { RETRY } else { Duration::from_secs(3600) };
        tokio::select! {
            // Both are read again: nothing is lost.
            Ok(()) = statics.changed() => {}
            Ok(()) = mirrors.changed() => {}
            () = tokio::time::sleep(again) => {}
        }
    }
}

async fn act(shared: &Shared, statics: &Statics, change: &Change) -> Result<(), String> {
    match change {
        Change::Delete(namespace, name, uid) => {
            let api: Api<Pod> = Api::namespaced(shared.client.clone(), namespace);
            let preconditions = Some(Preconditions { uid: Some(uid.clone()), resource_version: None });
            let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            match api.delete(name, &params).await {
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
                other => other.map(drop).map_err(|e| format!("delete the mirror {namespace}/{name}: {e}")),
            }
        }
        Change::Create(uid) => {
            let Some(pod) = statics.get(uid) else { return Ok(()) };
            let (namespace, name) = mirror_key(pod);
            let told = |e: kube::Error| format!("create the mirror {namespace}/{name}: {e}");
            let nodes: Api<Node> = Api::all(shared.client.clone());
            let node = nodes.get(&shared.node_name).await.map_err(told)?;
            let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
            match api.create(&PostParams::default(), &mirror(pod, &node)).await {
                // It has come meanwhile; the watch shows it.
                Err(kube::Error::Api(e)) if e.code == 409 && e.reason == "AlreadyExists" => {
                    match api.get(&name).await {
                        Ok(found) if super::shown(&found).is_some() => Ok(()),
                        Ok(_) => Err(format!("{namespace}/{name}: a pod of the API has this name; delete it")),
                        Err(e) => Err(told(e)),
                    }
                }
                other => other.map(drop).map_err(told),
            }
        }
    }
}

/// The pod as the API may have it from a node: marked, and owned by its Node.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(MIRROR.to_owned(), pod.metadata.uid.clone().unwrap_or_default());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: pod.spec.clone(), status: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;

    fn pod(name: &str, hash: &str, gone: bool) -> Arc<Pod> {
        let at = gone.then_some("2026-01-01T00:00:00Z");
        let meta = json!({"name": name, "namespace": "n", "uid": format!("u-{name}"), "annotations": {HASH: hash}, "deletionTimestamp": at});
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn the_api_is_told_what_is_new() {
        let statics: Statics = [("h1".to_owned(), pod("a", "h1", false))].into();
        let check =
            |mirrors: &[Arc<Pod>]| plan(&statics, &mirrors.iter().map(|m| (mirror_key(m), Arc::clone(m))).collect());
        let (create, delete) =
            (Change::Create("h1".into()), |name: &str| Change::Delete("n".into(), name.into(), format!("u-{name}")));
        assert_eq!(check(&[]).as_slice(), std::slice::from_ref(&create));
        assert_eq!(check(&[pod("a", "h1", false)]), []);
        assert_eq!(check(&[pod("a", "h0", false)]), [delete("a"), create.clone()]);
        assert_eq!(check(&[pod("a", "h1", true)]), [delete("a"), create.clone()]);
        assert_eq!(check(&[pod("a", "h1", false), pod("old", "h9", false)]), [delete("old")]);
    }
}
