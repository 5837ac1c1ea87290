//! The gate: which new pods are held until the orchestrator has placed them (architecture decision 14).
//!
//! Nothing that the user owns is changed: a pod that a controller made is the controller's, and a bare pod is changed only
//! while it is admitted.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fluidos_model::intent;
use fluidos_model::kinds::names;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ApiResource;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use substrate_apiserver::admission::{Admission, Operation, Request};
use substrate_apiserver::status::Status;
use substrate_client::{Access, Cache};

/// Owners above a pod that are looked at; real chains have two or three.
const OWNERS_MAX: usize = 8;
/// How long a replicated pod stays on a node that cannot be reached, unless it says otherwise (decision 15).
const DISCONNECT_SECONDS: i64 = 20;
/// The time that the API gives to every pod by itself.
const DEFAULT_SECONDS: i64 = 300;

/// Gates service requests. One step of admission.
pub struct Gate {
    client: Client,
    namespaces: Cache<Namespace>,
    nodes: Cache<Node>,
}

impl Gate {
    /// A gate that looks up owners and namespaces through `client`.
    pub fn new(access: impl Into<Access>) -> Self {
        let Access { client, caches } = access.into();
        let namespaces = caches.all();
        let nodes = caches.all();
        Self { client, namespaces, nodes }
    }

    /// Annotations of the owners up the chain, topmost first, and the topmost owner.
    async fn owners(&self, namespace: &str, pod: &Value) -> (Vec<BTreeMap<String, String>>, Option<String>) {
        let references = serde_json::from_value(pod["metadata"]["ownerReferences"].clone()).unwrap_or_default();
        let mut next = controller(references);
        let (mut chain, mut top) = (Vec::new(), None);
        while let Some(owner) = next.take().filter(|_| chain.len() < OWNERS_MAX) {
            top = Some(format!("{}/{}/{}", owner.kind, owner.name, owner.uid));
            let metadata = match self.metadata(namespace, &owner).await {
                Ok(Some(metadata)) if metadata.uid.as_deref() == Some(&owner.uid) => metadata,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(kind = owner.kind, name = owner.name, %error, "an owner cannot be read: its intents are not known");
                    break;
                }
            };
            chain.push(metadata.annotations.unwrap_or_default());
            next = controller(metadata.owner_references.unwrap_or_default());
        }
        chain.reverse();
        (chain, top)
    }

    async fn metadata(&self, namespace: &str, owner: &OwnerReference) -> kube::Result<Option<ObjectMeta>> {
        let client = self.client.clone();
        match owner.kind.as_str() {
            "ReplicaSet" => {
                Ok(Api::<ReplicaSet>::namespaced(client, namespace).get_opt(&owner.name).await?.map(|o| o.metadata))
            }
            "Deployment" => {
                Ok(Api::<Deployment>::namespaced(client, namespace).get_opt(&owner.name).await?.map(|o| o.metadata))
            }
            _ => {
                let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
                let kind = GroupVersionKind::gvk(group, version, &owner.kind);
                let (resource, _): (ApiResource, _) = kube::discovery::oneshot::pinned_kind(&client, &kind).await?;
                let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
                Ok(api.get_opt(&owner.name).await?.map(|o| o.metadata))
            }
        }
    }

    fn is_virtual(&self, node: &str) -> bool {
        self.nodes.get("", node).is_some_and(|node| node.labels().contains_key(names::VIRTUAL_NODE))
    }
}

fn controller(references: Vec<OwnerReference>) -> Option<OwnerReference> {
    references.into_iter().find(|owner| owner.controller == Some(true))
}

