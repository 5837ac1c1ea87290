//! What an agent keeps of the node that it belongs to.
//!
//! ```text
//! DIR/agent/agent.json   names and ranges         DIR/agent/ca.crt       who the API must prove to be
//! DIR/agent/client.pem   certificate and key      DIR/agent/lock         one process at a time
//! ```

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::AuthInfo;
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use substrate_apiserver::tls::write_private;

use crate::invite::NAMESPACE;
use crate::node::agents;

/// The name that the API's certificate has, whatever its address.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// A server that takes no connection for so long is away.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a starting agent asks whether something has changed.
const REFRESH: Duration = Duration::from_secs(10);
const FILE: &str = "agent/agent.json";
const PEM: &str = "agent/client.pem";
const CA: &str = "agent/ca.crt";

/// Which node a machine belongs to, and as what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The name of its Node.
    pub name: String,
    /// The UID of its Node: one of the same name that comes later is another.
    pub node_uid: String,
    /// `https://HOST:PORT`.
    pub server: String,
    /// Its own range of pods, as `10.1.8.0/24`.
    pub pod_cidr: String,
    /// The range of Services.
    pub services: String,
    /// All ranges that machines of the node can have.
    pub ranges: Vec<String>,
}

/// Takes the directory for this process until it is dropped.
pub fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("agent/lock");
    std::fs::create_dir_all(directory.join("agent")).with_context(|| directory.display().to_string())?;
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("--data-dir {}: an agent runs there already", directory.display()),
    }
}

fn range(text: &str) -> Result<(Ipv4Addr, u8)> {
    let read = text.split_once('/').and_then(|(base, bits)| Some((base.parse().ok()?, bits.parse().ok()?)));
    read.with_context(|| format!("{FILE}: {text:?} is no range of addresses"))
}

impl Membership {
    /// What is kept in a directory; `None` if its machine has not joined.
    pub fn find(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Keeps it: from now on the machine has joined.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        write_private(&path, &serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }

    /// What it is called on its machine: digits of its Node's UID.
    pub fn instance(&self) -> String {
        self.node_uid.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>().to_lowercase()
    }

    /// Its range of pods.
    pub fn pods(&self) -> Result<(Ipv4Addr, u8)> {
        range(&self.pod_cidr)
    }

    /// The range of Services.
    pub fn services(&self) -> Result<(Ipv4Addr, u8)> {
        range(&self.services)
    }

    /// A client with the certificate that is kept.
    pub fn client(&self, directory: &Path) -> Result<Current> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let (authority, pem) = (read(CA)?, read(PEM)?);
        let client = by_certificate(&self.server, &authority, &pem)?;
        Ok(Current { server: self.server.clone(), authority, client: Arc::new(RwLock::new((client, pem))) })
    }

    /// What the node says now, as far as it answers: its Services' range and that of its machines may have changed.
    pub async fn refresh(self, directory: &Path, client: &Client) -> Self {
        let asked = tokio::time::timeout(REFRESH, told(client)).await.unwrap_or_else(|_| Err(anyhow!("no answer")));
        match asked {
            Ok((services, ranges)) => {
                let newer = Self { services, ranges, ..self.clone() };
                if newer != self
                    && let Err(error) = newer.save(directory)
                {
                    tracing::warn!("not kept: {error:#}");
                }
                newer
            }
            Err(error) => {
                tracing::warn!("{} is away ({error:#}); this machine goes on with what it knows", self.server);
                self
            }
        }
    }
}

/// The range of Services, and those that machines can have.
pub async fn told(client: &Client) -> Result<(String, Vec<String>)> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get(agents::CONFIG_MAP).await?;
    let mut data = map.data.unwrap_or_default();
    let mut field = |key: &str| data.remove(key).with_context(|| format!("the node has not said its {key}"));
    let (services, ranges) = (field(agents::SERVICES)?, field(agents::PODS)?);
    range(&services)?;
    Ok((services, ranges.split(',').take(64).map(str::to_owned).collect()))
}

/// Keeps what proves the two to each other; the key and its certificate in one file, so that they are of one another.
pub fn keep_pem(directory: &Path, authority: Option<&str>, pem: &str) -> Result<()> {
    for (name, text) in [(CA, authority), (PEM, Some(pem))] {
        let path = directory.join(name);
        if let Some(text) = text {
            write_private(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn client(server: &str, authority: &str, auth_info: AuthInfo) -> Result<Client> {
    let mut config = kube::Config::new(server.parse().with_context(|| format!("{server:?} is no address"))?);
    let certificate =
        CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| anyhow!("the authority is no certificate"))?;
    config.root_cert = Some(vec![certificate.to_vec()]);
    config.tls_server_name = Some(SERVER_NAME.into());
    config.connect_timeout = Some(CONNECT);
    config.auth_info = auth_info;
    Ok(Client::try_from(config)?)
}

/// A client with a token.
pub fn by_token(server: &str, authority: &str, token: &str) -> Result<Client> {
    let auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    client(server, authority, auth_info)
}

/// A client with a certificate and its key.
pub fn by_certificate(server: &str, authority: &str, pem: &str) -> Result<Client> {
    let data = BASE64_STANDARD.encode(pem);
    let auth_info = AuthInfo {
        client_certificate_data: Some(data.clone()),
        client_key_data: Some(data.into()),
        ..AuthInfo::default()
    };
    client(server, authority, auth_info)
}

/// The client of now: another one when the certificate was renewed.
#[derive(Clone)]
pub struct Current {
    server: String,
    authority: String,
    client: Arc<RwLock<(Client, String)>>,
}

impl Current {
    /// As it is now.
    pub fn now(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Certificate and key, as PEM.
    pub fn pem(&self) -> String {
        self.client.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Uses another certificate from the next request on.
    pub fn renew(&self, pem: String) -> Result<()> {
        let client = by_certificate(&self.server, &self.authority, &pem)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = (client, pem);
        Ok(())
    }

    /// A client that always is the one of now.
    pub fn client(&self) -> Client {
        let current = self.clone();
        substrate_client::in_process(tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let client = current.now();
            async move { client.send(request).await }
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_one_process_has_it() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Membership::find(home.path()).unwrap(), None);
        let held = lock(home.path()).unwrap();
        assert!(lock(home.path()).unwrap_err().to_string().contains("an agent runs there already"));
        drop(held);
        lock(home.path()).unwrap();
        let member = Membership {
            name: "b".into(),
            node_uid: "0a1B2c3d-4e5f-6789-abcd-ef0123456789".into(),
            server: "https://192.0.2.7:6443".into(),
            pod_cidr: "10.1.8.0/24".into(),
            services: "10.1.15.0/24".into(),
            ranges: vec!["10.1.0.0/21".into()],
        };
        member.save(home.path()).unwrap();
        let found = Membership::find(home.path()).unwrap().unwrap();
        assert_eq!((&found, found.instance().as_str()), (&member, "0a1b2c3d"));
        assert_eq!(found.pods().unwrap(), (Ipv4Addr::new(10, 1, 8, 0), 24));
        let broken = Membership { pod_cidr: "10.1.8.0".into(), ..member };
        assert!(broken.pods().unwrap_err().to_string().contains("is no range"));
    }
}
