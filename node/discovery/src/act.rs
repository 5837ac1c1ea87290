//! Writes what was decided into KnownClusters.

use std::collections::BTreeMap;

use fluidos_model::kinds::{
    DiscoveryPolicy, DiscoveryPolicySpec, DiscoveryPolicyStatus, KnownCluster, KnownClusterLink, KnownClusterOpinion,
    KnownClusterSource, KnownClusterSpec, names,
};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::features::{Features, word};
use crate::plan::LISTED;

/// The KnownClusters of this node.
pub fn api(client: &Client) -> Api<KnownCluster> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}

/// A new entry. `false` if somebody has just made one of that name: it is looked at again.
pub async fn create(client: &Client, name: &str, spec: KnownClusterSpec) -> kube::Result<bool> {
    let source = spec.source;
    let mut known = KnownCluster::new(name, spec);
    known.metadata.namespace = Some(names::NAMESPACE.to_owned());
    known.metadata.labels = Some(labels(&known.spec));
    match api(client).create(&PostParams::default(), &known).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
        Ok(_) => heard(client, name, source, LISTED).await.map(|()| true),
    }
}

/// An entry with something new; `before` is what it was.
pub async fn change(
    client: &Client,
    name: &str,
    before: Option<&KnownCluster>,
    spec: &KnownClusterSpec,
) -> kube::Result<()> {
    let old = before.into_iter().flat_map(|known| known.labels().keys());
    let mut wanted: BTreeMap<String, Option<String>> =
        old.filter(|key| PREFIXES.iter().any(|ours| key.starts_with(ours))).map(|key| (key.clone(), None)).collect();
    wanted.extend(labels(spec).into_iter().map(|(key, value)| (key, Some(value))));
    let mut change = json!({ "metadata": { "labels": wanted }, "spec": spec });
    // A merge keeps what is not named: what there is no more is named as nothing.
    change["spec"]["offers"] = json!(spec.offers);
    api(client).patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    heard(client, name, spec.source, LISTED).await
}

/// Of labels that follow from what a node says of itself.
const PREFIXES: [&str; 3] = [names::LABEL_FEATURE_PREFIX, names::LABEL_OFFER_PREFIX, names::LABEL_BILLING_PREFIX];

/// Features and kinds of offers as labels, so that `kubectl get knownclusters -l` filters by them.
fn labels(spec: &KnownClusterSpec) -> BTreeMap<String, String> {
    let features = Features::from_list(&spec.features);
    let mut labels: BTreeMap<String, String> = features
        .iter()
        .map(|(key, value)| (format!("{}{key}", names::LABEL_FEATURE_PREFIX), value.to_owned()))
        .collect();
    for offer in &spec.offers {
        for (prefix, text) in [(names::LABEL_OFFER_PREFIX, &offer.type_), (names::LABEL_BILLING_PREFIX, &offer.billing)]
        {
            // A word of a label, or none: what a stranger calls its goods must not make the whole entry unwritable.
            if !text.is_empty() && word(text) == *text {
                labels.insert(format!("{prefix}{text}"), "true".to_owned());
            }
        }
    }
    labels
}

/// An entry that was heard again, and ends after `time`: only what was announced by multicast ends by itself.
pub async fn heard(
    client: &Client,
    name: &str,
    source: Option<KnownClusterSource>,
    time: SignedDuration,
) -> kube::Result<()> {
    let now = Timestamp::now();
    let until = if source == Some(KnownClusterSource::Multicast) { (now + time).to_string() } else { String::new() };
    let status = json!({ "status": { "lastUpdateTime": now.to_string(), "expirationTime": until } });
    ignore(api(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(|_| ()))
}

/// How the link stands.
pub async fn link(client: &Client, name: &str, link: &KnownClusterLink) -> kube::Result<()> {
    let status = json!({ "status": { "link": link, "lastUpdateTime": Timestamp::now().to_string() } });
    ignore(api(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(|_| ()))
}

/// What others say of a node.
pub async fn opinions(client: &Client, name: &str, opinions: &[KnownClusterOpinion]) -> kube::Result<()> {
    let status = json!({ "status": { "opinions": opinions } });
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

/// The policy whose status tells what discovery sees; made if it is not there.
pub async fn default_policy(client: &Client) -> kube::Result<()> {
    let mut policy = DiscoveryPolicy::new(names::DISCOVERY_POLICY, DiscoveryPolicySpec::default());
    policy.metadata.namespace = Some(names::NAMESPACE.to_owned());
    match policies(client).create(&PostParams::default(), &policy).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// What discovery sees, or what is wrong with a policy.
pub async fn policy_status(client: &Client, name: &str, status: &DiscoveryPolicyStatus) -> kube::Result<()> {
    let change = json!({ "status": {
        "message": status.message, "multicast": status.multicast, "rejected": status.rejected,
    } });
    ignore(policies(client).patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await.map(|_| ()))
}

/// The DiscoveryPolicies of this node.
pub fn policies(client: &Client) -> Api<DiscoveryPolicy> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}
