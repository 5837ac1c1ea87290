//! What every namespace has: the ServiceAccount `default`, and a ConfigMap that says whom to believe to be the API server.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::warn;

use crate::objects::name;
use crate::work::{Caches, Next, ROOT_CERTIFICATE, Rounds};

/// Says what the ConfigMap is not, as kube-controller-manager does.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

/// Keeps the accounts until dropped.
pub(crate) async fn run_accounts(client: Client, caches: Caches) {
    let mut rounds = Rounds::begin(vec![caches.namespaces.changes(), caches.service_accounts.changes()]).await;
    loop {
        let mut next = Next::default();
        for namespace in caches.namespaces.list().iter().filter(|namespace| is_active(namespace)) {
            let home = name(&namespace.metadata);
            if caches.service_accounts.get(home, "default").is_none() {
                let account: ServiceAccount = ServiceAccount { metadata: named("default"), ..Default::default() };
                let api: Api<ServiceAccount> = Api::namespaced(client.clone(), home);
                next.failed |= !done(api.create(&PostParams::default(), &account).await, home);
            }
        }
        rounds.wait(next).await;
    }
}

/// Keeps the ConfigMaps until dropped. `certificate` is PEM.
pub(crate) async fn run_certificates(client: Client, caches: Caches, certificate: String) {
    let mut rounds = Rounds::begin(vec![caches.namespaces.changes(), caches.root_certificates.changes()]).await;
    loop {
        let mut next = Next::default();
        for namespace in caches.namespaces.list().iter().filter(|namespace| is_active(namespace)) {
            let home = name(&namespace.metadata);
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), home);
            let data = json!({"ca.crt": certificate});
            let found: Option<Arc<ConfigMap>> = caches.root_certificates.get(home, ROOT_CERTIFICATE);
            let right =
                |found: &ConfigMap| found.data.as_ref().and_then(|data| data.get("ca.crt")) == Some(&certificate);
            match found {
                Some(found) if right(&found) => {}
                Some(_) => {
                    let patch = Patch::Merge(json!({"data": data}));
                    next.failed |= !done(api.patch(ROOT_CERTIFICATE, &PatchParams::default(), &patch).await, home);
                }
                None => {
                    let mut metadata = named(ROOT_CERTIFICATE);
                    let key = "kubernetes.io/description".to_owned();
                    metadata.annotations = Some([(key, DESCRIPTION.to_owned())].into());
                    let data = Some([("ca.crt".to_owned(), certificate.clone())].into());
                    let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                    next.failed |= !done(api.create(&PostParams::default(), &map).await, home);
                }
            }
        }
        rounds.wait(next).await;
    }
}

fn named(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Whether it is there now: what exists already does, and a namespace on its way out needs nothing.
fn done<T>(result: Result<T, kube::Error>, namespace: &str) -> bool {
    match result {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => true,
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => true,
        Err(error) => {
            warn!(namespace, %error, "not written; will be tried again");
            false
        }
    }
}
