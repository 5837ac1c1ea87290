//! A node's way to a catalog: one connection, kept while it lives. What is read is verified here; the catalog is not believed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluidos_door::ALPN;
use fluidos_identity::{Envelope, NodeId, NodeKey, Signed, TlsError, client_config, peer_node_id};
use http::header::{CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::book::ENTRIES_MAX;
use crate::message::{Announcement, Feedback, Statement, Withdrawal, open};

/// A living catalog answers within milliseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A full page.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// A catalog that gives empty pages for ever is not read for ever.
const PAGES_MAX: usize = 2 * ENTRIES_MAX / crate::book::PAGE_MAX;

/// Of one page: about 1 KiB each, and all that may stand about one node is read with eight questions.
const OPINIONS_PAGE: usize = crate::book::PAGE_MAX;
/// Opinions about one node that are read: those of whom a reader knows are fewer.
pub const OPINIONS_MAX: usize = 2 * crate::book::FEEDBACK_ABOUT_MAX;

/// One tenant of one catalog, as one node sees it.
pub struct Client {
    /// `HOST:PORT`, looked up at each connection: it may lead elsewhere later.
    address: String,
    tenant: String,
    connector: TlsConnector,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    catalog: NodeId,
    local: IpAddr,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All announcements of a tenant.
#[derive(Debug, Default)]
pub struct Listing {
    /// Signed by the nodes that they are of, each once.
    pub announcements: Vec<Announcement>,
    /// Why others were not taken; the first few.
    pub refused: Vec<String>,
    /// To be given at the next look.
    pub tag: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers, or another than expected. Try later.
    #[error("catalog {0}: {1}")]
    Unreachable(String, String),
    /// A higher sequence is needed than this.
    #[error("the catalog has sequence {0}, needed a higher one")]
    Conflict(u64),
    /// It said no. 5xx and 429: try later.
    #[error("catalog {0} refused: {2} ({1})")]
    Refused(String, u16, String),
    /// It answered something else.
    #[error("catalog {0} answered {1}")]
    Malformed(String, String),
}

#[derive(Deserialize)]
struct Page {
    announcements: Vec<Envelope>,
    #[serde(rename = "continue")]
    more: Option<NodeId>,
}

#[derive(Deserialize)]
struct OpinionPage {
    feedback: Vec<Envelope>,
    #[serde(rename = "continue")]
    more: Option<NodeId>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    detail: String,
    sequence: Option<u64>,
}

struct Answer {
    status: StatusCode,
    tag: Option<String>,
    body: Bytes,
}

impl Client {
    /// Returns a client that proves this key; a catalog with another key than `expected` is refused. Nothing is sent yet.
    ///
    /// # Errors
    /// If there is no certificate to be made of the key.
    pub fn new(key: &NodeKey, address: &str, tenant: &str, expected: Option<NodeId>) -> Result<Self, TlsError> {
        let connector = TlsConnector::from(Arc::new(client_config(key, expected, ALPN)?));
        Ok(Self { address: address.into(), tenant: tenant.into(), connector, open: None })
    }

    /// Connects if need be; returns the catalog's key, and the address of this machine that it is reached from.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn connect(&mut self) -> Result<(NodeId, IpAddr), ClientError> {
        let open = self.ready().await?;
        Ok((open.catalog, open.local))
    }

    /// Announces this node, or begins the lifetime of the same announcement again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn announce(&mut self, signed: &Signed<Announcement>) -> Result<(), ClientError> {
        let path = format!("announcements/{}", signed.value().did);
        self.write(Method::PUT, &path, signed).await
    }

    /// Takes an announcement back; one that is not there is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn withdraw(&mut self, signed: &Signed<Withdrawal>) -> Result<(), ClientError> {
        let path = format!("announcements/{}", signed.value().did);
        match self.write(Method::DELETE, &path, signed).await {
            Err(ClientError::Refused(_, 404, _)) => Ok(()),
            other => other,
        }
    }

    /// Tells how this node has fared with another.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn say(&mut self, signed: &Signed<Feedback>) -> Result<(), ClientError> {
        self.write(Method::POST, "feedback", signed).await
    }

    /// Returns all announcements; `None` if nothing has changed since `tag`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&mut self, tag: Option<&str>) -> Result<Option<Listing>, ClientError> {
        let (mut listing, mut last): (Listing, Option<NodeId>) = Default::default();
        for number in 0..PAGES_MAX {
            let from = last.map(|id| format!("?continue={id}")).unwrap_or_default();
            let known = tag.filter(|_| number == 0);
            let answer = self.send(Method::GET, &format!("announcements{from}"), known, Bytes::new()).await?;
            if answer.status == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok(None);
            }
            let page = self.checked(&answer)?;
            let page: Page = serde_json::from_slice(page)
                .map_err(|error| self.malformed(format!("no page: {}", error.to_string().escape_debug())))?;
            if number == 0 {
                listing.tag = answer.tag;
            }
            listing.take(&page.announcements, last);
            match page.more {
                // Keys that do not grow would never end.
                Some(id) if last.is_none_or(|last| id > last) && listing.announcements.len() < ENTRIES_MAX => {
                    last = Some(id);
                }
                _ => return Ok(Some(listing)),
            }
        }
        Ok(Some(listing))
    }

    /// Returns what authors have said about a node, each once, by author; at most [`OPINIONS_MAX`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn opinions(&mut self, about: NodeId) -> Result<Vec<Feedback>, ClientError> {
        let (mut opinions, mut last): (Vec<Feedback>, Option<NodeId>) = Default::default();
        while opinions.len() < OPINIONS_MAX {
            let from = last.map(|id| format!("&continue={id}")).unwrap_or_default();
            let answer = self
                .send(Method::GET, &format!("reputation/{about}?limit={OPINIONS_PAGE}{from}"), None, Bytes::new())
                .await?;
            let page: OpinionPage = serde_json::from_slice(self.checked(&answer)?)
                .map_err(|error| self.malformed(format!("no page: {}", error.to_string().escape_debug())))?;
            let room = OPINIONS_MAX - opinions.len();
            let said = page.feedback.iter().take(room).filter_map(|envelope| open::<Feedback>(envelope).ok());
            for said in said {
                let said = said.value();
                // In order of their authors: none is counted twice.
                if said.about == about && opinions.last().is_none_or(|before| said.author > before.author) {
                    opinions.push(said.clone());
                }
            }
            match page.more {
                // Keys that do not grow would never end.
                Some(id) if last.is_none_or(|last| id > last) => last = Some(id),
                _ => break,
            }
        }
        Ok(opinions)
    }

    async fn write<T: Statement>(&mut self, method: Method, path: &str, signed: &Signed<T>) -> Result<(), ClientError> {
        let body = serde_json::to_vec(&signed.envelope()).map_err(|error| self.malformed(error.to_string()))?;
        let answer = self.send(method, path, None, body.into()).await?;
        self.checked(&answer).map(|_| ())
    }

    fn checked<'a>(&self, answer: &'a Answer) -> Result<&'a [u8], ClientError> {
        if answer.status.is_success() {
            return Ok(&answer.body);
        }
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
        match problem.sequence.filter(|_| answer.status == StatusCode::CONFLICT) {
            Some(held) => Err(ClientError::Conflict(held)),
            None => {
                // It ends up in logs and terminals: no control characters of somebody else's.
                let detail = problem.detail.chars().filter(|c| !c.is_control()).take(256).collect();
                Err(ClientError::Refused(self.address.clone(), answer.status.as_u16(), detail))
            }
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        known: Option<&str>,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/{}/{path}", self.tenant))
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json");
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.unreachable(error))?;
        // One connection that was kept may have gone meanwhile: once more on a new one. Each request may be sent twice.
        let kept = self.open.is_some();
        match self.try_send(request.clone()).await {
            Err(ClientError::Unreachable(..)) if kept => self.try_send(request).await,
            other => other,
        }
    }

    async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let mut open = match self.open.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => self.dial().await?,
        };
        let exchange = async {
            let response = open.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (status, tag) = (response.status(), response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()));
            let tag = tag.filter(|tag| tag.len() <= 64).map(str::to_owned);
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| format!("more than {ANSWER_BYTES_MAX} bytes, or broken: {error}"))?;
            Ok::<Answer, String>(Answer { status, tag, body: body.to_bytes() })
        };
        let answer = tokio::time::timeout(STEP_TIMEOUT, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {STEP_TIMEOUT:?}")));
        let answer = answer.map_err(|reason: String| self.unreachable(reason))?;
        self.open = Some(open); // only after a whole answer: what is left of one must not be taken for the next
        Ok(answer)
    }

    async fn ready(&mut self) -> Result<&Open, ClientError> {
        let open = match self.open.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => self.dial().await?,
        };
        Ok(self.open.insert(open))
    }

    async fn dial(&self) -> Result<Open, ClientError> {
        let dialled = tokio::time::timeout(STEP_TIMEOUT, dial(&self.address, &self.connector)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(format!("no connection within {STEP_TIMEOUT:?}")));
        dialled.map_err(|reason| self.unreachable(reason))
    }

    fn unreachable(&self, reason: impl ToString) -> ClientError {
        ClientError::Unreachable(self.address.clone(), reason.to_string())
    }

    fn malformed(&self, reason: String) -> ClientError {
        ClientError::Malformed(self.address.clone(), reason)
    }
}

