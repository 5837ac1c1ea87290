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
//! asked for them, not what answers, not those in Secrets.

pub mod log;
pub mod policy;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use self::log::Log;
use self::policy::{Level, Policy, Stage, Wanted};
use crate::auth::User;
use crate::body;
use crate::bounds::Origin;
use crate::server::answer::Asked;

/// Bytes of the values of an event's annotations; what is more is left out, and said.
const ANNOTATIONS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a User-Agent that are kept (upstream: 1,024).
const AGENT_BYTES_MAX: usize = 1024;

tokio::task_local! {
    static CURRENT: Arc<Entry>;
}

/// A policy and where events go.
pub struct Audit {
    policy: Policy,
    log: Arc<Log>,
}

/// What is known of one request.
pub struct Entry {
    wanted: Wanted,
    log: Arc<Log>,
    /// What every stage says of it.
    head: Value,
    patches: bool,
    notes: Mutex<BTreeMap<String, String>>,
    as_whom: OnceLock<Value>,
    sent: OnceLock<(HeaderMap, Bytes)>,
}

/// Adds an annotation to the event of the request that is answered now, if it is audited.
pub fn note(key: impl Into<String>, value: impl Into<String>) {
    let _ = CURRENT.try_with(|entry| {
        let (key, value) = (key.into(), value.into());
        let mut notes = entry.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = notes.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes + key.len() + value.len() <= ANNOTATIONS_BYTES_MAX {
            notes.insert(key, value);
        } else {
            notes.insert("audit.k8s.io/truncated".into(), "true".into());
        }
    });
}

/// What came with the request that is answered now.
pub fn sent(headers: &HeaderMap, bytes: &Bytes) {
    let _ = CURRENT.try_with(|entry| {
        if entry.wanted.level >= Level::Request {
            let kind = headers.get(header::CONTENT_TYPE).cloned();
            let kept = kind.into_iter().map(|kind| (header::CONTENT_TYPE, kind)).collect();
            let _ = entry.sent.set((kept, bytes.clone()));
        }
    });
}

/// As whom the request that is answered now is, if that is another.
pub fn impersonated(user: &User) {
    let _ = CURRENT.try_with(|entry| entry.as_whom.set(shown(user)));
}

fn shown(user: &User) -> Value {
    json!({ "username": user.name, "groups": user.groups })
}

impl Audit {
    /// Audits by `policy` into `log`.
    pub fn new(policy: Policy, log: Log) -> Self {
        Self { policy, log: Arc::new(log) }
    }

    /// Begins the entry of a request, if the policy wants one.
    pub async fn begin(
        &self,
        user: &User,
        origin: Option<Origin>,
        (asked, uri, headers): (&Asked, String, &HeaderMap),
    ) -> Option<Arc<Entry>> {
        let wanted = self.policy.of(user, asked);
        if wanted.level == Level::None {
            return None;
        }
        let mut head = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": wanted.level.name(), "auditID": uuid::Uuid::new_v4().to_string(),
            "requestURI": uri, "verb": asked.verb(), "user": shown(user), "requestReceivedTimestamp": now() });
        if let Some(Origin::Address(address)) = origin {
            head["sourceIPs"] = json!([address.to_string()]);
        }
        if let Some(agent) = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            head["userAgent"] = agent.chars().take(AGENT_BYTES_MAX).collect::<String>().into();
        }
        if let Some(route) = asked.route() {
            let parts = [
                ("resource", &route.plural),
                ("namespace", &route.namespace),
                ("name", &route.name),
                ("apiGroup", &route.group),
                ("apiVersion", &route.version),
                ("subresource", &route.subresource),
            ];
            let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
            head["objectRef"] = parts.map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))).collect();
        }
        let entry = Arc::new(Entry {
            wanted,
            log: self.log.clone(),
            head,
            patches: asked.method == http::Method::PATCH && !asked.applies,
            notes: Mutex::default(),
            as_whom: OnceLock::new(),
            sent: OnceLock::new(),
        });
        if let Some(line) = entry.line(Stage::RequestReceived, None, None) {
            entry.log.write(line).await;
        }
        Some(entry)
    }
}

