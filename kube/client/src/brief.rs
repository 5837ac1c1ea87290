//! Brief writes: the answer is the metadata alone, because who writes knows the rest.
//!
//! ```text
//!  object ─▶ write, `Accept: …as=PartialObjectMetadata` ─▶ uid, resourceVersion …
//! ```
//! Any API server answers so when it is asked (KEP-2334 has the media type); what is not written out is not read again.

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams, Request};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};

/// Of servers that do not know it, the whole object is taken.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

#[derive(Deserialize)]
struct Answer {
    metadata: ObjectMeta,
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

    /// Changes an object.
    ///
    /// # Errors
    /// As of [`kube::Api::patch`].
    pub async fn patch<P: Serialize + std::fmt::Debug>(
        &self,
        name: &str,
        patch: &Patch<P>,
    ) -> kube::Result<ObjectMeta> {
        self.send(self.request.patch(name, &PatchParams::default(), patch)).await
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
        self.client.request::<Answer>(request).await.map(|answer| answer.metadata)
    }
}
