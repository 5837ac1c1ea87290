//! Writes and removes access. Every effect at the buyer is here. What it writes is never logged.

use std::fmt::Debug;

use fluidos_model::kinds::{Allocation, AllocationPhase, names};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::plan::{Access, Place};

/// Makes access what it should be; what is so already is not written.
pub(super) async fn write(client: &Client, access: &Access, contract: &str) -> Result<(), String> {
    let same = |known: &Secret| known.data == access.secret.data;
    put(client, &access.secret, contract, same, |known| known.data.clone_from(&access.secret.data)).await?;
    let ports = |service: &Service| service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
    let open = |service: &Service| -> Vec<_> {
        ports(service).into_iter().map(|port| (port.name, port.port, port.protocol)).collect()
    };
    let wanted = open(&access.service);
    let ports_of = |known: &mut Service| {
        // Its address is the cluster's to give.
        known.spec.get_or_insert_default().ports = Some(ports(&access.service));
    };
    put(client, &access.service, contract, |known| open(known) == wanted, ports_of).await?;
    let addresses = |slice: &EndpointSlice| -> Vec<String> {
        slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone()).collect()
    };
    let numbers =
        |slice: &EndpointSlice| -> Vec<Option<i32>> { slice.ports.iter().flatten().map(|port| port.port).collect() };
    let wanted = (addresses(&access.slice), numbers(&access.slice));
    let leads = |known: &mut EndpointSlice| {
        known.endpoints.clone_from(&access.slice.endpoints);
        known.ports.clone_from(&access.slice.ports);
    };
    put(client, &access.slice, contract, |known| (addresses(known), numbers(known)) == wanted, leads).await
}

/// Writes one object, unless somebody else has one of its name.
async fn put<K>(
    client: &Client,
    wanted: &K,
    contract: &str,
    same: impl Fn(&K) -> bool,
    change: impl Fn(&mut K),
) -> Result<(), String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
{
    let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let what = || format!("{} {name} in namespace {namespace}", K::kind(&()));
    let failed = |error: kube::Error| format!("{}: {error}", what());
    let Some(mut known) = api.get_opt(&name).await.map_err(failed)? else {
        return api.create(&PostParams::default(), wanted).await.map(|_| ()).map_err(failed);
    };
    if known.labels().get(names::LABEL_SERVICE_ACCESS).is_none_or(|of| of != contract) {
        return Err(format!(
            "{} is somebody else's: delete it, or buy under another {}",
            what(),
            names::ANNOTATION_SERVICE_NAME
        ));
    }
    if same(&known) {
        return Ok(());
    }
    change(&mut known);
    api.replace(&name, &PostParams::default(), &known).await.map(|_| ()).map_err(failed)
}

/// Takes away what is of no live contract.
pub(super) async fn sweep(client: &Client, live: &[&str]) -> kube::Result<()> {
    sweep_kind::<Secret>(client, live).await?;
    sweep_kind::<Service>(client, live).await?;
    sweep_kind::<EndpointSlice>(client, live).await
}

async fn sweep_kind<K>(client: &Client, live: &[&str]) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let labelled = ListParams::default().labels(names::LABEL_SERVICE_ACCESS);
    for object in Api::<K>::all(client.clone()).list(&labelled).await?.items {
        let contract = object.labels().get(names::LABEL_SERVICE_ACCESS).map(String::as_str).unwrap_or_default();
        if live.contains(&contract) {
            continue;
        }
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match Api::<K>::namespaced(client.clone(), &namespace).delete(&name, &parameters).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

/// Says how an Allocation stands.
pub(crate) async fn say(
    client: &Client,
    name: &str,
    phase: AllocationPhase,
    message: &str,
    secret: Option<&Place>,
) -> kube::Result<()> {
    let reference = secret
        .map(|place| json!({"apiVersion": "v1", "kind": "Secret", "name": place.name, "namespace": place.namespace}));
    let mut status = json!({"status": phase, "message": message, "lastUpdateTime": Timestamp::now().to_string()});
    if let Some(reference) = reference {
        status["resourceRef"] = reference;
    }
    let api = Api::<Allocation>::namespaced(client.clone(), names::NAMESPACE);
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}
