//! Conversion of custom kinds by a webhook (`ConversionReview`, CustomResourceDefinition `spec.conversion`): objects are kept in one
//! version and shown in each.
//!
//! ```text
//! kept ──▶ of the version that is asked for? ──yes──────────────────────────▶ shown
//!                   └─no─▶ webhook, OBJECTS_MAX at a time ─▶ same object? ─▶ shown
//! written ──▶ of the version of the store? ── the same way ─────────────────▶ kept
//! ```
//!
//! The webhook may change everything but what an object is: of its metadata only labels and annotations are taken.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use substrate_store::{Entry, Event};

use crate::kinds::{Kind, Rules};
use crate::object::{self, metadata};
use crate::server::ApiServer;
use crate::status::Status;
use crate::webhook::Client;

/// Objects in one question: lists are long, and an answer must fit into memory.
const OBJECTS_MAX: usize = 500;
/// As upstream.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Versions of the review that are spoken, the best first.
pub const REVIEWS: &[&str] = &["v1", "v1beta1"];

/// How objects of a definition become those of another version.
pub struct Conversion {
    client: Client,
    /// `apiVersion` of what is kept.
    kept: String,
    review: &'static str,
}

impl Conversion {
    /// Reads a definition; none if its versions differ in their name alone.
    pub fn read(definition: &Value) -> Option<Arc<Self>> {
        let spec = &definition["spec"];
        let webhook = &spec["conversion"]["webhook"];
        let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        if spec["conversion"]["strategy"] != "Webhook" || versions.len() < 2 {
            return None;
        }
        let kept = versions.iter().find(|version| version["storage"] == json!(true))?["name"].as_str()?;
        let kept = format!("{}/{kept}", spec["group"].as_str()?);
        let spoken = webhook["conversionReviewVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let review = REVIEWS.iter().copied().find(|known| spoken.iter().any(|version| version == known))?;
        match Client::read(&webhook["clientConfig"], TIMEOUT) {
            Ok(client) => Some(Arc::new(Self { client, kept, review })),
            Err(why) => {
                // Validation refuses it; another version of this program may have let it pass.
                tracing::warn!(%why, of = object::meta(definition, "name"), "no conversion: the webhook cannot be read");
                None
            }
        }
    }

    /// `objects` as those of the version `to`, in their order.
    async fn convert(&self, server: &ApiServer, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
        let mut out = Vec::with_capacity(objects.len());
        for batch in objects.chunks(OBJECTS_MAX) {
            let uid = uuid::Uuid::new_v4().to_string();
            let review = json!({
                "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
                "request": { "uid": uid, "desiredAPIVersion": to, "objects": batch },
            });
            let of = &batch[0];
            let failed = |why: String| {
                let text = |field: &str| of[field].as_str().unwrap_or_default();
                let (version, kind) = (text("apiVersion"), text("kind"));
                Status::internal(format!("conversion webhook for {version}, Kind={kind} failed: {why}"))
            };
            let mut answer = self.client.call(server, &review).await.map_err(failed)?;
            let converted = said(&mut answer, &uid).map_err(failed)?;
            if converted.len() != batch.len() {
                let (observed, needed) = (converted.len(), batch.len());
                return Err(failed(format!("webhook returned {observed} objects, expected {needed}")));
            }
            for (before, after) in batch.iter().zip(converted) {
                out.push(same(before, after, to).map_err(failed)?);
            }
        }
        Ok(out)
    }
}

/// The objects of an answer.
fn said(answer: &mut Value, uid: &str) -> Result<Vec<Value>, String> {
    let response = &answer["response"];
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    if response["result"]["status"] != "Success" {
        let why = response["result"]["message"].as_str().filter(|why| !why.is_empty());
        return Err(why
            .unwrap_or("webhook conversion returned no success and no message")
            .chars()
            .take(1024)
            .collect());
    }
    match answer.get_mut("response").and_then(|response| response.get_mut("convertedObjects")).map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Err("webhook returned no convertedObjects".into()),
    }
}

