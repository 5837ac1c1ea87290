//! The protocol on loopback: a seller with a small market of its own, real TLS, real connections.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fluidos_identity::{ClientAuth, Envelope, NodeId, NodeKey, Signed, server_config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::messages::wire::Message;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn party(key: &NodeKey) -> Party {
    Party { node_id: key.id().tag(), did: Some(key.id()), domain: "farm.example".into(), ..Party::default() }
}

fn flavor(key: &NodeKey) -> Flavor {
    Flavor {
        id: "grid.example-k8slice-1".into(),
        provider_id: key.id().tag(),
        flavor_type: FlavorType::K8Slice,
        data: json!({"characteristics": {"architecture": "amd64", "cpu": "4", "memory": "8Gi", "pods": "110"}}),
        location: Location { city: "Milan".into(), country: "Italy".into(), ..Location::default() },
        price: Price { amount: "0.02".into(), currency: "EUR".into(), period: "hour".into(), unit: "cpu".into() },
        owner: party(key),
        availability: true,
        network_property_type: String::new(),
    }
}

/// Sells one flavor to everybody, keeps what it promised, forgets nothing.
struct Market {
    key: NodeKey,
    /// What it says of the flavor; `None` forbids everybody to see it.
    said: Mutex<Option<Flavor>>,
    news: watch::Sender<u64>,
    transactions: Mutex<HashMap<String, (NodeId, Transaction)>>,
    contracts: Mutex<HashMap<String, Contract>>,
}

#[async_trait]
impl Seller for Market {
    async fn list_flavors(&self, selector: &Selector, _peer: &Peer) -> Result<Vec<Flavor>, Refusal> {
        let wanted = selector.flavor_type.is_none_or(|wanted| wanted == FlavorType::K8Slice);
        let said = self.said.lock().unwrap().clone();
        let said = said.ok_or_else(|| Refusal::new(RefusalCode::Forbidden, "not for you"))?;
        Ok(if wanted { vec![said] } else { vec![] })
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.news.subscribe())
    }

    async fn reserve(&self, request: ReserveRequest, buyer: NodeId) -> Result<Transaction, Refusal> {
        if request.flavor_id != flavor(&self.key).id {
            return Err(Refusal::new(RefusalCode::NotFound, format!("no flavor {}", request.flavor_id)));
        }
        let mut transactions = self.transactions.lock().unwrap();
        let id = request.transaction_id.clone().unwrap_or_else(|| format!("t{}", transactions.len()));
        if let Some((_, known)) = transactions.get(&id) {
            return Ok(known.clone());
        }
        let configuration = request.configuration.clone();
        let terms = ContractTerms {
            version: 1,
            contract_id: format!("contract-{id}"),
            transaction_id: id.clone(),
            flavor_id: request.flavor_id.clone(),
            flavor_type: "k8slice".into(),
            configuration: configuration.as_ref().map_or(Value::Null, |configuration| configuration.data.clone()),
            buyer,
            seller: self.key.id(),
            price: Default::default(),
            conditions: None,
            issued: "2026-01-01T00:00:00Z".into(),
            until: None,
        };
        let transaction = Transaction {
            id: id.clone(),
            flavor_id: request.flavor_id,
            configuration,
            buyer: request.buyer,
            cluster_id: String::new(),
            expiration: Some("2026-01-01T00:01:00Z".parse().unwrap()),
            terms: Some(terms.into_signed().unwrap().envelope()),
        };
        transactions.insert(id, (buyer, transaction.clone()));
        Ok(transaction)
    }

    async fn purchase(
        &self,
        transaction_id: &str,
        _request: PurchaseRequest,
        mut terms: Signed<ContractTerms>,
        buyer: NodeId,
    ) -> Result<Contract, Refusal> {
        let transactions = self.transactions.lock().unwrap();
        let (_, transaction) = transactions
            .get(transaction_id)
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("no transaction {transaction_id}")))?;
        check_purchase(transaction.terms.as_ref().unwrap(), &terms, buyer)
            .map_err(|error| Refusal::new(RefusalCode::Conflict, error.to_string()))?;
        terms.sign(&self.key).unwrap();
        let contract = Contract {
            id: terms.value().contract_id.clone(),
            transaction_id: transaction_id.into(),
            flavor: flavor(&self.key),
            configuration: transaction.configuration.clone(),
            buyer: transaction.buyer.clone(),
            buyer_cluster_id: String::new(),
            seller: party(&self.key),
            expiration: None,
            extra: Default::default(),
            network_requests: None,
            telemetry: None,
            signed_terms: Some(terms.envelope()),
            credentials_dropped: false,
        };
        self.contracts.lock().unwrap().insert(contract.id.clone(), contract.clone());
        Ok(contract)
    }

    async fn release(&self, id: &str, release: Signed<ReleaseTerms>, _party: NodeId) -> Result<(), Refusal> {
        let mut contracts = self.contracts.lock().unwrap();
        let Some(contract) = contracts.get(id) else { return Ok(()) };
        let terms = terms::open_contract(contract.signed_terms.as_ref().unwrap()).unwrap();
        check_release(&release, &terms, |named| *named)
            .map_err(|error| Refusal::new(RefusalCode::Forbidden, error.to_string()))?;
        contracts.remove(id);
        Ok(())
    }
}

