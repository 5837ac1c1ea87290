//! Two nodes in process: their APIs, their accounts, REAR over TLS on loopback. Contracts, nodes and allocations are written by hand.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fluidos_accounting::{Accounts, Meters, Options, Traffic, Usage};
use fluidos_identity::{ClientAuth, Envelope, NodeId, NodeKey, Signed, server_config};
use fluidos_model::kinds::{
    Account, AccountPhase, Allocation, Contract, Invoice, PaymentState, Receipt, SignedTerms, crds, names,
};
use fluidos_model::market::{BusinessModel, month_of};
use fluidos_model::receipt::{self, Item, LineState, RECEIPT_PURPOSE};
use fluidos_rear as rear;
use fluidos_rear::{ReceiptAnswer, ReceiptRequest, Refusal, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, Pod};
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

const DEADLINE: Duration = Duration::from_secs(30);
const CONTRACT: &str = "contract-grid-1";

/// Sells nothing: contracts are written by hand.
struct Nothing;

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
struct Lossy {
    accounts: Arc<Accounts>,
    lose: AtomicBool,
    lost: Mutex<Vec<ReceiptAnswer>>,
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
struct Gauge {
    down: AtomicBool,
    bytes: AtomicU64,
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

struct Node {
    key: NodeKey,
    client: Client,
    address: SocketAddr,
    gauge: Arc<Gauge>,
    rooms: JoinSet<()>,
    lossy: Option<Arc<Lossy>>,
}

async fn api() -> Client {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap(None).await.unwrap();
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
    async fn start(seed: u8) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let key = NodeKey::from_seed([seed; 32]).unwrap();
        let mut node =
            Self { key, client: api().await, address, gauge: Arc::default(), rooms: JoinSet::new(), lossy: None };
        node.open(false).await;
        node
    }

