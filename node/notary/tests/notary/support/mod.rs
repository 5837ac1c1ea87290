//! A node in process: API server, exporter, contract manager, accounts, notary, REAR over TLS on loopback. Its log is on disk, its
//! objects are in memory: losing them is a new API.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fluidos_accounting::{Accounts, Meters, Traffic, Usage};
use fluidos_acquisition::exporter::Exporter;
use fluidos_acquisition::restore::{self, take_back};
use fluidos_acquisition::{Options, contract_manager};
use fluidos_identity::{ClientAuth, Envelope, Handover, NodeId, NodeKey, Signed, Standing, Statement, server_config};
use fluidos_model::kinds::{
    AdditionalInformation, Contract, KnownCluster, Ledger, LogState, NodeIdentity, TransparencyLog,
    TransparencyLogStatus, crds, names,
};
use fluidos_model::market::{Amounts, Ended, Pool, month_of};
use fluidos_notary::{Notary, Records};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Much longer than anything here takes, even on a busy machine.
/// Books are brought to the same page again after 1, 2, 4 … s: who was away for half a minute on a busy machine is asked within the next one.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// Who does not answer is waited for so long after a start.
pub const WAIT: Duration = Duration::from_secs(2);

pub struct Node {
    pub key: NodeKey,
    /// The first of its keys, and all of them.
    pub origin: NodeId,
    pub keys: BTreeSet<NodeId>,
    pub client: Client,
    pub options: Options,
    pub address: SocketAddr,
    pub folder: TempDir,
    pub notary: Option<Arc<Notary>>,
    pub rooms: JoinSet<()>,
}

/// Measures nothing and is always linked.
struct Linked;

impl Meters for Linked {
    fn is_up(&self, _: &NodeId) -> bool {
        true
    }

    fn traffic(&self, _: &NodeId) -> Option<Traffic> {
        None
    }

    fn usage(&self, _: &str) -> Option<Usage> {
        None
    }
}

/// Sells nothing.
pub struct Nothing;

#[async_trait]
impl rear::Seller for Nothing {
    async fn list_flavors(&self, _: &rear::Selector, _: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        Ok(Vec::new())
    }

    async fn reserve(&self, _: rear::ReserveRequest, _: NodeId) -> Result<rear::Transaction, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "nothing is sold"))
    }

    async fn purchase(
        &self,
        _: &str,
        _: rear::PurchaseRequest,
        _: Signed<rear::ContractTerms>,
        _: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "nothing is sold"))
    }

    async fn release(&self, _: &str, _: Signed<rear::ReleaseTerms>, _: NodeId) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The rooms that keep the records, introduced as the binary does it.
struct Rooms {
    client: Client,
    options: Options,
    accounts: Arc<Accounts>,
}

#[async_trait]
impl Records for Rooms {
    fn told(&self, contract: &Contract) -> rear::Contract {
        restore::told(contract)
    }

    async fn contract(
        &self,
        contract: &rear::Contract,
        renewal: Option<&Envelope>,
        ended: Ended,
    ) -> Result<(Contract, bool), String> {
        let taken = take_back(&self.client, &self.options, (contract, renewal), ended, Timestamp::now()).await;
        taken.map_err(|error| error.to_string())
    }

    async fn number(&self, contract: &str) -> u64 {
        self.accounts.number(contract).await
    }

    async fn books(
        &self,
        contract: &Contract,
        receipts: &[Envelope],
        invoices: &[Value],
    ) -> Result<(u64, u64), String> {
        let taken = self.accounts.take_back(contract, receipts, invoices, Timestamp::now()).await;
        taken.map_err(|error| error.to_string())
    }
}

