//! The catalog's requests: who asks for what, read within bounds, answered.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `PUT /v1/TENANT/announcements/DID` | this key | 204, synced; 409 with the `sequence` that stands |
//! | `DELETE /v1/TENANT/announcements/DID`, a signed withdrawal | this key | 204 |
//! | `GET /v1/TENANT/announcements?feature=K=V&…&limit=N&continue=DID` | readers | a page, with an `ETag`; 304 |
//! | `POST /v1/TENANT/feedback` | its author | 204 |
//! | `GET /v1/TENANT/reputation/DID?limit=N&continue=DID` | readers | signed words, plain mean |

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fluidos_identity::{Envelope, NodeId, Signed, origin};
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::book::{Access, Book, Caller, Query, Record, Refusal};
use crate::guard::Guard;
use crate::journal::{Journal, JournalError};
use crate::message::{Announcement, Feedback, Statement, Withdrawal, is_word, open};

/// An envelope of 4 KiB in base64, with room.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// A body of a packet or two; longer is one that trickles in.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// As many as a node tells.
const FEATURES_MAX: usize = 16;
const QUERY_LENGTH_MAX: usize = 2048;
/// How often what is over is taken out; readers are not given it meanwhile.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);

/// What a catalog is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its journal is.
    pub directory: PathBuf,
    /// Its boards.
    pub tenants: Vec<(String, Access)>,
    /// Who may use those of members.
    pub members: Vec<NodeId>,
}

/// A running catalog. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

struct Shared {
    book: RwLock<Book>,
    journal: Mutex<Journal>,
    guard: Mutex<Guard>,
    start: Instant,
    /// Of the wall, at the start.
    start_ms: u64,
}

