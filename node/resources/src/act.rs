//! Carries a plan out. Every effect of the Local Resource Manager is here.

use fluidos_model::kinds::{Flavor, Offer, ServiceBlueprint, names};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::plan::Action;

/// Does one thing of a plan. What somebody else has done or changed in the meantime is looked at again.
pub async fn act(client: &Client, action: &Action) -> kube::Result<()> {
    let flavors = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    let done = match action {
        Action::Identify { data } => identify(client, data).await,
        Action::Offer { name, spec } => {
            let mut flavor = Flavor::new(name, (**spec).clone());
            flavor.metadata.namespace = Some(names::NAMESPACE.into());
            flavors.create(&PostParams::default(), &flavor).await.map(|_| ())
        }
        Action::Change { name, version, spec } => {
            // Labels, annotations and owners that others have put there stay; of the spec nothing does, or what is no longer said would.
            let mut flavor = flavors.get(name).await?;
            flavor.metadata.resource_version = version.clone();
            flavor.spec = (**spec).clone();
            flavors.replace(name, &PostParams::default(), &flavor).await.map(|_| ())
        }
        Action::Judge { name, version, status } => {
            let offers = Api::<Offer>::namespaced(client.clone(), names::NAMESPACE);
            let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
            offers.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
        }
        Action::JudgeService { name, version, status } => {
            let blueprints = Api::<ServiceBlueprint>::namespaced(client.clone(), names::NAMESPACE);
            let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
            blueprints.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
        }
        Action::Withdraw { name } => flavors.delete(name, &DeleteParams::default()).await.map(|_| ()),
    };
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}

async fn identify(client: &Client, data: &std::collections::BTreeMap<String, String>) -> kube::Result<()> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), names::NAMESPACE);
    let name = names::IDENTITY_CONFIG_MAP;
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        data: Some(data.clone()),
        ..ConfigMap::default()
    };
    match api.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = Patch::Merge(json!({"data": data}));
            api.patch(name, &PatchParams::default(), &patch).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}
