//! How much of each resource a pod asks for, and a node has. Asked by the scheduler and by quotas. Pure.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, Quantity>);

impl Resources {
    /// The amount of one resource; nothing if it is not listed.
    pub fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds all amounts of `other`.
    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += *amount;
        }
    }

    /// Subtracts all amounts of `other`.
    pub fn subtract(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= *amount;
        }
    }

    fn at_least(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let entry = self.0.entry(name.clone()).or_default();
            *entry = (*entry).max(*amount);
        }
    }
}

/// What is no quantity counts as nothing: the API server refuses it before it comes here.
fn read(list: Option<&BTreeMap<String, Text>>) -> Resources {
    let amounts = list.into_iter().flatten();
    Resources(amounts.filter_map(|(name, text)| Some((name.clone(), text.0.parse().ok()?))).collect())
}

/// What a pod asks of a node: the sum of its containers and sidecars, or more if an init container asks for more, or what
/// the pod asks for as a whole, plus the overhead of its runtime (KEP-753, KEP-2837). While a container is resized it counts with what it
/// has or what it shall have, whatever is more; if its node will never give it that, with what it has (KEP-1287).
pub fn pod_requests(pod: &Pod) -> Resources {
    pod_amounts(pod, |resources| resources.requests.as_ref())
}

/// What a pod may use at most, reckoned as its requests are. A container without a limit counts as nothing.
pub fn pod_limits(pod: &Pod) -> Resources {
    pod_amounts(pod, |resources| resources.limits.as_ref())
}

type List = BTreeMap<String, Text>;

fn pod_amounts(pod: &Pod, part: fn(&ResourceRequirements) -> Option<&List>) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let status = pod.status.as_ref();
    let never = status.is_some_and(|status| {
        let pending = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodResizePending");
        pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"))
    });
    let of = |container: &Container| {
        let wanted = read(container.resources.as_ref().and_then(part));
        let told = status
            .into_iter()
            .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
        let own = told.filter(|told| told.name == container.name).find_map(|told| told.resources.as_ref());
        match own {
            Some(own) if never => read(part(own)),
            Some(own) => {
                let mut most = wanted;
                most.at_least(&read(part(own)));
                most
            }
            None => wanted,
        }
    };
    let mut total = Resources::default();
    spec.containers.iter().for_each(|container| total.add(&of(container)));
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&needs);
            needs = sidecars.clone();
        } else {
            // While it runs, the sidecars before it run too.
            needs.add(&sidecars);
        }
        peak.at_least(&needs);
    }
    total.add(&sidecars);
    total.at_least(&peak);
    let whole = read(spec.resources.as_ref().and_then(part));
    total.0.extend(whole.0);
    total.add(&read(spec.overhead.as_ref()));
    total
}

/// What a node has for pods.
pub fn allocatable(node: &Node) -> Resources {
    let status = node.status.as_ref();
    read(status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_add_up_and_init_containers_peak() {
        let request = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = request("100m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = |init: Vec<serde_json::Value>| -> Pod {
            serde_json::from_value(json!({"spec": {
                "containers": [request("200m"), request("0.3")], "initContainers": init, "overhead": {"cpu": "10m"},
            }}))
            .unwrap()
        };
        let cpu = |pod: Pod| pod_requests(&pod).get("cpu").to_string();
        assert_eq!(cpu(pod(vec![])), "510m");
        assert_eq!(cpu(pod(vec![request("400m")])), "510m");
        assert_eq!(cpu(pod(vec![request("1")])), "1010m");
        assert_eq!(cpu(pod(vec![sidecar.clone()])), "610m");
        assert_eq!(cpu(pod(vec![sidecar, request("1")])), "1110m");
    }

    #[test]
    fn who_is_resized_counts_with_what_is_more() {
        let cpu = |wanted: &str, has: &str, reason: &str| {
            let amount = |cpu: &str| json!({"requests": {"cpu": cpu}});
            let conditions = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            let told = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "resources": amount(has)}]);
            let pod = json!({"spec": {"containers": [{"name": "c", "resources": amount(wanted)}]},
                             "status": {"containerStatuses": told, "conditions": conditions}});
            pod_requests(&serde_json::from_value(pod).unwrap()).get("cpu").to_string()
        };
        assert_eq!(cpu("2", "1", "Deferred"), "2");
        assert_eq!(cpu("1", "2", "Deferred"), "2");
        assert_eq!(cpu("2", "1", "Infeasible"), "1");
    }
}