enum Failure {
    Refused(Refusal),
    Journal(JournalError),
    TooLarge(String),
    WrongMethod(&'static str),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type Answer = Result<Response<Full<Bytes>>, Failure>;

impl Catalog {
    /// Opens a catalog with what its journal holds.
    ///
    /// # Errors
    /// In words: what is wrong with the options, or with the journal.
    pub fn open(options: Options) -> Result<Self, String> {
        let mut book = Book::new(options.tenants, options.members)?;
        let journal = Journal::open(&options.directory, &mut book).map_err(|error| error.to_string())?;
        let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        book.none_from_the_future(start_ms);
        book.expire(start_ms);
        let shared = Shared {
            book: RwLock::new(book),
            journal: Mutex::new(journal),
            guard: Mutex::default(),
            start: Instant::now(),
            start_ms,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Milliseconds that only grow while this process runs, whatever is done to the machine's clock.
    fn now(&self) -> u64 {
        self.shared.start_ms.saturating_add(self.shared.start.elapsed().as_millis() as u64)
    }

    /// Takes out what is over.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        self.shared.book.write().unwrap_or_else(PoisonError::into_inner).expire(now);
    }

    /// Answers one request of whoever has proven this key, from this address.
    pub async fn handle<B>(
        &self,
        request: Request<B>,
        node: Option<NodeId>,
        address: std::net::IpAddr,
    ) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let origin = origin(address);
        let admitted =
            self.shared.guard.lock().unwrap_or_else(PoisonError::into_inner).admit(node, origin, Instant::now());
        if let Err(reason) = admitted {
            return problem(StatusCode::TOO_MANY_REQUESTS, "too-many", &reason, None);
        }
        let caller = Caller { node, origin: origin.to_string() };
        self.route(request, caller).await.unwrap_or_else(|failure| {
            tracing::debug!(?node, "catalog request refused");
            failed(&failure)
        })
    }

    async fn route<B>(&self, request: Request<B>, caller: Caller) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let query = parts.uri.query().unwrap_or_default();
        match (&parts.method, path.as_slice()) {
            (&Method::GET, ["v1", tenant, "announcements"]) => {
                let known = parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
                self.list(tenant, &read_query(query)?, &caller, known)
            }
            (&Method::PUT, ["v1", tenant, "announcements", did]) => {
                let (signed, tenant) = (read::<Announcement, B>(body).await?, (*tenant).to_owned());
                same(did, signed.value().did)?;
                let plan = move |book: &Book, now| book.announce(&tenant, &signed, &caller, now).map(Some);
                self.commit(plan).await
            }
            (&Method::DELETE, ["v1", tenant, "announcements", did]) => {
                let (signed, tenant) = (read::<Withdrawal, B>(body).await?, (*tenant).to_owned());
                same(did, signed.value().did)?;
                let plan = move |book: &Book, now| book.withdraw(&tenant, &signed, &caller, now).map(Some);
                self.commit(plan).await
            }
            (&Method::POST, ["v1", tenant, "feedback"]) => {
                let (signed, tenant) = (read::<Feedback, B>(body).await?, (*tenant).to_owned());
                self.commit(move |book: &Book, now| book.say(&tenant, &signed, &caller, now)).await
            }
            (&Method::GET, ["v1", tenant, "reputation", did]) => {
                self.reputation(tenant, parse_did(did)?, &read_query(query)?, &caller)
            }
            (_, ["v1", _, "announcements"] | ["v1", _, "reputation", _]) => Err(Failure::WrongMethod("GET")),
            (_, ["v1", _, "announcements", _]) => Err(Failure::WrongMethod("PUT, DELETE")),
            (_, ["v1", _, "feedback"]) => Err(Failure::WrongMethod("POST")),
            _ => Err(Refusal::NotFound("needed /v1/TENANT/announcements, feedback or reputation".into()).into()),
        }
    }

    /// Plans one change, keeps it, and only then lets it be seen. One at a time: the lock of the journal is the order of changes. What
    /// has begun is finished, also if who asked has gone.
    async fn commit(
        &self,
        plan: impl FnOnce(&Book, u64) -> Result<Option<Record>, Refusal> + Send + 'static,
    ) -> Answer {
        let catalog = self.clone();
        let work = move || -> Result<(), Failure> {
            let mut journal = catalog.shared.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let book = catalog.shared.book.read().unwrap_or_else(PoisonError::into_inner);
            let Some(record) = plan(&book, catalog.now())? else { return Ok(()) };
            journal.append(&record, &book).map_err(Failure::Journal)?;
            drop(book);
            let mut book = catalog.shared.book.write().unwrap_or_else(PoisonError::into_inner);
            // It was opened to be planned, so it can be opened again.
            book.apply(record).map_err(|reason| Failure::Refused(Refusal::Malformed(reason)))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map(|()| answer(StatusCode::NO_CONTENT, "application/json", Vec::new())),
            Err(_) => Err(Failure::Refused(Refusal::Full("the catalog is stopping".into()))),
        }
    }

    fn list(&self, tenant: &str, query: &Query, caller: &Caller, known: Option<&str>) -> Answer {
        let book = self.shared.book.read().unwrap_or_else(PoisonError::into_inner);
        // Of this run and this state: after a restart numbers begin again.
        let tag = format!("\"{:x}-{:x}\"", self.shared.start_ms, book.changes(tenant, caller)?);
        let mut response = if known == Some(tag.as_str()) {
            answer(StatusCode::NOT_MODIFIED, "application/json", Vec::new())
        } else {
            let page = book.list(tenant, query, caller, self.now())?;
            json(&AnnouncementPage {
                announcements: page.envelopes.iter().map(AsRef::as_ref).collect(),
                more: page.more,
            })
        };
        if let Ok(value) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(ETAG, value);
        }
        Ok(response)
    }

    fn reputation(&self, tenant: &str, about: NodeId, query: &Query, caller: &Caller) -> Answer {
        let book = self.shared.book.read().unwrap_or_else(PoisonError::into_inner);
        let (page, mean, count) = book.reputation(tenant, about, query, caller, self.now())?;
        Ok(json(&ReputationPage {
            unweighted_mean: mean,
            authors: count,
            feedback: page.envelopes.iter().map(AsRef::as_ref).collect(),
            more: page.more,
        }))
    }
}

