//! Writes what was decided.

use std::collections::BTreeMap;

use fluidos_model::kinds::{
    Acquaintance, AcquaintanceSpec, AcquaintanceStatus, KnownCluster, KnownClusterIdentity, KnownClusterSource, names,
};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use substrate_client::Brief;

/// Who writes, in events.
const MANAGER: &str = "fluidos-discovery";

fn acquaintances(client: &Client) -> Api<Acquaintance> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}

/// Writes what was accepted about a node, whatever stood there.
pub(super) async fn write(
    client: &Client,
    name: &str,
    spec: &AcquaintanceSpec,
    status: &AcquaintanceStatus,
) -> kube::Result<()> {
    let api = Brief::namespaced::<Acquaintance>(client, names::NAMESPACE);
    let mut object = Acquaintance::new(name, spec.clone());
    object.metadata.namespace = Some(names::NAMESPACE.into());
    match api.create(&object).await {
        Err(kube::Error::Api(error)) if error.code == 409 => {
            // A merge keeps what is not named: what there is no more is named as nothing.
            let change = json!({"spec": {
                "did": spec.did, "accepted": spec.accepted, "doubts": spec.doubts, "vouches": spec.vouches,
            }});
            acquaintances(client).patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        }
        other => drop(other?),
    }
    let change = json!({"status": {
        "name": status.name, "standing": status.standing, "key": status.key, "message": status.message,
    }});
    api.patch_status(name, &Patch::Merge(change)).await.map(drop)
}

/// Forgets a node.
pub(super) async fn forget(client: &Client, name: &str) -> kube::Result<()> {
    absent_is_well(acquaintances(client).delete(name, &DeleteParams::default()).await.map(drop))
}

/// Writes what is known of who a peer is; `None` is nothing.
pub(super) async fn identity(client: &Client, name: &str, identity: Option<&KnownClusterIdentity>) -> kube::Result<()> {
    // A merge keeps what is not named: an owner that is proven no more must be taken out by name.
    let change = json!({"status": {"identity": identity.map(|known| json!({
        "refused": known.refused,
        "origin": known.origin,
        "owner": known.owner,
        "domain": known.domain,
        "evidence": known.evidence,
        "notes": known.notes,
    }))}});
    let api = crate::act::api(client);
    absent_is_well(api.patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop))
}

/// Lets the entry of a new key take the place of that of the old one.
pub(super) async fn succeed(client: &Client, old: &KnownCluster, new: &KnownCluster) -> kube::Result<()> {
    let api = crate::act::api(client);
    let by_owner = matches!(old.spec.source, None | Some(KnownClusterSource::Static));
    if by_owner && new.spec.source != old.spec.source {
        let word = old.annotations().get(names::ANNOTATION_TRUST_OWNER);
        let annotations = BTreeMap::from([(names::ANNOTATION_TRUST_OWNER, word)]);
        let change = json!({
            "metadata": {"annotations": annotations},
            "spec": {"source": old.spec.source, "address": old.spec.address, "endpoints": old.spec.endpoints},
        });
        api.patch(&new.name_any(), &PatchParams::default(), &Patch::Merge(change)).await?;
    }
    absent_is_well(api.delete(&old.name_any(), &DeleteParams::default()).await.map(drop))
}

/// Tells the owner of this node something about a known one, or about none that is known.
pub(super) async fn warn(
    client: &Client,
    about: Option<&KnownCluster>,
    reason: &str,
    message: &str,
) -> kube::Result<()> {
    let name = about.map_or_else(|| "nobody".to_owned(), |known| known.name_any());
    let now = jiff::Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(KnownCluster::api_version(&()).into_owned()),
            kind: Some(KnownCluster::kind(&()).into_owned()),
            name: Some(name),
            namespace: Some(names::NAMESPACE.into()),
            uid: about.and_then(|known| known.uid()),
            ..ObjectReference::default()
        },
        reason: Some(reason.into()),
        message: Some(message.into()),
        type_: Some("Warning".into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        source: Some(EventSource { component: Some(MANAGER.into()), host: None }),
        ..Event::default()
    };
    Api::<Event>::namespaced(client.clone(), names::NAMESPACE).create(&PostParams::default(), &event).await.map(drop)
}

/// What is gone needs nothing written.
fn absent_is_well(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
