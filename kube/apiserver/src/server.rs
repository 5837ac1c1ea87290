//! The API server: one value that answers requests, in process and behind TLS.

pub(crate) mod answer;
mod health;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, try_join};
use http::{Request, Response};
use serde_json::{Value, json};
use substrate_store::Store;

use crate::addresses::Addresses;
use crate::admission::{Admission, Registrations};
use crate::audit::Audit;
use crate::audit::log::{Log, Target};
use crate::audit::policy::Policy;
use crate::auth::account_tokens::Issuer;
use crate::auth::{Tokens, User};
use crate::authorization::{self, Rights};
use crate::body::Body;
use crate::bounds::{Bounds, Origin};
use crate::kinds::Kind;
use crate::metrics::Metrics;
use crate::node_proxy::NodeProxies;
use crate::registry::Registry;
use crate::status::Status;
use crate::{object, verbs};

/// What a server is made of.
pub struct Options {
    /// Where objects are kept.
    pub store: Store,
    /// Addresses of Services: base and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// The same of IPv6, if Services may have both families.
    pub service_cidr_v6: Option<(Ipv6Addr, u8)>,
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
    pub bounds: Bounds,
    pub metrics: Metrics,
    /// Nothing is audited unless it is set.
    pub audit: OnceLock<Audit>,
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
            addresses: Addresses::new(options.service_cidr, options.service_cidr_v6),
            tokens: options.tokens,
            issuer: OnceLock::new(),
            rights: Rights::default(),
            proxies: options.proxies,
            admission: RwLock::new(options.admission),
            admitted: Registrations::default(),
            version: options.version,
            bounds: Bounds::default(),
            metrics: Metrics::new()?,
            audit: OnceLock::new(),
        };
        let server = Self { inner: Arc::new(inner) };
        server.load_definitions()?;
        Ok(server)
    }

    fn load_definitions(&self) -> Result<(), Status> {
        let Some(kind) = self.inner.registry.by_kind("apiextensions.k8s.io", "CustomResourceDefinition") else {
            return Err(Status::internal("the kind CustomResourceDefinition is missing"));
        };
        for definition in verbs::read::all(self, &kind, "")? {
            self.inner.registry.define(&definition);
        }
        Ok(())
    }

    /// Issues tokens of service accounts from now on, and takes them. Called once; a second time is without effect.
    pub fn issue_tokens(&self, issuer: Issuer) {
        let _ = self.inner.issuer.set(issuer);
    }

    /// Writes what is asked for into a log from now on, as `policy` says (`audit.k8s.io/v1`, in YAML). Called once; a second time is without
    /// effect.
    ///
    /// # Errors
    /// What is wrong with the policy, or why the log cannot be opened.
    pub fn audit(&self, policy: &str, into: Target) -> Result<(), String> {
        let policy = Policy::parse(policy)?;
        let path = into.path.display().to_string();
        let log = Log::open(into, self.inner.metrics.audit.clone()).map_err(|error| format!("{path}: {error}"))?;
        let _ = self.inner.audit.set(Audit::new(policy, log));
        Ok(())
    }

    /// The end of the process: waits until everything that was asked for is in the log, what is still going on, too.
    pub async fn end_audit(&self) {
        if let Some(audit) = self.inner.audit.get() {
            audit.end().await;
        }
    }

    /// The address of the Service `kubernetes`, by which pods reach this server.
    pub fn service_address(&self) -> Ipv4Addr {
        self.inner.addresses.nth(1)
    }

    /// Adds a step of admission after the others.
    pub fn add_admission(&self, step: Arc<dyn Admission>) {
        self.inner.admission.write().unwrap_or_else(|poisoned| poisoned.into_inner()).push(step);
    }

    /// Writes what every cluster has before anybody asks: namespaces, classes of priority, roles. Those of one sort are written beside each
    /// other, so that a first start waits for the disk a few times and not for each of some 150 objects.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        let root = root();
        try_join_all(["default", "kube-system", "kube-public", "kube-node-lease"].map(|name| {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            self.ensure(&root, "", "namespaces", "", namespace)
        }))
        .await?;
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "default" } });
        let classes = crate::kinds::scheduling::priority_class::SYSTEM.map(|(name, value)| {
            let description = match name {
                "system-node-critical" => "For pods without which a node does not work: they stay where they are.",
                _ => "For pods without which the cluster does not work: they may go to another node.",
            };
            let class = json!({ "metadata": { "name": name }, "value": value, "description": description });
            self.ensure(&root, "scheduling.k8s.io", "priorityclasses", "", class)
        });
        try_join!(
            self.ensure(&root, "", "serviceaccounts", "default", account),
            try_join_all(classes),
            authorization::bootstrap::write(self, &root),
        )?;
        Ok(())
    }

    /// Writes the Service `kubernetes`, by which pods reach this server at `address` and `port`.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn publish(&self, (address, port): (Ipv4Addr, u16)) -> Result<(), Status> {
        let root = root();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "clusterIP": self.service_address().to_string(),
                      "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }] },
        });
        self.ensure(&root, "", "services", "default", service).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [address.to_string()], "conditions": { "ready": true } }],
        });
        self.replace(&root, "discovery.k8s.io", "endpointslices", "default", slice).await
    }

    async fn ensure(
        &self,
        user: &User,
        group: &str,
        plural: &str,
        namespace: &str,
        object: Value,
    ) -> Result<(), Status> {
        let kind = self.kind(group, "v1", plural)?;
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
        let kind = self.kind(group, "v1", plural)?;
        let name = object::meta(&object, "name").to_owned();
        match verbs::create_object(self, user, &kind, namespace, object.clone()).await {
            Err(status) if status.reason == "AlreadyExists" => {
                verbs::update_object(self, user, &kind, namespace, &name, object).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// A service that answers as this server does to `user`, a part of this process.
    pub fn as_user(&self, user: User) -> UserService {
        UserService { server: self.clone(), user }
    }

    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Kind>, Status> {
        self.inner.registry.get(group, version, plural).ok_or_else(Status::no_resource)
    }
}

/// Whom what is written before anybody asks is from.
fn root() -> User {
    User::new("system:apiserver", &["system:masters"])
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(Origin::Inside);
        let (server, user) = (self.server.clone(), self.user.clone());
        async move { Ok(server.answer(Some(&user), request).await) }.boxed()
    }
}