#[async_trait]
impl Admission for Gate {
    async fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.group.is_empty() || request.plural != "pods" {
            return Ok(());
        }
        if object["metadata"]["labels"][names::LABEL_CONTRACT].is_string() {
            return Ok(()); // a twin: its consumer has placed it
        }
        let named =
            object["spec"]["nodeName"].as_str().or(object["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str());
        if let Some(node) = named {
            if self.is_virtual(node) {
                tolerate_virtual_node(object);
                disconnect(object);
            }
            return Ok(());
        }
        let (owners, top) = self.owners(request.namespace, object).await;
        let own: BTreeMap<String, String> =
            serde_json::from_value(object["metadata"]["annotations"].clone()).unwrap_or_default();
        let merged: BTreeMap<String, String> =
            owners.into_iter().flatten().chain(own).filter(|(key, _)| is_intent(key)).collect();
        let intents = intent::parse(merged.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let namespace = self.namespaces.get("", request.namespace);
        let may_leave = namespace
            .is_some_and(|ns| ns.labels().get(names::LABEL_OFFLOAD).is_some_and(|v| v == names::OFFLOAD_ENABLED));
        if intents.any() || may_leave {
            hold(object, merged, top);
        }
        Ok(())
    }
}

fn is_intent(key: &str) -> bool {
    key.get(..intent::INTENT_PREFIX.len()).is_some_and(|k| k.eq_ignore_ascii_case(intent::INTENT_PREFIX))
        || key == intent::SOFT_INTENTS
        || key == intent::INTENT_EVIDENCE
}

/// Puts the gate before a pod and writes on it what its owners ask for: intents travel with the pod.
fn hold(pod: &mut Value, intents: BTreeMap<String, String>, top: Option<String>) {
    let spec = &mut pod["spec"];
    if !spec["schedulingGates"].is_array() {
        spec["schedulingGates"] = json!([]);
    }
    if let Some(gates) = spec["schedulingGates"].as_array_mut()
        && !gates.iter().any(|g| g["name"] == names::GATE)
    {
        gates.push(json!({ "name": names::GATE }));
    }
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    for (key, value) in intents {
        pod["metadata"]["annotations"][key] = value.into();
    }
    let workload = top.unwrap_or_else(|| {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        format!("Pod/{}/{}", text("name"), text("uid"))
    });
    pod["metadata"]["annotations"][names::ANNOTATION_WORKLOAD] = workload.into();
    disconnect(pod);
}

/// Says beforehand what happens when its node cannot be reached: a replicated pod is replaced after a while, a bare
/// one never. Whoever wrote a time of their own keeps it.
fn disconnect(pod: &mut Value) {
    let replicated =
        pod["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.iter().any(|o| o["controller"] == json!(true)));
    for toleration in pod["spec"]["tolerations"].as_array_mut().into_iter().flatten() {
        let key = toleration["key"].as_str().unwrap_or_default();
        let ours = matches!(key, "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable");
        if ours && toleration["tolerationSeconds"] == json!(DEFAULT_SECONDS) {
            if replicated {
                toleration["tolerationSeconds"] = DISCONNECT_SECONDS.into();
            } else if let Some(map) = toleration.as_object_mut() {
                map.remove("tolerationSeconds");
            }
        }
    }
}

fn tolerate_virtual_node(pod: &mut Value) {
    if !pod["spec"]["tolerations"].is_array() {
        pod["spec"]["tolerations"] = json!([]);
    }
    if let Some(list) = pod["spec"]["tolerations"].as_array_mut() {
        list.push(json!({ "key": names::VIRTUAL_NODE, "operator": "Exists", "effect": "NoSchedule" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(replicated: bool) -> Value {
        json!({"metadata": {"name": "a", "uid": "u", "ownerReferences": if replicated { json!([{"controller": true}]) } else { json!([]) }},
            "spec": {"tolerations": [
                {"key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "tolerationSeconds": 60},
                {"key": "other", "tolerationSeconds": 300}]}})
    }

    #[test]
    fn a_replicated_pod_is_replaced_soon_and_a_bare_one_never() {
        let seconds = |pod: &Value| {
            pod["spec"]["tolerations"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| t["tolerationSeconds"].clone())
                .collect::<Vec<_>>()
        };
        let mut replicated = pod(true);
        hold(&mut replicated, BTreeMap::new(), Some("Deployment/d/u1".into()));
        assert_eq!(seconds(&replicated), [json!(20), json!(60), json!(300)]);
        assert_eq!(replicated["spec"]["schedulingGates"], json!([{"name": "fluidos.eu/placement"}]));
        let mut bare = pod(false);
        hold(&mut bare, BTreeMap::from([("fluidos-intent-location".into(), "Milan".into())]), None);
        assert_eq!(seconds(&bare), [Value::Null, json!(60), json!(300)]);
        assert_eq!(
            bare["metadata"]["annotations"],
            json!({"fluidos-intent-location": "Milan", "fluidos.eu/workload": "Pod/a/u"})
        );
        hold(&mut bare, BTreeMap::new(), None);
        assert_eq!(bare["spec"]["schedulingGates"].as_array().map(Vec::len), Some(1), "one gate is enough");
    }
}
