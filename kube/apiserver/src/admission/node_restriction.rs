//! A node may change what is its own alone (admission plug-in NodeRestriction): its Node but its taints and the labels that say what it is
//! trusted with, its Lease and CSINode, pods that are bound to it, tokens of them. Refusals in upstream's words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::auth::User;
use crate::auth::account_tokens::find;
use crate::kinds::core::pod::MIRROR;
use crate::object::meta;
use crate::server::ApiServer;
use crate::status::Status;

/// Labels of Kubernetes that a node may say of itself (beside those under [`OWN_DOMAINS`]); others, as `node-role` and `node-restriction`, only others may.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Fields of a pod's spec by which it uses a Secret.
const SECRETS: &[&str] =
    &["imagePullSecrets", "nodePublishSecretRef", "secret", "secretKeyRef", "secretName", "secretRef"];

/// Which node a user is: empty if it is one that does not say which; `None` if it is none.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    let is_node = user.groups.iter().any(|group| group == "system:nodes");
    is_node.then(|| user.name.strip_prefix("system:node:").unwrap_or_default())
}

/// # Errors
/// 403 for what is not the node's own.
pub(super) fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = node_of(request.user).filter(|_| request.operation != Operation::Connect) else { return Ok(()) };
    let name = if request.name.is_empty() { meta(object, "name") } else { request.name };
    let refuse = |why: String| Err(Status::forbidden(request.group, request.plural, name, &why));
    if node.is_empty() {
        return refuse(format!("could not determine node from user {:?}", request.user.name));
    }
    match (request.group, request.plural, request.subresource) {
        ("", "pods", "") => {
            let own = find(server, "nodes", "", node)?;
            pod(node, own.as_ref(), request, object).or_else(refuse)
        }
        ("", "pods", "status") => pod_status(node, request, object).or_else(refuse),
        ("", "pods", "eviction") => {
            let pod =
                find(server, "pods", request.namespace, name)?.ok_or_else(|| Status::not_found("", "pods", name))?;
            match pod["spec"]["nodeName"] == node {
                true => Ok(()),
                false => refuse(format!("node {node} can only evict pods with spec.nodeName set to itself")),
            }
        }
        ("", "serviceaccounts", "token") => {
            token(server, node, (request.namespace, name), &object["spec"]["boundObjectRef"])
        }
        ("", "pods", other) => {
            refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) if name != node => refuse(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "nodes", _) => own_node(node, request, object).or_else(refuse),
        ("", "persistentvolumeclaims", "status") => claim_status(node, request, object).or_else(refuse),
        ("", "persistentvolumeclaims", _) => refuse("may only update PVC status".into()),
        ("coordination.k8s.io", "leases", _) if request.namespace != "kube-node-lease" => {
            refuse("can only access leases in the \"kube-node-lease\" system namespace".into())
        }
        ("coordination.k8s.io", "leases", _) if name != node => {
            refuse("can only access node lease with the same name as the requesting node".into())
        }
        ("storage.k8s.io", "csinodes", _) if name != node => {
            refuse("can only access CSINode with the same name as the requesting node".into())
        }
        ("", "persistentvolumes", _) => {
            let after = request.operation == Operation::Delete || is_of(node, object);
            match after && is_of(node, request.old.unwrap_or(object)) {
                true => Ok(()),
                false => refuse(format!("node {node:?} is only allowed to write local volumes on itself")),
            }
        }
        ("storage.k8s.io", "storageclasses", _) if object["volumeBindingMode"] != "WaitForFirstConsumer" => {
            refuse("a node may only make classes of volumes that wait for a first consumer".into())
        }
        _ => Ok(()),
    }
}

/// Whether a volume is a directory of this node alone. Upstream's provisioners are no nodes.
fn is_of(node: &str, volume: &Value) -> bool {
    let spec = &volume["spec"];
    let term = match spec["nodeAffinity"]["required"]["nodeSelectorTerms"].as_array().map(Vec::as_slice) {
        Some([term]) if term["matchFields"].is_null() => &term["matchExpressions"],
        _ => return false,
    };
    let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
    spec["local"].is_object() && *term == here
}