struct Shop {
    address: SocketAddr,
    market: Arc<Market>,
    service: RearService,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<Result<(), ServeError>>,
}

impl Shop {
    async fn open(seed: u8) -> Self {
        Self::open_at(seed, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn open_at(seed: u8, address: SocketAddr) -> Self {
        let key = key(seed);
        let tls = Arc::new(server_config(&key, ClientAuth::Accept, ALPN).unwrap());
        let said = Mutex::new(Some(flavor(&key)));
        let (transactions, contracts, news) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        let market = Arc::new(Market { key, said, news, transactions, contracts });
        let service = RearService::new(market.clone());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, tls, service.clone(), async {
            let _ = stopped.await;
        }));
        Self { address, market, service, stop: Some(stop), served }
    }

    async fn close(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.abort();
        let _ = (&mut self.served).await;
    }

    fn client(&self, buyer: &NodeKey) -> Client {
        Client::new(buyer, Target { address: self.address, expected: Some(self.market.key.id()) }).unwrap()
    }

    /// Sends a raw request over TLS, with or without a key; returns status and body.
    async fn raw(&self, buyer: Option<&NodeKey>, request: &[u8]) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let config = match buyer {
            Some(buyer) => fluidos_identity::client_config(buyer, None, ALPN).unwrap(),
            None => {
                let any = key(200);
                let mut config = fluidos_identity::client_config(&any, None, ALPN).unwrap();
                config.client_auth_cert_resolver = Arc::new(NoCertificate);
                config
            }
        };
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::IpAddress(self.address.ip().into());
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        let _ = reading.await.expect("an answer and the end of the connection within 5 s");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status in {answer:?}")), answer)
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

fn ask(buyer: &NodeKey, transaction: Option<&str>) -> ReserveRequest {
    ReserveRequest {
        flavor_id: "grid.example-k8slice-1".into(),
        buyer: party(buyer),
        configuration: Some(Configuration {
            flavor_type: FlavorType::K8Slice,
            data: json!({"cpu": "1", "memory": "1Gi", "pods": "10"}),
        }),
        transaction_id: transaction.map(Into::into),
        term_seconds: None,
        path: None,
    }
}

/// Reserves and signs: everything before the purchase.
async fn signed(client: &Client, buyer: &NodeKey, seller: NodeId, id: &str) -> Signed<ContractTerms> {
    let request = ask(buyer, Some(id));
    let transaction = client.reserve(&request).await.unwrap();
    let mut terms = check_offer(&transaction.terms.unwrap(), &request, id, buyer.id(), seller).unwrap();
    terms.sign(buyer).unwrap();
    terms
}

fn purchase(terms: &Signed<ContractTerms>) -> PurchaseRequest {
    PurchaseRequest { signed_terms: Some(terms.envelope()), ..PurchaseRequest::default() }
}

#[test]
fn a_release_is_signed_by_who_speaks_for_a_party_now() {
    let key = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap();
    let (old, seller, new, other) = (key(1), key(2), key(3), key(4));
    let terms = ContractTerms {
        version: 1,
        contract_id: "contract-x".into(),
        transaction_id: "t".into(),
        flavor_id: "f".into(),
        flavor_type: "k8slice".into(),
        configuration: serde_json::json!({"cpu": "1"}),
        buyer: old.id(),
        seller: seller.id(),
        price: Default::default(),
        conditions: None,
        issued: "2026-01-01T00:00:00Z".into(),
        until: None,
    };
    let terms = terms.into_signed().unwrap();
    let released = |by: &NodeKey| {
        let mut release = ReleaseTerms::of(&terms, "x", "2026-01-02T00:00:00Z".parse().unwrap(), None).unwrap();
        release.sign(by).unwrap();
        // The buyer has handed its key over.
        check_release(&release, &terms, |named| if *named == old.id() { new.id() } else { *named })
    };
    assert_eq!(released(&new).unwrap(), new.id());
    assert_eq!(released(&seller).unwrap(), seller.id());
    for by in [&old, &other] {
        assert!(released(by).is_err(), "{}", by.id());
    }
}

#[tokio::test]
async fn a_contract_is_signed_by_both_and_released_by_one() {
    let (shop, buyer) = (Shop::open(1).await, key(2));
    let (client, seller) = (shop.client(&buyer), key(1).id());
    assert_eq!(client.seller().await.unwrap(), Some(seller));
    let flavors = client.list_flavors(&Selector::default()).await.unwrap();
    assert_eq!(flavors, [flavor(&key(1))], "what is offered is what arrives");
    assert!(
        client
            .list_flavors(&Selector { flavor_type: Some(FlavorType::Service), filters: vec![] })
            .await
            .unwrap()
            .is_empty()
    );

    let terms = signed(&client, &buyer, seller, "tx-1").await;
    let contract = client.purchase("tx-1", &purchase(&terms)).await.unwrap();
    let agreed = check_contract(contract.signed_terms.as_ref().unwrap(), &terms).unwrap();
    assert_eq!(agreed.signers().collect::<Vec<_>>(), [buyer.id(), seller]);
    assert_eq!(agreed.bytes(), terms.bytes());
    let again = client.purchase("tx-1", &purchase(&terms)).await.unwrap();
    assert_eq!(again, contract, "asking again is the same contract");
    assert_eq!(shop.market.contracts.lock().unwrap().len(), 1);

    let mut release =
        ReleaseTerms::of(&agreed, "no longer needed", "2026-01-02T00:00:00Z".parse().unwrap(), None).unwrap();
    release.sign(&buyer).unwrap();
    client.release(&release).await.unwrap();
    client.release(&release).await.unwrap();
    assert!(shop.market.contracts.lock().unwrap().is_empty());
    shop.close().await;
}

#[tokio::test]
async fn anybody_lists_and_only_a_proven_key_buys() {
    let shop = Shop::open(1).await;
    let (status, body) = shop.raw(None, &get("/api/v2/flavors/k8slices?filter[cpu][range][min]=1")).await;
    assert!(status == 200 && body.contains("charateristics"), "{body}");
    let body = String::from_utf8(ask(&key(2), None).write().unwrap()).unwrap();
    let (status, answer) = shop.raw(None, &post("/api/v2/reservations", &body)).await;
    assert!(status == 401 && answer.contains("application/problem+json"), "{answer}");
    // Somebody proves key 3 and says it is key 2.
    let (status, answer) = shop.raw(Some(&key(3)), &post("/api/v2/reservations", &body)).await;
    assert!(status == 403, "{answer}");
    assert!(shop.market.transactions.lock().unwrap().is_empty());
    shop.close().await;
}

#[tokio::test]
async fn another_seller_than_expected_is_not_talked_to() {
    let shop = Shop::open(1).await;
    let client = Client::new(&key(2), Target { address: shop.address, expected: Some(key(9).id()) }).unwrap();
    let error = client.list_flavors(&Selector::default()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("peer is {}", key(1).id())) && error.is_retryable(), "{error}");
    shop.close().await;
}

