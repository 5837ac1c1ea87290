//! How much of a quota is used. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};
use substrate_client::quantity::Quantity;
use substrate_client::quota::{is_in_scope, of_claim, of_pod, of_service};
use substrate_client::requests::Resources;

/// What of its limits a namespace uses: exactly the names that the quota has.
pub(crate) fn used(
    spec: &ResourceQuotaSpec,
    pods: &[Arc<Pod>],
    services: &[Arc<Service>],
    claims: &[PersistentVolumeClaim],
    counts: &BTreeMap<String, i64>,
) -> BTreeMap<String, Quantity> {
    let mut all = Resources::default();
    pods.iter().filter(|pod| is_in_scope(spec, pod)).for_each(|pod| all.add(&of_pod(pod)));
    services.iter().for_each(|service| all.add(&of_service(service)));
    claims.iter().for_each(|claim| all.add(&of_claim(claim)));
    let hard = spec.hard.iter().flatten();
    let amount = |name: &String| counts.get(name).map_or_else(|| all.get(name), |count| Quantity::whole(*count));
    hard.map(|(name, _)| (name.clone(), amount(name))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, more: Value) -> Arc<Pod> {
        let resources =
            json!({"requests": {"cpu": "250m", "memory": "64Mi", "example.com/gpu": "1"}, "limits": {"cpu": "1"}});
        let mut spec = json!({"containers": [{"name": "c", "resources": resources}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": {"phase": phase}})).unwrap())
    }

    fn check(hard: &[&str], spec: Value, pods: &[Arc<Pod>]) -> Vec<String> {
        let hard: BTreeMap<&str, &str> = hard.iter().map(|name| (*name, "9")).collect();
        let mut quota = json!({"hard": hard});
        quota.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let service = |kind: &str| -> Arc<Service> {
            Arc::new(
                serde_json::from_value(
                    json!({"metadata": {}, "spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}}),
                )
                .unwrap(),
            )
        };
        let claim = serde_json::from_value(json!({"metadata": {}, "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}})).unwrap();
        let counts = BTreeMap::from([("count/jobs.batch".to_owned(), 4)]);
        let services = [service("ClusterIP"), service("NodePort"), service("LoadBalancer")];
        let used = used(&serde_json::from_value(quota).unwrap(), pods, &services, &[claim], &counts);
        used.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn what_runs_counts_and_only_what_is_limited_is_said() {
        let pods = [pod("Running", json!({})), pod("Pending", json!({})), pod("Succeeded", json!({}))];
        let names =
            ["cpu", "requests.cpu", "limits.cpu", "requests.memory", "requests.example.com/gpu", "pods", "count/pods"];
        let words = check(&names, json!({}), &pods);
        assert_eq!(
            words,
            [
                "count/pods=3",
                "cpu=500m",
                "limits.cpu=2",
                "pods=2",
                "requests.cpu=500m",
                "requests.example.com/gpu=2",
                "requests.memory=128Mi"
            ]
        );
        let names = [
            "services",
            "services.nodeports",
            "services.loadbalancers",
            "requests.storage",
            "count/jobs.batch",
            "fast.storageclass.storage.k8s.io/requests.storage",
            "slow.storageclass.storage.k8s.io/requests.storage",
        ];
        let words = check(&names, json!({}), &pods);
        assert_eq!(
            words,
            [
                "count/jobs.batch=4",
                "fast.storageclass.storage.k8s.io/requests.storage=2Gi",
                "requests.storage=2Gi",
                "services=3",
                "services.loadbalancers=1",
                "services.nodeports=4",
                "slow.storageclass.storage.k8s.io/requests.storage=0"
            ]
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let modest = pod("Running", json!({"containers": [{"name": "c"}]}));
        let brief = pod("Running", json!({"activeDeadlineSeconds": 9}));
        let high = pod("Running", json!({"priorityClassName": "high"}));
        let reaching = pod(
            "Running",
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "k", "namespaces": ["x"]}]}}}),
        );
        let all = [modest, brief, high, reaching];
        let of = |spec: Value| check(&["pods"], spec, &all).remove(0);
        assert_eq!(of(json!({"scopes": ["BestEffort"]})), "pods=1");
        assert_eq!(of(json!({"scopes": ["NotBestEffort", "NotTerminating"]})), "pods=2");
        assert_eq!(of(json!({"scopes": ["Terminating"]})), "pods=1");
        assert_eq!(of(json!({"scopes": ["CrossNamespacePodAffinity"]})), "pods=1");
        let class = |operator: &str, values: Value| {
            of(
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}),
            )
        };
        assert_eq!(class("In", json!(["high"])), "pods=1");
        assert_eq!(class("NotIn", json!(["high"])), "pods=3");
        assert_eq!(class("Exists", json!([])), "pods=1");
        assert_eq!(class("DoesNotExist", json!([])), "pods=3");
    }
}
