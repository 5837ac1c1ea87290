//! The node's Kubernetes API: store, server, door, the owner's kubeconfig.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use substrate_apiserver::auth::account_tokens::{self, Issuer};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options, tls};
use substrate_client::certificates::Signer;
use substrate_client::{Access, Caches};
use substrate_store::Store;
use tokio::net::TcpListener;

use super::encryption;
use super::parts::Parts;
use super::{Ranges, VERSION};
use crate::cli::Up;

/// What its owner can do about a store that does not open.
fn cannot_open(directory: &Path, error: substrate_store::Error) -> anyhow::Error {
    use substrate_store::Error::{Damaged, Format, InUse, Sealing};
    let remedy = match &error {
        InUse { .. } => ": another node runs in it",
        Damaged { .. } => ": nothing of it is served; move it away and restore a backup (fluidos restore FILE)",
        Format { .. } => ": use the version that made it, or an empty directory",
        Sealing(_) => ": give the keys (--encryption-config)",
        _ => "",
    };
    anyhow::anyhow!("--data-dir {}: {error}{remedy}", directory.display())
}

/// The API of one node.
pub struct Api {
    /// The server.
    pub server: ApiServer,
    /// Who reaches the machines of pods.
    pub proxies: NodeProxies,
    authority: Arc<tls::Authority>,
    caches: Caches,
    listener: Option<TcpListener>,
    address: SocketAddr,
    directory: PathBuf,
}

impl Api {
    /// Opens the store and takes the address; nothing is served before [`Api::serve`].
    pub async fn open(up: &Up, ranges: Ranges) -> Result<Self> {
        let directory = up.data_dir.clone();
        let sealing = encryption::sealing(up.encryption_config.as_deref())?;
        let store =
            Store::open_sealed(&directory.join("store"), sealing).map_err(|error| cannot_open(&directory, error))?;
        let listener = listen("--api", up.api).await?;
        let address = listener.local_addr()?;
        let proxies = NodeProxies::default();
        let server = ApiServer::new(Options {
            store,
            service_cidr: ranges.services,
            tokens: Tokens::default(),
            proxies: proxies.clone(),
            admission: Vec::new(),
            version: VERSION.into(),
        })?;
        let authority = Arc::new(tls::Authority::open(&directory.join("pki"))?);
        let shown = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
        let url = format!("https://{}", SocketAddr::new(shown, address.port()));
        server.issue_tokens(Issuer::open(&directory.join("pki"), &url)?);
        server.bootstrap(None).await?;
        let caches = Caches::new(client_of(&server, "shared-informers"));
        Ok(Self { server, proxies, authority, caches, listener: Some(listener), address, directory })
    }

