//! The audit log: who asked for what, when, and what came of it, as `Event`s of `audit.k8s.io/v1`.
//!
//! ```text
//! request ─▶ who ─▶ policy: level, stages ─▶ Entry ◀─ annotations of rights, policies, webhooks, pod security
//!                                              ├─ RequestReceived
//!                                              ├─ ResponseStarted    a stream begins
//!                                              └─ ResponseComplete ─▶ without tokens ─▶ line ─▶ log
//! ```
//!
//! Which requests and how much of them the owner's policy says; without one nothing is kept and nothing costs. At the levels `Request` and
//! `RequestResponse` objects are kept whole, Secrets, too, as upstream: the policy asks for it. Tokens are never written: not what is
//! asked for them, not what answers, not those in Secrets. Whatever becomes of a request, whose caller may have gone, has a last event.

pub mod log;
pub mod policy;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use self::log::Log;
use self::policy::{Level, Policy, Stage, Wanted};
use crate::auth::User;
use crate::body::{self, BODY_BYTES_MAX};
use crate::bounds::Origin;
use crate::object::meta;
use crate::server::answer::Asked;

/// Which event is whose: sent by a caller who wants to choose it, and in every answer.
pub const ID: &str = "audit-id";
const ID_BYTES_MAX: usize = 64;
/// Bytes of an event's annotations; what is more is left out, and said.
const ANNOTATIONS_BYTES_MAX: usize = 64 * 1024;
/// Letters of a User-Agent that are kept.
const AGENT_MAX: usize = 1024;
/// On an event of which something was left out, as upstream says it.
const TRUNCATED: &str = "audit.k8s.io/truncated";

tokio::task_local! {
    static CURRENT: Slot;
}

/// Where the entry of a request is, if it has one.
pub type Slot = Arc<OnceLock<Entry>>;

/// A policy and where events go.
pub struct Audit {
    policy: Policy,
    log: Arc<Log>,
    /// What may not have had its last event.
    open: Mutex<Vec<Weak<OnceLock<Entry>>>>,
}

/// What is known of one request.
pub struct Entry {
    wanted: Wanted,
    log: Arc<Log>,
    event: Mutex<Event>,
}

struct Event {
    /// As it is written, without its stage.
    json: Value,
    sent: Option<(HeaderMap, Bytes)>,
    noted_bytes: usize,
    over: bool,
}

/// The id of a request.
pub fn id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(ID).filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX && id.to_str().is_ok());
    let made = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok();
    let mut id = given.cloned().or_else(made).unwrap_or(HeaderValue::from_static("0"));
    id.set_sensitive(true); // it comes once: HTTP/2 need not keep it in the table of the connection
    id
}

/// Answers a request: what happens in `work` notes what it does in `entry`.
pub async fn during<T>(entry: Slot, work: impl Future<Output = T>) -> T {
    CURRENT.scope(entry, work).await
}

/// The entry of the request that is answered now, for who goes on with it.
pub fn current() -> Option<Slot> {
    CURRENT.try_with(Slot::clone).ok()
}

/// Adds to the event of the request that is answered now, if it is audited.
fn add(to: impl FnOnce(&Entry, &mut Event)) {
    let _ = CURRENT.try_with(|slot| slot.get().map(|entry| to(entry, &mut entry.event())));
}

/// Adds an annotation.
pub fn note(key: impl Into<String>, value: impl Into<String>) {
    add(|_, event| event.note(key.into(), value.into()));
}

/// What came with the request.
pub fn sent(headers: &HeaderMap, bytes: &Bytes) {
    add(|entry, event| {
        if entry.wanted.level >= Level::Request {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            // Patches are read as what they are written in.
            let kind = match kind {
                kind if kind.contains("+json") => "application/json",
                kind if kind.contains("+yaml") => "application/yaml",
                kind => kind,
            };
            let kept = HeaderValue::from_str(kind).into_iter().map(|kind| (header::CONTENT_TYPE, kind)).collect();
            event.sent = Some((kept, bytes.clone()));
        }
    });
}

