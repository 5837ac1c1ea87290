//! OpenAPI: which operations there are, and the schemas of every kind, so that `kubectl explain` explains it and `kubectl apply` knows
//! that the server judges unknown fields itself (`fieldValidation`).
//!
//! ```text
//! /openapi/v3                  where the document of each group version is, by a URL with its hash
//! /openapi/v3/apis/apps/v1     the document; with `?hash=` of what it is now it may be kept for ever, with another one it is elsewhere
//! /openapi/v2                  all of them as one, in the older form (Swagger 2.0), JSON or protobuf
//! ```
//!
//! Documents are made when they are asked for, and only the hashes of those that cannot change are kept: who has seen one says so
//! (`If-None-Match`) and gets 304.
//!
//! Not built: descriptions of fields, the protobuf form of the newer documents.

mod gnostic;
mod schemas;
mod v2;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::body::{self, Body};
use crate::kinds::{Kind, Rules};
use crate::registry::Registry;
use crate::route::Query;
use crate::status::Status;

/// Hashes of the documents of built-in group versions, which are the same as long as this program runs.
static HASHES: LazyLock<Mutex<BTreeMap<String, String>>> = LazyLock::new(Mutex::default);

/// How long a document of a known hash may be kept, in seconds.
const FOREVER: &str = "public, immutable, max-age=31536000";

/// Answers `/openapi/…`.
///
/// # Errors
/// 404 for what is not served, 406 for another form than JSON.
pub fn answer(registry: &Registry, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let group_version = match path.trim_start_matches("/openapi/") {
        "v3" => return Ok(tagged(&index(registry).to_string(), None, headers)),
        "v2" => {
            let document = v2::document(&registry.all());
            if wants_gnostic(headers) {
                let value = serde_json::from_str(&document).map_err(Status::internal)?;
                let mut response = Response::new(body::full(gnostic::encode(&value).into()));
                for (name, value) in [(header::CONTENT_TYPE, gnostic::MEDIA_TYPE), (header::VARY, "Accept")] {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                return Ok(response);
            }
            body::negotiate(headers, body::Offer::default())?;
            return Ok(tagged(&document, None, headers));
        }
        other => other.strip_prefix("v3/").ok_or_else(Status::no_resource)?,
    };
    let kinds = of(registry, group_version)?;
    let hash = hash(group_version, &kinds);
    if let Some(asked) = query.get("hash").filter(|asked| *asked != hash) {
        tracing::debug!(group_version, asked, "an older document is asked for");
        let mut response = body::text(StatusCode::MOVED_PERMANENTLY, "");
        let at = HeaderValue::from_str(&format!("{path}?hash={hash}")).map_err(Status::internal)?;
        response.headers_mut().insert(header::LOCATION, at);
        return Ok(response);
    }
    let known = is_known(headers, &hash);
    let text = if known { String::new() } else { document(group_version, &kinds).to_string() };
    let mut response = tagged(&text, Some(&hash), headers);
    if query.get("hash").is_some() {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(FOREVER));
    }
    Ok(response)
}

/// Whether the older document is wanted as protobuf, and nothing else before.
fn wants_gnostic(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.split([',', ';']).next().is_some_and(|first| [gnostic::ASKED, gnostic::MEDIA_TYPE].contains(&first.trim()))
}

/// A document with its ETag, or nothing for who has it.
fn tagged(text: &str, hash: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let hash = hash.map_or_else(|| digest(text), str::to_owned);
    let mut response = match is_known(headers, &hash) {
        true => {
            let mut nothing = Response::new(body::full(bytes::Bytes::new()));
            *nothing.status_mut() = StatusCode::NOT_MODIFIED;
            nothing
        }
        false => body::json_bytes(StatusCode::OK, text.to_owned().into()),
    };
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn is_known(headers: &HeaderMap, hash: &str) -> bool {
    let seen = headers.get(header::IF_NONE_MATCH).and_then(|seen| seen.to_str().ok()).unwrap_or_default();
    seen.split(',').any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == hash)
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

/// The hash of a document.
fn hash(group_version: &str, kinds: &[Arc<Kind>]) -> String {
    let made = || digest(&document(group_version, kinds).to_string());
    if kinds.iter().any(|kind| matches!(kind.rules, Rules::Custom(_))) {
        return made();
    }
    let mut hashes = HASHES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    hashes.entry(group_version.to_owned()).or_insert_with(made).clone()
}

/// The group versions and where their documents are.
fn index(registry: &Registry) -> Value {
    let mut kinds: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in registry.all() {
        kinds.entry(path(&kind)).or_default().push(kind);
    }
    let place = |(at, kinds): (String, Vec<Arc<Kind>>)| {
        let hash = hash(&at, &kinds);
        let url = json!({ "serverRelativeURL": format!("/openapi/v3/{at}?hash={hash}") });
        (at, url)
    };
    json!({ "paths": kinds.into_iter().map(place).collect::<Map<_, _>>() })
}

/// The kinds of `api/v1` or `apis/GROUP/VERSION`.
fn of(registry: &Registry, group_version: &str) -> Result<Vec<Arc<Kind>>, Status> {
    let kinds: Vec<_> = registry.all().into_iter().filter(|kind| path(kind) == group_version).collect();
    if kinds.is_empty() { Err(Status::no_resource()) } else { Ok(kinds) }
}

fn path(kind: &Kind) -> String {
    let n = &kind.names;
    if n.group.is_empty() { format!("api/{}", n.version) } else { format!("apis/{}/{}", n.group, n.version) }
}

/// The document of a group version.
fn document(group_version: &str, kinds: &[Arc<Kind>]) -> Value {
    let paths: Map<String, Value> = kinds.iter().flat_map(|kind| operations(group_version, kind)).collect();
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.34.0" },
        "paths": paths,
        "components": { "schemas": schemas::of(kinds) },
    })
}

/// What is done at the paths of a kind.
fn operations(group_version: &str, kind: &Kind) -> [(String, Value); 2] {
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{group_version}{scope}/{}", kind.names.plural);
    let object = json!({
        "get": operation(kind, "get"), "put": operation(kind, "put"),
        "patch": operation(kind, "patch"), "delete": operation(kind, "delete"),
    });
    let named = format!("{collection}/{{name}}");
    [(collection, json!({ "get": operation(kind, "list"), "post": operation(kind, "post") })), (named, object)]
}

fn operation(kind: &Kind, action: &str) -> Value {
    let n = &kind.names;
    let query =
        |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters = match action {
        "patch" => vec![query("dryRun"), query("fieldManager"), query("fieldValidation"), query("force")],
        "post" | "put" => vec![query("dryRun"), query("fieldManager"), query("fieldValidation")],
        "list" => {
            vec![query("labelSelector"), query("fieldSelector"), query("limit"), query("continue"), query("watch")]
        }
        _ => Vec::new(),
    };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": { "group": n.group, "version": n.version, "kind": n.kind },
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
    });
    if action == "patch" {
        let mut content = Map::new();
        for media in ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"] {
            content.insert(media.into(), json!({ "schema": { "type": "object" } }));
        }
        operation["requestBody"] = json!({ "content": content });
    }
    operation
}
