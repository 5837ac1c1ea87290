//! A cache that is sold as a service, and a Solver that buys one.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use fluidos_model::kinds::{Flavor, ServiceBlueprint, Solver, names};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Node;

pub fn blueprint() -> Value {
    let resources = json!({"requests": {"cpu": "250m", "memory": "64Mi"}});
    json!({
        "name": "cache", "description": "A cache of your own", "category": "database", "tags": ["redis"],
        "hostingPolicies": ["Provider"],
        "templates": [
            {"name": "service", "serviceData": {"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "cache", "labels": {"nodecore.fluidos.eu/flavor-service-endpoint": "true"}},
                "spec": {"selector": {"app": "cache"}, "ports": [{"port": 6379}]}}},
            {"name": "pod", "serviceData": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cache", "labels": {"app": "cache"}},
                "spec": {"containers": [{"name": "cache", "image": "redis", "resources": resources,
                    "args": ["--maxmemory", "{{ .memory }}"]}]}}},
            {"name": "secret", "serviceData": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cache"},
                "stringData": {"password": "{{ .password }}"}}},
        ],
        "configurationTemplate": {"type": "object", "required": ["memory"], "additionalProperties": false,
            "properties": {"memory": {"type": "string", "pattern": "^[0-9]{1,4}mb$"}}},
    })
}

/// What the Local Resource Manager makes of a blueprint: it is accepted, and there is a Flavor of it.
pub async fn sells(node: &Node) -> String {
    let spec = blueprint();
    node.create::<ServiceBlueprint>(json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "ServiceBlueprint",
        "metadata": {"name": "cache"}, "spec": spec}))
        .await;
    let status = Patch::Merge(json!({"status": {"accepted": true, "message": "", "serviceFlavors": []}}));
    node.api::<ServiceBlueprint>().patch_status("cache", &PatchParams::default(), &status).await.unwrap();
    let name = names::service_flavor(&node.options.identity.domain, &node.key.id().tag(), "cache");
    let mut flavor = json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Flavor", "metadata": {"name": name},
        "spec": {
            "providerID": node.key.id().tag(), "owner": node.options.identity, "availability": true,
            "price": {"amount": "", "currency": "", "period": ""},
            "flavorType": {"typeIdentifier": "Service", "typeData": {
                "name": "cache", "description": "A cache of your own", "category": "database", "tags": ["redis"],
                "hostingPolicies": ["Provider"], "configurationTemplate": spec["configurationTemplate"], "policies": {},
                "blueprint": "cache"}},
        },
    });
    flavor["spec"]["owner"]["additionalInformation"] = json!({"did": node.key.id().to_string()});
    node.create::<Flavor>(flavor).await;
    name
}

pub async fn solver(node: &Node, name: &str, tag: &str, configured: Value) {
    node.create::<Solver>(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Solver",
        "metadata": {"name": name, "annotations": {"fluidos.eu/namespace": "shop", "fluidos.eu/service-name": "cache"}},
        "spec": {"intentID": name, "findCandidate": true, "reserveAndBuy": true,
                 "selector": {"flavorType": "Service", "filters": {
                     "categoryFilter": {"name": "Match", "data": {"value": "database"}},
                     "tagsFilter": {"name": "Match", "data": {"value": tag}}}},
                 "configuration": {"type": "Service", "data": {"configurationData": configured}}},
    }))
    .await;
}
