//! What nodes and pods use (`metrics.k8s.io/v1beta1`), asked of the kubelets at each request.
//!
//! ```text
//! kubectl top, autoscaler ─▶ nodes | pods ─▶ which nodes ─▶ stats/summary of each, at once ─▶ those with a rate
//! ```
//!
//! A rate of CPU is between two measurements, at least ten seconds apart: a kubelet begins to measure when it is asked the first time and ends
//! some minutes after the last. Until there are two a list is empty, which kubectl calls "metrics not available yet". Nodes that are no machines of
//! this cluster (virtual ones) say nothing of what their pods use: those are not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::server::ApiServer;
use crate::status::Status;
use crate::table::list;
use crate::verbs::read::{self, Selection};
use crate::verbs::{self, Call};

pub const GROUP: &str = "metrics.k8s.io";
/// A node that does not answer is left out after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `get` and `list`.
///
/// # Errors
/// 404 where there is no such pod or node, or no measurement of it.
pub async fn answer(server: &ApiServer, call: &Call, verb: &str) -> Result<Response<Body>, Status> {
    read::check_options(call, false)?;
    let selection = Selection::of(call)?;
    let of = server.kind("", "v1", &call.kind.names.plural)?;
    let objects: Vec<Value> = read::all(server, &of, &call.route.namespace)?;
    let chosen: Vec<&Value> = objects
        .iter()
        .filter(|object| {
            selection.labels.matches(&object["metadata"]["labels"])
                && selection.fields.matches(|path| path.split('.').fold(*object, |at, part| &at[part]).clone())
        })
        .collect();
    let mut items = if call.kind.namespaced { pods(server, &chosen).await } else { nodes(server, &chosen).await };
    for item in &mut items {
        item["kind"] = call.kind.names.kind.as_ref().into();
        item["apiVersion"] = format!("{GROUP}/v1beta1").into();
    }
    if verb == "get" {
        let found = items.first().ok_or_else(|| call.not_found())?;
        return verbs::represent(call, StatusCode::OK, found);
    }
    verbs::represent_list(call, &items, json!({}))
}

/// What these nodes say of themselves and of their pods; those that say nothing are left out, with a line why.
async fn summaries(server: &ApiServer, nodes: BTreeSet<&str>) -> BTreeMap<String, Value> {
    let asked = nodes.into_iter().filter_map(|name| {
        let machine = server.inner.proxies.get(name)?;
        Some(async move {
            let answer = tokio::time::timeout(PATIENCE, machine.read("stats/summary")).await;
            let said = match answer {
                Ok(Ok(Some((_, text)))) => serde_json::from_str(&text).map_err(|error| error.to_string()),
                Ok(Ok(None)) => Err("it says nothing".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
            };
            match said {
                Ok(summary) => Some((name.to_owned(), summary)),
                Err(why) => {
                    tracing::debug!(node = name, why, "what it uses is not known");
                    None
                }
            }
        })
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn nodes(server: &ApiServer, nodes: &[&Value]) -> Vec<Value> {
    let said = summaries(server, nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect()).await;
    let of = |node: &&Value| {
        let measured = &said.get(node["metadata"]["name"].as_str()?)?["node"];
        let mut item = timed(measured)?;
        item["usage"] = used(measured)?;
        item["metadata"] = metadata(node);
        Some(item)
    };
    nodes.iter().filter_map(of).collect()
}

async fn pods(server: &ApiServer, pods: &[&Value]) -> Vec<Value> {
    let said = summaries(server, pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect()).await;
    let measured: BTreeMap<&str, &Value> = said
        .values()
        .flat_map(|summary| list(&summary["pods"]))
        .filter_map(|pod| Some((pod["podRef"]["uid"].as_str()?, pod)))
        .collect();
    let of = |pod: &&Value| {
        let measured = measured.get(pod["metadata"]["uid"].as_str()?)?;
        let containers = list(&measured["containers"]);
        // A pod of which a container is not known yet is not known.
        let used: Option<Vec<Value>> = containers
            .iter()
            .map(|container| Some(json!({ "name": container["name"], "usage": used(container)? })))
            .collect();
        let mut item = timed(containers.first()?)?;
        item["containers"] = used?.into();
        item["metadata"] = metadata(pod);
        Some(item)
    };
    pods.iter().filter_map(of).collect()
}

fn metadata(of: &Value) -> Value {
    let mut metadata = json!({ "name": of["metadata"]["name"], "creationTimestamp": crate::object::now() });
    for field in ["namespace", "labels"] {
        if !of["metadata"][field].is_null() {
            metadata[field] = of["metadata"][field].clone();
        }
    }
    metadata
}

/// When it was measured, and over which time.
fn timed(measured: &Value) -> Option<Value> {
    let millis = measured["cpu"]["usageWindowMilliseconds"].as_u64()?;
    let window = format!("{}.{:03}s", millis / 1000, millis % 1000);
    Some(json!({ "timestamp": measured["cpu"]["time"], "window": window }))
}

fn used(measured: &Value) -> Option<Value> {
    let cpu = measured["cpu"]["usageNanoCores"].as_u64()?;
    let memory = measured["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({ "cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024) }))
}
