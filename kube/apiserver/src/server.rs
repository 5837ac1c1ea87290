//! The API server: one value that answers requests, in process and behind TLS.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use substrate_store::Store;

use crate::addresses::Addresses;
use crate::admission::{Admission, Registrations};
use crate::auth::account_tokens::Issuer;
use crate::auth::{self, Tokens, User};
use crate::authorization::{self, Attributes, Rights};
use crate::body::deliver::Wishes;
use crate::body::{self, Body};
use crate::kinds::Kind;
use crate::node_proxy::NodeProxies;
use crate::registry::Registry;
use crate::route::{self, Place};
use crate::status::Status;
use crate::{discovery, object, openapi, verbs};

/// What a server is made of.
pub struct Options {
    /// Where objects are kept.
    pub store: Store,
    /// Addresses of Services: base and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// Bearer tokens that are accepted.
    pub tokens: Tokens,
    /// Who reaches the machines of pods.
    pub proxies: NodeProxies,
    /// Steps of admission beyond the server's own, in order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// What `/version` says, as `v1.34.0`.
    pub version: String,
}

/// A Kubernetes API. Clones are cheap and are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub registry: Registry,
    pub addresses: Addresses,
    pub tokens: Tokens,
    /// Who signs tokens of service accounts; nobody does unless it is set.
    pub issuer: OnceLock<Issuer>,
    pub rights: Rights,
    pub proxies: NodeProxies,
    pub admission: RwLock<Vec<Arc<dyn Admission>>>,
    pub admitted: Registrations,
    pub version: String,
}

impl ApiServer {
    /// A server over what the store holds; custom kinds that it defines are served at once.
    ///
    /// # Errors
    /// When a stored definition cannot be read.
    pub fn new(options: Options) -> Result<Self, Status> {
        let registry = Registry::builtin();
        let inner = Inner {
            store: options.store,
            registry,
            addresses: Addresses::new(options.service_cidr.0, options.service_cidr.1),
            tokens: options.tokens,
            issuer: OnceLock::new(),
            rights: Rights::default(),
            proxies: options.proxies,
            admission: RwLock::new(options.admission),
            admitted: Registrations::default(),
            version: options.version,
        };
        let server = Self { inner: Arc::new(inner) };
        server.load_definitions()?;
        Ok(server)
    }

    fn load_definitions(&self) -> Result<(), Status> {
        let Some(kind) = self.inner.registry.by_kind("apiextensions.k8s.io", "CustomResourceDefinition") else {
            return Err(Status::internal("the kind CustomResourceDefinition is missing"));
        };
        let page = self.inner.store.list(&kind.prefix(""), None, 0, None).map_err(Status::internal)?;
        for entry in page.entries {
            let definition = object::decode(&entry.value, entry.revision).map_err(Status::internal)?;
            self.inner.registry.define(&definition);
        }
        Ok(())
    }

    /// Issues tokens of service accounts from now on, and takes them. Called once; a second time is without effect.
    pub fn issue_tokens(&self, issuer: Issuer) {
        let _ = self.inner.issuer.set(issuer);
    }

    /// The address of the Service `kubernetes`, by which pods reach this server.
    pub fn service_address(&self) -> Ipv4Addr {
        self.inner.addresses.nth(1)
    }

    /// Adds a step of admission after the others.
    pub fn add_admission(&self, step: Arc<dyn Admission>) {
        self.inner.admission.write().unwrap_or_else(|poisoned| poisoned.into_inner()).push(step);
    }

