//! The buyer's side: one connection per seller, kept and used again, over whatever leads there ([`Connect`]).

mod subscription;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fluidos_identity::{NodeId, NodeKey, Signed, TlsError};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

pub use subscription::Subscription;

use crate::connect::{Connect, Https, Target};
use crate::messages::wire::Message;
use crate::service::Problem;
use crate::{
    Contract, Envelope, Flavor, OffersPage, OffersQuery, PurchaseRequest, ReceiptAnswer, ReceiptRequest, Refusal,
    RefusalCode, ReleaseTerms, RenewalTerms, ReserveRequest, ResourceAnswer, ResourceRequest, Selector, Transaction,
    check_renewed,
};

/// A dead seller must not hold up a search; a living one answers within milliseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A list of some thousand flavors.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// One seller as its buyer sees it. Requests take turns on one connection; all are idempotent, so one that failed because
/// the kept connection had gone is sent once more on a new one.
pub struct Client {
    connect: Arc<dyn Connect>,
    open: Mutex<Option<Open>>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    seller: Option<NodeId>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The seller said no. Its reason is in it.
    #[error("seller at {seller} refused {step}: {refusal}")]
    Refused {
        /// Where it is.
        seller: String,
        /// What was asked.
        step: &'static str,
        /// Its answer.
        refusal: Refusal,
    },
    /// Nobody answered, or somebody else than expected.
    #[error("seller at {seller}: {step}: {reason}")]
    Unreachable {
        /// Where it should be.
        seller: String,
        /// What was tried.
        step: &'static str,
        /// What happened.
        reason: String,
    },
    /// It answered something that is not REAR, or too much of it.
    #[error("seller at {seller} answered {step} with {reason}")]
    Malformed {
        /// Where it is.
        seller: String,
        /// What was asked.
        step: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// Says whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_retryable(),
            Self::Unreachable { .. } => true,
            Self::Malformed { .. } => false,
        }
    }
}

impl Client {
    /// Returns a client of one seller that proves this node's key. Nothing is sent yet.
    ///
    /// # Errors
    /// [`TlsError`] if there is no certificate to be made of the key.
    pub fn new(key: &NodeKey, target: Target) -> Result<Self, TlsError> {
        Ok(Self::over(Arc::new(Https::new(key, target)?)))
    }

    /// Returns a client of the seller that a connector leads to.
    pub fn over(connect: Arc<dyn Connect>) -> Self {
        Self { connect, open: Mutex::new(None) }
    }

