//! Nodes in process: their APIs, their accounts, REAR over TLS on loopback. Contracts, nodes and allocations are written by hand.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fluidos_accounting::{Accounts, Meters, Options, Traffic, Usage};
use fluidos_identity::{ClientAuth, Envelope, NodeId, NodeKey, Signed, Speakers, Standing, server_config};
use fluidos_model::kinds::{Account, AccountPhase, Allocation, Contract, Invoice, Receipt, SignedTerms, crds, names};
use fluidos_model::market::month_of;
use fluidos_model::receipt::{self, RECEIPT_PURPOSE};
use fluidos_rear as rear;
use fluidos_rear::{ReceiptAnswer, ReceiptRequest, Refusal, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Namespace, Node as KubeNode, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const CONTRACT: &str = "contract-grid-1";

/// Sells nothing: contracts are written by hand.
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

/// Loses the next answers after the books were written, as a connection does that breaks.
pub struct Lossy {
    pub accounts: Arc<Accounts>,
    pub lose: AtomicBool,
    pub lost: Mutex<Vec<ReceiptAnswer>>,
}

#[async_trait]
impl rear::Accountant for Lossy {
    async fn receipts(&self, contract: &str, request: ReceiptRequest, party: NodeId) -> Result<ReceiptAnswer, Refusal> {
        let answer = self.accounts.receipts(contract, request, party).await?;
        if answer.receipt.is_some() && self.lose.swap(false, Ordering::SeqCst) {
            self.lost.lock().unwrap().push(answer);
            return Err(Refusal::new(RefusalCode::Unavailable, "lost on the way"));
        }
        Ok(answer)
    }
}

#[derive(Default)]
pub struct Gauge {
    pub down: AtomicBool,
    pub bytes: AtomicU64,
}

impl Meters for Gauge {
    fn is_up(&self, _: &NodeId) -> bool {
        !self.down.load(Ordering::SeqCst)
    }

    fn traffic(&self, _: &NodeId) -> Option<Traffic> {
        let bytes = self.bytes.load(Ordering::SeqCst);
        Some(Traffic { to_peer: bytes, from_peer: 2 * bytes })
    }

    fn usage(&self, _: &str) -> Option<Usage> {
        None
    }
}

pub struct Node {
    pub key: NodeKey,
    /// All keys that it has had.
    pub keys: BTreeSet<NodeId>,
    pub speakers: Speakers,
    /// What it was told of keys.
    pub told: Mutex<(BTreeMap<NodeId, Standing>, BTreeMap<NodeId, NodeId>)>,
    pub client: Client,
    pub address: SocketAddr,
    pub gauge: Arc<Gauge>,
    pub rooms: JoinSet<()>,
    pub lossy: Option<Arc<Lossy>>,
}

pub async fn api() -> Client {
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

impl Node {
    pub async fn start(seed: u8) -> Self {
        let address = TcpListener::bind((own_loopback(), 0)).await.unwrap().local_addr().unwrap();
        let key = NodeKey::from_seed([seed; 32]).unwrap();
        let (keys, speakers) = ([key.id()].into(), Speakers::default());
        let (gauge, rooms) = (Arc::default(), JoinSet::new());
        let (told, lossy, client) = (Mutex::default(), None, api().await);
        let mut node = Self { key, keys, speakers, told, client, address, gauge, rooms, lossy };
        node.open(false).await;
        node
    }

    pub async fn open(&mut self, lose: bool) {
        let key = self.key.clone();
        let options = Options {
            client: self.client.clone(),
            caches: Caches::new(self.client.clone()),
            key: key.clone(),
            keys: self.keys.clone(),
            speakers: self.speakers.clone(),
            dial: Arc::new(move |target| rear::Client::new(&key, target).map_err(|error| error.to_string())),
            meters: self.gauge.clone(),
        };
        let (accounts, keep) = fluidos_accounting::start(options).await.unwrap();
        self.rooms.spawn(keep);
        let lossy = Arc::new(Lossy { accounts, lose: lose.into(), lost: Mutex::default() });
        let service = rear::RearService::with(Arc::new(Nothing), Some(lossy.clone()));
        self.lossy = Some(lossy);
        let tls = Arc::new(server_config(&self.key, ClientAuth::Accept, rear::ALPN).unwrap());
        let listener = until("the port is free", async || {
            TcpListener::bind(self.address).await.map_err(|error| error.to_string())
        })
        .await;
        self.rooms.spawn(async move {
            rear::serve(listener, tls, service, std::future::pending()).await.unwrap();
        });
    }

    /// Comes back with another key, which the old one was handed over to; who is told knows it.
    pub async fn rotate(&mut self, seed: u8, told: &[&Self]) {
        self.kill().await;
        let (before, first) = (self.key.id(), *self.keys.iter().next().unwrap());
        self.key = NodeKey::from_seed([seed; 32]).unwrap();
        let own = self.key.id();
        self.keys.insert(own);
        for node in told.iter().copied().chain([&*self]) {
            let mut known = node.told.lock().unwrap();
            known.0.extend([(before, Standing::Current(own)), (own, Standing::Current(own))]);
            known.1.insert(own, first);
            node.speakers.set(known.0.clone(), known.1.clone());
        }
        self.open(false).await;
    }

    pub async fn kill(&mut self) {
        self.rooms.shutdown().await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    pub async fn receipts(&self) -> Vec<Receipt> {
        self.api::<Receipt>().list(&Default::default()).await.unwrap().items
    }

    pub async fn account(&self) -> Account {
        self.api::<Account>().get(CONTRACT).await.unwrap()
    }

    pub async fn phase(&self, phase: AccountPhase) {
        until(&format!("the account is {phase:?}"), async || {
            let found = self.api::<Account>().get_opt(CONTRACT).await.unwrap();
            // Of one that has just begun nothing is written beside it.
            match found.map(|account| account.status.unwrap_or_default()) {
                Some(status) if status.phase == phase => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until there are invoices: they are made after the account is settled.
    pub async fn invoices(&self) -> Vec<Invoice> {
        until("there is an invoice", async || {
            let invoices = self.api::<Invoice>().list(&Default::default()).await.unwrap().items;
            if invoices.is_empty() { Err(String::new()) } else { Ok(invoices) }
        })
        .await
    }

    /// A pod that runs and asks for so much: at the seller a twin, at the buyer one on the virtual node.
    /// A twin names the pod that it is of by its UID, which this returns.
    pub async fn pod(&self, cpu: &str, origin: Option<&str>) -> String {
        let (labels, annotations) = match origin {
            Some(uid) => {
                let origin = json!({names::ANNOTATION_ORIGIN: format!("shop/web/{uid}")});
                (json!({names::LABEL_CONTRACT: CONTRACT}), origin)
            }
            None => (json!({}), json!({})),
        };
        let meta = json!({"name": "web", "labels": labels, "annotations": annotations});
        let pod: Pod = from(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": {"nodeName": "grid", "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}}));
        let made = self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        let runs = Patch::Merge(json!({"status": {"phase": "Running"}}));
        self.api::<Pod>().patch_status("web", &PatchParams::default(), &runs).await.unwrap();
        made.uid().unwrap()
    }

    pub async fn release(&self) {
        self.api::<Contract>().delete(CONTRACT, &DeleteParams::default()).await.unwrap();
    }

    /// Writes what the fabric would.
    pub async fn ready(&self, sells: bool) {
        if sells {
            let name = names::allocation(CONTRACT);
            let allocation: Allocation =
                from(json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Allocation",
                "metadata": {"name": name}, "spec": {"contract": {"name": CONTRACT}, "forwarding": false}}));
            self.api::<Allocation>().create(&PostParams::default(), &allocation).await.unwrap();
            let status = json!({"status": {"status": "Active", "lastUpdateTime": "", "message": ""}});
            let patch = Patch::Merge(status);
            self.api::<Allocation>().patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
        } else {
            let node: KubeNode = from(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "grid",
                "labels": {names::VIRTUAL_NODE: "true", names::LABEL_CONTRACT: CONTRACT}}}));
            let api = Api::<KubeNode>::all(self.client.clone());
            api.create(&PostParams::default(), &node).await.unwrap();
            let condition = json!({"type": "Ready", "status": "True", "reason": "x", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
            api.patch_status("grid", &PatchParams::default(), &patch).await.unwrap();
        }
    }
}

pub fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Terms that both sign, at both; issued so long ago.
pub async fn deal(buyer: &Node, seller: &Node, ago: SignedDuration, conditions: Option<Value>) {
    deal_until(buyer, seller, ago, conditions, None).await;
}

/// The same with an end.
pub async fn deal_until(
    buyer: &Node,
    seller: &Node,
    ago: SignedDuration,
    conditions: Option<Value>,
    until: Option<Timestamp>,
) -> Signed<rear::ContractTerms> {
    let issued = Timestamp::now().checked_sub(ago).unwrap();
    let terms = rear::ContractTerms {
        version: 1,
        contract_id: CONTRACT.into(),
        transaction_id: "t".into(),
        flavor_id: "f".into(),
        flavor_type: "k8slice".into(),
        configuration: json!({"cpu": "500m", "memory": "1Gi", "pods": "3"}),
        buyer: buyer.key.id(),
        seller: seller.key.id(),
        price: ["36".into(), "EUR".into(), "hour".into()],
        conditions,
        issued: issued.to_string(),
        until: until.map(|until| until.to_string()),
    };
    let mut signed = terms.into_signed().unwrap();
    signed.sign(&buyer.key).unwrap();
    signed.sign(&seller.key).unwrap();
    let Envelope { purpose, payload, signatures } = signed.envelope();
    let signed_terms = SignedTerms { purpose, payload, signatures };
    let party = |node: &Node| json!({"domain": "x", "nodeID": "x", "ip": node.address.to_string()});
    let flavor = json!({"metadata": {"name": "f"}, "spec": {"providerID": "x", "owner": party(seller), "availability": true,
        "price": {"amount": "36", "currency": "EUR", "period": "hour"},
        "flavorType": {"typeIdentifier": "K8Slice", "typeData": {}}}});
    let contract: Contract = from(json!({"apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract",
        "metadata": {"name": CONTRACT}, "spec": {"flavor": flavor, "transactionID": "t", "buyer": party(buyer),
        "seller": party(seller), "signedTerms": signed_terms}}));
    for node in [seller, buyer] {
        node.api::<Contract>().create(&PostParams::default(), &contract).await.unwrap();
    }
    signed
}

/// What is counted in hours must not begin in one and end in the next: so long nobody waits here.
const CALM: i64 = 100;

/// Waits for the next hour if this one is nearly over.
pub async fn calm() {
    let left = 3600 - Timestamp::now().as_second().rem_euclid(3600);
    if left < CALM {
        tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap() + 1)).await;
    }
}