    /// Writes what every cluster has before anybody asks: the namespaces and the Service `kubernetes`.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn bootstrap(&self, api: Option<(Ipv4Addr, u16)>) -> Result<(), Status> {
        let root = User::new("system:apiserver", &["system:masters"]);
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            self.ensure(&root, "namespaces", "", namespace).await?;
        }
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "default" } });
        self.ensure(&root, "serviceaccounts", "default", account).await?;
        for (name, value) in crate::kinds::scheduling::priority_class::SYSTEM {
            let description = match name {
                "system-node-critical" => "For pods without which a node does not work: they stay where they are.",
                _ => "For pods without which the cluster does not work: they may go to another node.",
            };
            let class = json!({ "metadata": { "name": name }, "value": value, "description": description });
            let kind = self
                .inner
                .registry
                .get("scheduling.k8s.io", "v1", "priorityclasses")
                .ok_or_else(Status::no_resource)?;
            match verbs::create_object(self, &root, &kind, "", class).await {
                Err(status) if status.reason != "AlreadyExists" => return Err(status),
                _ => {}
            }
        }
        authorization::bootstrap::write(self, &root).await?;
        let Some((address, port)) = api else { return Ok(()) };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "clusterIP": self.service_address().to_string(),
                      "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }] },
        });
        self.ensure(&root, "services", "default", service).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [address.to_string()], "conditions": { "ready": true } }],
        });
        self.replace(&root, "discovery.k8s.io", "endpointslices", "default", slice).await
    }

    async fn ensure(&self, user: &User, plural: &str, namespace: &str, object: Value) -> Result<(), Status> {
        let kind = self.inner.registry.get("", "v1", plural).ok_or_else(Status::no_resource)?;
        match verbs::create_object(self, user, &kind, namespace, object).await {
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn replace(
        &self,
        user: &User,
        group: &str,
        plural: &str,
        namespace: &str,
        object: Value,
    ) -> Result<(), Status> {
        let kind = self.inner.registry.get(group, "v1", plural).ok_or_else(Status::no_resource)?;
        let name = object::meta(&object, "name").to_owned();
        match verbs::create_object(self, user, &kind, namespace, object.clone()).await {
            Err(status) if status.reason == "AlreadyExists" => {
                verbs::update_object(self, user, &kind, namespace, &name, object).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// A service that answers as this server does to `user`.
    pub fn as_user(&self, user: User) -> UserService {
        UserService { server: self.clone(), user }
    }

    /// Answers one request. `connection` is whom the connection itself proved, if anybody.
    pub async fn answer<B>(&self, connection: Option<&User>, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let wishes = Wishes::of(request.headers());
        // A panic must cost its request only: in process it would end the client of every manager.
        let answer = std::panic::AssertUnwindSafe(self.route(connection, request)).catch_unwind().await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => {
                if status.code >= 500 {
                    tracing::warn!(%method, path, code = status.code, message = status.message, "request failed");
                }
                status.into()
            }
            Err(_) => {
                tracing::error!(%method, path, "request panicked");
                Status::internal("the request could not be handled").into()
            }
        };
        wishes.dress(response).await
    }

    async fn route<B>(&self, connection: Option<&User>, mut request: Request<B>) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let user = auth::authenticate(self, request.headers(), connection)?;
        let path = request.uri().path().to_owned();
        if user.is_anonymous() {
            return if auth::is_public(&path) { self.public(&path) } else { Err(Status::unauthorized()) };
        }
        let user = auth::impersonation::apply(self, user, request.headers())?;
        let (place, query) = Place::of(&path, request.uri().query());
        let asked = match &place {
            Some(Place::Resource(route)) => {
                let verb = route::verb(request.method(), route, &query).ok_or_else(Status::method_not_allowed)?;
                Attributes::of(verb, route, &query)
            }
            _ => Attributes::of_path(request.method().as_str(), &path),
        };
        authorization::require(self, &user, &asked)?;
        if auth::is_public(&path) {
            return self.public(&path);
        }
        match (path.as_str(), self.inner.issuer.get()) {
            ("/snapshot", _) => return Ok(self.snapshot()),
            ("/openid/v1/jwks", Some(issuer)) => return Ok(body::json(StatusCode::OK, &issuer.keys())),
            ("/.well-known/openid-configuration", Some(issuer)) => {
                return Ok(body::json(StatusCode::OK, &issuer.configuration()));
            }
            _ => {}
        }
        if path == "/" {
            return Ok(body::json(StatusCode::OK, &discovery::paths(&self.inner.registry)));
        }
        if path.starts_with("/openapi/") {
            return openapi::answer(&self.inner.registry, &path, &query, request.headers());
        }
        let route = match place.ok_or_else(Status::no_resource)? {
            Place::Resource(route) => route,
            place => return discovery::answer(&self.inner.registry, request.headers(), &place),
        };
        let kind = self.kind(&route.group, &route.version, &route.plural)?;
        let call = verbs::Call {
            user,
            kind,
            route,
            query,
            method: request.method().clone(),
            headers: request.headers().clone(),
        };
        if verbs::proxy::is_proxy(&call) {
            return verbs::proxy::answer(self, &call, request).await;
        }
        if verbs::connect::is_stream(&call) {
            let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
            return verbs::connect::answer(self, &call, upgrade).await;
        }
        let sent = body::read(request.into_body()).await?;
        verbs::answer(self, &call, &sent).await
    }

    /// All that is stored, as of one moment ([`Store::snapshot`]), as it is read: who may do everything may see everything.
    fn snapshot(&self) -> Response<Body> {
        let store = self.inner.store.clone();
        body::written(move |sink| store.snapshot(sink).map(|_| ()).map_err(std::io::Error::other))
    }

    /// What everybody may see.
    fn public(&self, path: &str) -> Result<Response<Body>, Status> {
        match path {
            "/version" | "/version/" => Ok(body::json(StatusCode::OK, &discovery::version(&self.inner.version))),
            _ => Ok(body::text(StatusCode::OK, "ok")),
        }
    }

    fn kind(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Kind>, Status> {
        self.inner.registry.get(group, version, plural).ok_or_else(Status::no_resource)
    }
}

/// A server, seen by one user.
#[derive(Clone)]
pub struct UserService {
    server: ApiServer,
    user: User,
}

impl<B> tower::Service<Request<B>> for UserService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        async move { Ok(server.answer(Some(&user), request).await) }.boxed()
    }
}