#[tokio::test]
async fn terms_are_neither_changed_nor_taken_from_others() {
    let (shop, buyer, thief) = (Shop::open(1).await, key(2), key(3));
    let (client, seller) = (shop.client(&buyer), key(1).id());
    let terms = signed(&client, &buyer, seller, "tx-1").await;

    let mut cheaper =
        ContractTerms { configuration: json!({"cpu": "4"}), ..terms.value().clone() }.into_signed().unwrap();
    cheaper.sign(&buyer).unwrap();
    let error = client.purchase("tx-1", &purchase(&cheaper)).await.unwrap_err();
    assert!(error.to_string().contains("not the ones that were offered"), "{error}");

    let refused = shop.client(&thief).purchase("tx-1", &purchase(&terms)).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Forbidden),
        "{refused}"
    );
    let other = client.purchase("tx-2", &purchase(&terms)).await.unwrap_err();
    assert!(other.to_string().contains("must be of transaction tx-2"), "{other}");
    let unsigned = PurchaseRequest::default();
    assert!(client.purchase("tx-1", &unsigned).await.unwrap_err().to_string().contains("signedTerms are missing"));

    // The buyer's side of the same: a seller that offers something else.
    let offered = terms.value().clone();
    let request = ask(&buyer, Some("tx-1"));
    let check = |terms: ContractTerms| {
        let envelope = terms.into_signed().unwrap().envelope();
        check_offer(&envelope, &request, "tx-1", buyer.id(), seller).map(|_| ()).map_err(|error| error.to_string())
    };
    check(offered.clone()).unwrap();
    for (changed, field) in [
        (ContractTerms { configuration: json!({"cpu": "1"}), ..offered.clone() }, "configuration"),
        (ContractTerms { buyer: thief.id(), ..offered.clone() }, "buyer"),
        (ContractTerms { seller: thief.id(), ..offered.clone() }, "seller"),
        (ContractTerms { flavor_id: "other".into(), ..offered.clone() }, "flavorID"),
        (ContractTerms { version: 2, ..offered.clone() }, "version"),
    ] {
        let error = check(changed).unwrap_err();
        assert!(error.contains(&format!("contract terms: {field} is")), "{error}");
    }
    let mut half = purchase(&terms).signed_terms.unwrap();
    assert!(check_contract(&half, &terms).is_err(), "the seller has not signed");
    half.signatures.clear();
    assert!(check_contract(&half, &terms).is_err());
    shop.close().await;
}

