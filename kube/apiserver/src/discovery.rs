//! Discovery: which groups, versions and resources there are. Aggregated (`apidiscovery.k8s.io` v2 and v2beta1) and legacy.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::kinds::Kind;
use crate::registry::Registry;
use crate::route::Place;
use crate::status::Status;

/// What `/version` says.
pub fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// The machine's architecture in Go's spelling.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What `/` says.
pub fn paths(registry: &Registry) -> Value {
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .to_vec();
    for (group, versions) in groups(registry).iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.keys().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    json!({ "paths": paths })
}

type Groups = BTreeMap<String, BTreeMap<String, Vec<Arc<Kind>>>>;

fn groups(registry: &Registry) -> Groups {
    let mut groups = Groups::new();
    for kind in registry.all() {
        let versions = groups.entry(kind.names.group.to_string()).or_default();
        versions.entry(kind.names.version.to_string()).or_default().push(kind);
    }
    groups
}

/// Answers `/api`, `/apis`, `/apis/GROUP` and `/apis/GROUP/VERSION`.
pub fn answer(registry: &Registry, headers: &HeaderMap, place: &Place) -> Result<Response<Body>, Status> {
    let groups = groups(registry);
    let value = match place {
        Place::Core | Place::Groups => {
            let core = *place == Place::Core;
            if let Some(version) = aggregated(headers) {
                let list = aggregated_list(&groups, core, version);
                let mut response = body::json(StatusCode::OK, &list);
                let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                if let Ok(media) = media.parse() {
                    response.headers_mut().insert(header::CONTENT_TYPE, media);
                }
                return Ok(response);
            }
            if core {
                json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
            } else {
                let list: Vec<Value> = groups.iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, v)).collect();
                json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list })
            }
        }
        Place::Group(name) => {
            let mut value = group(name, groups.get(name).ok_or_else(Status::no_resource)?);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        Place::Version(group, version) => {
            let kinds = groups.get(group).and_then(|v| v.get(version)).ok_or_else(Status::no_resource)?;
            resource_list(group, version, kinds)
        }
        Place::Resource(_) => return Err(Status::no_resource()),
    };
    Ok(body::json(StatusCode::OK, &value))
}

/// Which version of aggregated discovery is asked for, if any.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    accept
        .split(',')
        .filter(|range| range.contains("as=APIGroupDiscoveryList") && range.trim().starts_with("application/json"))
        .find_map(|range| {
            range.split(';').find_map(|part| match part.trim() {
                "v=v2" => Some("v2"),
                "v=v2beta1" => Some("v2beta1"),
                _ => None,
            })
        })
}

fn group(name: &str, versions: &BTreeMap<String, Vec<Arc<Kind>>>) -> Value {
    let listed: Vec<Value> =
        by_preference(versions).map(|(v, _)| json!({ "groupVersion": format!("{name}/{v}"), "version": v })).collect();
    json!({ "name": name, "versions": listed, "preferredVersion": listed.first() })
}

/// Stable versions first, as clients prefer the first.
fn by_preference(versions: &BTreeMap<String, Vec<Arc<Kind>>>) -> impl Iterator<Item = (&String, &Vec<Arc<Kind>>)> {
    let mut ordered: Vec<_> = versions.iter().collect();
    ordered.sort_by_key(|(version, _)| {
        let rank = if version.contains("alpha") { 2 } else { u8::from(version.contains("beta")) };
        (rank, std::cmp::Reverse((*version).clone()))
    });
    ordered.into_iter()
}

fn resource_list(group: &str, version: &str, kinds: &[Arc<Kind>]) -> Value {
    let mut resources = Vec::new();
    for kind in kinds {
        let n = &kind.names;
        let mut entry = json!({
            "name": n.plural, "singularName": n.singular, "namespaced": kind.namespaced, "kind": n.kind, "verbs": kind.verbs,
        });
        if !n.short.is_empty() {
            entry["shortNames"] = json!(n.short);
        }
        if !n.categories.is_empty() {
            entry["categories"] = json!(n.categories);
        }
        resources.push(entry);
        for (name, sub_kind, verbs) in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{name}", n.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub_kind, "verbs": verbs,
            });
            if let Some((group, version)) = elsewhere(&sub_kind) {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
}

fn subresources(kind: &Kind) -> Vec<(String, String, Vec<&'static str>)> {
    let mut all: Vec<_> =
        kind.subresources.iter().map(|(n, k, v)| ((*n).to_owned(), (*k).to_owned(), v.to_vec())).collect();
    if kind.has_status {
        all.push(("status".into(), kind.names.kind.to_string(), vec!["get", "patch", "update"]));
    }
    all
}

/// Group and version of what a subresource takes, where they are not those of its resource. `kubectl drain` evicts only if
/// it finds `policy` here, and deletes, budgets or not, if it does not.
fn elsewhere(kind: &str) -> Option<(&'static str, &'static str)> {
    match kind {
        "Scale" => Some(("autoscaling", "v1")),
        "Eviction" => Some(("policy", "v1")),
        "TokenRequest" => Some(("authentication.k8s.io", "v1")),
        _ => None,
    }
}

fn aggregated_list(groups: &Groups, core: bool, version: &str) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = by_preference(versions)
                .map(|(v, kinds)| {
                    let resources: Vec<Value> = kinds.iter().map(|kind| aggregated_resource(kind)).collect();
                    json!({ "version": v, "freshness": "Current", "resources": resources })
                })
                .collect();
            json!({ "metadata": { "name": name }, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let n = &kind.names;
    let response = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let subresources: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|(name, sub_kind, verbs)| {
            let (group, version) = elsewhere(&sub_kind).unwrap_or((&n.group, &n.version));
            let kind = response(group, version, &sub_kind);
            json!({ "subresource": name, "responseKind": kind, "verbs": verbs })
        })
        .collect();
    let mut resource = json!({
        "resource": n.plural, "responseKind": response(&n.group, &n.version, &n.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": n.singular, "verbs": kind.verbs,
    });
    if !n.short.is_empty() {
        resource["shortNames"] = json!(n.short);
    }
    if !n.categories.is_empty() {
        resource["categories"] = json!(n.categories);
    }
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}
