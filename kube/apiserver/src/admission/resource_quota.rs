//! Nobody gets more than the quotas of a namespace have left (admission plug-in ResourceQuota), in the words of Kubernetes.
//!
//! ```text
//! everything else has agreed ─▶ what it adds ─▶ quotas that limit it ─▶ fits? ─▶ `status.used` grows (compare-and-swap) ─▶ written
//! ```
//!
//! What is charged and then not written is given back by who counts (the controller of quotas), as is what is deleted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substrate_client::quantity::Quantity;
use substrate_client::quota::{is_in_scope, of_claim, of_pod, of_service};
use substrate_client::requests::Resources;
use substrate_store::{Entry, Error, Precondition};

use super::{Operation, Request};
use crate::kinds::Kind;
use crate::object;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;
use crate::verbs::write::write_error;

/// Tries to charge one quota that others charge, too.
const TRIES: usize = 64;
/// What every container has to say once a quota limits it.
const SAID: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Names that kinds had in quotas before `count/`.
const OLD_NAMES: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

/// Charges what a write adds, or says which quota it would exceed.
pub(super) async fn charge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let resize = request.subresource == "resize";
    let counts = request.operation == Operation::Create
        || resize
        || (request.operation == Operation::Update && matches!(request.plural, "services" | "persistentvolumeclaims"));
    if request.namespace.is_empty() || !(resize || request.subresource.is_empty()) || !counts {
        return Ok(());
    }
    let kind = server.inner.registry.get("", "v1", "resourcequotas").ok_or_else(Status::no_resource)?;
    let page = server.inner.store.list(&kind.prefix(request.namespace), None, 0, None).map_err(Status::internal)?;
    if page.entries.is_empty() {
        return Ok(());
    }
    let added = Added::of(request, object)?;
    for entry in page.entries {
        charge_one(server, request, &kind, entry, &added).await?;
    }
    Ok(())
}

/// Charges one quota, as often as others charge it first.
async fn charge_one(
    server: &ApiServer,
    request: &Request<'_>,
    kind: &Kind,
    mut entry: Entry,
    added: &Added,
) -> Result<(), Status> {
    let forbidden = |why: String| Status::forbidden(request.group, request.plural, request.name, &why);
    for _ in 0..TRIES {
        let mut quota = decoded(kind, &entry)?;
        if !added.counted_by(&mut quota).map_err(forbidden)? || request.dry_run {
            return Ok(());
        }
        let value = object::encode(&kind.stored(&quota)).map_err(Status::internal)?;
        match server.inner.store.put(&entry.key, Precondition::Revision(entry.revision), value).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => match server.inner.store.get(&entry.key) {
                Some(present) => entry = present,
                None => return Ok(()), // the quota has gone
            },
            Err(error) => return Err(write_error(kind, object::meta(&quota, "name"), error)),
        }
    }
    Err(Status::stale("", "resourcequotas", entry.key.rsplit('/').next().unwrap_or_default()))
}

/// What a write adds to what its namespace has.
struct Added {
    amounts: Resources,
    pod: Option<Pod>,
}

fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, Status> {
    serde_json::from_value(object.clone()).map_err(Status::internal)
}

impl Added {
    fn of(request: &Request<'_>, object: &Value) -> Result<Self, Status> {
        let mut pod = None;
        let amounts = |object: &Value| -> Result<Resources, Status> {
            Ok(match (request.group, request.plural) {
                ("", "pods") => of_pod(&typed(object)?),
                ("", "services") => of_service(&typed::<Service>(object)?),
                ("", "persistentvolumeclaims") => of_claim(&typed::<PersistentVolumeClaim>(object)?),
                (group, plural) => {
                    let full = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                    let old = OLD_NAMES.contains(&full.as_str()).then(|| full.clone());
                    let names = [Some(format!("count/{full}")), old].into_iter().flatten();
                    Resources(names.map(|name| (name, Quantity::whole(1))).collect())
                }
            })
        };
        let mut added = amounts(object)?;
        if let Some(old) = request.old {
            added.subtract(&amounts(old)?);
        }
        added.0.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
        if (request.group, request.plural) == ("", "pods") {
            pod = Some(typed(object)?);
        }
        Ok(Self { amounts: added, pod })
    }

    /// Adds itself to what a quota says is used, and says whether that changed anything.
    ///
    /// # Errors
    /// Why it may not, in words.
    fn counted_by(&self, quota: &mut Value) -> Result<bool, String> {
        let name = object::meta(quota, "name").to_owned();
        let spec: ResourceQuotaSpec =
            serde_json::from_value(quota["spec"].clone()).map_err(|error| error.to_string())?;
        if let Some(pod) = &self.pod
            && !is_in_scope(&spec, pod)
        {
            return Ok(false);
        }
        let hard: BTreeSet<&str> = spec.hard.iter().flatten().map(|(resource, _)| resource.as_str()).collect();
        if let Some(pod) = &self.pod {
            unsaid(pod, &hard).map_err(|why| format!("failed quota: {name}: {why}"))?;
        }
        let limited: Vec<(&String, Quantity)> = self
            .amounts
            .0
            .iter()
            .filter(|(resource, _)| hard.contains(resource.as_str()))
            .map(|(r, a)| (r, *a))
            .collect();
        if limited.is_empty() {
            return Ok(false);
        }
        let read =
            |part: &Value, resource: &str| part[resource].as_str().and_then(|text| text.parse::<Quantity>().ok());
        let unknown: Vec<&str> = limited
            .iter()
            .filter(|(resource, _)| read(&quota["status"]["used"], resource).is_none())
            .map(|(resource, _)| resource.as_str())
            .collect();
        if !unknown.is_empty() {
            return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
        }
        let (mut beyond, mut requested, mut used, mut most) = (false, Vec::new(), Vec::new(), Vec::new());
        let mut grown = Vec::new();
        for (resource, amount) in limited {
            let before = read(&quota["status"]["used"], resource).unwrap_or_default();
            let limit = read(&quota["status"]["hard"], resource).unwrap_or_default();
            let mut after = before;
            after += amount;
            if after > limit {
                beyond = true;
                requested.push(format!("{resource}={amount}"));
                used.push(format!("{resource}={before}"));
                most.push(format!("{resource}={limit}"));
            }
            grown.push((resource.clone(), after));
        }
        if beyond {
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                requested.join(","),
                used.join(","),
                most.join(",")
            ));
        }
        for (resource, after) in grown {
            quota["status"]["used"][resource] = json!(after.to_string());
        }
        Ok(true)
    }
}

/// Says which containers do not say how much they want of what is limited.
fn unsaid(pod: &Pod, hard: &BTreeSet<&str>) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.clone().unwrap_or_default();
        for limited in SAID.into_iter().filter(|limited| hard.contains(limited)) {
            let (part, resource) = match limited.split_once('.') {
                Some(("limits", resource)) => (&resources.limits, resource),
                Some((_, resource)) => (&resources.requests, resource),
                None => (&resources.requests, limited),
            };
            if !part.as_ref().is_some_and(|part| part.contains_key(resource)) {
                missing.entry(limited).or_default().insert(&container.name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let each = missing
        .into_iter()
        .map(|(resource, names)| format!("{resource} for: {}", names.into_iter().collect::<Vec<_>>().join(",")));
    Err(format!("must specify {}", each.collect::<Vec<_>>().join("; ")))
}