impl Listing {
    fn take(&mut self, envelopes: &[Envelope], after: Option<NodeId>) {
        for envelope in envelopes.iter().take(ENTRIES_MAX.saturating_sub(self.announcements.len())) {
            let in_order =
                |did: NodeId| self.announcements.last().map(|a| a.did).max(after).is_none_or(|last| did > last);
            match open::<Announcement>(envelope) {
                Ok(signed) if in_order(signed.value().did) => self.announcements.push(signed.value().clone()),
                Ok(signed) => self.refuse(format!("{} stands there twice or out of order", signed.value().did)),
                Err(reason) => self.refuse(reason),
            }
        }
    }

    fn refuse(&mut self, reason: String) {
        if self.refused.len() < 8 {
            self.refused.push(reason.chars().take(256).collect());
        }
    }
}

async fn dial(address: &str, connector: &TlsConnector) -> Result<Open, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (peer, local): (SocketAddr, SocketAddr) = match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(local)) => (peer, local),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    let _ = stream.set_nodelay(true); // slower without, not wrong
    let name = ServerName::IpAddress(peer.ip().into());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let catalog = peer_node_id(stream.get_ref().1.peer_certificates()).map_err(|error| error.to_string())?;
    let catalog = catalog.ok_or("it proved no key")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a catalog ended");
        }
    });
    Ok(Open { sender, catalog, local: local.ip().to_canonical(), task: task.abort_handle() })
}
