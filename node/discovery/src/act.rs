//! Writes what was decided into KnownClusters.

use fluidos_model::kinds::{KnownCluster, KnownClusterLink, KnownClusterSource, KnownClusterSpec, names};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::plan::EXPIRY;

/// The KnownClusters of this node.
pub fn api(client: &Client) -> Api<KnownCluster> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}

/// A new entry. `false` if somebody has just made one of that name: it is looked at again.
pub async fn create(client: &Client, name: &str, spec: KnownClusterSpec) -> kube::Result<bool> {
    let source = spec.source;
    let mut known = KnownCluster::new(name, spec);
    known.metadata.namespace = Some(names::NAMESPACE.to_owned());
    match api(client).create(&PostParams::default(), &known).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
        Ok(_) => heard(client, name, source).await.map(|()| true),
    }
}

/// An entry with something new.
pub async fn change(client: &Client, name: &str, spec: &KnownClusterSpec) -> kube::Result<()> {
    api(client).patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await?;
    heard(client, name, spec.source).await
}

/// An entry that was heard again: only what was announced by multicast ends by itself.
pub async fn heard(client: &Client, name: &str, source: Option<KnownClusterSource>) -> kube::Result<()> {
    let now = Timestamp::now();
    let until = if source == Some(KnownClusterSource::Multicast) { (now + EXPIRY).to_string() } else { String::new() };
    let status = json!({ "status": { "lastUpdateTime": now.to_string(), "expirationTime": until } });
    ignore(api(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(|_| ()))
}

/// How the link stands.
pub async fn link(client: &Client, name: &str, link: &KnownClusterLink) -> kube::Result<()> {
    let status = json!({ "status": { "link": link, "lastUpdateTime": Timestamp::now().to_string() } });
    ignore(api(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(|_| ()))
}

/// An entry whose node is gone: its time is over now.
pub async fn gone(client: &Client, name: &str) -> kube::Result<()> {
    let status = json!({ "status": { "expirationTime": Timestamp::now().to_string() } });
    ignore(api(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(|_| ()))
}

/// An entry whose time is over.
pub async fn remove(client: &Client, name: &str) -> kube::Result<()> {
    ignore(api(client).delete(name, &DeleteParams::default()).await.map(|_| ()))
}

/// It is gone: nothing to say about it.
fn ignore(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
