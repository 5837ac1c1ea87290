//! Writes ControllerRevisions.
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::history::Revise;
use crate::objects::{controller_of, name, namespace};

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revised {
    Done,
    /// Another template has the same short name: the next try hashes to another one if the owner counts it.
    Collided,
}

/// Carries out what has to be written before anything else.
pub(crate) async fn revise(
    client: &Client,
    home: &ObjectMeta,
    owner: &OwnerReference,
    revise: &Revise,
) -> Result<Revised, kube::Error> {
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace(home));
    match revise {
        Revise::Adopt(free) => {
            for one in free {
                let version = one.metadata.resource_version.clone();
                let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": [owner]}});
                revisions.patch(name(&one.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await?;
            }
        }
        Revise::Renumber(one, number) => {
            let version = one.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": version}, "revision": number});
            revisions.patch(name(&one.metadata), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Revise::Create(wanted) => match revisions.create(&PostParams::default(), wanted).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = revisions.get(name(&wanted.metadata)).await?;
                let ours = controller_of(&found.metadata).is_some_and(|found| found.uid == owner.uid);
                // Made before; the view has not shown it yet.
                let same = ours && found.data.as_ref().map(|data| &data.0) == wanted.data.as_ref().map(|data| &data.0);
                return Ok(if same { Revised::Done } else { Revised::Collided });
            }
            Err(error) => return Err(error),
        },
    }
    Ok(Revised::Done)
}

/// Deletes history.
pub(crate) async fn forget(
    client: &Client,
    home: &ObjectMeta,
    dead: &[Arc<ControllerRevision>],
) -> Result<(), kube::Error> {
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace(home));
    for one in dead {
        let same =
            Preconditions { uid: one.metadata.uid.clone(), resource_version: one.metadata.resource_version.clone() };
        match revisions.delete(name(&one.metadata), &DeleteParams::background().preconditions(same)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => {
                other?;
            }
        }
    }
    Ok(())
}