/// What it makes, of which its path has no name.
pub fn makes(object: &Value) {
    let name = meta(object, "name");
    if !name.is_empty() {
        add(|_, event| event.json["objectRef"]["name"] = name.into());
    }
}

/// As whom it is, if that is another.
pub fn impersonated(user: &User) {
    add(|_, event| event.json["impersonatedUser"] = shown(user));
}

/// As `UserInfo`.
pub fn shown(user: &User) -> Value {
    json!({ "username": user.name, "groups": user.groups })
}

impl Audit {
    /// Audits by `policy` into `log`.
    pub fn new(policy: Policy, log: Log) -> Self {
        Self { policy, log: Arc::new(log), open: Mutex::default() }
    }

    /// The end of the process: what is still going on has its last event, and everything is written.
    pub async fn end(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().filter_map(Weak::upgrade).filter_map(|slot| slot.get().map(Entry::end)).for_each(drop);
        self.log.flush().await;
    }

    /// Keeps an eye on an entry. What is over is looked for when there is no room: often enough to be few, and seldom enough to cost little.
    fn watch(&self, slot: &Slot) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == open.capacity() {
            open.retain(|entry| entry.strong_count() > 0);
            let left = open.len();
            open.reserve(left + 16);
        }
        open.push(Arc::downgrade(slot));
    }

    /// Begins the entry of the request that is answered now, if the policy wants one. Nobody is who could not prove who it is.
    pub async fn begin(&self, user: Option<&User>, origin: Option<Origin>, asked: &Asked, headers: &HeaderMap) {
        let nobody = User { name: String::new(), groups: Vec::new() };
        let (user, about) = (user.unwrap_or(&nobody), asked.attributes());
        let wanted = self.policy.of(user, &about);
        if wanted.level == Level::None {
            return;
        }
        let uri = asked.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let mut json = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": format!("{:?}", wanted.level), "requestURI": uri,
            "auditID": asked.id.to_str().unwrap_or_default(), "verb": about.verb, "user": shown(user),
            "requestReceivedTimestamp": now() });
        if let Some(Origin::Address(address)) = origin {
            json["sourceIPs"] = json!([address.to_string()]);
        }
        if let Some(agent) = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            json["userAgent"] = agent.chars().take(AGENT_MAX).collect::<String>().into();
        }
        if let Some(route) = asked.route() {
            let parts = [
                ("resource", &route.plural),
                ("namespace", &about.namespace),
                ("name", &about.name),
                ("apiGroup", &route.group),
                ("apiVersion", &route.version),
                ("subresource", &route.subresource),
            ];
            let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
            json["objectRef"] = parts.map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))).collect();
        }
        let event = Event { json, sent: None, noted_bytes: 0, over: false };
        let entry = Entry { wanted, log: self.log.clone(), event: Mutex::new(event) };
        let line = entry.line(&entry.event(), Stage::RequestReceived);
        let _ = CURRENT.try_with(|slot| {
            self.watch(slot);
            drop(slot.set(entry));
        });
        self.log.write(line).await;
    }
}

impl Event {
    fn note(&mut self, key: String, value: String) {
        self.noted_bytes += key.len() + value.len();
        if self.noted_bytes <= ANNOTATIONS_BYTES_MAX {
            self.json["annotations"][key] = value.into();
        } else {
            self.json["annotations"][TRUNCATED] = "true".into();
        }
    }
}

