//! A pod gets the priority of its class (admission plug-in Priority), in the words of Kubernetes.

use serde_json::{Value, json};

use super::{Operation, Request, all};
use crate::server::ApiServer;
use crate::status::Status;

/// Writes priority and preemption policy into a new pod, or says why its class does not admit it. There is one default
/// class at most.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    match (request.group, request.plural, request.operation) {
        ("", "pods", Operation::Create) => pod(server, request, object),
        ("scheduling.k8s.io", "priorityclasses", Operation::Create | Operation::Update) => {
            class(server, request, object)
        }
        _ => Ok(()),
    }
}

fn classes(server: &ApiServer) -> Result<Vec<Value>, Status> {
    all(server, ("scheduling.k8s.io", "v1", "priorityclasses"), "")
}

/// Of several defaults, which a race can make, the lowest counts, as upstream.
fn default_class(classes: &[Value]) -> Option<&Value> {
    classes.iter().filter(|class| class["globalDefault"] == json!(true)).min_by_key(|class| class["value"].as_i64())
}

fn pod(server: &ApiServer, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
    let refused = |why: &str| Status::forbidden("", "pods", request.name, why);
    let classes = classes(server)?;
    let named = pod["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let class = match &named {
        Some(name) => Some(
            classes
                .iter()
                .find(|class| class["metadata"]["name"] == name.as_str())
                .ok_or_else(|| refused(&format!("no PriorityClass with name {name} was found")))?,
        ),
        None => default_class(&classes),
    };
    let priority = class.map_or(0, |class| class["value"].as_i64().unwrap_or(0));
    let preemption = class.and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if pod["spec"]["priority"].as_i64().is_some_and(|given| given != priority) {
        return Err(refused(&format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name",
            pod["spec"]["priority"]
        )));
    }
    if pod["spec"]["preemptionPolicy"].as_str().is_some_and(|given| given != preemption) {
        return Err(refused(&format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {preemption} from the given PriorityClass name",
            pod["spec"]["preemptionPolicy"].as_str().unwrap_or_default()
        )));
    }
    if let (None, Some(class)) = (&named, class) {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    pod["spec"]["priority"] = priority.into();
    pod["spec"]["preemptionPolicy"] = preemption.into();
    Ok(())
}

fn class(server: &ApiServer, request: &Request<'_>, class: &Value) -> Result<(), Status> {
    if class["globalDefault"] != json!(true) {
        return Ok(());
    }
    let classes = classes(server)?;
    match default_class(&classes).and_then(|other| other["metadata"]["name"].as_str()) {
        Some(other) if other != request.name => {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(Status::forbidden(request.group, request.plural, request.name, &why))
        }
        _ => Ok(()),
    }
}