    async fn open(&mut self, lose: bool) {
        let key = self.key.clone();
        let options = Options {
            client: self.client.clone(),
            caches: Caches::new(self.client.clone()),
            key: key.clone(),
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

    async fn kill(&mut self) {
        self.rooms.shutdown().await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    async fn receipts(&self) -> Vec<Receipt> {
        self.api::<Receipt>().list(&Default::default()).await.unwrap().items
    }

    async fn account(&self) -> Account {
        self.api::<Account>().get(CONTRACT).await.unwrap()
    }

    async fn phase(&self, phase: AccountPhase) {
        until(&format!("the account is {phase:?}"), async || {
            let found = self.api::<Account>().get_opt(CONTRACT).await.unwrap().and_then(|account| account.status);
            match found {
                Some(status) if status.phase == phase => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until there are invoices: they are made after the account is settled.
    async fn invoices(&self) -> Vec<Invoice> {
        until("there is an invoice", async || {
            let invoices = self.api::<Invoice>().list(&Default::default()).await.unwrap().items;
            if invoices.is_empty() { Err(String::new()) } else { Ok(invoices) }
        })
        .await
    }

    /// A pod that runs and asks for so much: at the seller a twin, at the buyer one on the virtual node.
    async fn pod(&self, cpu: &str, sells: bool) {
        let labels = if sells { json!({names::LABEL_CONTRACT: CONTRACT}) } else { json!({}) };
        let pod: Pod = from(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": labels},
            "spec": {"nodeName": "grid", "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}}));
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        let runs = Patch::Merge(json!({"status": {"phase": "Running"}}));
        self.api::<Pod>().patch_status("web", &PatchParams::default(), &runs).await.unwrap();
    }

    async fn release(&self) {
        self.api::<Contract>().delete(CONTRACT, &DeleteParams::default()).await.unwrap();
    }

    /// Writes what the fabric would.
    async fn ready(&self, sells: bool) {
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

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
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
async fn deal(buyer: &Node, seller: &Node, ago: SignedDuration, conditions: Option<Value>) {
    deal_until(buyer, seller, ago, conditions, None).await;
}

/// The same with an end.
async fn deal_until(
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

async fn two() -> (Node, Node) {
    (Node::start(1).await, Node::start(2).await)
}

fn opened(receipt: &Receipt) -> Signed<receipt::Receipt> {
    let SignedTerms { purpose, payload, signatures } = receipt.spec.signed.clone();
    Signed::open(&Envelope { purpose, payload, signatures }, RECEIPT_PURPOSE).unwrap()
}

/// The checker: whatever happened, both have the same receipts in one chain, signed by both.
async fn same_books(buyer: &Node, seller: &Node) -> Vec<receipt::Receipt> {
    let (bought, sold) = (buyer.receipts().await, seller.receipts().await);
    let specs = |receipts: &[Receipt]| receipts.iter().map(|receipt| receipt.spec.clone()).collect::<Vec<_>>();
    assert_eq!(specs(&bought), specs(&sold));
    let mut previous: Option<String> = None;
    for receipt in &bought {
        let signed = opened(receipt);
        signed.require(&[buyer.key.id(), seller.key.id()]).unwrap();
        assert!(previous.is_none_or(|previous| previous == signed.value().previous));
        previous = Some(signed.digest());
    }
    let of = |account: Account| account.status.map(|s| (s.phase, s.number, s.digest, s.served_seconds, s.disputed));
    assert_eq!(of(buyer.account().await), of(seller.account().await));
    bought.iter().map(|receipt| opened(receipt).value().clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_served_is_signed_by_both_invoiced_and_paid() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::ZERO, None).await;
    buyer.phase(AccountPhase::Open).await;
    seller.phase(AccountPhase::Open).await;
    seller.ready(true).await;
    buyer.ready(false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in [&buyer, &seller] {
        node.gauge.bytes.store(5_000, Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    seller.release().await;
    buyer.release().await;
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;

    let receipts = same_books(&buyer, &seller).await;
    let last = receipts.last().unwrap();
    assert!(last.end.is_some());
    let served: u64 = receipts.iter().map(|receipt| receipt.served(fluidos_model::market::MeasuredBy::Both)).sum();
    assert!((7..=12).contains(&served), "{served} s of about nine: {receipts:?}");
    for receipt in &receipts {
        assert!(!receipt.is_disputed(), "{receipt:?}");
        assert_eq!(receipt.line(Item::Reserved).unwrap().state, LineState::Agreed);
    }
    // Each counted its own: 5,000 out and 10,000 in, as the gauges say of both ends.
    let sent: u64 = receipts.iter().filter_map(|receipt| receipt.line(Item::BytesToSeller)?.buyer).sum();
    assert_eq!(sent, 5_000);

    // The invoice is the same bytes, 36 EUR an hour is a cent a second.
    let (theirs, ours) = (buyer.invoices().await, seller.invoices().await);
    let bytes = |invoices: &[Invoice]| {
        invoices.iter().map(|i| fluidos_identity::canonical_json(&i.spec.document).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&theirs), bytes(&ours));
    let due: i64 = ours.iter().map(|invoice| invoice.spec.document["dueMinor"].as_i64().unwrap()).sum();
    assert_eq!(due, i64::try_from(served).unwrap());

    // The buyer says that it has paid; the seller that it was: each hears of it.
    let name = ours.last().unwrap().name_any();
    for (node, state) in [(&buyer, PaymentState::Claimed), (&seller, PaymentState::Acknowledged)] {
        let paid = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_PAID: "now"}}}));
        node.api::<Invoice>().patch(&name, &PatchParams::default(), &paid).await.unwrap();
        for node in [&buyer, &seller] {
            until(&format!("the invoice is {state:?}"), async || {
                let status = node.api::<Invoice>().get(&name).await.unwrap().status.unwrap_or_default();
                if status.payment == state { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_without_the_other_are_made_up_and_a_lost_answer_is_the_same_receipt() {
    let (mut buyer, mut seller) = two().await;
    seller.kill().await;
    // Three hours ago: the buyer, too, was not there until now.
    deal(&buyer, &seller, SignedDuration::from_hours(3), None).await;
    buyer.phase(AccountPhase::Open).await;
    buyer.ready(false).await;
    seller.ready(true).await;
    until("the buyer says that nobody answers", async || {
        let status = buyer.account().await.status.unwrap_or_default();
        if status.message.contains("connect") { Ok(()) } else { Err(status.message) }
    })
    .await;
    // The buyer is killed, too; both come back, and the first answer is lost after the seller has written it.
    buyer.kill().await;
    seller.open(true).await;
    seller.phase(AccountPhase::Open).await;
    buyer.open(false).await;
    until("the hours are made up", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let lost = seller.lossy.as_ref().unwrap().lost.lock().unwrap().clone();
    assert_eq!(lost.len(), 1, "an answer was lost");
    let first = buyer.receipts().await.remove(0);
    let lost = lost[0].receipt.clone().unwrap();
    assert_eq!(first.spec.signed.payload, lost.payload, "asked again, the same bytes");
    assert_eq!(first.spec.signed.signatures, lost.signatures);
    for node in [&buyer, &seller] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    assert_eq!(receipts[0].served(fluidos_model::market::MeasuredBy::Both), 0, "nobody has seen it serve");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_that_counts_what_it_did_not_serve_is_disputed_and_pays_for_its_level() {
    // A receipt ends with the hour. Of two short ones neither would be apart by enough to be disputed.
    let left = 3600 - Timestamp::now().as_second().rem_euclid(3600);
    if left < 40 {
        tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap() + 1)).await;
    }
    let (buyer, seller) = two().await;
    let level = json!([{"objective": "availability", "perMille": 990, "creditPerMille": 1}]);
    deal(&buyer, &seller, SignedDuration::ZERO, Some(json!({"tolerancePerMille": 1, "serviceLevels": level}))).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    // The buyer's virtual node never comes up.
    seller.ready(true).await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    for node in [&seller, &buyer] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let disputed = receipts.iter().find(|receipt| receipt.is_disputed()).unwrap();
    let line = disputed.line(Item::Reserved).unwrap();
    assert_eq!((line.state, line.buyer), (LineState::Disputed, Some(0)));
    assert!(line.seller.unwrap() >= 16, "{line:?}");
    for node in [&buyer, &seller] {
        let invoices = node.invoices().await;
        let document = &invoices[0].spec.document;
        assert_eq!((document["dueMinor"].as_i64(), &document["disputed"][0]), (Some(0), &json!(disputed.number)));
        assert_eq!(document["creditNotes"][0]["served"], json!(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_that_one_side_has_lost_come_back_from_the_other() {
    let (mut buyer, mut seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(3), None).await;
    until("the hours are made up", async || {
        let number =
            buyer.api::<Account>().get_opt(CONTRACT).await.unwrap().and_then(|a| a.status).map_or(0, |s| s.number);
        if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    for loses in [0, 1] {
        let node = if loses == 0 { &mut buyer } else { &mut seller };
        node.kill().await;
        node.api::<Receipt>().delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
        node.api::<Account>().delete(CONTRACT, &DeleteParams::default()).await.unwrap();
        node.open(false).await;
        if loses == 1 {
            // An account is made of its contract, which goes in a moment.
            until("the seller keeps an account again", async || {
                match seller.api::<Account>().get_opt(CONTRACT).await.unwrap() {
                    Some(_) => Ok(()),
                    None => Err("none".to_owned()),
                }
            })
            .await;
            // The buyer has something to settle, and so meets a seller that knows nothing.
            for node in [&buyer, &seller] {
                node.release().await;
            }
            break;
        }
        until("the buyer has them again", async || {
            let number = buyer.receipts().await.len();
            if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
        })
        .await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    assert!(same_books(&buyer, &seller).await.len() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_sees_or_changes_the_books() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    until("there is a receipt", async || {
        let number = seller.receipts().await.len();
        if number >= 1 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let stranger = NodeKey::from_seed([9; 32]).unwrap();
    let target = || rear::Target { address: seller.address, expected: Some(seller.key.id()) };
    let client = rear::Client::new(&stranger, target()).unwrap();
    let digest = opened(&seller.receipts().await[0]).value().previous.clone();
    let request = ReceiptRequest { after: 0, digest: digest.clone(), ..Default::default() };
    let refused = client.receipts(CONTRACT, &request).await.unwrap_err().to_string();
    assert!(refused.contains("no account of contract"), "{refused}");
    let unknown = client.receipts("contract-x", &request).await.unwrap_err().to_string();
    assert_eq!(refused.replace(CONTRACT, "contract-x"), unknown, "a stranger cannot tell what there is");
    // The buyer itself, with other books.
    let client = rear::Client::new(&buyer.key, target()).unwrap();
    let other = ReceiptRequest { after: 0, digest: "cd".repeat(32), ..Default::default() };
    let refused = client.receipts(CONTRACT, &other).await.unwrap_err().to_string();
    assert!(refused.contains("differ") && refused.contains(&digest), "{refused}");
    let told = seller.account().await.status.unwrap().message;
    assert!(told.contains("differ"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_about_an_invoice_that_is_not_here_yet_hold_up_no_receipt() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::ZERO, None).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.release().await;
    seller.lossy.as_ref().unwrap().lose.store(true, Ordering::SeqCst);
    buyer.release().await;
    // The seller has the last receipt and the invoice, and says that it was paid; the buyer has neither.
    seller.phase(AccountPhase::Settled).await;
    let name = until("there is an invoice", async || {
        let invoices = seller.api::<Invoice>().list(&Default::default()).await.unwrap().items;
        invoices.last().map(|invoice| invoice.name_any()).ok_or_else(String::new)
    })
    .await;
    let paid = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_PAID: "now"}}}));
    seller.api::<Invoice>().patch(&name, &PatchParams::default(), &paid).await.unwrap();
    buyer.phase(AccountPhase::Settled).await;
    until("the buyer has heard of it", async || {
        let status = buyer.api::<Invoice>().get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.payment == PaymentState::Acknowledged { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_that_could_not_be_made_is_made_later() {
    let (mut buyer, seller) = two().await;
    // The first hour is the last of a month that is over, and at least one follows.
    let now = Timestamp::now();
    let (month, _) = month_of(now.checked_sub(SignedDuration::from_hours(2)).unwrap());
    deal(&buyer, &seller, now.duration_since(month) + SignedDuration::from_hours(1), None).await;
    let first = until("an invoice of the month before", async || {
        let invoices = buyer.api::<Invoice>().list(&Default::default()).await.unwrap().items;
        invoices.first().map(|invoice| invoice.name_any()).ok_or_else(String::new)
    })
    .await;
    until("the next month has begun", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 3 { Ok(()) } else { Err(number.to_string()) }
    })
    .await;
    // As if it had never been written, and the process ended.
    buyer.kill().await;
    let lost = buyer.api::<Invoice>().get(&first).await.unwrap();
    buyer.api::<Invoice>().delete(&first, &DeleteParams::default()).await.unwrap();
    buyer.open(false).await;
    let again =
        until("it is made again", async || buyer.api::<Invoice>().get(&first).await.map_err(|error| error.to_string()))
            .await;
    assert_eq!(again.spec, lost.spec);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_one_account_is_its_own_matter_and_half_signed_receipts_count_nothing() {
    let (mut buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    buyer.phase(AccountPhase::Open).await;
    until("there are receipts", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 2 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    buyer.kill().await;
    // Somebody has edited the API: an account that nobody can read, and a next receipt that the seller has not signed.
    let (api_version, kind) = ("accounting.fluidos.eu/v1alpha1", "Account");
    let terms = json!({"purpose": "fluidos-contract+jws", "payload": "e30", "signatures": []});
    let bad: Account = from(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "contract-bad"},
        "spec": {"contract": "contract-bad", "direction": "Bought", "peer": "x", "signedTerms": terms}}));
    buyer.api::<Account>().create(&PostParams::default(), &bad).await.unwrap();
    let last = buyer.receipts().await.pop().unwrap();
    let known = opened(&last).value().clone();
    let mut forged = Signed::new(
        RECEIPT_PURPOSE,
        receipt::Receipt {
            number: known.number + 1,
            previous: opened(&last).digest(),
            from: known.until,
            until: known.until.checked_add(SignedDuration::from_hours(1)).unwrap(),
            ..known.clone()
        },
    )
    .unwrap();
    forged.sign(&buyer.key).unwrap();
    let Envelope { purpose, payload, signatures } = forged.envelope();
    let mut object = last.clone();
    object.metadata = Default::default();
    object.metadata.name = Some(names::receipt(CONTRACT, known.number + 1));
    object.spec.number = known.number + 1;
    object.spec.signed = SignedTerms { purpose, payload, signatures };
    buyer.api::<Receipt>().create(&PostParams::default(), &object).await.unwrap();
    buyer.open(false).await;
    until("it is told", async || {
        let status = buyer.account().await.status.unwrap_or_default();
        let told = status.message.contains(&seller.key.id().to_string());
        if told && status.number == known.number { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(buyer.api::<Account>().get("contract-bad").await.unwrap().spec, bad.spec, "it is left as it is");
    // Without the forged one all goes on.
    buyer.kill().await;
    let name = names::receipt(CONTRACT, known.number + 1);
    buyer.api::<Receipt>().delete(&name, &DeleteParams::default()).await.unwrap();
    buyer.open(false).await;
    for node in [&buyer, &seller] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_about_a_payment_that_cannot_be_read_holds_up_no_receipt() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    until("there is a receipt", async || {
        let number = seller.receipts().await.len();
        if number >= 1 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let target = rear::Target { address: seller.address, expected: Some(seller.key.id()) };
    let client = rear::Client::new(&buyer.key, target).unwrap();
    let digest = opened(&seller.receipts().await[0]).value().previous.clone();
    let garbage = Envelope { purpose: "x".into(), payload: "e30".into(), signatures: vec!["y".into()] };
    let request = ReceiptRequest { after: 0, digest, payments: vec![garbage], ..Default::default() };
    let answer = client.receipts(CONTRACT, &request).await.unwrap();
    assert!(answer.receipt.is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paid_per_use_is_charged_by_what_ran_and_not_by_what_was_kept() {
    let (buyer, seller) = two().await;
    let conditions = json!({"businessModel": "pay-per-use", "yields": 3, "tolerancePerMille": 10});
    deal(&buyer, &seller, SignedDuration::ZERO, Some(conditions)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.ready(true).await;
    buyer.ready(false).await;
    // Ready, and nothing runs: that costs nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Half of the half CPU that was bought; and another pod had to yield.
    for (node, sells) in [(&seller, true), (&buyer, false)] {
        node.pod("250m", sells).await;
    }
    let yields = Patch::Merge(json!({"status": {"yielding": 1}}));
    let allocation = names::allocation(CONTRACT);
    seller.api::<Allocation>().patch_status(&allocation, &PatchParams::default(), &yields).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    for node in [&seller, &buyer] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let sum = |item, of: fn(&receipt::Line) -> Option<u64>| -> u64 {
        receipts.iter().filter_map(|receipt| of(receipt.line(item)?)).sum()
    };
    let (used, reserved) = (sum(Item::Used, |line| line.buyer), sum(Item::Reserved, |line| line.buyer));
    assert!((2_500..=4_500).contains(&used), "{used} ms: half of about six seconds");
    assert!(reserved >= 8, "{reserved} s were ready");
    assert!((4..=8).contains(&sum(Item::Yielded, |line| line.seller)), "{receipts:?}");
    assert!(receipts.iter().all(|receipt| !receipt.is_disputed()), "{receipts:?}");
    let charged: u64 = receipts.iter().map(|r| r.charged_ms(BusinessModel::PayPerUse)).sum();
    let (theirs, ours) = (buyer.invoices().await, seller.invoices().await);
    for (bought, sold) in theirs.iter().zip(&ours) {
        assert_eq!(bought.spec.document, sold.spec.document);
        assert_eq!(sold.spec.document["lines"][0]["item"], "used");
    }
    let due: i64 = ours.iter().map(|invoice| invoice.spec.document["dueMinor"].as_i64().unwrap()).sum();
    assert!(
        (due * 1000 - i64::try_from(charged).unwrap()).abs() <= 500,
        "{due} cents for {charged} ms at a cent a second"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_that_is_renewed_is_one_chain_without_a_gap_beyond_its_first_end() {
    let (buyer, seller) = two().await;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(4)).unwrap();
    let longer = end.checked_add(SignedDuration::from_secs(4)).unwrap();
    let signed = deal_until(&buyer, &seller, SignedDuration::ZERO, None, Some(end)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.ready(true).await;
    buyer.ready(false).await;
    let mut renewal = rear::RenewalTerms::of(&signed, 1, end, longer).unwrap();
    let write = async |node: &Node, renewal: &Signed<rear::RenewalTerms>| {
        let Envelope { purpose, payload, signatures } = renewal.envelope();
        let patch = Patch::Merge(json!({"spec": {"renewal": SignedTerms { purpose, payload, signatures }}}));
        node.api::<Contract>().patch(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
    };
    renewal.sign(&buyer.key).unwrap();
    // The seller has signed it, and its answer was lost: what the buyer has signed itself binds it.
    write(&buyer, &renewal).await;
    renewal.sign(&seller.key).unwrap();
    write(&seller, &renewal).await;
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let last = receipts.last().unwrap();
    assert_eq!(
        (last.end, last.until),
        (Some(receipt::End::Expired), Timestamp::from_second(longer.as_second()).unwrap())
    );
    assert!(receipts.windows(2).all(|pair| pair[0].until == pair[1].from), "{receipts:?}");
    let served: u64 = receipts.iter().map(|receipt| receipt.served(fluidos_model::market::MeasuredBy::Both)).sum();
    assert!((5..=8).contains(&served), "{served} s of about eight, none of them twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_only_one_side_has_signed_binds_no_seller() {
    let (buyer, seller) = two().await;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(3)).unwrap();
    let signed = deal_until(&buyer, &seller, SignedDuration::ZERO, None, Some(end)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    let longer = end.checked_add(SignedDuration::from_hours(1)).unwrap();
    let mut renewal = rear::RenewalTerms::of(&signed, 1, end, longer).unwrap();
    renewal.sign(&buyer.key).unwrap();
    let Envelope { purpose, payload, signatures } = renewal.envelope();
    let patch = Patch::Merge(json!({"spec": {"renewal": SignedTerms { purpose, payload, signatures }}}));
    for node in [&buyer, &seller] {
        node.api::<Contract>().patch(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
    }
    seller.phase(AccountPhase::Closing).await;
    buyer.phase(AccountPhase::Open).await;
    buyer.release().await;
    buyer.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    assert_eq!(receipts.last().unwrap().until, Timestamp::from_second(end.as_second()).unwrap());
}