/// What `after` is, with everything of `before` that a webhook may not change.
fn same(before: &Value, mut after: Value, to: &str) -> Result<Value, String> {
    for (field, needed) in [("apiVersion", to), ("kind", before["kind"].as_str().unwrap_or_default())] {
        if after[field] != needed {
            return Err(format!("webhook returned an object with {field} {}, expected {needed:?}", after[field]));
        }
    }
    for field in ["name", "namespace", "uid"] {
        if after["metadata"][field] != before["metadata"][field] {
            return Err(format!("webhook changed metadata.{field}"));
        }
    }
    let mut kept = before["metadata"].clone();
    for field in ["labels", "annotations"] {
        match &after["metadata"][field] {
            Value::Object(map) if map.values().all(Value::is_string) => kept[field] = after["metadata"][field].clone(),
            Value::Null => drop(kept.as_object_mut().and_then(|kept| kept.remove(field))),
            _ => return Err(format!("webhook returned metadata.{field} that is no map of strings")),
        }
    }
    *metadata(&mut after) = kept.as_object().cloned().unwrap_or_default();
    Ok(after)
}

fn of(kind: &Kind) -> Option<&Conversion> {
    match &kind.rules {
        Rules::Custom(custom) => custom.conversion.as_deref(),
        Rules::Builtin(_) => None,
    }
}

/// Whether objects of this kind may have to be converted.
pub fn is_needed(kind: &Kind) -> bool {
    of(kind).is_some()
}

/// `entries` as the store has them, as those of the version of `kind`.
///
/// # Errors
/// 500 with what the webhook answered.
pub async fn shown(server: &ApiServer, kind: &Kind, mut entries: Vec<Entry>) -> Result<Vec<Entry>, Status> {
    if let Some(conversion) = of(kind) {
        let values = entries.iter_mut().map(|entry| (entry.revision, &mut entry.value)).collect();
        conversion.all(server, kind, values).await?;
    }
    Ok(entries)
}

/// As [`shown`], of one.
pub async fn shown_one(server: &ApiServer, kind: &Kind, entry: Entry) -> Result<Entry, Status> {
    let mut entry = [entry];
    if let Some(conversion) = of(kind) {
        conversion.all(server, kind, vec![(entry[0].revision, &mut entry[0].value)]).await?;
    }
    let [entry] = entry;
    Ok(entry)
}

/// As [`shown`], of what has happened.
pub async fn events(server: &ApiServer, kind: &Kind, mut events: Vec<Event>) -> Result<Vec<Event>, Status> {
    if let Some(conversion) = of(kind) {
        let mut values = Vec::new();
        for event in &mut events {
            if !event.value.is_empty() {
                values.push((event.revision, &mut event.value));
            }
            values.extend(event.previous.as_mut().map(|(revision, value)| (*revision, value)));
        }
        conversion.all(server, kind, values).await?;
    }
    Ok(events)
}

/// `object` of the version of `kind`, as it is kept.
///
/// # Errors
/// 500 with what the webhook answered.
pub async fn kept<'a>(server: &ApiServer, kind: &Kind, object: &'a Value) -> Result<Cow<'a, Value>, Status> {
    match of(kind) {
        Some(conversion) if conversion.kept != kind.names.api_version() => {
            let converted = conversion.convert(server, vec![object.clone()], &conversion.kept).await?;
            Ok(converted.into_iter().next().map_or(Cow::Borrowed(object), Cow::Owned))
        }
        _ => Ok(kind.stored(object)),
    }
}

/// `object` of the kind `from` as one of the kind `to`, which is kept in the same place.
///
/// # Errors
/// 500 with what the webhook answered.
pub async fn between(server: &ApiServer, from: &Kind, to: &Kind, object: &Value) -> Result<Value, Status> {
    let wanted = to.names.api_version();
    match of(from) {
        Some(conversion) if wanted != from.names.api_version() => {
            let converted = conversion.convert(server, vec![object.clone()], &wanted).await?;
            Ok(converted.into_iter().next().unwrap_or_default())
        }
        _ => {
            let mut stored = from.stored(object).into_owned();
            to.shown(&mut stored);
            Ok(stored)
        }
    }
}

impl Conversion {
    /// Converts those stored values that are of another version than `kind`.
    async fn all(&self, server: &ApiServer, kind: &Kind, values: Vec<(u64, &mut bytes::Bytes)>) -> Result<(), Status> {
        let version = kind.names.api_version();
        let head = format!("{{\"apiVersion\":\"{version}\",");
        let others: Vec<_> = values
            .into_iter()
            .filter(|(_, value)| !value.get(4..).unwrap_or_default().starts_with(head.as_bytes()))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let decoded = others.iter().map(|(revision, value)| object::decode(value, *revision).map_err(Status::internal));
        let converted = self.convert(server, decoded.collect::<Result<_, _>>()?, &version).await?;
        for ((_, value), converted) in others.into_iter().zip(converted) {
            *value = object::encode(&converted).map_err(Status::internal)?;
        }
        Ok(())
    }
}