#[tokio::test]
async fn a_contract_of_two_is_not_ended_by_a_third() {
    let (shop, buyer, thief) = (Shop::open(1).await, key(2), key(3));
    let client = shop.client(&buyer);
    let terms = signed(&client, &buyer, key(1).id(), "tx-1").await;
    client.purchase("tx-1", &purchase(&terms)).await.unwrap();
    let mut release = ReleaseTerms::of(&terms, "mine now", "2026-01-02T00:00:00Z".parse().unwrap(), None).unwrap();
    release.sign(&thief).unwrap();
    let refused = shop.client(&thief).release(&release).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Forbidden),
        "{refused}"
    );
    assert_eq!(shop.market.contracts.lock().unwrap().len(), 1);
    shop.close().await;
}

#[tokio::test]
async fn garbage_is_refused_counted_and_then_not_listened_to() {
    let (shop, hooligan) = (Shop::open(1).await, key(4));
    let path = "/api/v2/reservations";
    let deep = "[".repeat(10_000);
    let huge = format!("{{\"flavorID\":\"{}\"}}", "x".repeat(70_000));
    let mut seen = Vec::new();
    for body in ["", "{", "[]", "null", &deep, &huge, r#"{"flavorID":"a/b","buyerID":{}}"#, r#"{"flavorID":1}"#] {
        seen.push(shop.raw(Some(&hooligan), &post(path, body)).await.0);
    }
    assert!(seen.iter().all(|status| *status == 400), "{seen:?}");
    let (status, answer) = shop.raw(Some(&hooligan), &get("/api/v2/flavors")).await;
    assert!(status == 429 && answer.contains("not listened to"), "{answer}");
    assert!(!shop.client(&key(5)).list_flavors(&Selector::default()).await.unwrap().is_empty(), "others are");
    assert_eq!(shop.service.counters(), (10, 8, 1));
    shop.close().await;
}

