//! Eviction: a pod is deleted if its disruption budget allows it (`pods/eviction`).
//!
//! ```text
//! finished, or waits for a node ──▶ delete
//! no budget selects it ───────────▶ delete
//! one does: observed generation behind ─▶ 429, try again in 10 s
//!           not ready, enough healthy ──▶ delete (or always, `AlwaysAllow`)
//!           disruptionsAllowed 0 ───────▶ 429
//!           else ─▶ disruptionsAllowed - 1, disruptedPods[NAME] = now, by compare-and-swap ─▶ delete
//! two do ─────────────────────────▶ 500, as upstream
//! ```
//!
//! The budget is written before the pod is deleted: what fails in between costs one disruption until the controller of
//! budgets counts again, never one too many.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use substrate_store::{Error, Precondition};

use super::read::decoded;
use super::{Call, delete};
use crate::admission::{self, Operation};
use crate::body::{self, Body};
use crate::object::{self, meta};
use crate::selector::Labels;
use crate::server::ApiServer;
use crate::status::Status;
use crate::table::{count, list};

/// Tries to take one disruption from a budget that others write, too (upstream: 20 in some seconds).
const TRIES: usize = 20;
/// Pods that a budget remembers as disrupted (`MaxDisruptedPodSize` upstream).
const DISRUPTED_MAX: usize = 2000;

pub(super) async fn evict(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    let mut eviction = body::parse(&call.headers, sent)?;
    let name = &call.route.name;
    let given = meta(&eviction, "name");
    if !given.is_empty() && given != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let dry_run = call.dry_run()? || !list(&eviction["deleteOptions"]["dryRun"]).is_empty();
    let what = (Operation::Create, Some(["policy", "v1", "Eviction"]));
    admission::ask(server, call, what, &mut eviction, (None, dry_run)).await?;
    let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let pod = decoded(&call.kind, &entry)?;
    if !goes_anyway(&pod) {
        take_disruption(server, call, &pod, dry_run).await?;
    }
    let mut options = eviction["deleteOptions"].clone();
    if options.is_object() {
        options["kind"] = "DeleteOptions".into();
        options["apiVersion"] = "v1".into();
    }
    let delete = Call {
        user: call.user.clone(),
        kind: call.kind.clone(),
        route: call.route.clone(),
        query: call.query.clone(),
        method: Method::DELETE,
        headers: http::HeaderMap::new(),
    };
    let text = if options.is_null() { String::new() } else { options.to_string() };
    delete::delete(server, &delete, text.as_bytes()).await?;
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(body::json(StatusCode::CREATED, &status))
}

/// Whether a pod counts for no budget.
fn goes_anyway(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending")) || object::is_deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    list(&pod["status"]["conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn take_disruption(server: &ApiServer, call: &Call, pod: &Value, dry_run: bool) -> Result<(), Status> {
    let budgets = server.inner.registry.get("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_resource)?;
    for _ in 0..TRIES {
        let prefix = budgets.prefix(&call.route.namespace);
        let page = server.inner.store.list(&prefix, None, 0, None).map_err(Status::internal)?;
        let mut selected = Vec::new();
        for entry in &page.entries {
            let budget = decoded(&budgets, entry)?;
            if selects(&budget, pod) {
                selected.push((entry, budget));
            }
        }
        let (entry, mut budget) = match selected.len() {
            0 => return Ok(()),
            1 => selected.remove(0),
            _ => {
                return Err(Status::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let (status, name) = (&budget["status"], meta(&budget, "name").to_owned());
        if !is_ready(pod) {
            let enough = count(&status["currentHealthy"]) >= count(&status["desiredHealthy"])
                && count(&status["desiredHealthy"]) > 0;
            if enough || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
                return Ok(());
            }
        }
        judge(&budget, &name)?;
        if dry_run {
            return Ok(());
        }
        budget["status"]["disruptionsAllowed"] = (count(&budget["status"]["disruptionsAllowed"]) - 1).into();
        object::child(&mut budget["status"], "disruptedPods").insert(call.route.name.clone(), object::now().into());
        let value = object::encode(&budgets.stored(&budget)).map_err(Status::internal)?;
        match server.inner.store.put(&entry.key, Precondition::Revision(entry.revision), value).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => {} // look again
            Err(error) => return Err(super::write::write_error(&budgets, &name, error)),
        }
    }
    Err(Status::too_many_requests("Cannot evict pod as its disruption budget is written by others; try again.", 10))
}

/// An empty selector selects every pod of its namespace, none selects none.
fn selects(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    selector.is_object() && Labels::from_object(selector).is_ok_and(|labels| labels.matches(&pod["metadata"]["labels"]))
}

/// Whether a budget has a disruption left, in upstream's words.
fn judge(budget: &Value, name: &str) -> Result<(), Status> {
    let status = &budget["status"];
    let refused = |cause: String, seconds| {
        let mut refused =
            Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
        if let Some(details) = &mut refused.details {
            details["causes"] = json!([{ "reason": "DisruptionBudget", "message": cause }]);
        }
        Err(refused)
    };
    if count(&status["observedGeneration"]) < count(&budget["metadata"]["generation"]) {
        return refused(format!("The disruption budget {name} is still being processed by the server."), 10);
    }
    if list_len(&status["disruptedPods"]) > DISRUPTED_MAX {
        return refused(format!("The disruption budget {name} has too many pods that are being evicted."), 10);
    }
    if count(&status["disruptionsAllowed"]) <= 0 {
        return refused(
            format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                count(&status["desiredHealthy"]),
                count(&status["currentHealthy"])
            ),
            0,
        );
    }
    Ok(())
}

fn list_len(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}
