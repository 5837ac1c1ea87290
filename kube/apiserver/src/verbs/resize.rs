//! `pods/resize`: CPU and memory of containers that run are changed; the kubelet acts on it. Whatever else is sent is not looked at, as upstream.

use http::{Response, StatusCode};
use serde_json::Value;
use substrate_client::quantity::Quantity;

use super::Call;
use super::subresource::{wanted, with_head};
use super::write::{self, Part};
use crate::body::Body;
use crate::kinds::pod_spec::qos_class;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::table::list;

const LISTS: [&str; 2] = ["containers", "initContainers"];
/// Of a container, what a resize may name.
const FIELDS: [&str; 2] = ["resources", "resizePolicy"];

/// Answers a resize.
pub(super) async fn resize(server: &ApiServer, call: &Call, verb: &str, sent: &[u8]) -> Result<Response<Body>, Status> {
    let written = write::update(server, call, Part::Internal, |old| {
        let wanted = wanted(call, verb, sent, old, &["spec"])?;
        let mut pod = with_head(call, old, &wanted);
        let mut errors = order(old, &wanted);
        if errors.is_empty() {
            for field in LISTS {
                let new = list(&wanted["spec"][field]);
                let own = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
                for (container, new) in
                    own.into_iter().flatten().zip(new).filter_map(|(c, n)| Some((c.as_object_mut()?, n)))
                {
                    for field in FIELDS {
                        match new.get(field).filter(|value| !value.is_null()) {
                            Some(value) => drop(container.insert(field.into(), value.clone())),
                            None => drop(container.remove(field)),
                        }
                    }
                }
            }
            call.kind.default(&mut pod);
            errors = judge(old, &pod);
        }
        if errors.is_empty() { Ok(pod) } else { Err(Status::invalid("", "Pod", &call.route.name, &errors)) }
    })
    .await?;
    written.respond(call, StatusCode::OK)
}

/// What is wrong with which containers are named.
fn order(old: &Value, wanted: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in LISTS {
        let (before, after) = (list(&old["spec"][field]), list(&wanted["spec"][field]));
        if before.len() != after.len() {
            let why = format!("{field} may not be added or removed on resize");
            errors.push(FieldError::forbidden(format!("spec.{field}"), &why));
            continue;
        }
        for i in (0..before.len()).filter(|i| before[*i]["name"] != after[*i]["name"]) {
            let why = format!("{field} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(format!("spec.{field}[{i}].name"), &why));
        }
    }
    errors
}

/// What is wrong with a resize (`ValidatePodResize` upstream).
fn judge(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !old["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    if !old["spec"]["resources"].is_null() {
        return vec![FieldError::forbidden("spec.resources", "pods with pod-level resources cannot be resized")];
    }
    let class = qos_class(&new["spec"]);
    if old["status"]["qosClass"] != class {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &class.into(), why));
    }
    // Only who says what containers have can change it.
    let running =
        list(&old["status"]["containerStatuses"]).iter().find(|status| status["state"]["running"].is_object());
    if running.is_some_and(|status| status["resources"].is_null()) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    let mut others = false;
    for field in LISTS {
        for (i, (before, after)) in list(&old["spec"][field]).iter().zip(list(&new["spec"][field])).enumerate() {
            let at = format!("spec.{field}[{i}].resources");
            let fixed = field == "initContainers" && before["restartPolicy"] != "Always";
            if fixed && before["resources"] != after["resources"] {
                errors.push(FieldError::forbidden(at, "resources for non-sidecar init containers are immutable"));
                continue;
            }
            for part in ["requests", "limits"] {
                let amount = |of: &Value, resource: &str| of["resources"][part][resource].as_str().map(str::to_owned);
                let has = |of: &Value, resource: &str| amount(of, resource).is_some();
                if ["cpu", "memory"].iter().any(|resource| has(before, resource) && !has(after, resource)) {
                    let why = format!("resource {part} cannot be removed");
                    errors.push(FieldError::forbidden(format!("{at}.{part}"), &why));
                }
                let names = |of: &Value| of["resources"][part].as_object().cloned().unwrap_or_default();
                let all = names(before).into_iter().chain(names(after)).map(|(resource, _)| resource);
                let read =
                    |of: &Value, resource: &str| amount(of, resource).and_then(|text| text.parse::<Quantity>().ok());
                let mut foreign = all.filter(|resource| !matches!(resource.as_str(), "cpu" | "memory"));
                others |= foreign.any(|resource| read(before, &resource) != read(after, &resource));
            }
            others |= before["resizePolicy"] != after["resizePolicy"]
                || before["resources"]["claims"] != after["resources"]["claims"];
        }
    }
    if others {
        errors.push(FieldError::forbidden("spec", "only cpu and memory resources are mutable"));
    }
    errors
}
