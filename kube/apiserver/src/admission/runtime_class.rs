//! What a pod's RuntimeClass says is written into it (admission plug-in RuntimeClass), in the words of Kubernetes.

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;

/// Completes a new pod, or says why its class does not admit it.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
    if request.operation != Operation::Create || (request.group, request.plural) != ("", "pods") {
        return Ok(());
    }
    let refused = |why: String| Status::forbidden("", "pods", request.name, &why);
    let class = match pod["spec"]["runtimeClassName"].as_str() {
        Some(name) => Some(
            class(server, name)?.ok_or_else(|| refused(format!("pod rejected: RuntimeClass {name:?} not found")))?,
        ),
        None => None,
    };
    let fixed = class.as_ref().map(|class| class["overhead"]["podFixed"].clone()).filter(Value::is_object);
    let asked = Some(pod["spec"]["overhead"].clone()).filter(Value::is_object);
    match (fixed, asked) {
        (None, Some(_)) => {
            return Err(refused(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into(),
            ));
        }
        (Some(fixed), Some(asked)) if fixed != asked => {
            return Err(refused("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into()));
        }
        (Some(fixed), _) => pod["spec"]["overhead"] = fixed,
        (None, None) => {}
    }
    let Some(scheduling) = class.map(|class| class["scheduling"].clone()).filter(Value::is_object) else {
        return Ok(());
    };
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &pod["spec"]["nodeSelector"][key];
        if !own.is_null() && own != value {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(refused(format!(
                "conflict: runtimeClass.Scheduling.NodeSelector[{key}] = {}; pod.Spec.NodeSelector[{key}] = {}",
                text(value),
                text(own)
            )));
        }
        if pod["spec"]["nodeSelector"].is_null() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        if pod["spec"]["tolerations"].is_null() {
            pod["spec"]["tolerations"] = json!([]);
        }
        if let Some(list) = pod["spec"]["tolerations"].as_array_mut()
            && !list.contains(toleration)
        {
            list.push(toleration.clone());
        }
    }
    Ok(())
}

fn class(server: &ApiServer, name: &str) -> Result<Option<Value>, Status> {
    let Some(kind) = server.inner.registry.get("node.k8s.io", "v1", "runtimeclasses") else { return Ok(None) };
    let entry = server.inner.store.get(&kind.key("", name));
    entry.map(|entry| decoded(&kind, &entry)).transpose()
}
