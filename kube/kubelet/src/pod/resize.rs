//! A pod that shall have more or less CPU and memory while it runs (KEP-1287).
//!
//! ```text
//! spec ≠ what it has ── never fits the machine ─▶ Infeasible     others have it ─▶ Deferred, looked at again
//!                    └─ fits ─▶ cgroups are written, or a container is run again where its resizePolicy says so
//! ```
//!
//! What containers have is in the pod's status (`resources`), where a kubelet that comes back finds it. A container that is started meanwhile
//! gets what it has, not what it shall have. [`decide`] is pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use substrate_client::quantity::Quantity;
use substrate_client::requests::{Resources, pod_requests};

use super::resources::{Capacity, container_limits};

/// By container.
pub type Given = BTreeMap<String, ResourceRequirements>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has what it shall have.
    Same,
    /// Not now: reason and message of the condition `PodResizePending`.
    Pending(&'static str, String),
    /// These containers change; those with `true` by being run again.
    Change(Vec<(String, bool)>),
}

/// What a pod has: by its status, or by its spec if it has not run.
pub fn given(pod: &Pod) -> Given {
    let told = |name: &str| {
        let all =
            pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        all.filter(|told| told.name == name).find_map(|told| told.resources.clone())
    };
    lasting(pod).map(|c| (c.name.clone(), told(&c.name).or(c.resources.clone()).unwrap_or_default())).collect()
}

/// The containers that a resize may change; init containers that end are in it and never change.
fn lasting(pod: &Pod) -> impl Iterator<Item = &Container> {
    super::init(pod).chain(pod.spec.iter().flat_map(|spec| &spec.containers))
}

/// The pod with what its containers have.
pub fn with(pod: &Pod, given: &Given) -> Pod {
    let mut pod = pod.clone();
    let spec = pod.spec.iter_mut();
    for container in spec.flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)) {
        if let Some(own) = given.get(&container.name) {
            container.resources = Some(own.clone());
        }
    }
    pod
}

/// Compares what a pod shall have with what it has, what the machine has `free` for pods, and what `others` have of it.
pub fn decide<'a>(pod: &Pod, given: &Given, others: impl Iterator<Item = &'a Pod>, free: Capacity) -> Decision {
    let changes: Vec<(String, bool)> = lasting(pod).filter_map(|container| change(container, given)).collect();
    if changes.is_empty() {
        return Decision::Same;
    }
    let wanted = pod_requests(&Pod { status: None, ..pod.clone() });
    let mut used = Resources::default();
    others.for_each(|other| used.add(&pod_requests(other)));
    let whole = |resource: &str, of: &Resources| match resource {
        "cpu" => of.get(resource).milli_value(),
        _ => of.get(resource).value(),
    };
    let both = [("cpu", i128::from(free.cpu_milli)), ("memory", i128::from(free.memory_bytes))];
    for (resource, capacity) in both {
        let requested = i128::from(whole(resource, &wanted));
        if requested > capacity {
            let why =
                format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}");
            return Decision::Pending("Infeasible", why);
        }
    }
    for (resource, capacity) in both {
        let (requested, used) = (i128::from(whole(resource, &wanted)), i128::from(whole(resource, &used)));
        let has = changes_up(pod, given, resource);
        if has && requested + used > capacity {
            let why = format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Decision::Pending("Deferred", why);
        }
    }
    Decision::Change(changes)
}

/// Whether the pod shall have more of a resource than it has: less always fits.
fn changes_up(pod: &Pod, given: &Given, resource: &str) -> bool {
    let of = |pod: &Pod| pod_requests(&Pod { status: None, ..pod.clone() }).get(resource);
    of(pod) > of(&with(pod, given))
}

/// Whether a container changes, and whether that takes a new run.
fn change(container: &Container, given: &Given) -> Option<(String, bool)> {
    let has = Container { resources: given.get(&container.name).cloned(), ..Container::default() };
    let (new, old) = (container_limits(container), container_limits(&has));
    let cpu = (new.cpu_limit_milli, new.cpu_request_milli) != (old.cpu_limit_milli, old.cpu_request_milli);
    let memory = new.memory_limit_bytes != old.memory_limit_bytes;
    let asked = |of: &Container| {
        let requests = of.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.and_then(|requests| Quantity::try_from(requests.get("memory")?).ok())
    };
    let restarts = |resource: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies.filter(|p| p.resource_name == resource).any(|p| p.restart_policy == "RestartContainer")
    };
    let restart = (cpu && restarts("cpu")) || (memory && restarts("memory"));
    (cpu || memory || asked(container) != asked(&has)).then(|| (container.name.clone(), restart))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    const FREE: Capacity = Capacity { cpu_milli: 2000, memory_bytes: 1 << 30, storage_bytes: 0 };

    fn amounts(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}})
    }

    fn pod(wanted: &Value, has: Option<&Value>, policy: &str) -> Pod {
        let policy = json!([{"resourceName": "memory", "restartPolicy": policy}]);
        let told = has.map(|has| {
            json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "resources": has}])
        });
        let container = json!({"name": "c", "resources": wanted, "resizePolicy": policy});
        serde_json::from_value(json!({"spec": {"containers": [container]}, "status": {"containerStatuses": told}}))
            .unwrap()
    }

    #[test]
    fn a_resize_is_done_where_it_fits() {
        let small = amounts("500m", "256Mi");
        let other = pod(&amounts("1", "512Mi"), None, "NotRequired");
        let decide = |wanted: Value, policy: &str| {
            let pod = pod(&wanted, Some(&small), policy);
            match decide(&pod, &given(&pod), [&other].into_iter(), FREE) {
                Decision::Same => "same".to_owned(),
                Decision::Pending(reason, why) => format!("{reason}: {why}"),
                Decision::Change(all) => format!("{all:?}"),
            }
        };
        assert_eq!(decide(amounts("0.5", "256Mi"), "NotRequired"), "same");
        assert_eq!(decide(amounts("1", "256Mi"), "NotRequired"), "[(\"c\", false)]");
        assert_eq!(decide(amounts("100m", "128Mi"), "RestartContainer"), "[(\"c\", true)]");
        assert_eq!(decide(amounts("1", "256Mi"), "RestartContainer"), "[(\"c\", false)]", "of memory alone");
        let infeasible = "Infeasible: Node didn't have enough capacity: cpu, requested: 2500, capacity: 2000";
        assert_eq!(decide(amounts("2500m", "256Mi"), "NotRequired"), infeasible);
        let deferred = "Deferred: Node didn't have enough resource: memory, requested: 805306368, used: 536870912, capacity: 1073741824";
        assert_eq!(decide(amounts("500m", "768Mi"), "NotRequired"), deferred);
    }

    #[test]
    fn what_is_started_gets_what_it_has() {
        let (wanted, has) = (amounts("1", "1Gi"), amounts("500m", "256Mi"));
        let waiting = pod(&wanted, Some(&has), "NotRequired");
        let of = |pod: &Pod| container_limits(&pod.spec.as_ref().unwrap().containers[0]).memory_limit_bytes;
        assert_eq!(of(&with(&waiting, &given(&waiting))), Some(256 << 20));
        let new = pod(&wanted, None, "NotRequired");
        assert_eq!(of(&with(&new, &given(&new))), Some(1 << 30), "a new pod has what it asks for");
    }
}
