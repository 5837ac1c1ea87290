//! Carries the plan of virtual nodes out. Every effect is here.

use fluidos_model::kinds::{Allocation, AllocationStatus, GenericRef, names};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::plan::Action;
use super::view::BoundPod;
use crate::Error;
use crate::fabric::Shared;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A node is given up by others after it (`nodeLeaseDurationSeconds`).
const LEASE_SECONDS: i32 = 40;

pub(super) async fn act(shared: &Shared, action: &Action) -> Result<(), Error> {
    let nodes = Api::<Node>::all(shared.client.clone());
    match action {
        Action::Create(node) => {
            let name = node.name_any();
            nodes.create(&PostParams::default(), node).await.map_err(Error::api(format!("create node {name}")))?;
        }
        Action::Status { node, status } => {
            let patch = Patch::Merge(json!({ "status": status }));
            nodes
                .patch_status(node, &PatchParams::default(), &patch)
                .await
                .map_err(Error::api(format!("write the status of node {node}")))?;
        }
        Action::Replace(node) => {
            // A status that was written just now has changed the version; what is replaced is metadata and taints.
            let name = node.name_any();
            let patch = Patch::Merge(json!({
                "metadata": { "uid": node.metadata.uid, "labels": node.metadata.labels, "annotations": node.metadata.annotations },
                "spec": { "taints": node.spec.as_ref().and_then(|s| s.taints.clone()), "unschedulable": node.spec.as_ref().and_then(|s| s.unschedulable) },
            }));
            nodes
                .patch(&name, &PatchParams::default(), &patch)
                .await
                .map_err(Error::api(format!("write taints and labels of node {name}")))?;
        }
        Action::Renew { node } => renew(shared, node).await?,
        Action::Evict { pod } => remove_pod(shared, pod, None).await?,
        Action::Remove { pod } => remove_pod(shared, pod, Some(0)).await?,
        Action::Delete { node, uid } => {
            let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let deleted = nodes.delete(node, &DeleteParams::default().preconditions(same)).await;
            absent_is_well(deleted.map(drop)).map_err(Error::api(format!("delete node {node}")))?;
            let leases = Api::<Lease>::namespaced(shared.client.clone(), LEASE_NAMESPACE);
            let deleted = leases.delete(node, &DeleteParams::default()).await.map(drop);
            absent_is_well(deleted).map_err(Error::api(format!("delete lease {node}")))?;
        }
        Action::Allocation { name, phase, message, node } => {
            let status = AllocationStatus {
                status: *phase,
                last_update_time: Timestamp::now().to_string(),
                message: message.clone(),
                yielding: 0,
                resource_ref: Some(GenericRef {
                    name: node.clone(),
                    namespace: String::new(),
                    api_version: "v1".into(),
                    kind: "Node".into(),
                }),
            };
            let api = Api::<Allocation>::namespaced(shared.client.clone(), names::NAMESPACE);
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(name, &PatchParams::default(), &patch)
                .await
                .map_err(Error::api(format!("write the status of allocation {name}")))?;
        }
    }
    Ok(())
}

/// Deletes this very pod, gracefully unless `grace` says otherwise.
async fn remove_pod(shared: &Shared, pod: &BoundPod, grace: Option<u32>) -> Result<(), Error> {
    let api = Api::<Pod>::namespaced(shared.client.clone(), &pod.namespace);
    let same = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let params = DeleteParams { grace_period_seconds: grace, preconditions: Some(same), ..DeleteParams::default() };
    let action = format!("delete pod {}/{}", pod.namespace, pod.name);
    absent_is_well(api.delete(&pod.name, &params).await.map(drop)).map_err(Error::api(action))
}

async fn renew(shared: &Shared, node: &str) -> Result<(), Error> {
    let api = Api::<Lease>::namespaced(shared.client.clone(), LEASE_NAMESPACE);
    let now = Timestamp::now();
    let at = MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now));
    let patch = json!({"spec": {"renewTime": at, "holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop).map_err(Error::api(format!("renew lease {node}"))),
    }
    let owner = shared.nodes.get("", node).and_then(|node| node.uid()).map(|uid| {
        let (api_version, kind, name) = ("v1".into(), "Node".into(), node.to_owned());
        vec![OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() }]
    });
    let lease = Lease {
        metadata: ObjectMeta { name: Some(node.into()), owner_references: owner, ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.into()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(at),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop).map_err(Error::api(format!("create lease {node}")))
}

/// What is gone need not be taken away; what has its name now is something else.
pub(crate) fn absent_is_well(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}
