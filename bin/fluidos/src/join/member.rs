//! What an agent keeps of the node that it belongs to.
//!
//! ```text
//! DIR/agent/agent.json   names and ranges         DIR/agent/ca.crt       who the API must prove to be
//! DIR/agent/client.pem   certificate and key      DIR/agent/lock         one process at a time
//! ```

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
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
use substrate_network::{Both, Cidr, Ipv6};

use crate::invite::NAMESPACE;
use crate::node::agents;

/// The name that the API's certificate has, whatever its address.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// A server that takes no connection for so long is away.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a starting agent asks whether something has changed.
const REFRESH: Duration = Duration::from_secs(10);
/// More than the machines that a node can have.
const RANGES_MAX: usize = 64;
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
    /// The same of IPv6, if pods of this machine have both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<OfIpv6>,
}

/// Ranges of IPv6 of a machine and of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfIpv6 {
    /// Its own range of pods; the range of Services.
    #[serde(flatten)]
    pub own: Ipv6,
    /// All ranges that machines of the node can have.
    pub ranges: Vec<Cidr<Ipv6Addr>>,
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

    /// Its own range of pods and that of Services, of IPv6.
    pub fn ipv6(&self) -> Option<Ipv6> {
        self.ipv6.as_ref().map(|v6| v6.own)
    }

    /// All ranges that machines of the node can have, of both families.
    pub fn of_machines(&self) -> Both<Vec<Cidr>, Vec<Cidr<Ipv6Addr>>> {
        let v6 = self.ipv6.as_ref().map(|v6| v6.ranges.clone()).unwrap_or_default();
        Both { v4: self.ranges.iter().filter_map(|range| range.parse().ok()).collect(), v6 }
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
            Ok(told) => {
                // Its own ranges stay, and with them whether it has both families.
                let v6 = self.ipv6.clone().map(|own| match told.ipv6 {
                    Some((services, ranges)) => OfIpv6 { own: Ipv6 { services, ..own.own }, ranges },
                    None => own,
                });
                let newer = Self { services: told.services, ranges: told.ranges, ipv6: v6, ..self.clone() };
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

/// What a node says of itself to its machines.
pub struct Told {
    /// The range of Services.
    pub services: String,
    /// Those that machines can have.
    pub ranges: Vec<String>,
    /// Both of IPv6, if it has it.
    pub ipv6: Option<(Cidr<Ipv6Addr>, Vec<Cidr<Ipv6Addr>>)>,
}

/// Asks a node what its machines need to know.
pub async fn told(client: &Client) -> Result<Told> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get(agents::CONFIG_MAP).await?;
    let mut data = map.data.unwrap_or_default();
    let mut field = |key: &str| data.remove(key).with_context(|| format!("the node has not said its {key}"));
    let (services, ranges) = (field(agents::SERVICES)?, field(agents::PODS)?);
    range(&services)?;
    let ranges = ranges.split(',').take(RANGES_MAX).map(str::to_owned).collect();
    let ipv6 = match (field(agents::SERVICES_V6), field(agents::PODS_V6)) {
        (Ok(services), Ok(all)) => {
            let of = |text: &str| text.parse().map_err(|_| anyhow!("{text:?} is no range of addresses"));
            Some((of(&services)?, all.split(',').take(RANGES_MAX).map(of).collect::<Result<_>>()?))
        }
        _ => None,
    };
    Ok(Told { services, ranges, ipv6 })
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
            ipv6: None,
        };
        member.save(home.path()).unwrap();
        let found = Membership::find(home.path()).unwrap().unwrap();
        assert_eq!((&found, found.instance().as_str()), (&member, "0a1b2c3d"));
        assert_eq!(found.pods().unwrap(), (Ipv4Addr::new(10, 1, 8, 0), 24));
        let [pods, services] = ["fd00:1:0:0:8::/80", "fd00:1:0:0:1::/112"].map(|range| range.parse().unwrap());
        let dual =
            Membership { ipv6: Some(OfIpv6 { own: Ipv6 { pods, services }, ranges: vec![pods] }), ..member.clone() };
        dual.save(home.path()).unwrap();
        assert_eq!(Membership::find(home.path()).unwrap().unwrap(), dual);
        let broken = Membership { pod_cidr: "10.1.8.0".into(), ..member };
        assert!(broken.pods().unwrap_err().to_string().contains("is no range"));
    }
}
