//! Writes and removes the objects by which services are passed on. No credential is in them.

use std::sync::Arc;

use fluidos_model::kinds::names;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};

use super::plan;

/// Makes the object what it should be; what is so already is not written.
pub(super) async fn write(client: &Client, wanted: &EndpointSlice) -> kube::Result<()> {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), names::NAMESPACE);
    let name = wanted.name_any();
    let Some(mut known) = api.get_opt(&name).await? else {
        return api.create(&PostParams::default(), wanted).await.map(|_| ());
    };
    let same = known.annotations() == wanted.annotations() && plan::contract(&known) == plan::contract(wanted);
    if same {
        return Ok(());
    }
    known.metadata.annotations.clone_from(&wanted.metadata.annotations);
    known.metadata.labels.clone_from(&wanted.metadata.labels);
    known.endpoints.clone_from(&wanted.endpoints);
    api.replace(&name, &PostParams::default(), &known).await.map(|_| ())
}

/// Takes away what is of no live contract.
pub(super) async fn sweep(client: &Client, slices: &[Arc<EndpointSlice>], live: &[&str]) -> kube::Result<()> {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), names::NAMESPACE);
    for slice in slices.iter().filter(|slice| !plan::contract(slice).is_some_and(|of| live.contains(&of))) {
        let preconditions = Preconditions { uid: slice.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&slice.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}
