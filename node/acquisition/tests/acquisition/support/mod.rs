//! A node in process: API server, controllers, the rooms of acquisition, REAR over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

pub mod fuse;
pub mod service;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_acquisition::exporter::Exporter;
use fluidos_acquisition::{Options, contract_manager, importer};
use fluidos_identity::{ClientAuth, NodeKey, server_config};
use fluidos_model::kinds::{AdditionalInformation, NodeIdentity};
use fluidos_model::kinds::{
    Allocation, Contract, Discovery, Flavor, KnownCluster, Ledger, PeeringCandidate, Reservation, Solver, Transaction,
    crds, names,
};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Much longer than anything here takes. Twice a hold and what comes after: on a busy machine one may run out before it is bought, and the
/// next is.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Node {
    pub name: String,
    pub key: NodeKey,
    pub client: Client,
    pub options: Options,
    pub address: SocketAddr,
    /// Controllers; they live as long as the API.
    _api: JoinSet<()>,
    /// The rooms of acquisition.
    pub rooms: JoinSet<()>,
}

pub fn cpu(cpu_milli: u64) -> Amounts {
    Amounts { cpu_milli, memory_bytes: 8 << 30, pods: 110, ..Amounts::default() }
}

async fn api() -> (Client, JoinSet<()>) {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client_for = move |name: &str| {
        substrate_client::in_process(server.as_user(User::new(&format!("system:{name}"), &["system:masters"])))
    };
    let client = client_for("admin");
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { substrate_controllers::run(client_for, Default::default()).await });
    (client, tasks)
}

impl Node {
    /// A node that offers so many thousandths of a CPU, 8 GiB and 110 pods; `None` offers nothing.
    pub async fn start(seed: u8, name: &str, offer: Option<u64>) -> Self {
        let mut node = Self::without_rooms(seed, name, offer).await;
        node.open(|exporter| exporter).await;
        node
    }

    pub async fn without_rooms(seed: u8, name: &str, offer: Option<u64>) -> Self {
        let (client, tasks) = api().await;
        let key = NodeKey::from_seed([seed; 32]).unwrap();
        // Nobody else takes the port: it stays bound until the rooms open on it.
        let address = TcpListener::bind((own_loopback(), 0)).await.unwrap().local_addr().unwrap();
        let identity = NodeIdentity {
            domain: format!("{name}.example"),
            node_id: key.id().tag(),
            ip: address.to_string(),
            additional_information: Some(AdditionalInformation { name: Some(name.into()), ..Default::default() }),
        };
        let options = Options::new(key.clone(), identity, offer.map(cpu));
        let node = Self { name: name.into(), key, client, options, address, _api: tasks, rooms: JoinSet::new() };
        if let Some(offer) = offer {
            node.create::<Flavor>(flavor(&node, &format!("{offer}m"))).await;
        }
        node
    }

    /// Opens the rooms, with a seller that `wrap` makes of the exporter.
    pub async fn open<S: rear::Seller>(&mut self, wrap: impl FnOnce(Arc<Exporter>) -> Arc<S>) {
        self.open_as(self.client.clone(), wrap).await;
    }

    /// Opens the rooms, which see the API through this client.
    pub async fn open_as<S: rear::Seller>(&mut self, client: Client, wrap: impl FnOnce(Arc<Exporter>) -> Arc<S>) {
        self.serve_as(client.clone(), wrap).await;
        self.rooms.spawn(importer::run(client.clone(), self.options.clone()));
        self.rooms.spawn(contract_manager::run(client, self.options.clone()));
    }

    pub async fn serve<S: rear::Seller>(&mut self, wrap: impl FnOnce(Arc<Exporter>) -> Arc<S>) {
        self.serve_as(self.client.clone(), wrap).await;
    }