    /// Where the owner reaches it.
    pub fn address(&self) -> SocketAddr {
        let ip = if self.address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.address.ip() };
        SocketAddr::new(ip, self.address.port())
    }

    /// The certificate that clients trust.
    pub fn authority_pem(&self) -> String {
        self.authority.certificate_pem.clone()
    }

    /// Signs certificates that were asked for and approved: the key itself stays here.
    pub fn signer(&self) -> Signer {
        let authority = self.authority.clone();
        Arc::new(move |request, usages, life| authority.issue(request, usages, life).map_err(|error| error.to_string()))
    }

    /// Makes tokens that are kept in Secrets.
    pub fn minter(&self) -> substrate_controllers::Minter {
        let server = self.server.clone();
        Arc::new(move |namespace, account, secret| {
            account_tokens::for_secret(&server, namespace, account, secret).map_err(|status| status.message)
        })
    }

    /// A client in this process. Each part has a user of its own, so that it can be told apart.
    pub fn client(&self, part: &str) -> kube::Client {
        self.client_for()(part)
    }

    /// Makes clients as [`Api::client`].
    pub fn client_for(&self) -> impl Fn(&str) -> kube::Client + Send + Sync + use<> {
        let server = self.server.clone();
        move |part| client_of(&server, part)
    }

    /// What a part of this process gets: a client as [`Api::client`], and the copies that all parts read.
    pub fn access(&self, part: &str) -> Access {
        Access { client: self.client(part), caches: self.caches.clone() }
    }

    /// Serves our kinds, and makes the namespace that they live in.
    pub async fn define(&self, definitions: &[CustomResourceDefinition]) -> Result<()> {
        let client = self.client("fluidos");
        let api = kube::Api::<CustomResourceDefinition>::all(client.clone());
        for definition in definitions {
            let name = definition.metadata.name.as_deref().unwrap_or_default();
            let result = match api.create(&PostParams::default(), definition).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": definition.spec }))).await
                }
                other => other,
            };
            result.with_context(|| format!("define {name}"))?;
        }
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(fluidos_model::kinds::names::NAMESPACE.to_owned());
        match kube::Api::<Namespace>::all(client).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => other.map(|_| ()).context("make the namespace fluidos")?,
        }
        self.roles(definitions).await
    }

    /// Lets who may see, change or administer a namespace do so with our kinds, too: they are added to `view`, `edit` and `admin`.
    async fn roles(&self, definitions: &[CustomResourceDefinition]) -> Result<()> {
        let groups: BTreeSet<&str> = definitions.iter().map(|definition| definition.spec.group.as_str()).collect();
        let api = kube::Api::<ClusterRole>::all(self.client("fluidos"));
        let write = ["create", "delete", "deletecollection", "patch", "update"].as_slice();
        for (name, verbs) in [("view", ["get", "list", "watch"].as_slice()), ("edit", write)] {
            let rule = json!({ "apiGroups": groups, "resources": ["*"], "verbs": verbs });
            let labels = json!({ format!("rbac.authorization.k8s.io/aggregate-to-{name}"): "true" });
            let role = format!("fluidos:aggregate-to-{name}");
            let role = json!({ "metadata": { "name": role, "labels": labels }, "rules": [rule] });
            let role: ClusterRole = serde_json::from_value(role)?;
            let role_name = role.metadata.name.clone().unwrap_or_default();
            let result = match api.create(&PostParams::default(), &role).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.patch(&role_name, &PatchParams::default(), &Patch::Merge(json!({ "rules": role.rules }))).await
                }
                other => other,
            };
            result.with_context(|| format!("write the ClusterRole {role_name}"))?;
        }
        Ok(())
    }

    /// Opens the door: for the owner, and for pods on the gateway of their network.
    pub async fn serve(&mut self, up: &Up, gateway: Option<Ipv4Addr>, parts: &mut Parts) -> Result<()> {
        let mut listeners: Vec<TcpListener> = self.listener.take().into_iter().collect();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), self.address.ip()];
        if let Some(gateway) = gateway {
            addresses.extend([IpAddr::from(gateway), self.server.service_address().into()]);
            // Pods cannot reach an API on 127.0.0.1.
            if !self.address.ip().is_unspecified() {
                listeners
                    .push(listen("pods' way to the API", SocketAddr::new(gateway.into(), self.address.port())).await?);
            }
            let service = self.server.bootstrap(Some((gateway, self.address.port()))).await;
            service.context("publish the Service kubernetes")?;
        }
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let identity = self.authority.server(&addresses, &names)?;
        let config = Arc::new(self.authority.server_config(&identity)?);
        self.kubeconfig(&up.name)?;
        for listener in listeners {
            parts.spawn(tls::serve(self.server.clone(), listener, config.clone()));
        }
        Ok(())
    }

    /// Writes the owner's way in.
    fn kubeconfig(&self, name: &str) -> Result<()> {
        let admin = self.authority.client("admin", &["system:masters"])?;
        let data = |pem: &str| BASE64_STANDARD.encode(pem);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{ "name": name, "cluster": {
                "server": format!("https://{}", self.address()),
                "certificate-authority-data": data(&self.authority.certificate_pem) } }],
            "users": [{ "name": name, "user": {
                "client-certificate-data": data(&admin.certificate_pem), "client-key-data": data(&admin.key_pem) } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        });
        let text = serde_json::to_vec_pretty(&config)?;
        tls::write_private(&self.directory.join("kubeconfig"), &text).context("write the kubeconfig")
    }
}

fn client_of(server: &ApiServer, part: &str) -> kube::Client {
    let user = User::new(&format!("system:serviceaccount:kube-system:{part}"), &["system:masters"]);
    substrate_client::in_process(server.as_user(user))
}

async fn listen(what: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| match address.port() {
        0 => format!("{what} {address}: cannot listen"),
        port => format!("{what} {address}: cannot listen; free the port or choose another than {port}"),
    })
}
