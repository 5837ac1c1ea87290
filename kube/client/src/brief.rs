//! Brief writes: the answer is the metadata alone, without their managers, because who writes knows the rest.
//!
//! ```text
//!  object ─▶ write, `Accept: …as=PartialObjectMetadata` ─▶ uid, resourceVersion …
//! ```
//! Any API server answers so when it is asked (KEP-2334 has the media type); what is not written out is not read again.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{Patch, PatchParams, PostParams, Request};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};

/// Of servers that do not know it, the whole object is taken.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

#[derive(Deserialize)]
struct Answer {
    metadata: Metadata,
}

/// Metadata without who manages what: half of their text, which no writer reads.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            annotations: read.annotations,
            creation_timestamp: read.creation_timestamp,
            deletion_grace_period_seconds: read.deletion_grace_period_seconds,
            deletion_timestamp: read.deletion_timestamp,
            finalizers: read.finalizers,
            generate_name: read.generate_name,
            generation: read.generation,
            labels: read.labels,
            managed_fields: None,
            name: read.name,
            namespace: read.namespace,
            owner_references: read.owner_references,
            resource_version: read.resource_version,
            self_link: None,
            uid: read.uid,
        }
    }
}

/// Writes of one kind in one namespace, as [`kube::Api`] makes them.
#[derive(Clone)]
pub struct Brief {
    client: Client,
    request: Request,
}

impl Brief {
    /// Writes objects of a kind in a namespace.
    pub fn namespaced<K>(client: &Client, namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self { client: client.clone(), request: Request::new(K::url_path(&(), Some(namespace))) }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As of [`kube::Api::create`].
    pub async fn create<K: Serialize>(&self, object: &K) -> kube::Result<ObjectMeta> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(self.request.create(&PostParams::default(), body)).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// As of [`kube::Api::replace`].
    pub async fn replace<K: Serialize>(&self, name: &str, object: &K) -> kube::Result<ObjectMeta> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(self.request.replace(name, &PostParams::default(), body)).await
    }

    /// Changes the status of an object.
    ///
    /// # Errors
    /// As of [`kube::Api::patch_status`].
    pub async fn patch_status<P: Serialize + std::fmt::Debug>(
        &self,
        name: &str,
        patch: &Patch<P>,
    ) -> kube::Result<ObjectMeta> {
        self.send(self.request.patch_subresource("status", name, &PatchParams::default(), patch)).await
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> kube::Result<ObjectMeta> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
        self.client.request::<Answer>(request).await.map(|answer| answer.metadata.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt as _, Full};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Every field that metadata have.
    fn metadata() -> Value {
        json!({
            "annotations": {"a": "b"}, "creationTimestamp": "2026-11-24T00:00:00Z", "deletionGracePeriodSeconds": 1,
            "deletionTimestamp": "2026-11-24T00:00:01Z", "finalizers": ["f"], "generateName": "flt-", "generation": 2,
            "labels": {"l": "m"}, "managedFields": [{"manager": "flt", "fieldsV1": {"f:data": {}}}], "name": "flt-a",
            "namespace": "flt", "resourceVersion": "7", "uid": "u",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "v"}],
        })
    }

    #[tokio::test]
    async fn what_is_written_is_sent_and_its_metadata_alone_is_asked_for() {
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let told = seen.clone();
        let client = crate::in_process(tower::service_fn(move |request: http::Request<Body>| {
            let told = told.clone();
            async move {
                let line = format!("{} {}", request.method(), request.uri().path());
                // Who asks for more gets nothing that can be read.
                let asked = request.headers()[ACCEPT]
                    .to_str()
                    .unwrap()
                    .starts_with("application/json;as=PartialObjectMetadata;");
                let answer =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata()});
                let answer = if asked { answer.to_string() } else { String::new() };
                let sent = request.into_body().collect().await.unwrap().to_bytes();
                told.lock().unwrap().push((line, serde_json::from_slice(&sent).unwrap()));
                Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(answer))))
            }
        }));
        let brief = Brief::namespaced::<ConfigMap>(&client, "flt");
        let object = json!({"metadata": {"name": "flt-a"}});
        let patch = json!({"status": {"x": 1}});
        let answers = [
            brief.create(&object).await.unwrap(),
            brief.replace("flt-a", &object).await.unwrap(),
            brief.patch_status("flt-a", &Patch::Merge(&patch)).await.unwrap(),
        ];
        let needed: ObjectMeta = serde_json::from_value(metadata()).unwrap();
        assert!(needed.managed_fields.is_some() && needed.resource_version.as_deref() == Some("7"));
        let needed = ObjectMeta { managed_fields: None, ..needed };
        assert!(answers.iter().all(|answer| *answer == needed), "{answers:?}");
        let needed = [
            ("POST /api/v1/namespaces/flt/configmaps", &object),
            ("PUT /api/v1/namespaces/flt/configmaps/flt-a", &object),
            ("PATCH /api/v1/namespaces/flt/configmaps/flt-a/status", &patch),
        ];
        assert_eq!(*seen.lock().unwrap(), needed.map(|(line, sent)| (line.to_owned(), sent.clone())));
    }
}