impl Entry {
    fn event(&self) -> MutexGuard<'_, Event> {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was answered, with JSON text if that is whole; a stream has only begun, and ends when this is dropped.
    pub async fn answered(&self, code: StatusCode, answer: Option<Bytes>, stream: bool, panicked: bool) {
        let stage = match (panicked, stream && code.as_u16() < 400) {
            (true, _) => Stage::Panic,
            (false, true) => Stage::ResponseStarted,
            (false, false) => Stage::ResponseComplete,
        };
        let line = {
            let mut event = self.event();
            event.json["responseStatus"] = json!({ "metadata": {}, "code": code.as_u16() });
            let whole = answer.as_ref().filter(|answer| answer.len() <= BODY_BYTES_MAX);
            let read = whole.and_then(|answer| serde_json::from_slice::<Value>(answer).ok());
            if let Some(status) = read.as_ref().filter(|answer| answer["kind"] == "Status") {
                for field in ["status", "message", "reason", "details"] {
                    if let Some(said) = status.get(field).filter(|said| !said.is_null()) {
                        event.json["responseStatus"][field] = said.clone();
                    }
                }
            }
            if self.wanted.level == Level::RequestResponse {
                match read {
                    Some(object) => event.json["responseObject"] = self.without_tokens(&event.json, object),
                    None if answer.is_some() => event.note(TRUNCATED.into(), "true".into()),
                    None => {}
                }
            }
            if event.over {
                return; // the process ends
            }
            event.over = stage != Stage::ResponseStarted;
            self.sent(&mut event);
            self.line(&event, stage)
        };
        self.log.write(line).await;
    }

    /// Reads what was sent.
    fn sent(&self, event: &mut Event) {
        let Some((headers, sent)) = event.sent.take().filter(|(_, sent)| !sent.is_empty()) else { return };
        if let Ok(object) = body::parse(&headers, &sent) {
            event.json["requestObject"] = self.without_tokens(&event.json, object);
        }
    }

    /// The line of a stage; empty if it is not wanted.
    fn line(&self, event: &Event, stage: Stage) -> Vec<u8> {
        if self.wanted.omitted.contains(&stage) {
            return Vec::new();
        }
        let mut json = event.json.clone();
        (json["stage"], json["stageTimestamp"]) = (format!("{stage:?}").into(), now().into());
        let mut line = json.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// An object as it may be kept of a request that `event` is about.
    fn without_tokens(&self, event: &Value, mut object: Value) -> Value {
        let about = &event["objectRef"];
        let (fields, names): (&[&str], &[&str]) = match about["resource"].as_str() {
            Some("tokenreviews") => (&["spec", "status"], &["token"]),
            Some("serviceaccounts") if about["subresource"] == "token" => (&["spec", "status"], &["token"]),
            // Of the types service-account-token and bootstrap token; a patch does not say its type.
            Some("secrets") => (&["data", "stringData"], &["token", "token-secret"]),
            _ => (&[], &[]),
        };
        let clean = |one: &mut Value| {
            let Value::Object(one) = one else { return };
            if let Some(Value::Object(metadata)) = one.get_mut("metadata") {
                if self.wanted.omit_managed_fields {
                    metadata.remove("managedFields");
                }
                if let Some(Value::Object(annotations)) = metadata.get_mut("annotations").filter(|_| !names.is_empty())
                {
                    annotations.remove("kubectl.kubernetes.io/last-applied-configuration"); // has all of it again
                }
            }
            for field in fields {
                if let Some(Value::Object(map)) = one.get_mut(*field) {
                    map.retain(|name, _| !names.contains(&name.as_str()));
                }
            }
        };
        if object.is_array() && !names.is_empty() {
            return Value::Null; // operations of a JSON patch: any of them can bring one
        }
        clean(&mut object);
        if let Some(Value::Array(items)) = object.get_mut("items") {
            items.iter_mut().for_each(clean);
        }
        object
    }

    /// A stream has ended, or whoever asked has gone before it was answered; or the process ends before either.
    fn end(&self) {
        let mut event = self.event();
        if std::mem::replace(&mut event.over, true) {
            return;
        }
        if event.json["responseStatus"].is_null() {
            let message = "the caller went before it was answered";
            event.json["responseStatus"] =
                json!({ "metadata": {}, "status": "Failure", "message": message, "code": 499 });
        }
        self.sent(&mut event);
        let line = self.line(&event, Stage::ResponseComplete);
        drop(event);
        self.log.write_now(line);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end();
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
