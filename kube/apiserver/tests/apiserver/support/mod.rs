//! An API server in process, and short ways to speak to it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

pub mod hooks;
pub mod kubectl;

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Body, Options};
use substrate_store::Store;

pub struct Api {
    pub server: ApiServer,
    pub proxies: NodeProxies,
    user: User,
}

pub async fn api() -> Api {
    api_of(None).await
}

/// Whose Services may have both families.
pub async fn dual_api() -> Api {
    api_of(Some(("fd00:9::".parse().unwrap(), 112))).await
}

async fn api_of(service_cidr_v6: Option<(Ipv6Addr, u8)>) -> Api {
    let proxies = NodeProxies::default();
    let server = ApiServer::new(Options {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6,
        tokens: Tokens::default(),
        proxies: proxies.clone(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    Api { server, proxies, user: User::new("admin", &["system:masters"]) }
}

impl Api {
    /// The same server, asked by somebody else.
    pub fn asked_by(&self, name: &str, groups: &[&str]) -> Api {
        Api { server: self.server.clone(), proxies: self.proxies.clone(), user: User::new(name, groups) }
    }

    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.server.answer(Some(&self.user), request.body(Full::new(body.into())).unwrap()).await
    }

    async fn json(&self, method: Method, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.raw(method, path, &[("content-type", content_type)], text).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("no JSON: {bytes:?}")))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.json(Method::GET, path, "application/json", &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.json(Method::POST, path, "application/json", &body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.json(Method::PUT, path, "application/json", &body).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: Value) -> (u16, Value) {
        self.json(Method::PATCH, path, &format!("application/{kind}+json"), &body).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.json(Method::DELETE, path, "application/json", &Value::Null).await
    }
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    })
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "k": value } })
}

/// The next `count` events of a watch: type, name and one value each.
pub async fn events(response: Response<Body>, count: usize) -> Vec<Value> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    let mut found: Vec<Value> = Vec::new();
    while found.len() < count {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(30), body.frame())
            .await
            .unwrap_or_else(|_| panic!("10 s without an event; so far {found:?}"));
        let Some(frame) = frame else { break };
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        found =
            text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    }
    found
}
