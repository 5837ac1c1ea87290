//! What the LimitRanges of a namespace fill in and refuse (admission plug-in LimitRanger), in the words of Kubernetes.
//!
//! | type of a limit | fills in | judges |
//! |---|---|---|
//! | `Container` | requests and limits of containers that have none | each container |
//! | `Pod` | | the sum over a pod |
//! | `PersistentVolumeClaim` | | the storage that is asked for |

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};
use substrate_client::quantity::Quantity;
use substrate_client::requests::{Resources, pod_limits, pod_requests};

use super::{Operation, Request, all};
use crate::object::{child, metadata};
use crate::server::ApiServer;
use crate::status::Status;
use crate::table::list;

/// Tells what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills in what containers of a new pod do not say.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if (request.group, request.plural) != ("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    for limit in limits(server, request.namespace)?.iter().filter(|limit| limit["type"] == "Container") {
        fill(limit, object);
    }
    Ok(())
}

/// Refuses what is beyond a limit: new pods, and claims whenever they are written.
pub(super) fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let judge: fn(&Value, &Value) -> Result<Vec<String>, Status> =
        match (request.group, request.plural, request.operation) {
            ("", "pods", operation) if operation == Operation::Create || request.subresource == "resize" => judge_pod,
            ("", "persistentvolumeclaims", Operation::Create | Operation::Update) => judge_claim,
            _ => return Ok(()),
        };
    let mut wrong = Vec::new();
    for limit in limits(server, request.namespace)? {
        wrong.extend(judge(&limit, object)?);
    }
    let why = match wrong.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(Status::forbidden(request.group, request.plural, request.name, &why))
}

fn limits(server: &ApiServer, namespace: &str) -> Result<Vec<Value>, Status> {
    let ranges = all(server, ("", "v1", "limitranges"), namespace)?;
    Ok(ranges.iter().flat_map(|range| list(&range["spec"]["limits"]).to_vec()).collect())
}

fn fill(limit: &Value, pod: &mut Value) {
    let mut told = Vec::new();
    for (containers, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][containers].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (from, part, what) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
                let Some(from) = limit[from].as_object().filter(|from| !from.is_empty()) else { continue };
                let set = set_missing(from, child(child_value(container, "resources"), part));
                if !set.is_empty() {
                    told.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations = metadata(pod).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[ANNOTATION] = text.into();
    }
}

fn child_value<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if object[field].is_null() {
        object[field] = Value::Object(Map::new());
    }
    &mut object[field]
}

/// The names of what was set.
fn set_missing(from: &Map<String, Value>, into: &mut Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, amount) in from {
        if !into.contains_key(resource) {
            into.insert(resource.clone(), amount.clone());
            set.push(resource.clone());
        }
    }
    set.sort();
    set
}

fn judge_pod(limit: &Value, pod: &Value) -> Result<Vec<String>, Status> {
    match limit["type"].as_str() {
        Some("Container") => {
            let containers = ["containers", "initContainers"].into_iter().flat_map(|field| list(&pod["spec"][field]));
            Ok(containers
                .flat_map(|container| {
                    let part = |part: &str| amounts(&container["resources"][part]);
                    Judge { kind: "Container", limit, requests: part("requests"), limits: part("limits") }.all()
                })
                .collect())
        }
        Some("Pod") => {
            let pod: Pod = serde_json::from_value(pod.clone()).map_err(Status::internal)?;
            let (requests, limits) = (pod_requests(&pod), pod_limits(&pod));
            Ok(Judge { kind: "Pod", limit, requests, limits }.all())
        }
        _ => Ok(Vec::new()),
    }
}

fn judge_claim(limit: &Value, claim: &Value) -> Result<Vec<String>, Status> {
    if limit["type"] != "PersistentVolumeClaim" {
        return Ok(Vec::new());
    }
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let judge = Judge { kind: "PersistentVolumeClaim", limit, requests, limits: Resources::default() };
    let least = judge.bounds("min").filter_map(|bound| judge.least(bound));
    Ok(least.chain(judge.bounds("max").filter_map(|bound| judge.most_requested(bound))).collect())
}

fn amounts(of: &Value) -> Resources {
    let read = |(name, amount): (&String, &Value)| Some((name.clone(), amount.as_str()?.parse().ok()?));
    Resources(of.as_object().into_iter().flatten().filter_map(read).collect::<BTreeMap<String, Quantity>>())
}

/// One limit, and what it is held against.
struct Judge<'a> {
    kind: &'a str,
    limit: &'a Value,
    requests: Resources,
    limits: Resources,
}

/// A bound of one resource, as it was written and as it is.
type Bound<'a> = (&'a str, &'a str, Quantity);

impl<'a> Judge<'a> {
    fn all(&self) -> Vec<String> {
        let least = self.bounds("min").filter_map(|bound| self.least(bound));
        let most = self.bounds("max").filter_map(|bound| self.most(bound));
        let ratio = self.bounds("maxLimitRequestRatio").filter_map(|bound| self.ratio(bound));
        least.chain(most).chain(ratio).collect()
    }

    fn bounds(&self, field: &str) -> impl Iterator<Item = Bound<'a>> + use<'a> {
        let bounds = self.limit[field].as_object().into_iter().flatten();
        bounds.filter_map(|(name, text)| Some((name.as_str(), text.as_str()?, text.as_str()?.parse().ok()?)))
    }

    fn least(&self, (name, text, bound): Bound<'_>) -> Option<String> {
        let begin = format!("minimum {name} usage per {} is {text}", self.kind);
        match (self.requests.0.get(name), self.limits.0.get(name)) {
            (None, _) => Some(format!("{begin}.  No request is specified")),
            (Some(request), _) if *request < bound => Some(format!("{begin}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => Some(format!("{begin}, but limit is {limit}")),
            _ => None,
        }
    }

    fn most(&self, (name, text, bound): Bound<'_>) -> Option<String> {
        let begin = format!("maximum {name} usage per {} is {text}", self.kind);
        match (self.requests.0.get(name), self.limits.0.get(name)) {
            (_, None) => Some(format!("{begin}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => Some(format!("{begin}, but limit is {limit}")),
            (Some(request), _) if *request > bound => Some(format!("{begin}, but request is {request}")),
            _ => None,
        }
    }

    fn most_requested(&self, (name, text, bound): Bound<'_>) -> Option<String> {
        let begin = format!("maximum {name} usage per {} is {text}", self.kind);
        match self.requests.0.get(name) {
            None => Some(format!("{begin}.  No request is specified")),
            Some(request) if *request > bound => Some(format!("{begin}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn ratio(&self, (name, text, bound): Bound<'_>) -> Option<String> {
        let begin = format!("{name} max limit to request ratio per {} is {text}", self.kind);
        let some = |of: &Resources| of.0.get(name).copied().filter(|amount| !amount.is_zero());
        let Some(request) = some(&self.requests) else {
            return Some(format!("{begin}, but no request is specified or request is 0"));
        };
        let Some(limit) = some(&self.limits) else {
            return Some(format!("{begin}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.as_f64() / request.as_f64();
        (ratio > bound.as_f64()).then(|| format!("{begin}, but provided ratio is {ratio:.6}"))
    }
}