#[tokio::test]
async fn routes_that_are_not_there_say_so() {
    let shop = Shop::open(1).await;
    for (request, status) in [
        (get("/api/v2/flavors/vm"), 404),
        (get("/api/v2/flavors/nonsense"), 404),
        (get("/api/v2/reservations"), 405),
        (get("/api/v2/requests"), 405),
        (get("/api/v2/transactions/t1"), 405),
        (post("/api/v2/requests", "{}"), 400),
        // The seller of these tests answers none.
        (post("/api/v2/requests", r#"{"type":"k8slice"}"#), 501),
        (get("/metrics"), 404),
        (post("/api/v2/flavors", ""), 405),
        (get("/api/v2/flavors?filter[cpu][range]=1"), 400),
    ] {
        let (observed, answer) = shop.raw(Some(&key(6)), &request).await;
        assert_eq!(observed, status, "{}: {answer}", String::from_utf8_lossy(&request));
    }
    shop.close().await;
}

#[tokio::test]
async fn a_seller_that_knows_no_requests_is_asked_for_its_flavors() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request = ResourceRequest {
        flavor_type: FlavorType::K8Slice,
        filters: vec![],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path: None,
    };
    let (shop, buyer) = (Shop::open(1).await, key(2));
    assert_eq!(shop.client(&buyer).request(&request).await.unwrap(), None);
    let (status, answer) = shop.raw(None, &post("/api/v2/requests", r#"{"type":"k8slice"}"#)).await;
    assert_eq!(status, 401, "{answer}");
    shop.close().await;
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let _ = stream.read(&mut head).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let client = Client::over(Arc::new(PlainHttp { address }));
        assert_eq!(client.request(&request).await.unwrap(), None, "{status}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_seller_that_came_back_is_found_again() {
    let (shop, buyer) = (Shop::open(1).await, key(2));
    let (address, client) = (shop.address, shop.client(&buyer));
    client.list_flavors(&Selector::default()).await.unwrap();
    shop.close().await;
    let error = client.list_flavors(&Selector::default()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let shop = Shop::open_at(1, address).await;
    client.list_flavors(&Selector::default()).await.unwrap();
    shop.close().await;
}

/// A stream in memory whose other end is served: what a link does.
struct InMemory {
    service: RearService,
    buyer: NodeId,
    seller: NodeId,
}

#[async_trait]
impl Connect for InMemory {
    async fn connect(&self) -> Result<(Box<dyn Stream>, Option<NodeId>), String> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let peer = Peer { node: Some(self.buyer), address: None };
        tokio::spawn(serve_stream(far, peer, self.service.clone()));
        Ok((Box::new(near), Some(self.seller)))
    }

    fn host(&self) -> String {
        self.seller.to_string()
    }
}

#[tokio::test]
async fn any_stream_with_a_proven_peer_carries_the_protocol() {
    let (shop, buyer) = (Shop::open(1).await, key(2));
    let seller = key(1).id();
    let connect = InMemory { service: shop.service.clone(), buyer: buyer.id(), seller };
    let client = Client::over(Arc::new(connect));
    let terms = signed(&client, &buyer, seller, "tx-1").await;
    let contract = client.purchase("tx-1", &purchase(&terms)).await.unwrap();
    check_contract(contract.signed_terms.as_ref().unwrap(), &terms).unwrap();
    shop.close().await;
}

#[tokio::test]
async fn an_official_seller_is_asked_in_plain_http() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 16 * 1024];
        let length = stream.read(&mut request).await.unwrap();
        stream
            .write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\nFlavor not found\n",
            )
            .await
            .unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let client = Client::over(Arc::new(PlainHttp { address }));
    let mut request = ask(&key(2), None);
    request.buyer.liqo_id = Some("consumer-1".into());
    let refused = client.reserve(&request).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("seller at {address} refused reserve: not-found: Flavor not found (404)"));
    let sent = server.await.unwrap();
    assert!(
        sent.starts_with("POST /api/v2/reservations HTTP/1.1") && sent.contains(r#""liqoID":"consumer-1""#),
        "{sent}"
    );
    assert!(!sent.contains("kubeconfig"), "{sent}");
}

/// A kept connection whose end arrives while the next request is on its way.
#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_sent_again() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { address: listener.local_addr().unwrap(), expected: Some(key(1).id()) };
    let tls = Arc::new(server_config(&key(1), ClientAuth::Accept, ALPN).unwrap());
    let server = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let mut seen = Vec::new();
        for answers in [1, 1] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            for request in 0..=answers {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                seen.push(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned());
                if request < answers {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await.unwrap();
                    if seen.len() == 3 {
                        return seen;
                    }
                }
            }
            // Hangs up on the second request without an answer.
        }
        seen
    });
    let client = Client::new(&key(2), target).unwrap();
    for _ in 0..2 {
        assert!(client.list_flavors(&Selector::default()).await.unwrap().is_empty());
    }
    assert_eq!(server.await.unwrap(), ["GET /api/v2/flavors HTTP/1.1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_seller_that_never_answers_costs_five_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { address: listener.local_addr().unwrap(), expected: None };
    let client = Client::new(&key(2), target).unwrap();
    let started = tokio::time::Instant::now();
    let error = client.list_flavors(&Selector::default()).await.unwrap_err();
    assert!(error.to_string().contains("no connection within 5 s"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[test]
fn official_messages_are_read() {
    let request = ReserveRequest::read(
        br#"{"flavorID":"fluidos.eu-k8slice-ab12","buyerID":{"ID":"43ndiidjov","IP":"172.18.0.6:30000","domain":"fluidos.eu",
            "additionalInformation":{"liqoID":"fluidos-consumer-1","kubeconfig":"c2VjcmV0"}},
            "configuration":{"type":"k8slice","data":{"cpu":"1","memory":"1Gi","pods":"110"}}}"#,
    )
    .unwrap();
    assert_eq!(request.buyer.liqo_id.as_deref(), Some("fluidos-consumer-1"));
    assert!(!format!("{request:?}").contains("c2VjcmV0"));
    let flavors = Vec::<Flavor>::read(
        br#"[{"flavorID":"f","providerID":"p","type":{"name":"k8slice","data":{"charateristics":{"cpu":"1"},
            "properties":{"carbonFootprint":{"embodied":1}},"policies":{"partitionability":{"cpuMin":"0"}}}},
            "timestamp":"0001-01-01T00:00:00Z","location":{"altitude":"Italy","city":"Turin"},
            "price":{"amount":"","currency":"","period":""},"owner":{"ID":"p","IP":"172.18.0.7:30001","domain":"fluidos.eu"},
            "availability":true}]"#,
    )
    .unwrap();
    assert_eq!(flavors[0].location.country, "Italy");
    assert_eq!(flavors[0].data["characteristics"]["cpu"], "1");
    assert_eq!(flavors[0].data["properties"]["carbon-footprint"]["embodied"], 1);
    assert_eq!(Vec::<Flavor>::read(b"null").unwrap(), []);
    assert_eq!(Vec::<Flavor>::read(b"").unwrap(), []);
    let contract = Contract::read(
        br#"{"contractID":"contract-fluidos-eu-k8slice-ab12-7f3e","transactionID":"t","flavor":{"flavorID":"f","type":{"name":"k8slice","data":{}}},
            "buyerID":{"ID":"b"},"buyerClusterID":"c","seller":{"ID":"s"},
            "peeringTargetCredentials":{"clusterID":"fluidos-provider-1","kubeconfig":"c2VjcmV0"},
            "expirationTime":"2026-05-18T10:00:00Z","extraInformation":{},"configuration":null,"networkAuthorizations":""}"#,
    )
    .unwrap();
    assert_eq!(contract.seller.node_id, "s");
    assert!(contract.expiration.is_some() && !format!("{contract:?}").contains("c2VjcmV0"));
    let transaction = Transaction::read(
        br#"{"TransactionID":"2738-1716800000000000000","FlavorID":"f","Buyer":{"NodeID":"b"},"clusterID":"c","expirationTime":"2025-05-18T11:00:00Z"}"#,
    )
    .unwrap();
    assert_eq!((transaction.buyer.node_id.as_str(), transaction.terms), ("b", None::<Envelope>));
}

