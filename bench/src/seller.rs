//! A seller in process: API server in memory, the exporter, REAR over TLS on loopback. No other manager runs in it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use fluidos_acquisition::Options;
use fluidos_acquisition::exporter::Exporter;
use fluidos_identity::{ClientAuth, NodeKey, server_config};
use fluidos_model::kinds::{AdditionalInformation, Flavor, NodeIdentity, crds, names};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use substrate_apiserver::auth::User;
use substrate_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Where one is, and what it sells.
pub struct Seller {
    pub address: SocketAddr,
    pub key: NodeKey,
    pub flavor: String,
    _rooms: JoinSet<()>,
}

/// An API server with our kinds, in memory.
pub async fn api() -> Result<Client> {
    let server = crate::plane::api_server(Store::memory()?)?;
    server.bootstrap().await?;
    let client = substrate_client::in_process(server.as_user(User::new("bench", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await?;
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(client)
}

impl Seller {
    /// A seller of 8 CPUs.
    pub async fn start(number: u32) -> Result<Self> {
        let client = api().await?;
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&(number + 1).to_be_bytes());
        let key = NodeKey::from_seed(seed)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let identity = NodeIdentity {
            domain: format!("grid-{number}.example"),
            node_id: key.id().tag(),
            ip: address.to_string(),
            additional_information: Some(AdditionalInformation {
                name: Some(format!("grid-{number}")),
                ..Default::default()
            }),
        };
        let amounts = Amounts { cpu_milli: 8_000, memory_bytes: 8 << 30, pods: 110, ..Amounts::default() };
        let options = Options::new(key.clone(), identity, Some(amounts));
        let flavor = format!("grid-{number}.example-k8slice-1");
        let object: Flavor = serde_json::from_value(json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Flavor", "metadata": {"name": flavor},
            "spec": {
                "providerID": key.id().tag(), "owner": options.identity, "availability": true,
                "price": {"amount": "", "currency": "", "period": ""}, "location": {"city": "Milan"},
                "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                    "characteristics": {"architecture": "amd64", "cpu": "8", "memory": "8Gi", "pods": "110"},
                    "policies": {"partitionability": {"cpuStep": "1m", "memoryStep": "1Mi", "podsStep": "1"}}}},
            },
        }))?;
        Api::namespaced(client.clone(), names::NAMESPACE).create(&PostParams::default(), &object).await?;
        let exporter = Arc::new(Exporter::new(client, options));
        exporter.open().await?;
        let service = rear::RearService::new(exporter);
        let tls = Arc::new(server_config(&key, ClientAuth::Accept, rear::ALPN).context("TLS")?);
        let mut rooms = JoinSet::new();
        rooms.spawn(async move {
            // It ends with the process; what goes wrong before shows in who asks.
            let _ = rear::serve(listener, tls, service, std::future::pending()).await;
        });
        Ok(Self { address, key, flavor, _rooms: rooms })
    }

    /// A client of it in the name of a buyer.
    pub fn client(&self, buyer: &NodeKey) -> Result<rear::Client> {
        Ok(rear::Client::new(buyer, rear::Target { address: self.address, expected: Some(self.key.id()) })?)
    }
}
