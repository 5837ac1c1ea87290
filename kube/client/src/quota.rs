//! What objects count for in a ResourceQuota: for who admits them, and for who counts them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};

use crate::quantity::Quantity;
use crate::requests::{Resources, pod_limits, pod_requests};

/// What a pod uses, under each name that a quota may have for it.
pub fn of_pod(pod: &Pod) -> Resources {
    let mut used = Resources::default();
    let mut add = |name: String, amount: Quantity| *used.0.entry(name).or_default() += amount;
    add("count/pods".to_owned(), Quantity::whole(1));
    if pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|p| matches!(p, "Succeeded" | "Failed"))
    {
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
pub fn of_service(service: &Service) -> Resources {
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
pub fn of_claim(claim: &PersistentVolumeClaim) -> Resources {
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
pub fn is_in_scope(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
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