#[test]
fn what_is_written_is_read_back_and_spelled_officially() {
    let seller = key(1);
    let flavors = vec![flavor(&seller)];
    let written = flavors.write().unwrap();
    let json: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(json[0]["type"]["data"]["charateristics"]["cpu"], "4");
    assert_eq!(json[0]["location"]["altitude"], "Italy");
    assert_eq!(json[0]["owner"]["ID"], seller.id().tag());
    assert_eq!(Vec::<Flavor>::read(&written).unwrap(), flavors);
    let request = PurchaseRequest { cluster_id: Some("c".into()), ..PurchaseRequest::default() };
    let json: Value = serde_json::from_slice(&request.write().unwrap()).unwrap();
    assert_eq!(json, json!({"liqoCredentials": {"clusterID": "c", "kubeconfig": ""}}));
}

impl Shop {
    fn say(&self, said: Option<Flavor>) {
        *self.market.said.lock().unwrap() = said;
        self.market.news.send_modify(|count| *count += 1);
    }
}

/// The next change that says something.
async fn told(subscription: &mut Subscription) -> Change {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await.expect("within 5 s");
        match next.unwrap().expect("the subscription goes on") {
            Change::Heartbeat => {}
            change => return change,
        }
    }
}

#[tokio::test]
async fn who_subscribes_is_told_what_there_is_and_what_changes() {
    let shop = Shop::open(2).await;
    let mut subscription = shop.client(&key(1)).subscribe(&Selector::default()).await.unwrap().unwrap();
    let first = flavor(&key(2));
    assert_eq!(subscription.next().await.unwrap(), Some(Change::Refresh(Box::new(first.clone()))));
    assert_eq!(subscription.next().await.unwrap(), Some(Change::Heartbeat), "that is all there is");

    let dearer = Flavor { price: Price { amount: "0.03".into(), ..first.price.clone() }, ..first.clone() };
    shop.say(Some(dearer.clone()));
    assert_eq!(told(&mut subscription).await, Change::Refresh(Box::new(dearer.clone())));
    let withdrawn = || Change::Withdraw { flavor_id: first.id.clone() };
    shop.say(Some(Flavor { availability: false, ..dearer.clone() }));
    assert_eq!(told(&mut subscription).await, withdrawn(), "it is sold out");
    shop.say(Some(dearer.clone()));
    assert_eq!(told(&mut subscription).await, Change::Refresh(Box::new(dearer)));
    shop.say(None);
    assert_eq!(told(&mut subscription).await, withdrawn(), "a policy forbids it");
    let refused = shop.client(&key(3)).subscribe(&Selector::default()).await.err().unwrap();
    assert!(refused.to_string().contains("not for you"), "{refused}");
    shop.close().await;
}

