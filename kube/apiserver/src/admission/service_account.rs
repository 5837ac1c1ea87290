//! A pod runs as an account of its namespace, and gets a token of it (admission plug-in ServiceAccount): where tokens are issued, a volume
//! with token, certificate of the API and namespace is mounted into every container that has nothing of its own there.

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::auth::account_tokens::find;
use crate::kinds::core::pod::MIRROR;
use crate::server::ApiServer;
use crate::status::Status;

/// Where clients in a pod look for it.
const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// An hour, and the time in which a token that was renewed late still counts.
const TOKEN_SECONDS: u32 = 3607;

/// Names the account of a new pod, and gives it what the account says.
///
/// # Errors
/// 403 if there is no such account.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
    let is_pod = (request.group, request.plural) == ("", "pods") && request.operation == Operation::Create;
    let is_mirror = pod["metadata"]["annotations"][MIRROR].is_string();
    if !is_pod || is_mirror || server.inner.issuer.get().is_none() {
        return Ok(());
    }
    let given = |field: &str| pod["spec"][field].as_str().filter(|name| !name.is_empty());
    let name = given("serviceAccountName").or_else(|| given("serviceAccount")).unwrap_or("default").to_owned();
    let Some(account) = find(server, "serviceaccounts", request.namespace, &name)? else {
        let why =
            format!("error looking up service account {}/{name}: serviceaccount {name:?} not found", request.namespace);
        return Err(Status::forbidden("", "pods", request.name, &why));
    };
    let spec = &mut pod["spec"];
    (spec["serviceAccountName"], spec["serviceAccount"]) = (name.as_str().into(), name.as_str().into());
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty) && account["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wanted = |of: &Value| of["automountServiceAccountToken"].as_bool();
    if wanted(spec).or(wanted(&account)).unwrap_or(true) {
        mount(spec);
    }
    Ok(())
}

/// Mounts the token where nothing is mounted; a second time it finds its own.
fn mount(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let own = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(PREFIX));
    let name = own.map_or_else(|| format!("{PREFIX}{}", crate::object::suffix()), str::to_owned);
    let (mut used, there) = (false, own.is_some());
    for field in ["initContainers", "containers"] {
        // What is not there must not come to be there as null.
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            if mounts.as_array().is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == PATH)) {
                continue;
            }
            let mount = json!({ "name": name, "readOnly": true, "mountPath": PATH });
            match mounts.as_array_mut() {
                Some(mounts) => mounts.push(mount),
                None => *mounts = json!([mount]),
            }
            used = true;
        }
    }
    if !used || there {
        return;
    }
    let namespace =
        json!({ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } });
    let volume = json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [namespace] } } ] } });
    match spec["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => spec["volumes"] = json!([volume]),
    }
}
