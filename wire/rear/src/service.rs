//! The protocol as one tower service, for any transport: routes, limits, status codes, problem documents.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fluidos_identity::{Envelope, NodeId, origin};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use serde::Serialize;

use crate::guard::{Guard, Who};
use crate::log::{self, Asked};
use crate::messages::wire::{Message, id};
use crate::renewal::open_renewal;
use crate::subscription::{self, Lines, Subscribers};
use crate::terms::{open_contract, open_release};
use crate::{
    Accountant, FlavorType, Notary, OffersQuery, Peer, PurchaseRequest, ReceiptRequest, Refusal, RefusalCode,
    ReserveRequest, Selector, Seller,
};

/// A purchase with its signed terms is about 3 KiB; this leaves room for the largest envelope in base64.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A seller writes one object and answers; longer is a fault of ours or a body that trickles in.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the service answers to, for programs that make clients or tests of it (OpenAPI 3.1); served as `/api/v2/openapi.json`.
pub const OPENAPI: &str = include_str!("openapi.json");

/// What an answer is made of: all of it, or lines as they come.
pub type Body = Either<Full<Bytes>, Lines>;

/// REAR for one seller. Cheap to clone; clones share the counters and the guard.
#[derive(Clone)]
pub struct RearService {
    shared: Arc<Shared>,
    unproven: bool,
}

struct Shared {
    seller: Arc<dyn Seller>,
    accountant: Option<Arc<dyn Accountant>>,
    notary: Option<Arc<dyn Notary>>,
    guard: Mutex<Guard>,
    subscribers: Subscribers,
    requests: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
}

impl RearService {
    /// Returns the service of a seller.
    pub fn new(seller: Arc<dyn Seller>) -> Self {
        Self::with(seller, None)
    }

    /// Returns the service of a seller whose books somebody keeps; without, receipts are answered "not built".
    pub fn with(seller: Arc<dyn Seller>, accountant: Option<Arc<dyn Accountant>>) -> Self {
        Self::of(seller, accountant, None)
    }