#[tokio::test]
async fn a_peer_has_two_subscriptions_and_they_come_back() {
    let shop = Shop::open(2).await;
    let subscribe = async || shop.client(&key(1)).subscribe(&Selector::default()).await;
    let (_first, second) = (subscribe().await.unwrap().unwrap(), subscribe().await.unwrap().unwrap());
    let refused = subscribe().await.err().unwrap().to_string();
    assert!(refused.contains("2 of your subscriptions are open"), "{refused}");
    let _other = shop.client(&key(3)).subscribe(&Selector::default()).await.unwrap().unwrap();
    drop(second);
    let start = std::time::Instant::now();
    while let Err(error) = subscribe().await {
        assert!(start.elapsed() < Duration::from_secs(5), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shop.close().await;
}

#[tokio::test]
async fn a_seller_without_changes_is_asked_for_its_list() {
    for status in ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let (address, _task) = once(answer.into_bytes()).await;
        let client = Client::over(Arc::new(PlainHttp { address }));
        assert!(client.subscribe(&Selector::default()).await.unwrap().is_none(), "{status}");
    }
}

#[tokio::test]
async fn a_subscription_that_is_garbage_ends_with_a_reason() {
    let long = format!("{{\"message\": \"{}\"}}", "x".repeat(70_000));
    for (lines, needed) in [
        ("not json\n".to_owned(), "not JSON"),
        ("{\"message\": \"WITHDRAW_FLAVOR\", \"flavorID\": \"a/b\"}\n".to_owned(), "flavorID is `a/b`"),
        ("{\"message\": \"REFRESH_FLAVOR\"}\n".to_owned(), "without a flavor"),
        (long, "a line of more than 65536 bytes"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{lines}", lines.len());
        let (address, _task) = once(answer.into_bytes()).await;
        let client = Client::over(Arc::new(PlainHttp { address }));
        let mut subscription = client.subscribe(&Selector::default()).await.unwrap().unwrap();
        let error = subscription.next().await.unwrap_err().to_string();
        assert!(error.contains(needed), "{error}");
    }
    let lines = "{\"message\": \"OF_A_LATER_VERSION\"}\n{\"message\": \"HEARTBEAT\"}\n";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{lines}", lines.len());
    let (address, _task) = once(answer.into_bytes()).await;
    let client = Client::over(Arc::new(PlainHttp { address }));
    let mut subscription = client.subscribe(&Selector::default()).await.unwrap().unwrap();
    assert_eq!(subscription.next().await.unwrap(), Some(Change::Heartbeat), "what is not known is passed over");
    assert_eq!(subscription.next().await.unwrap(), None);
}

/// A server that answers the first request with these bytes and waits for the end of the connection.
async fn once(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let _ = stream.write_all(&answer).await; // the reader may have seen enough
        let _ = stream.read(&mut head).await;
    });
    (address, task)
}