#[derive(Serialize)]
struct AnnouncementPage<'a> {
    announcements: Vec<&'a RawValue>,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    more: Option<NodeId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReputationPage<'a> {
    /// Of 1000, over all authors alike: a liar counts as much as a friend.
    unweighted_mean: Option<u64>,
    authors: u64,
    feedback: Vec<&'a RawValue>,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    more: Option<NodeId>,
}

fn read_query(text: &str) -> Result<Query, Failure> {
    let malformed = |reason: String| Failure::Refused(Refusal::Malformed(reason));
    if text.len() > QUERY_LENGTH_MAX {
        return Err(malformed(format!("query of {} characters, at most {QUERY_LENGTH_MAX}", text.len())));
    }
    let mut query = Query::default();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match name.as_ref() {
            "feature" if query.features.len() < FEATURES_MAX => {
                let pair = value.split_once('=').filter(|(key, value)| is_word(key) && is_word(value));
                let (key, value) =
                    pair.ok_or_else(|| malformed("feature: needed KEY=VALUE, words of labels".into()))?;
                query.features.push((key.to_owned(), value.to_owned()));
            }
            "feature" => return Err(malformed(format!("more than {FEATURES_MAX} features"))),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                query.limit = limit.ok_or_else(|| malformed("limit: needed a number above 0".into()))?;
            }
            "continue" => query.after = Some(parse_did(&value)?),
            _ => return Err(malformed("query: needed feature, limit or continue".into())),
        }
    }
    Ok(query)
}

fn parse_did(text: &str) -> Result<NodeId, Failure> {
    text.parse::<NodeId>()
        .map_err(|error| Failure::Refused(Refusal::Malformed(error.to_string().escape_debug().to_string())))
}

fn same(path: &str, signed: NodeId) -> Result<(), Failure> {
    if parse_did(path)? == signed {
        return Ok(());
    }
    Err(Refusal::Malformed(format!("the path is of another node than the statement, which is of {signed}")).into())
}

async fn read<T: Statement, B: Body>(body: B) -> Result<Signed<T>, Failure>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let malformed = |reason: String| Failure::Refused(Refusal::Malformed(reason));
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let collected = collected.map_err(|_| malformed(format!("the body took more than {BODY_TIMEOUT:?}")))?;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Failure::TooLarge(format!("needed a body of at most {BODY_BYTES_MAX} bytes")));
        }
        Err(error) => return Err(malformed(format!("body: {error}"))),
    };
    let envelope: Envelope = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("no envelope: {}", error.to_string().escape_debug())))?;
    open(&envelope).map_err(malformed)
}

/// The one map from what went wrong to HTTP.
fn failed(failure: &Failure) -> Response<Full<Bytes>> {
    match failure {
        Failure::Refused(refusal) => {
            let (status, code) = match refusal {
                Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
                Refusal::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthenticated"),
                Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
                Refusal::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
                Refusal::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
                Refusal::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            };
            let held = if let Refusal::Conflict { held } = refusal { Some(*held) } else { None };
            problem(status, code, &refusal.to_string(), held)
        }
        Failure::Journal(error) => {
            tracing::error!(%error, "a change could not be kept");
            let status =
                if error.is_full() { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::SERVICE_UNAVAILABLE };
            // Where the owner keeps it is nobody else's matter.
            problem(status, "storage", "the change could not be kept, and may be sent again later", None)
        }
        Failure::TooLarge(detail) => problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, None),
        Failure::WrongMethod(allowed) => {
            let mut response =
                problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &format!("needed {allowed}"), None);
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

/// A problem document (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    type_: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

fn problem(status: StatusCode, code: &'static str, detail: &str, sequence: Option<u64>) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = Problem { type_: "about:blank", title, status: status.as_u16(), detail, code, sequence };
    // Texts and numbers always have a JSON form; without one the status alone says it.
    answer(status, "application/problem+json", serde_json::to_vec(&problem).unwrap_or_default())
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string(), None),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