    /// Returns the service of a seller whose books and log somebody keeps; what nobody keeps is answered "not built".
    pub fn of(
        seller: Arc<dyn Seller>,
        accountant: Option<Arc<dyn Accountant>>,
        notary: Option<Arc<dyn Notary>>,
    ) -> Self {
        let shared = Shared {
            seller,
            accountant,
            notary,
            guard: Mutex::default(),
            subscribers: Subscribers::default(),
            requests: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), unproven: false }
    }

    /// The same service for a listener without TLS, where nobody can prove a key: what is sold there is between the seller and
    /// whatever comes from an address. Counters and guard are shared.
    pub fn plain(&self) -> Self {
        Self { shared: self.shared.clone(), unproven: true }
    }

    /// Where somebody comes from who may buy without a key; `None` where keys are needed.
    fn unproven(&self, peer: &Peer) -> Option<IpAddr> {
        peer.address.filter(|_| self.unproven && peer.node.is_none()).map(origin)
    }

    /// Returns how many requests came, how many were malformed, and how many were not listened to.
    pub fn counters(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.shared.requests), read(&self.shared.malformed), read(&self.shared.refused))
    }

    /// Counts garbage that a transport saw before there was a request.
    pub(crate) fn strike(&self, peer: &Peer) {
        self.shared.malformed.fetch_add(1, Ordering::Relaxed);
        if self.guard().strike(who(peer), Instant::now()) {
            tracing::warn!(peer = ?peer, "REAR peer sent too much garbage and is not listened to for a while");
        }
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        // The guard counts; a count that was interrupted is still a count.
        self.shared.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer { node: None, address: None });
        let admitted = self.guard().admit(who(&peer), Instant::now());
        if let Err(reason) = admitted {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return problem(&Refusal::new(RefusalCode::TooMany, reason)).map(Either::Left);
        }
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.answer_one(request, &peer)).await;
        let answer = answer.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
            Err(Refusal::new(RefusalCode::Unavailable, detail))
        });
        answer.unwrap_or_else(|refusal| {
            if refusal.code == RefusalCode::Malformed {
                self.strike(&peer);
            }
            tracing::debug!(peer = ?peer, %refusal, "REAR request refused");
            problem(&refusal).map(Either::Left)
        })
    }

    async fn answer_one<B>(&self, request: Request<B>, peer: &Peer) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() != Method::GET || request.uri().path() != "/api/v2/subscription" {
            return Ok(self.route(request, peer).await?.map(Either::Left));
        }
        let selector = Selector::from_query(None, request.uri().query().unwrap_or_default()).map_err(malformed)?;
        let (seller, subscribers) = (self.shared.seller.clone(), &self.shared.subscribers);
        let lines = subscription::open(seller, subscribers, selector, *peer, who(peer)).await?;
        let mut response = Response::new(Either::Right(lines));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(response)
    }

    async fn route<B>(&self, request: Request<B>, peer: &Peer) -> Result<Response<Full<Bytes>>, Refusal>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let seller = &self.shared.seller;
        match (&parts.method, path.as_slice()) {
            (&Method::GET, ["api", "v2", "openapi.json"]) => {
                Ok(respond(StatusCode::OK, "application/json", OPENAPI.as_bytes().to_vec()))
            }
            (&Method::GET, ["api", "v2", "flavors"]) => self.list(None, &parts, peer).await,
            (&Method::GET, ["api", "v2", "flavors", name]) => match FlavorType::from_name(name) {
                Some(FlavorType::Vm | FlavorType::Sensor) => {
                    Err(Refusal::new(RefusalCode::NotFound, format!("flavors of type {name} are not sold")))
                }
                Some(flavor_type) => self.list(Some(flavor_type), &parts, peer).await,
                None => Err(no_route()),
            },
            (&Method::GET, ["api", "v2", "offers"]) => {
                let query = OffersQuery::from_query(parts.uri.query().unwrap_or_default()).map_err(malformed)?;
                answer(&seller.list_offers(&query, peer).await?)
            }
            (&Method::POST, ["api", "v2", "requests"]) => {
                let buyer = proven(peer)?;
                answer(&seller.request(read(body).await?, buyer).await?)
            }
            (&Method::POST, ["api", "v2", "reservations"]) if self.unproven(peer).is_some() => {
                let asked: ReserveRequest = read(body).await?;
                answer(&seller.reserve_unproven(asked, self.unproven(peer).ok_or_else(no_route)?).await?)
            }
            (&Method::POST, ["api", "v2", "reservations"]) => {
                let buyer = proven(peer)?;
                let asked: ReserveRequest = read(body).await?;
                if asked.buyer.did.is_some_and(|did| did != buyer) {
                    return Err(Refusal::new(RefusalCode::Forbidden, format!("the buyer is not {buyer}, who asks")));
                }
                answer(&seller.reserve(asked, buyer).await?)
            }
            (&Method::POST, ["api", "v2", "transactions", transaction, "purchase"])
                if self.unproven(peer).is_some() =>
            {
                let transaction = checked_id("transactionID", transaction)?;
                let origin = self.unproven(peer).ok_or_else(no_route)?;
                answer(&seller.purchase_unproven(&transaction, read(body).await?, origin).await?)
            }
            (&Method::POST, ["api", "v2", "transactions", transaction, "purchase"]) => {
                let buyer = proven(peer)?;
                let transaction = checked_id("transactionID", transaction)?;
                let asked: PurchaseRequest = read(body).await?;
                let envelope = asked.signed_terms.as_ref().ok_or_else(|| {
                    let detail = "signedTerms are missing: sign the terms that came with the transaction";
                    Refusal::new(RefusalCode::Malformed, detail)
                })?;
                let terms = open_contract(envelope).map_err(malformed)?;
                let signed = terms.value().buyer == buyer && terms.signed_by(&buyer);
                if !signed || terms.value().transaction_id != transaction {
                    let detail = format!("signedTerms must be of transaction {transaction}, for and signed by {buyer}");
                    return Err(Refusal::new(RefusalCode::Forbidden, detail));
                }
                answer(&seller.purchase(&transaction, asked, terms, buyer).await?)
            }
            (&Method::DELETE, ["api", "v2", "transactions", transaction]) => {
                let buyer = proven(peer)?;
                seller.cancel(&checked_id("transactionID", transaction)?, buyer).await?;
                Ok(respond(StatusCode::NO_CONTENT, "application/json", Vec::new()))
            }
            (&Method::DELETE, ["api", "v2", "contracts", contract]) => {
                let party = proven(peer)?;
                let contract = checked_id("contractID", contract)?;
                let envelope: Envelope = read(body).await?;
                let release = open_release(&envelope).map_err(malformed)?;
                if !release.signed_by(&party) || release.value().contract_id != contract {
                    let detail = format!("the release must be of contract {contract} and signed by {party}");
                    return Err(Refusal::new(RefusalCode::Forbidden, detail));
                }
                seller.release(&contract, release, party).await?;
                Ok(respond(StatusCode::NO_CONTENT, "application/json", Vec::new()))
            }
            (&Method::POST, ["api", "v2", "contracts", contract, "renewals"]) => {
                let party = proven(peer)?;
                let contract = checked_id("contractID", contract)?;
                let envelope: Envelope = read(body).await?;
                let renewal = open_renewal(&envelope).map_err(malformed)?;
                if !renewal.signed_by(&party) || renewal.value().contract_id != contract {
                    let detail = format!("the renewal must be of contract {contract} and signed by {party}");
                    return Err(Refusal::new(RefusalCode::Forbidden, detail));
                }
                answer(&seller.renew(&contract, renewal, party).await?.envelope())
            }
            (&Method::POST, ["api", "v2", "contracts", contract, "receipts"]) => {
                let party = proven(peer)?;
                let contract = checked_id("contractID", contract)?;
                let asked: ReceiptRequest = read(body).await?;
                let none = || Refusal::new(RefusalCode::NotBuilt, "no receipts are kept here");
                let accountant = self.shared.accountant.as_ref().ok_or_else(none)?;
                answer(&accountant.receipts(&contract, asked, party).await?)
            }
            (method, ["api", "v2", rest @ ..])
                if let Some(asked) = Asked::read(method, rest, parts.uri.query().unwrap_or_default()) =>
            {
                let (peer, asked) = (proven(peer)?, asked?);
                let none = || Refusal::new(RefusalCode::NotBuilt, "no log is kept here");
                let notary = self.shared.notary.as_ref().ok_or_else(none)?;
                let body = asked.answer(notary.as_ref(), peer, read(body)).await?;
                Ok(respond(StatusCode::OK, "application/json", body))
            }
            (_, ["api", "v2", rest @ ..]) => Ok(wrong_method(rest).unwrap_or_else(|| problem(&no_route()))),
            _ => Err(no_route()),
        }
    }

    async fn list(
        &self,
        flavor_type: Option<FlavorType>,
        parts: &http::request::Parts,
        peer: &Peer,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let selector = Selector::from_query(flavor_type, query).map_err(malformed)?;
        let flavors = self.shared.seller.list_flavors(&selector, peer).await?;
        // Official: 204 for the bare list, 200 with `[]` for a typed one.
        if flavors.is_empty() && flavor_type.is_none() {
            return Ok(respond(StatusCode::NO_CONTENT, "application/json", Vec::new()));
        }
        answer(&flavors)
    }
}