pub async fn two() -> (Node, Node) {
    calm().await;
    (Node::start(1).await, Node::start(2).await)
}

pub fn opened(receipt: &Receipt) -> Signed<receipt::Receipt> {
    let SignedTerms { purpose, payload, signatures } = receipt.spec.signed.clone();
    Signed::open(&Envelope { purpose, payload, signatures }, RECEIPT_PURPOSE).unwrap()
}

/// The checker: whatever happened, both have the same receipts in one chain, signed by both. Of a contract that is over: those of its last
/// month, as those before go when they are in an invoice, which is a moment after the end.
pub async fn same_books(buyer: &Node, seller: &Node) -> Vec<receipt::Receipt> {
    let specs = |receipts: &[Receipt]| receipts.iter().map(|receipt| receipt.spec.clone()).collect::<Vec<_>>();
    let bought = until("both have the same receipts", async || {
        let (bought, sold) = (buyer.receipts().await, seller.receipts().await);
        let values = bought.iter().map(|receipt| opened(receipt).value().clone()).collect::<Vec<_>>();
        let month = values.last().filter(|last| last.end.is_some()).map(|last| month_of(last.from).0);
        let wait_for_invoices = values.iter().any(|receipt| month.is_some_and(|month| receipt.until <= month));
        if specs(&bought) == specs(&sold) && !wait_for_invoices {
            Ok(bought)
        } else {
            Err(format!("{bought:?} {sold:?}"))
        }
    })
    .await;
    let mut previous: Option<String> = None;
    for receipt in &bought {
        let signed = opened(receipt);
        for node in [buyer, seller] {
            assert!(node.keys.iter().any(|key| signed.signed_by(key)), "receipt {}", signed.value().number);
        }
        assert!(previous.is_none_or(|previous| previous == signed.value().previous));
        previous = Some(signed.digest());
    }
    let of = |account: Account| account.status.map(|s| (s.phase, s.number, s.digest, s.served_seconds, s.disputed));
    assert_eq!(of(buyer.account().await), of(seller.account().await));
    bought.iter().map(|receipt| opened(receipt).value().clone()).collect()
}

/// What events of a reason say about contracts.
pub async fn events(node: &Node, reason: &str) -> Vec<String> {
    let all = node.api::<Event>().list(&Default::default()).await.unwrap().items;
    let about = |event: &Event| {
        event.reason.as_deref() == Some(reason) && event.involved_object.kind.as_deref() == Some("Contract")
    };
    all.into_iter().filter(about).filter_map(|event| event.message).collect()
}

/// An address of loopback that only one node of one test has. While a node is dead its port is nobody's: what others open outwards takes
/// its ports from those of 127.0.0.1.
fn own_loopback() -> std::net::Ipv4Addr {
    static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    let [_, high, low, _] = (std::process::id() << 8).to_be_bytes();
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 254;
    std::net::Ipv4Addr::new(127, 1 + high % 250, low, 1 + number)
}