/// `own` is the node's object, if it has one.
fn pod(node: &str, own: Option<&Value>, request: &Request<'_>, object: &Value) -> Result<(), String> {
    let is_here = |pod: &Value| pod["spec"]["nodeName"] == node;
    match request.operation {
        Operation::Delete if is_here(request.old.unwrap_or(object)) => return Ok(()),
        Operation::Delete => {
            return Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"));
        }
        Operation::Update => {
            return Err(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            ));
        }
        Operation::Create | Operation::Connect => {}
    }
    if !object["metadata"]["annotations"][MIRROR].is_string() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if !is_here(object) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let set_to_itself = match object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [owner] if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node => "an",
        [owner] if owner["controller"] != true => "a controller",
        [owner] if owner["blockOwnerDeletion"] == true => {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        [owner] if own.is_none_or(|own| owner["uid"] != own["metadata"]["uid"]) => {
            let (given, real) = (&owner["uid"], own.map_or("", |own| meta(own, "uid")));
            let given = given.as_str().unwrap_or_default();
            return Err(format!("node {node} UID mismatch: expected {given} got {real}"));
        }
        [_] => "",
        [] => "an",
        _ => "a single",
    };
    if !set_to_itself.is_empty() {
        return Err(format!("node {node:?} can only create pods with {set_to_itself} owner reference set to itself"));
    }
    let named = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if !named.is_empty() {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    let refers = |what: &[&str]| what.iter().any(|field| mentions(&object["spec"], field));
    for (fields, what) in [
        (SECRETS, "secrets"),
        (&["configMap", "configMapRef", "configMapKeyRef"], "configmaps"),
        (&["clusterTrustBundle"], "clustertrustbundles"),
        (&["persistentVolumeClaim"], "persistentvolumeclaims"),
    ] {
        if refers(fields) {
            return Err(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    Ok(())
}

/// Whether a field of this name says something, wherever it is.
fn mentions(value: &Value, field: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(name, inner)| {
            (name == field && !inner.is_null() && inner.as_array().is_none_or(|list| !list.is_empty()))
                || mentions(inner, field)
        }),
        Value::Array(list) => list.iter().any(|inner| mentions(inner, field)),
        _ => false,
    }
}

fn pod_status(node: &str, request: &Request<'_>, object: &Value) -> Result<(), String> {
    let old = request.old.unwrap_or(object);
    if old["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if labels(Some(old)) != labels(Some(object)) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn claim_status(node: &str, request: &Request<'_>, object: &Value) -> Result<(), String> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["allocatedResourceStatuses", "allocatedResources", "capacity", "conditions"] {
            claim["status"][field] = Value::Null;
        }
        (claim["metadata"]["resourceVersion"], claim["metadata"]["managedFields"]) = (Value::Null, Value::Null);
        claim
    };
    match request.old.is_some_and(|old| rest(old) == rest(object)) {
        true => Ok(()),
        false => Err(format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        )),
    }
}

fn own_node(node: &str, request: &Request<'_>, object: &Value) -> Result<(), String> {
    if request.operation == Operation::Delete {
        return Ok(());
    }
    let (old, new) = (labels(request.old), labels(Some(object)));
    let forbidden: BTreeSet<&str> =
        (&old ^ &new).into_iter().map(|(key, _)| key).filter(|key| is_others(key)).collect();
    let shown = || forbidden.iter().copied().collect::<Vec<_>>().join(", ");
    match request.old {
        None if !forbidden.is_empty() => {
            Err(format!("node {node:?} is not allowed to set the following labels: {}", shown()))
        }
        Some(old) if old["spec"]["taints"] != object["spec"]["taints"] => {
            Err(format!("node {node:?} is not allowed to modify taints"))
        }
        Some(_) if !forbidden.is_empty() => Err(format!("is not allowed to modify labels: {}", shown())),
        _ => Ok(()),
    }
}

fn labels(of: Option<&Value>) -> BTreeSet<(&str, &str)> {
    let labels = of.and_then(|of| of["metadata"]["labels"].as_object()).into_iter().flatten();
    labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

/// Whether only others than the node may say it.
fn is_others(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|before| before.ends_with('.'));
    let own = OWN_LABELS.contains(&label) || OWN_DOMAINS.iter().any(|own| within(own));
    (within("kubernetes.io") || within("k8s.io")) && !own
}

/// Judges a node that asks for a token of an account in `namespace`, bound to `bound`.
///
/// # Errors
/// 403 if it is not bound to a pod of that node, with its UID.
fn token(server: &ApiServer, node: &str, (namespace, account): (&str, &str), bound: &Value) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::forbidden("", "serviceaccounts", account, why));
    let (name, uid) = (bound["name"].as_str().unwrap_or_default(), bound["uid"].as_str().unwrap_or_default());
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = find(server, "pods", namespace, name)?.ok_or_else(|| Status::not_found("", "pods", name))?;
    if meta(&pod, "uid") != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    // A node makes those itself, in any namespace: else it could have a token of any account.
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return refuse("node requested token bound to a mirror pod");
    }
    Ok(())
}