fn who(peer: &Peer) -> Who {
    match (peer.node, peer.address) {
        (Some(node), _) => Who::Node(node),
        (None, Some(address)) => Who::Address(origin(address)),
        (None, None) => Who::Nobody,
    }
}

fn proven(peer: &Peer) -> Result<NodeId, Refusal> {
    let detail = "a client certificate with an Ed25519 key is needed to request, reserve, buy and release";
    peer.node.ok_or_else(|| Refusal::new(RefusalCode::Unauthenticated, detail))
}

fn checked_id(field: &str, text: &str) -> Result<String, Refusal> {
    id(field, text.to_owned()).map_err(malformed)
}

fn malformed(reason: impl ToString) -> Refusal {
    Refusal::new(RefusalCode::Malformed, reason.to_string())
}

fn no_route() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "no such resource: needed /api/v2/openapi.json, flavors, offers, subscription, requests, reservations, transactions, contracts or log",
    )
}

async fn read<M: Message, B>(body: B) -> Result<M, Refusal>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = collected.map_err(|error| malformed(format!("body (at most {BODY_BYTES_MAX} bytes): {error}")))?;
    M::read(&body.to_bytes()).map_err(malformed)
}

fn answer(message: &impl Message) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = message.write().map_err(|reason| Refusal::new(RefusalCode::Internal, reason))?;
    Ok(respond(StatusCode::OK, "application/json", body))
}

/// Answers 405 for a path that exists under another method.
fn wrong_method(path: &[&str]) -> Option<Response<Full<Bytes>>> {
    let allowed = match path {
        ["openapi.json"] | ["flavors"] | ["offers"] | ["subscription"] | ["flavors", _] => "GET",
        ["requests"]
        | ["reservations"]
        | ["transactions", _, "purchase"]
        | ["contracts", _, "receipts" | "renewals"] => "POST",
        ["contracts", _] | ["transactions", _] => "DELETE",
        other => log::allowed(other)?,
    };
    let mut response = problem_with(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &format!("needed {allowed}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Some(response)
}

/// A problem document (RFC 9457), beside the status that official clients look at.
#[derive(Serialize, serde::Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type", default)]
    pub(crate) type_: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) code: String,
}

fn problem(refusal: &Refusal) -> Response<Full<Bytes>> {
    problem_with(refusal.code.status(), refusal.code.as_str(), &refusal.detail)
}

fn problem_with(status: StatusCode, code: &str, detail: &str) -> Response<Full<Bytes>> {
    let problem = Problem {
        type_: "about:blank".into(),
        title: status.canonical_reason().unwrap_or_default().into(),
        status: status.as_u16(),
        detail: detail.chars().take(1024).collect(),
        code: code.into(),
    };
    // Five texts and a number always have a JSON form; without one the status alone says it.
    respond(status, "application/problem+json", serde_json::to_vec(&problem).unwrap_or_default())
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl<B> tower::Service<Request<B>> for RearService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.handle(request).await) })
    }
}
