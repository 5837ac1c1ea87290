//! What counts against a quota, and how much. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};
use substrate_client::quantity::Quantity;
use substrate_client::requests::{Resources, pod_limits, pod_requests};

use crate::objects::has_ended;

/// What a pod uses, under each name that a quota may have for it.
pub(crate) fn of_pod(pod: &Pod) -> Resources {
    let mut used = Resources::default();
    let mut add = |name: String, amount: Quantity| *used.0.entry(name).or_default() += amount;
    add("count/pods".to_owned(), Quantity::whole(1));
    if has_ended(pod) {
        return used;
    }
    add("pods".to_owned(), Quantity::whole(1));
    for (name, amount) in pod_requests(pod).0 {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            add(name.clone(), amount);
        }
        add(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_limits(pod).0 {
        add(format!("limits.{name}"), amount);
    }
    used
}

/// What a Service uses.
pub(crate) fn of_service(service: &Service) -> Resources {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = i64::try_from(spec.ports.iter().flatten().count()).unwrap_or(i64::MAX);
    let balances = spec.type_.as_deref() == Some("LoadBalancer");
    let mut used = vec![("services", 1), ("count/services", 1)];
    if balances {
        used.push(("services.loadbalancers", 1));
    }
    if spec.type_.as_deref() == Some("NodePort") || (balances && spec.allocate_load_balancer_node_ports != Some(false))
    {
        used.push(("services.nodeports", ports));
    }
    Resources(used.into_iter().map(|(name, count)| (name.to_owned(), Quantity::whole(count))).collect())
}

/// What a claim uses.
pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> Resources {
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let storage = requests.get("storage").and_then(|text| Quantity::try_from(text).ok()).unwrap_or_default();
    let one = Quantity::whole(1);
    let mut used = BTreeMap::from([
        ("persistentvolumeclaims".to_owned(), one),
        ("count/persistentvolumeclaims".to_owned(), one),
        ("requests.storage".to_owned(), storage),
    ]);
    if let Some(class) = spec.storage_class_name.filter(|class| !class.is_empty()) {
        let class = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{class}/persistentvolumeclaims"), one);
        used.insert(format!("{class}/requests.storage"), storage);
    }
    Resources(used)
}

/// Whether a pod is in all scopes of a quota.
pub(crate) fn is_in_scope(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let mut selector = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let chosen = |name: &str, operator: &str, values: &[String]| match name {
        "PriorityClass" => {
            let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.clone()).unwrap_or_default();
            match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        name => is_of(name, pod) == (operator != "DoesNotExist" && operator != "NotIn"),
    };
    spec.scopes.iter().flatten().all(|scope| chosen(scope, "Exists", &[]))
        && selector.all(|found| chosen(&found.scope_name, &found.operator, found.values.as_deref().unwrap_or_default()))
}

fn is_of(scope: &str, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ends = spec.and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0);
    let is_modest = pod_requests(pod).0.values().chain(pod_limits(pod).0.values()).all(|amount| amount.is_zero());
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_modest,
        "NotBestEffort" => !is_modest,
        "CrossNamespacePodAffinity" => crosses(pod),
        // A scope that nobody knows has nothing in it.
        _ => false,
    }
}

/// Whether its affinity looks at pods of other namespaces.
fn crosses(pod: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.clone()).unwrap_or_default();
    let near = affinity.pod_affinity.unwrap_or_default();
    let far = affinity.pod_anti_affinity.unwrap_or_default();
    let hard = near.required_during_scheduling_ignored_during_execution.into_iter();
    let hard = hard.chain(far.required_during_scheduling_ignored_during_execution).flatten();
    let soft = near.preferred_during_scheduling_ignored_during_execution.into_iter();
    let soft = soft.chain(far.preferred_during_scheduling_ignored_during_execution).flatten();
    let mut terms = hard.chain(soft.map(|soft| soft.pod_affinity_term));
    terms.any(|term| term.namespaces.is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some())
}

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
