//! Writes what was decided.

use fluidos_model::kinds::{AccessPolicy, AccessPolicySpec, AccessPolicyStatus, KnownCluster, names};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::plan::Change;

/// A policy that the flags write: as they say, whatever it was.
pub async fn first(client: &Client, name: &str, text: &str) -> kube::Result<()> {
    let api = policies(client);
    let mut policy = AccessPolicy::new(name, AccessPolicySpec { cedar: text.to_owned() });
    policy.metadata.namespace = Some(names::NAMESPACE.to_owned());
    match api.create(&PostParams::default(), &policy).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let change = json!({ "spec": policy.spec });
            api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

/// What became of a policy.
pub async fn status(client: &Client, name: &str, status: &AccessPolicyStatus) -> kube::Result<()> {
    let change = json!({ "status": status });
    absent_is_well(policies(client).patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await)
}

/// Whom the policies trust, and which of them says so.
pub async fn trust(client: &Client, name: &str, change: &Change) -> kube::Result<()> {
    let api = Api::<KnownCluster>::namespaced(client.clone(), names::NAMESPACE);
    let change = json!({
        "metadata": {"annotations": {
            names::ANNOTATION_TRUST_POLICY: change.policy,
            names::ANNOTATION_TRUST_OWNER: change.owner,
        }},
        "spec": {"trust": change.trust},
    });
    absent_is_well(api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await)
}

fn policies(client: &Client) -> Api<AccessPolicy> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}

/// What is gone needs nothing written.
fn absent_is_well<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}