    /// Returns the key that the seller has proven, connecting if need be; `None` for one that proves none.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn seller(&self) -> Result<Option<NodeId>, ClientError> {
        let mut open = self.open.lock().await;
        Ok(self.ready(&mut open).await?.0.seller)
    }

    /// Returns what the seller offers. Check the matches again: not every seller filters well.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_flavors(&self, selector: &Selector) -> Result<Vec<Flavor>, ClientError> {
        self.ask("list", Method::GET, &selector.path_and_query(), Vec::new()).await
    }

    /// Subscribes to the changes of what the seller offers; `None` if it tells none, as official ones: list its flavors now and then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn subscribe(&self, selector: &Selector) -> Result<Option<Subscription>, ClientError> {
        let step = "subscribe";
        let mut connection = self.connect().await?;
        let request = Request::builder()
            .uri(selector.query_of("/api/v2/subscription"))
            .header(HOST, self.connect.host())
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.unreachable(step, error.to_string()))?;
        let answer = tokio::time::timeout(STEP_TIMEOUT, connection.sender.send_request(request)).await;
        let late = |_| self.unreachable(step, format!("no answer within {} s", STEP_TIMEOUT.as_secs()));
        let response = answer.map_err(late)?.map_err(|error| self.unreachable(step, error.to_string()))?;
        if response.status() == StatusCode::OK {
            let (seller, body, buffer) = (self.connect.host(), response.into_body(), BytesMut::new());
            return Ok(Some(Subscription { seller, body, buffer, _connection: connection }));
        }
        let read = tokio::time::timeout(STEP_TIMEOUT, self.read(step, response)).await;
        match read.map_err(late)? {
            Err(ClientError::Refused { refusal, .. })
                if matches!(refusal.code, RefusalCode::NotFound | RefusalCode::NotBuilt) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(_) => Err(self.malformed(step, "a success without changes".into())),
        }
    }

    /// Returns a page of the packages that the seller sells; `None` if it knows none, as official ones.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_offers(&self, query: &OffersQuery) -> Result<Option<OffersPage>, ClientError> {
        match self.ask("offers", Method::GET, &query.path_and_query(), Vec::new()).await {
            Err(ClientError::Refused { refusal, .. })
                if matches!(refusal.code, RefusalCode::NotFound | RefusalCode::NotBuilt) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Asks what the seller could sell for what is needed; `None` if it knows no such requests, as official ones: list its flavors.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(&self, request: &ResourceRequest) -> Result<Option<ResourceAnswer>, ClientError> {
        let body = self.written("request", request)?;
        match self.ask("request", Method::POST, "/api/v2/requests", body).await {
            Err(ClientError::Refused { refusal, .. })
                if matches!(refusal.code, RefusalCode::NotFound | RefusalCode::NotBuilt) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Asks the seller to hold something. Give a `transaction_id` to be able to ask again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reserve(&self, request: &ReserveRequest) -> Result<Transaction, ClientError> {
        let body = self.written("reserve", request)?;
        self.ask("reserve", Method::POST, "/api/v2/reservations", body).await
    }

    /// Gives back what is held. A seller that does not know it, or takes nothing back, lets it end by itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, transaction_id: &str) -> Result<(), ClientError> {
        let path = format!("/api/v2/transactions/{transaction_id}");
        match self.send("cancel", Method::DELETE, &path, Vec::new()).await {
            Err(ClientError::Refused { refusal, .. })
                if matches!(refusal.code, RefusalCode::NotFound | RefusalCode::NotBuilt) =>
            {
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Buys what is held. Check the answer with [`check_contract`](crate::check_contract).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn purchase(&self, transaction_id: &str, request: &PurchaseRequest) -> Result<Contract, ClientError> {
        let body = self.written("purchase", request)?;
        let path = format!("/api/v2/transactions/{transaction_id}/purchase");
        self.ask("purchase", Method::POST, &path, body).await
    }

    /// Ends a contract, which need not exist any more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn release(&self, release: &Signed<ReleaseTerms>) -> Result<(), ClientError> {
        let body = self.written("release", &release.envelope())?;
        let path = format!("/api/v2/contracts/{}", release.value().contract_id);
        let answer = self.send("release", Method::DELETE, &path, body).await;
        match answer {
            Err(ClientError::Refused { refusal, .. }) if refusal.code == RefusalCode::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Asks for a contract to go on; the answer is checked to be the same bytes, signed by both.
    ///
    /// # Errors
    /// [`ClientError`]; what both have not signed is [`ClientError::Malformed`].
    pub async fn renew(
        &self,
        renewal: &Signed<RenewalTerms>,
        signers: &[NodeId],
    ) -> Result<Signed<RenewalTerms>, ClientError> {
        let body = self.written("renewals", &renewal.envelope())?;
        let path = format!("/api/v2/contracts/{}/renewals", renewal.value().contract_id);
        let answer: Envelope = self.ask("renewals", Method::POST, &path, body).await?;
        check_renewed(&answer, renewal, signers).map_err(|error| self.malformed("renewals", error.to_string()))
    }

    /// Brings the books of a contract forward.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipts(&self, contract_id: &str, request: &ReceiptRequest) -> Result<ReceiptAnswer, ClientError> {
        let body = self.written("receipts", request)?;
        self.ask("receipts", Method::POST, &format!("/api/v2/contracts/{contract_id}/receipts"), body).await
    }

    pub(crate) async fn ask<M: Message>(
        &self,
        step: &'static str,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<M, ClientError> {
        let answer = self.send(step, method, path, body).await?;
        M::read(&answer).map_err(|reason| self.malformed(step, reason))
    }

    pub(crate) fn written(&self, step: &'static str, message: &impl Message) -> Result<Vec<u8>, ClientError> {
        message.write().map_err(|reason| self.malformed(step, reason))
    }

    async fn send(&self, step: &'static str, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let unreachable = |reason: String| self.unreachable(step, reason);
        let body = Bytes::from(body);
        let mut open = self.open.lock().await;
        loop {
            let (connection, kept) = self.ready(&mut open).await?;
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header(HOST, self.connect.host())
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|error| unreachable(error.to_string()))?;
            let answer = tokio::time::timeout(STEP_TIMEOUT, connection.sender.send_request(request)).await;
            match answer {
                Ok(Ok(response)) => {
                    let read = tokio::time::timeout(STEP_TIMEOUT, self.read(step, response)).await;
                    let read = read.unwrap_or_else(|_| Err(unreachable("the answer took too long".into())));
                    // What is left of an answer that was not read to its end must not be taken for the next one.
                    if !matches!(read, Ok(_) | Err(ClientError::Refused { .. })) {
                        *open = None;
                    }
                    return read;
                }
                // The seller closed a connection that was kept: once more on a new one, which is never "kept".
                Ok(Err(_)) if kept => *open = None,
                Ok(Err(error)) => {
                    *open = None;
                    return Err(unreachable(error.to_string()));
                }
                Err(_) => {
                    *open = None;
                    return Err(unreachable(format!("no answer within {} s", STEP_TIMEOUT.as_secs())));
                }
            }
        }
    }

    async fn read(&self, step: &'static str, response: http::Response<Incoming>) -> Result<Bytes, ClientError> {
        let status = response.status();
        let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let too_much = |error| format!("more than {ANSWER_BYTES_MAX} bytes, or a broken body: {error}");
        let body = collected.map_err(|error| self.malformed(step, too_much(error)))?.to_bytes();
        match status {
            StatusCode::NO_CONTENT => Ok(Bytes::new()),
            status if status.is_success() => Ok(body),
            status => {
                let code = RefusalCode::from_status(status);
                // Official sellers answer plain text.
                let detail = match serde_json::from_slice::<Problem>(&body) {
                    Ok(problem) if !problem.detail.is_empty() => problem.detail,
                    _ => String::from_utf8_lossy(&body).trim().to_owned(),
                };
                // It ends up in logs and terminals: no control characters of somebody else's.
                let detail: String = detail.chars().filter(|c| !c.is_control()).take(512).collect();
                let detail = format!("{detail} ({})", status.as_u16());
                Err(ClientError::Refused { seller: self.connect.host(), step, refusal: Refusal::new(code, detail) })
            }
        }
    }

    /// Returns an open connection, and whether it is one that was kept.
    async fn ready<'a>(&self, open: &'a mut Option<Open>) -> Result<(&'a mut Open, bool), ClientError> {
        let alive = open.as_ref().is_some_and(|connection| !connection.sender.is_closed());
        if alive && let Some(connection) = open {
            return Ok((connection, true));
        }
        Ok((open.insert(self.connect().await?), false))
    }

    async fn connect(&self) -> Result<Open, ClientError> {
        let failed = |reason: String| self.unreachable("connect", reason);
        let (stream, seller) = tokio::time::timeout(STEP_TIMEOUT, self.connect.connect())
            .await
            .map_err(|_| failed(format!("no connection within {} s", STEP_TIMEOUT.as_secs())))?
            .map_err(failed)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        let host = self.connect.host();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(seller = %host, %error, "connection to seller ended");
            }
        });
        Ok(Open { sender, seller, task: task.abort_handle() })
    }

    fn unreachable(&self, step: &'static str, reason: String) -> ClientError {
        ClientError::Unreachable { seller: self.connect.host(), step, reason }
    }

    fn malformed(&self, step: &'static str, reason: String) -> ClientError {
        ClientError::Malformed { seller: self.connect.host(), step, reason }
    }
}
