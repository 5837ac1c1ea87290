//! Makes the slices and Endpoints be what they should.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::plan::{
    MANAGED_BY, MANAGER, OLD_MANAGED_BY, OLD_MANAGER, SERVICE_NAME, plan, same_endpoints, same_slice, selector,
};
use crate::objects::{name, namespace};
use crate::work::{Caches, Next, Rounds};

/// Keeps all slices until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let changes =
        vec![caches.services.changes(), caches.pods.changes(), caches.slices.changes(), caches.endpoints.changes()];
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let next = round(&client, &caches).await;
        rounds.wait(next).await;
    }
}

async fn round(client: &Client, caches: &Caches) -> Next {
    let mut slices: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in caches.slices.list() {
        let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        if label(MANAGED_BY).as_deref() == Some(MANAGER) {
            let service = label(SERVICE_NAME).unwrap_or_default();
            slices.entry((namespace(&slice.metadata).to_owned(), service)).or_default().push(slice);
        }
    }
    let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in caches.pods.list() {
        pods.entry(namespace(&pod.metadata).to_owned()).or_default().push(pod);
    }
    let mut outcome = Outcome::default();
    let mut followed = BTreeSet::new();
    for service in caches.services.list() {
        if selector(&service).is_none() {
            continue;
        }
        let home = namespace(&service.metadata);
        let of = pods.get(home).map(Vec::as_slice).unwrap_or_default();
        let (wanted, wanted_endpoints) = plan(&service, of);
        let key = (home.to_owned(), name(&service.metadata).to_owned());
        let mut found = slices.remove(&key).unwrap_or_default();
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), home);
        for slice in wanted {
            let at = found.iter().position(|found| found.metadata.name == slice.metadata.name);
            let existing = at.map(|at| found.swap_remove(at));
            if existing.as_ref().is_none_or(|existing| !same_slice(existing, &slice)) {
                outcome.note(put(&api, existing.map(|e| e.metadata.clone()), slice).await);
            }
        }
        for surplus in found {
            outcome.note(remove(&api, &*surplus).await);
        }
        let api: Api<Endpoints> = Api::namespaced(client.clone(), home);
        let existing = caches.endpoints.get(home, name(&service.metadata));
        if existing.as_ref().is_none_or(|existing| !same_endpoints(existing, &wanted_endpoints)) {
            outcome.note(put(&api, existing.map(|e| e.metadata.clone()), wanted_endpoints).await);
        }
        followed.insert(key);
    }
    // What is left belongs to Services that are gone or that somebody else follows now.
    for ((home, _), surplus) in slices {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &home);
        for slice in surplus {
            outcome.note(remove(&api, &*slice).await);
        }
    }
    for endpoints in caches.endpoints.list() {
        let ours = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(OLD_MANAGED_BY));
        let key = (namespace(&endpoints.metadata).to_owned(), name(&endpoints.metadata).to_owned());
        if ours.map(String::as_str) == Some(OLD_MANAGER) && !followed.contains(&key) {
            let api: Api<Endpoints> = Api::namespaced(client.clone(), &key.0);
            outcome.note(remove(&api, &*endpoints).await);
        }
    }
    Next { wake: None, failed: outcome.failed }
}

#[derive(Default)]
struct Outcome {
    failed: bool,
}

impl Outcome {
    fn note(&mut self, result: Result<(), kube::Error>) {
        match result {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                debug!(status.message, "planned from an older view");
                self.failed = true;
            }
            Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => {
                debug!(status.message, "the namespace is leaving");
            }
            Err(error) => {
                warn!(%error, "endpoints not written; will be tried again");
                self.failed = true;
            }
        }
    }
}

type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

async fn put<K>(api: &Api<K>, existing: Option<Metadata>, mut wanted: K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    match existing {
        None => api.create(&PostParams::default(), &wanted).await.map(|_| ()),
        Some(existing) => {
            // With the version of the view, so that a newer one is not overwritten.
            wanted.meta_mut().resource_version = existing.resource_version.clone();
            let title = existing.name.unwrap_or_default();
            api.replace(&title, &PostParams::default(), &wanted).await.map(|_| ())
        }
    }
}

async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let same = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    match api.delete(name(object.meta()), &DeleteParams::default().preconditions(same)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}
