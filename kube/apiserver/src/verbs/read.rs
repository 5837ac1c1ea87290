//! Get and list. Of which moment they are:
//!
//! ```text
//! resourceVersion   resourceVersionMatch   what is read
//! none, 0                                  what is newest: there is no older copy here
//! R                 none, NotOlderThan     what is newest, when that is R or newer
//! R                 Exact; none, limit     as it was at R, or 410
//! ```

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use substrate_store::{Entry, Error, Revision};

use super::Call;
use crate::body::{self, Body, View};
use crate::custom::conversion;
use crate::kinds::{Kind, Rules};
use crate::selector::{Fields, Labels};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::{object, table};

/// How long a read waits for a revision that is not there yet (upstream: 3 s).
const FUTURE_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// The JSON text of a stored object as this version of its kind.
pub fn json_of(kind: &Kind, entry: &Entry) -> Result<Bytes, Status> {
    let json = object::to_json(&entry.value, entry.revision);
    let expected = format!("{{\"apiVersion\":\"{}\",", kind.names.api_version());
    if json.starts_with(expected.as_bytes()) {
        return Ok(json);
    }
    Ok(decoded(kind, entry)?.to_string().into())
}

/// The stored object as this version of its kind.
pub fn decoded(kind: &Kind, entry: &Entry) -> Result<Value, Status> {
    let mut object = object::decode(&entry.value, entry.revision).map_err(Status::internal)?;
    kind.shown(&mut object);
    Ok(object)
}

/// All objects of a kind, in a namespace or everywhere.
pub fn all(server: &ApiServer, kind: &Kind, namespace: &str) -> Result<Vec<Value>, Status> {
    let page = server.inner.store.list(&kind.prefix(namespace), None, 0, None).map_err(Status::internal)?;
    page.entries.iter().map(|entry| decoded(kind, entry)).collect()
}

pub async fn get(server: &ApiServer, call: &Call) -> Result<Response<Body>, Status> {
    let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let entry = conversion::shown_one(server, &call.kind, entry).await?;
    if call.wanted(false)?.0 == View::Object {
        return Ok(body::json_bytes(StatusCode::OK, json_of(&call.kind, &entry)?));
    }
    super::represent(call, StatusCode::OK, &decoded(&call.kind, &entry)?)
}

/// What a list or watch selects.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: Labels,
    pub fields: Fields,
}