    async fn serve_as<S: rear::Seller>(&mut self, client: Client, wrap: impl FnOnce(Arc<Exporter>) -> Arc<S>) {
        let exporter = Arc::new(Exporter::new(client, self.options.clone()));
        exporter.open().await.unwrap();
        self.rooms.spawn(exporter.clone().run());
        let service = rear::RearService::new(wrap(exporter));
        let tls = Arc::new(server_config(&self.key, ClientAuth::Accept, rear::ALPN).unwrap());
        let listener = until("the port is free", async || {
            TcpListener::bind(self.address).await.map_err(|error| error.to_string())
        })
        .await;
        self.rooms.spawn(async move {
            rear::serve(listener, tls, service, std::future::pending()).await.unwrap();
        });
    }

    /// Kills everything but the API.
    pub async fn kill(&mut self) {
        self.rooms.shutdown().await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        self.api().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    pub async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.api::<K>().list(&Default::default()).await.unwrap().items
    }

    /// Tells this node of another, whom it trusts.
    pub async fn know(&self, other: &Self) {
        self.create::<KnownCluster>(json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster",
            "metadata": {"name": format!("knowncluster-{}", other.name)},
            "spec": {"address": other.address.to_string(), "did": other.key.id().to_string(), "name": other.name,
                     "trust": "Trusted"},
        }))
        .await;
    }

    pub async fn measure(&self, other: &Self, round_trip_micros: u64) {
        let link = json!({"state": "Up", "since": "2026-01-01T00:00:00Z", "roundTripMicros": round_trip_micros});
        let patch = Patch::Merge(json!({"status": {"link": link, "expirationTime": "", "lastUpdateTime": ""}}));
        let name = format!("knowncluster-{}", other.name);
        self.api::<KnownCluster>().patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn solver(&self, name: &str, cpu: &str, annotations: &[(&str, &str)]) {
        self.solver_with(name, cpu, annotations, json!({"reserveAndBuy": true, "establishPeering": true})).await;
    }

    pub async fn solver_with(&self, name: &str, cpu: &str, annotations: &[(&str, &str)], flags: Value) {
        let annotations: std::collections::BTreeMap<_, _> = annotations.iter().copied().collect();
        let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
        let mut solver = json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Solver",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"intentID": name, "findCandidate": true, "selector": {"flavorType": "K8Slice", "filters": {
                "cpuFilter": range(cpu), "memoryFilter": range("64Mi"), "podsFilter": range("1")}}},
        });
        solver["spec"].as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
        self.create::<Solver>(solver).await;
    }

    /// Buys so many pods of one CPU, in parts if nobody has room for all of them.
    pub async fn split_solver(&self, name: &str, pods: u32) {
        let range = |min: &str| json!({"name": "Range", "data": {"min": min}});
        let filters = json!({"cpuFilter": range(&pods.to_string()), "memoryFilter": range(&format!("{}Mi", 64 * pods)),
                             "podsFilter": range(&pods.to_string())});
        let split = json!({"unit": {"cpu": "1", "memory": "64Mi", "pods": "1"}});
        self.create::<Solver>(json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Solver", "metadata": {"name": name},
            "spec": {"intentID": name, "findCandidate": true, "reserveAndBuy": true, "establishPeering": true,
                     "selector": {"flavorType": "K8Slice", "filters": filters}, "split": split},
        }))
        .await;
    }

    /// Waits until a Solver says this; returns its message.
    pub async fn solver_is(&self, name: &str, phase: &str) -> String {
        until(&format!("Solver {name} is {phase}"), async || {
            let status = self.api::<Solver>().get(name).await.unwrap().status.unwrap_or_default();
            if status.solver_phase.phase.as_str() == phase {
                Ok(status.solver_phase.message)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// Does what fabric does: makes every allocation Active, for ever.
    pub fn fabric(&mut self) {
        let api = self.api::<Allocation>();
        self.rooms.spawn(async move {
            loop {
                for allocation in api.list(&Default::default()).await.unwrap().items {
                    let status = allocation.status.unwrap_or_default();
                    if status.status != fluidos_model::kinds::AllocationPhase::Active {
                        let patch =
                            Patch::Merge(json!({"status": {"status": "Active", "lastUpdateTime": "", "message": ""}}));
                        let name = allocation.metadata.name.unwrap();
                        let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    pub async fn delete_solver(&self, name: &str) {
        self.api::<Solver>().delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// Waits until nothing of any contract is left here.
    pub async fn empty(&self) {
        until(&format!("{} is empty", self.name), async || {
            let mut left = Vec::new();
            left.extend(named(self.list::<Contract>().await));
            left.extend(named(self.list::<Allocation>().await));
            left.extend(named(self.list::<Reservation>().await));
            left.extend(named(self.list::<Transaction>().await));
            left.extend(named(self.list::<Discovery>().await));
            left.extend(named(self.list::<PeeringCandidate>().await));
            for ledger in self.list::<Ledger>().await {
                left.extend(ledger.spec.commitments.iter().map(|known| format!("{known:?}")));
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    pub async fn ledger(&self) -> fluidos_model::market::Pool {
        self.api::<Ledger>().get(names::LEDGER).await.unwrap().spec.pool().unwrap()
    }

    /// A client of this node in the name of another key.
    pub fn rear(&self, buyer: &NodeKey) -> rear::Client {
        rear::Client::new(buyer, rear::Target { address: self.address, expected: Some(self.key.id()) }).unwrap()
    }

    pub fn flavor_name(&self) -> String {
        format!("{}.example-k8slice-1", self.name)
    }
}

fn named<K: Resource<DynamicType = ()>>(list: Vec<K>) -> Vec<String> {
    list.iter()
        .map(|object| {
            let meta = object.meta();
            format!("{} {:?} {:?} {:?}", K::kind(&()), meta.name, meta.deletion_timestamp, meta.finalizers)
        })
        .collect()
}

fn flavor(node: &Node, cpu: &str) -> Value {
    json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Flavor",
        "metadata": {"name": node.flavor_name()},
        "spec": {
            "providerID": node.key.id().tag(), "owner": node.options.identity, "availability": true,
            "price": {"amount": "", "currency": "", "period": ""}, "location": {"city": "Milan"},
            "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                "characteristics": {"architecture": "amd64", "cpu": cpu, "memory": "8Gi", "pods": "110"},
                "policies": {"partitionability": {"cpuStep": "1m", "memoryStep": "1Mi", "podsStep": "1"}},
                "properties": {"additionalProperties": {"latency": 90}}}},
        },
    })
}

/// An address of loopback that only one node of one test has. While a node is dead its port is nobody's: what others open outwards takes
/// its ports from those of 127.0.0.1.
fn own_loopback() -> std::net::Ipv4Addr {
    static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    let [_, high, low, _] = (std::process::id() << 8).to_be_bytes();
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 254;
    std::net::Ipv4Addr::new(127, 1 + high % 250, low, 1 + number)
}

/// Waits until `look` answers `Ok`; what it answered otherwise is the last status seen.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Every promise of these sellers is sold, and stands among the contracts of the buyer, and nothing else does.
pub async fn books_agree(buyer: &Node, sellers: &[&Node]) {
    until("the books agree", async || {
        let mut sold: Vec<(String, String)> = Vec::new();
        for seller in sellers {
            for known in seller.ledger().await.commitments {
                let contract = match &known.state {
                    fluidos_model::market::CommitmentState::Committed { contract, .. } => contract.clone(),
                    held => format!("{held:?}"),
                };
                sold.push((contract, known.amounts.to_string()));
            }
        }
        let mut bought: Vec<(String, String)> = buyer
            .list::<Contract>()
            .await
            .into_iter()
            .map(|contract| {
                let amounts = contract.spec.configuration.unwrap().amounts().unwrap();
                (contract.metadata.name.unwrap(), amounts.to_string())
            })
            .collect();
        sold.sort();
        bought.sort();
        if sold == bought { Ok(()) } else { Err(format!("sold {sold:?}, bought {bought:?}")) }
    })
    .await;
}