#[test]
fn what_another_party_tells_of_its_log_is_about_that_contract_and_bounded() {
    use crate::messages::wire::Message as _;
    let entry =
        |kind: &str, of: &str| json!({"kind": kind, "of": of, "digest": "00".repeat(32), "at": "2026-01-01T00:00:00Z"});
    let party = json!({"nodeID": "a", "ip": "10.0.0.1:1", "domain": "d"});
    let flavor = json!({"flavorID": "f", "providerID": "p", "type": {"name": "k8slice", "data": {}}, "owner": party, "availability": true});
    let contract =
        json!({"contractID": "contract-1", "transactionID": "t", "flavor": flavor, "buyerID": party, "seller": party});
    let read = |entries: &[serde_json::Value]| {
        let kept = json!({"contracts": [{"contract": contract, "ended": false, "entries": entries}]});
        crate::KeptContracts::read(kept.to_string().as_bytes()).map(|kept| kept.contracts[0].entries.len())
    };
    let renewed = entry("contract-renewed", "contract-1");
    assert_eq!(read(&[]), Ok(0));
    assert_eq!(read(&vec![renewed.clone(); 64]), Ok(64));
    for (entries, why) in [
        (vec![renewed.clone(); 65], "65 entries, at most 64"),
        (vec![entry("contract-signed", "contract-1")], "an entry is not about a renewal of contract contract-1"),
        (
            vec![renewed, entry("contract-renewed", "contract-2")],
            "an entry is not about a renewal of contract contract-1",
        ),
    ] {
        assert_eq!(read(&entries), Err(why.to_owned()));
    }
}
