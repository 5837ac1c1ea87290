//! The node's Kubernetes API: store, server, door, the owner's kubeconfig.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::try_join_all;
use futures::try_join;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use substrate_apiserver::auth::account_tokens::{self, Issuer};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, AuditLog, Options, tls};
use substrate_client::certificates::Signer;
use substrate_client::{Access, Caches};
use substrate_store::Store;
use tokio::net::TcpListener;

use super::parts::Parts;
use super::{Ranges, VERSION};
use super::{agents, encryption, machine};
use crate::cli::Up;

/// The managers of FLUIDOS: their group, and the ClusterRole that it has.
const ROLE: &str = "fluidos:managers";
/// Groups of Kubernetes whose kinds they write: what runs, for whom, and what is told about it.
const WORKS: &[&str] = &[
    "",
    "apps",
    "autoscaling",
    "batch",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "scheduling.k8s.io",
];

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
            service_cidr_v6: ranges.v6.map(|v6| (v6.services.network(), v6.services.prefix_len())),
            tokens: Tokens::default(),
            proxies: proxies.clone(),
            admission: Vec::new(),
            version: VERSION.into(),
        })?;
        audit(up, &server)?;
        let authority = Arc::new(tls::Authority::open(&directory.join("pki"))?);
        let shown = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
        let url = format!("https://{}", SocketAddr::new(shown, address.port()));
        server.issue_tokens(Issuer::open(&directory.join("pki"), &url)?);
        server.bootstrap().await?;
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
        // Beside each other: the disk is waited for a few times, not for each.
        try_join_all(definitions.iter().map(async |definition| {
            let name = definition.metadata.name.as_deref().unwrap_or_default();
            let result = match api.create(&PostParams::default(), definition).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": definition.spec }))).await
                }
                other => other,
            };
            result.map(drop).with_context(|| format!("define {name}"))
        }))
        .await?;
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(fluidos_model::kinds::names::NAMESPACE.to_owned());
        match kube::Api::<Namespace>::all(client).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => other.map(|_| ()).context("make the namespace fluidos")?,
        }
        self.roles(definitions).await
    }

    /// Lets who may see, change or administer a namespace do so with our kinds, too: they are added to `view`, `edit` and `admin`. And gives
    /// the managers of FLUIDOS what they need: our kinds, and what runs. No rights, definitions, webhooks or certificates.
    async fn roles(&self, definitions: &[CustomResourceDefinition]) -> Result<()> {
        let groups: BTreeSet<&str> = definitions.iter().map(|definition| definition.spec.group.as_str()).collect();
        let client = self.client("fluidos");
        let write = ["create", "delete", "deletecollection", "patch", "update"].as_slice();
        let added = [("view", ["get", "list", "watch"].as_slice()), ("edit", write)].map(|(to, verbs)| {
            let rule = json!({ "apiGroups": groups, "resources": ["*"], "verbs": verbs });
            let labels = json!({ format!("rbac.authorization.k8s.io/aggregate-to-{to}"): "true" });
            let role = json!({ "metadata": { "labels": labels }, "rules": [rule] });
            put::<ClusterRole>(&client, format!("fluidos:aggregate-to-{to}"), role)
        });
        let all = groups.iter().chain(WORKS).collect::<Vec<_>>();
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let rule = json!({ "apiGroups": all, "resources": ["*"], "verbs": verbs });
        // Owners of a pod may be of any kind, and an intent stands on one of them.
        let look = json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] });
        let role = put::<ClusterRole>(&client, ROLE.into(), json!({ "rules": [rule, look] }));
        let group = "rbac.authorization.k8s.io";
        let binding = json!({ "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": ROLE },
                              "subjects": [{ "apiGroup": group, "kind": "Group", "name": ROLE }] });
        try_join!(try_join_all(added), role, put::<ClusterRoleBinding>(&client, ROLE.into(), binding))?;
        Ok(())
    }

    /// Opens the door: for the owner, and for pods on the gateway of their network.
    pub async fn serve(
        &mut self,
        up: &Up,
        ranges: &Ranges,
        gateway: Option<Ipv4Addr>,
        parts: &mut Parts,
    ) -> Result<()> {
        let mut listeners: Vec<TcpListener> = self.listener.take().into_iter().collect();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), self.address.ip()];
        let reached = agents::reached(self.address, machine::address());
        addresses.extend(reached.map(|address| address.ip()));
        agents::tell(self.client("fluidos"), ranges, reached, &self.authority.certificate_pem).await?;
        if let Some(gateway) = gateway {
            addresses.push(IpAddr::from(gateway));
            // Pods cannot reach an API on 127.0.0.1.
            if !self.address.ip().is_unspecified() {
                listeners
                    .push(listen("pods' way to the API", SocketAddr::new(gateway.into(), self.address.port())).await?);
            }
        }
        // Pods on agents reach it where agents do, if there are none here.
        let of_agents = reached.and_then(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        if let Some(at) = gateway.or(of_agents) {
            addresses.push(self.server.service_address().into());
            let service = self.server.publish((at, self.address.port())).await;
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

/// Writes down what is asked for from now on, if the owner wants it.
fn audit(up: &Up, server: &ApiServer) -> Result<()> {
    let (Some(policy), Some(path)) = (&up.audit_policy_file, up.audit_log_path.clone()) else { return Ok(()) };
    let file = policy.display();
    let policy = std::fs::read_to_string(policy).with_context(|| format!("--audit-policy-file {file}"))?;
    let (bytes_max, backups_max) = (up.audit_log_maxsize << 20, up.audit_log_maxbackup.into());
    let log = AuditLog { path, bytes_max, backups_max };
    server.audit(&policy, log).map_err(|why| anyhow::anyhow!("--audit-policy-file {file}: {why}"))
}

/// Writes an object of the cluster as it is to be.
async fn put<K>(client: &kube::Client, name: String, mut object: serde_json::Value) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let api = kube::Api::<K>::all(client.clone());
    let change = Patch::Merge(object.clone());
    object["metadata"]["name"] = name.as_str().into();
    let result = match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Err(kube::Error::Api(status)) if status.code == 409 => api.patch(&name, &PatchParams::default(), &change).await,
        other => other,
    };
    result.map(drop).with_context(|| format!("write the {} {name}", K::kind(&())))
}

/// A client of a part, as the user that it is in Kubernetes: it may what its role gives (`kube/apiserver/src/authorization/bootstrap.yaml`,
/// and [`ROLE`] for the managers of FLUIDOS). Only what writes definitions and roles when the node starts may do everything.
fn client_of(server: &ApiServer, part: &str) -> kube::Client {
    const ACCOUNTS: [&str; 2] = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let user = match part {
        "fluidos" => User::new("fluidos", &["system:masters"]),
        "kube-scheduler" | "kube-proxy" | "kube-controller-manager" => User::new(&format!("system:{part}"), &[]),
        "shared-informers" => User::new("system:kube-controller-manager", &[]),
        part => match part.strip_prefix("kubelet-") {
            Some(node) => User::new(&format!("system:node:{node}"), &["system:nodes"]),
            None => {
                let ours = part.starts_with("fluidos-").then_some(ROLE);
                let groups: Vec<&str> = ACCOUNTS.into_iter().chain(ours).collect();
                User::new(&format!("system:serviceaccount:kube-system:{part}"), &groups)
            }
        },
    };
    substrate_client::in_process(server.as_user(user))
}

async fn listen(what: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| match address.port() {
        0 => format!("{what} {address}: cannot listen"),
        port => format!("{what} {address}: cannot listen; free the port or choose another than {port}"),
    })
}