async fn api() -> Client {
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
    let client = substrate_client::in_process(server.as_user(User::new("system:admin", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    client
}

pub fn amounts() -> Amounts {
    Amounts { cpu_milli: 1000, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() }
}

impl Node {
    /// A new node, which sells one CPU.
    pub async fn start(seed: u8) -> Self {
        let mut node = Self::stopped(seed).await;
        fluidos_notary::begin(&node.directory()).unwrap();
        node.open().await;
        node
    }

    pub async fn stopped(seed: u8) -> Self {
        let address = TcpListener::bind((own_loopback(), 0)).await.unwrap().local_addr().unwrap();
        let key = NodeKey::from_seed([seed; 32]).unwrap();
        let identity = NodeIdentity {
            domain: format!("n{seed}.example"),
            node_id: key.id().tag(),
            ip: address.to_string(),
            additional_information: Some(AdditionalInformation::default()),
        };
        let options = Options::new(key.clone(), identity, Some(amounts()));
        let folder = tempfile::Builder::new().prefix("flt-notary").tempdir().unwrap();
        let (origin, client) = (key.id(), api().await);
        let (keys, rooms) = ([origin].into(), JoinSet::new());
        Self { key, origin, keys, client, options, address, folder, notary: None, rooms }
    }

    /// Where the log is.
    pub fn directory(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts the rooms.
    pub async fn open(&mut self) {
        self.open_as(self.client.clone()).await;
    }

    /// Starts the rooms, which see the API through this client.
    pub async fn open_as(&mut self, client: Client) {
        let dialling = self.key.clone();
        let dial: fluidos_notary::Dial =
            Arc::new(move |target| rear::Client::new(&dialling, target).map_err(|error| error.to_string()));
        let (accounts, keep) = fluidos_accounting::start(fluidos_accounting::Options {
            client: client.clone(),
            caches: Caches::new(client.clone()),
            key: self.key.clone(),
            keys: self.keys.clone(),
            speakers: self.options.speakers.clone(),
            dial: dial.clone(),
            meters: Arc::new(Linked),
        })
        .await
        .unwrap();
        self.rooms.spawn(keep);
        let records = Rooms { client: client.clone(), options: self.options.clone(), accounts: accounts.clone() };
        let (notary, keep) = fluidos_notary::start(fluidos_notary::Options {
            client: client.clone(),
            caches: Caches::new(client.clone()),
            key: self.key.clone(),
            origin: self.origin,
            keys: self.keys.clone(),
            directory: self.directory(),
            identity: self.folder.path().join("identity"),
            dial,
            speakers: self.options.speakers.clone(),
            records: Arc::new(records),
            wait: WAIT,
        })
        .unwrap();
        self.rooms.spawn(keep);
        let closing = notary.clone();
        let options = Options { closed: Some(Arc::new(move || closing.closed())), ..self.options.clone() };
        let exporter = Arc::new(Exporter::new(client.clone(), options.clone()));
        exporter.open().await.unwrap();
        self.rooms.spawn(exporter.clone().run());
        self.rooms.spawn(contract_manager::run(client.clone(), options));
        self.notary = Some(notary.clone());
        self.serve(rear::RearService::of(exporter, Some(accounts), Some(notary))).await;
    }

    pub async fn serve(&mut self, service: rear::RearService) {
        let tls = Arc::new(server_config(&self.key, ClientAuth::Accept, rear::ALPN).unwrap());
        let listener = until("the port is free", async || {
            TcpListener::bind(self.address).await.map_err(|error| error.to_string())
        })
        .await;
        self.rooms.spawn(async move {
            rear::serve(listener, tls, service, std::future::pending()).await.unwrap();
        });
    }

    /// Comes back with another key, which the old one was handed over to; who is told knows it, and so does its own history.
    pub async fn rotate(&mut self, seed: u8, told: &[&Self]) {
        self.kill().await;
        let key = NodeKey::from_seed([seed; 32]).unwrap();
        let handover = Statement::from(Handover::by_key(&self.key, &key, Timestamp::now()).unwrap());
        let identity = self.folder.path().join("identity");
        std::fs::create_dir_all(&identity).unwrap();
        std::fs::write(identity.join("history.json"), Statement::write_all(&[handover]).unwrap()).unwrap();
        let standings = |current| [(self.key.id(), Standing::Current(current)), (current, Standing::Current(current))];
        for speakers in told.iter().map(|node| &node.options.speakers).chain([&self.options.speakers]) {
            speakers.set(standings(key.id()).into(), [(key.id(), self.origin)].into());
        }
        self.keys.insert(key.id());
        self.options.key = key.clone();
        self.key = key;
        self.open().await;
    }

    pub async fn kill(&mut self) {
        self.rooms.shutdown().await;
        self.notary = None;
    }

    /// Its objects are gone.
    pub async fn lose_objects(&mut self) {
        self.kill().await;
        self.client = api().await;
    }

    /// Its log is gone.
    pub fn lose_log(&self) {
        std::fs::remove_dir_all(self.directory()).unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    pub async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>().list(&Default::default()).await.unwrap().items
    }

    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.list::<K>().await.iter().map(|object| object.meta().name.clone().unwrap()).collect()
    }

    pub async fn know(&self, other: &Self) {
        let known: KnownCluster = from(json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster",
            "metadata": {"name": format!("knowncluster-{}", other.key.id().tag())},
            "spec": {"address": other.address.to_string(), "did": other.key.id().to_string(), "trust": "Trusted"},
        }));
        self.api().create(&PostParams::default(), &known).await.unwrap();
    }

    pub async fn log(&self) -> TransparencyLogStatus {
        let log = self.api::<TransparencyLog>().get_opt(names::LOG).await.unwrap();
        log.and_then(|log| log.status).unwrap_or_default()
    }

    /// Waits until the log is in a state with so many entries.
    pub async fn log_is(&self, state: LogState, size: u64) -> TransparencyLogStatus {
        until(&format!("the log is {state:?} with {size} entries"), async || {
            let log = self.log().await;
            if (log.state, log.size) == (state, size) { Ok(log) } else { Err(format!("{log:?}")) }
        })
        .await
    }

    /// Waits until another node keeps so many entries of this one's log.
    pub async fn is_witnessed(&self, witness: &Self, size: u64) -> rear::KeptHead {
        until(&format!("{size} entries are witnessed"), async || {
            // Not over the wire: who polls there is soon not listened to.
            let keeper = witness.notary.clone().ok_or("the witness is away")?;
            let kept = rear::Notary::kept(keeper.as_ref(), self.origin).await.map_err(|error| error.to_string())?;
            let head = kept.head.as_ref().map(|head| fluidos_log::open_head(head).unwrap());
            match head {
                Some(head) if head.value().size == size && kept.leaves == size => Ok(kept),
                other => Err(format!("{other:?}, {} leaves", kept.leaves)),
            }
        })
        .await
    }

    /// This node's client of another.
    pub fn rear(&self, other: &Self) -> rear::Client {
        rear::Client::new(&self.key, rear::Target { address: other.address, expected: Some(other.key.id()) }).unwrap()
    }

    pub async fn ledger(&self) -> Pool {
        self.api::<Ledger>().get(names::LEDGER).await.unwrap().spec.pool().unwrap()
    }

    fn party(&self) -> rear::Party {
        rear::Party {
            node_id: self.key.id().tag(),
            address: self.address.to_string(),
            domain: self.options.identity.domain.clone(),
            did: Some(self.key.id()),
            ..rear::Party::default()
        }
    }
}

pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A contract of 400m that both have signed so long ago, as the other party would tell it.
pub fn agreed(buyer: &Node, seller: &Node, number: u32, ago: SignedDuration) -> rear::Contract {
    agreed_until(buyer, seller, number, ago, None)
}

/// The same, with an end.
pub fn agreed_until(
    buyer: &Node,
    seller: &Node,
    number: u32,
    ago: SignedDuration,
    until: Option<Timestamp>,
) -> rear::Contract {
    let issued = Timestamp::now().checked_sub(ago).unwrap();
    let terms = rear::ContractTerms {
        version: 1,
        contract_id: format!("contract-{number}"),
        transaction_id: format!("transaction-{number}"),
        flavor_id: "f".into(),
        flavor_type: "k8slice".into(),
        configuration: json!({"cpu": "400m", "memory": "64Mi", "pods": "3"}),
        buyer: buyer.key.id(),
        seller: seller.key.id(),
        price: ["36".into(), "EUR".into(), "hour".into()],
        conditions: None,
        issued: issued.to_string(),
        until: until.map(|until| until.to_string()),
    };
    let mut signed = terms.into_signed().unwrap();
    signed.sign(&buyer.key).unwrap();
    signed.sign(&seller.key).unwrap();
    wire(buyer, seller, &format!("contract-{number}"), signed.envelope())
}

pub fn wire(buyer: &Node, seller: &Node, id: &str, signed: Envelope) -> rear::Contract {
    rear::Contract {
        id: id.into(),
        transaction_id: format!("transaction-{id}"),
        flavor: rear::Flavor {
            id: "f".into(),
            provider_id: "x".into(),
            flavor_type: rear::FlavorType::K8Slice,
            data: json!({"characteristics": {"architecture": "amd64", "cpu": "1", "memory": "1Gi", "pods": "10"}}),
            location: rear::Location::default(),
            price: rear::Price {
                amount: "36".into(),
                currency: "EUR".into(),
                period: "hour".into(),
                unit: String::new(),
            },
            owner: seller.party(),
            availability: true,
            network_property_type: String::new(),
        },
        configuration: None,
        buyer: buyer.party(),
        buyer_cluster_id: String::new(),
        seller: seller.party(),
        expiration: None,
        extra: std::collections::BTreeMap::default(),
        network_requests: None,
        telemetry: None,
        signed_terms: Some(signed),
        credentials_dropped: false,
    }
}

/// Both have the contract.
pub async fn deal(buyer: &Node, seller: &Node, number: u32, ago: SignedDuration) {
    let contract = agreed(buyer, seller, number, ago);
    for node in [seller, buyer] {
        let now = Timestamp::now();
        take_back(&node.client, &node.options, (&contract, None), Ended::No, now).await.unwrap();
    }
}

/// Invoices of months that are over, of a contract that began so long ago: each is an entry of the log. There are some in the first hours of
/// a month.
pub fn invoices_since(ago: SignedDuration) -> u64 {
    let (now, month) = (Timestamp::now(), |at| month_of(at).0);
    u64::from(month(now) != month(now.checked_sub(ago).unwrap()))
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
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