impl Entry {
    /// Answers a request whose entry this is: what happens in `work` notes what it does here.
    pub async fn during<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// It was answered with `answer`, JSON text if it is whole; a stream has only begun.
    pub async fn answered(&self, code: StatusCode, answer: Option<Bytes>, stream: bool, panicked: bool) {
        let stage = match (panicked, stream) {
            (true, _) => Stage::Panic,
            (false, true) => Stage::ResponseStarted,
            (false, false) => Stage::ResponseComplete,
        };
        if let Some(line) = self.line(stage, Some(code), answer) {
            self.log.write(line).await;
        }
    }

    /// A stream that had begun has ended.
    pub fn ended(&self, code: StatusCode) {
        if let Some(line) = self.line(Stage::ResponseComplete, Some(code), None) {
            self.log.write_now(line);
        }
    }

    fn line(&self, stage: Stage, code: Option<StatusCode>, answer: Option<Bytes>) -> Option<Vec<u8>> {
        if self.wanted.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.head.clone();
        (event["stage"], event["stageTimestamp"]) = (format!("{stage:?}").into(), now().into());
        if let Some(user) = self.as_whom.get() {
            event["impersonatedUser"] = user.clone();
        }
        if let Some(code) = code {
            event["responseStatus"] = json!({ "metadata": {}, "code": code.as_u16() });
            let answer = answer.and_then(|answer| serde_json::from_slice::<Value>(&answer).ok());
            if let Some(status) = answer.as_ref().filter(|answer| answer["kind"] == "Status" && code.as_u16() >= 400) {
                event["responseStatus"] = status.clone();
            }
            if let Some((headers, sent)) = self.sent.get().filter(|(_, sent)| !sent.is_empty()) {
                let read = if self.patches { serde_json::from_slice(sent).ok() } else { body::parse(headers, sent).ok() };
                if let Some(object) = read {
                    event["requestObject"] = self.without_tokens(object);
                }
            }
            if let Some(object) = answer.filter(|_| self.wanted.level == Level::RequestResponse) {
                event["responseObject"] = self.without_tokens(object);
            }
            let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if !notes.is_empty() {
                event["annotations"] = json!(*notes);
            }
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        Some(line)
    }

    /// An object as it may be kept.
    fn without_tokens(&self, mut object: Value) -> Value {
        let about = &self.head["objectRef"];
        let secrets = about["resource"] == "secrets";
        let tokens = about["resource"] == "tokenreviews" || about["subresource"] == "token";
        let mut clean = |one: &mut Value| {
            if self.wanted.omit_managed_fields
                && let Some(Value::Object(metadata)) = one.get_mut("metadata")
            {
                metadata.remove("managedFields");
            }
            let (fields, names): (&[&str], &[&str]) = match (tokens, secrets) {
                (true, _) => (&["spec", "status"], &["token"]),
                // Of the types service-account-token and bootstrap token; a patch does not say its type.
                (_, true) => (&["data", "stringData"], &["token", "token-secret"]),
                _ => return,
            };
            for field in fields {
                if let Some(Value::Object(map)) = one.get_mut(*field) {
                    map.retain(|name, _| !names.contains(&name.as_str()));
                }
            }
        };
        match &mut object {
            // Operations of a JSON patch: any of them can bring one.
            Value::Array(_) if secrets || tokens => object = Value::Null,
            object => {
                clean(object);
                object["items"].as_array_mut().into_iter().flatten().for_each(&mut clean);
            }
        }
        if let Value::Object(map) = &mut object
            && map.get("items").is_some_and(Value::is_null)
        {
            map.remove("items");
        }
        object
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