impl Selection {
    /// What a call selects.
    pub fn of(call: &Call) -> Result<Self, Status> {
        let mut fields = call.query.get("fieldSelector").unwrap_or_default().to_owned();
        if !call.route.name.is_empty() {
            fields = format!("metadata.name={}", call.route.name);
        }
        Ok(Self {
            labels: Labels::parse(call.query.get("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(&fields, &call.kind.names.plural, call.kind.selectable())?,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored value is selected; of it is read what the selectors name.
    pub fn matches(&self, stored: &[u8]) -> bool {
        (self.labels.is_empty() || self.labels.matches(&object::value_at(stored, "metadata.labels")))
            && self.fields.matches(|path| object::value_at(stored, path))
    }
}

/// Where the next page begins. At revision 0 it is of what there is then.
#[derive(Serialize, Deserialize)]
struct Continue {
    rv: Revision,
    after: String,
}

impl Continue {
    fn token(&self) -> Result<String, Status> {
        Ok(BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).map_err(Status::internal)?))
    }
}

/// Refuses what may not be asked of a list or a watch (`ValidateListOptions` upstream).
///
/// # Errors
/// 422 in upstream's words.
pub fn check_options(call: &Call, watches: bool) -> Result<(), Status> {
    const MATCH: &str = "resourceVersionMatch";
    let (version, matching) = (call.query.get("resourceVersion"), call.query.get(MATCH));
    let (sends, continues) = (call.query.get("sendInitialEvents").is_some(), call.query.get("continue").is_some());
    let known: &[&str] = if watches { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
    let asked = matching.is_some();
    let forbidden = [
        (
            watches && sends && matching != Some("NotOlderThan"),
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            watches && asked && !sends,
            MATCH,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            !watches && asked && version.is_none(),
            MATCH,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (asked && continues, MATCH, "resourceVersionMatch is forbidden when continue is provided"),
        (
            !watches && matching == Some("Exact") && version == Some("0"),
            MATCH,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (!watches && sends, "sendInitialEvents", "sendInitialEvents is forbidden for list"),
    ];
    let forbidden = forbidden.into_iter().filter(|(wrong, ..)| *wrong);
    let mut errors: Vec<FieldError> = forbidden.map(|(_, field, why)| FieldError::forbidden(field, why)).collect();
    if let Some(unknown) = matching.filter(|given| !known.contains(given)) {
        errors.push(FieldError::not_supported(MATCH, &unknown.into(), known));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
}

pub async fn list(server: &ApiServer, call: &Call) -> Result<Response<Body>, Status> {
    check_options(call, false)?;
    let selection = Selection::of(call)?;
    let (view, _) = call.wanted(false)?;
    let limit = match call.query.get("limit") {
        // Less than one is no limit.
        Some(text) => {
            let limit = text.parse::<i64>().map_err(|_| Status::bad_request(format!("invalid limit {text:?}")))?;
            usize::try_from(limit).unwrap_or(0)
        }
        None => 0,
    };
    let (at, after) = position(server, call, limit).await?;
    let prefix = call.kind.prefix(&call.route.namespace);
    let store = &server.inner.store;
    let mut page = match selection.fields.name().filter(|_| !call.route.namespace.is_empty() || !call.kind.namespaced) {
        // One name in one namespace is one lookup.
        Some(name) if at.is_none() => {
            let revision = store.revision();
            let entries = store.get(&call.kind.key(&call.route.namespace, name)).into_iter().collect();
            substrate_store::Page { entries, revision, remaining: 0 }
        }
        _ => store
            .list(&prefix, after.as_deref(), if selection.is_everything() { limit } else { 0 }, at)
            .map_err(|error| gone(error, after.as_deref()))?,
    };
    // By which fields is selected depends on the version; else only what is shown is converted.
    let converts_first = conversion::is_needed(&call.kind) && !selection.fields.is_empty();
    if converts_first {
        page.entries = conversion::shown(server, &call.kind, page.entries).await?;
    }
    if !selection.is_everything() {
        page.entries.retain(|entry| selection.matches(&entry.value));
        if limit > 0 && page.entries.len() > limit {
            page.remaining = page.entries.len() - limit;
            page.entries.truncate(limit);
        }
    }
    if !converts_first && view != View::Metadata {
        page.entries = conversion::shown(server, &call.kind, page.entries).await?;
    }
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if page.remaining > 0
        && let Some(last) = page.entries.last()
    {
        metadata["continue"] = Continue { rv: page.revision, after: last.key.to_string() }.token()?.into();
        if selection.is_everything() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    match view {
        View::Object => Ok(body::json_bytes(StatusCode::OK, list_json(&call.kind, &page.entries, &metadata)?)),
        View::Metadata => {
            let head = format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
            );
            let mut list = BytesMut::from(head.as_bytes());
            for (i, entry) in page.entries.iter().enumerate() {
                if i > 0 {
                    list.put_u8(b',');
                }
                object::write_partial(&entry.value, entry.revision, &mut list);
            }
            list.put_slice(b"]}");
            Ok(body::json_bytes(StatusCode::OK, list.freeze()))
        }
        View::Table => {
            let objects: Vec<Value> = page.entries.iter().map(|e| decoded(&call.kind, e)).collect::<Result<_, _>>()?;
            let include = call.query.get("includeObject").unwrap_or("Metadata");
            Ok(body::json(StatusCode::OK, &table::table(&call.kind, &objects, metadata, include)))
        }
    }
}

/// The revision to read at and the key to begin after.
async fn position(server: &ApiServer, call: &Call, limit: usize) -> Result<(Option<Revision>, Option<String>), Status> {
    if let Some(token) = call.query.get("continue") {
        let wrong = || Status::bad_request("continue key is not valid");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let token: Continue = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        if !token.after.starts_with(&call.kind.prefix(&call.route.namespace)) {
            return Err(wrong());
        }
        if revision(call)?.is_some() {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        return Ok(((token.rv > 0).then_some(token.rv), Some(token.after)));
    }
    let Some(revision) = revision(call)? else { return Ok((None, None)) };
    wait_for(server, revision).await?;
    let exact = match call.query.get("resourceVersionMatch") {
        Some(matching) => matching == "Exact",
        None => limit > 0, // pages were of one moment before there was a word for it
    };
    Ok((exact.then_some(revision), None))
}

/// What is said of a page of a moment that is forgotten: a token that goes on behind `after`, as things are now.
fn gone(error: Error, after: Option<&str>) -> Status {
    let (Error::Compacted { .. }, Some(after)) = (&error, after) else { return read_error(error) };
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the \
         continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
         the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
         first chunk was returned and now may show up in the list.",
    );
    status.goes_on = Continue { rv: 0, after: after.to_owned() }.token().ok();
    status
}

/// The `resourceVersion` parameter; 0 and absent are no revision.
pub fn revision(call: &Call) -> Result<Option<Revision>, Status> {
    match call.query.get("resourceVersion") {
        None | Some("0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("resourceVersion: Invalid value: {text:?}: invalid resource version"))
        }),
    }
}

/// Waits for a revision that this server has not reached.
pub async fn wait_for(server: &ApiServer, revision: Revision) -> Result<(), Status> {
    if server.inner.store.revision() >= revision {
        return Ok(());
    }
    let newest = server.inner.store.revision();
    match tokio::time::timeout(FUTURE_WAIT, server.inner.store.reached(revision)).await {
        Ok(reached) => reached.map_err(read_error),
        Err(_) => Err(Status::too_large_version(revision, newest)),
    }
}

/// What a failed read reads like.
pub fn read_error(error: Error) -> Status {
    match error {
        Error::Compacted { asked, oldest } => Status::expired(format!("too old resource version: {asked} ({oldest})")),
        Error::Future { asked, newest } => Status::too_large_version(asked, newest),
        other => Status::internal(other),
    }
}

fn list_json(kind: &Kind, entries: &[Entry], metadata: &Value) -> Result<Bytes, Status> {
    let size: usize = entries.iter().map(|e| e.value.len() + 64).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        kind.names.kind,
        kind.names.api_version()
    );
    out.put_slice(head.as_bytes());
    // What stands at the head of each object; in lists of built-in kinds it is said of the list alone.
    let said = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", kind.names.api_version(), kind.names.kind);
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        let object = json_of(kind, entry)?;
        match object.strip_prefix(said.as_bytes()).filter(|_| matches!(kind.rules, Rules::Builtin(_))) {
            Some(rest) => {
                out.put_u8(b'{');
                out.put_slice(rest);
            }
            None => out.put_slice(&object),
        }
    }
    out.put_slice(b"]}");
    Ok(out.freeze())
}
