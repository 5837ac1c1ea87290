//! Requests and limits of a pod: its class of service, its cgroups, its fate when memory runs out. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use substrate_client::quantity::Quantity;

use engine_runtime::cgroups::Limits;

/// Processes and threads in a pod: four times what a large database uses, and a small part of the kernel's 32768, so
/// that one pod cannot take the machine's process ids.
pub const POD_PIDS_MAX: u64 = 4096;

/// What the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Processors in thousandths.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Room for what ends with its pod (`ephemeral-storage`), in bytes.
    pub storage_bytes: u64,
}

/// A container's limits; a limit without a request is a request too.
pub fn container_limits(container: &Container) -> Limits {
    let get = |list: fn(&ResourceRequirements) -> Option<&std::collections::BTreeMap<_, _>>, name: &str| {
        quantity(container.resources.as_ref().and_then(list).and_then(|l| l.get(name)))
    };
    let (requests, limits) = (
        (|r| r.requests.as_ref()) as fn(&ResourceRequirements) -> Option<&std::collections::BTreeMap<_, _>>,
        (|r| r.limits.as_ref()) as fn(&ResourceRequirements) -> Option<&std::collections::BTreeMap<_, _>>,
    );
    let milli = |q: Quantity| u64::try_from(q.milli_value()).unwrap_or(0);
    let whole = |q: Quantity| u64::try_from(q.value()).unwrap_or(0);
    let cpu_limit_milli = get(limits, "cpu").map(milli).filter(|n| *n > 0);
    Limits {
        cpu_request_milli: get(requests, "cpu").map(milli).or(cpu_limit_milli).unwrap_or(0),
        cpu_limit_milli,
        memory_limit_bytes: get(limits, "memory").map(whole).filter(|n| *n > 0),
        pids_max: None,
    }
}

/// The pod's limits, where every container has one: the sum, or what its beginning needs if that is more.
pub fn pod_limits(pod: &Pod) -> Limits {
    let most = |of: fn(&Limits) -> Option<u64>| {
        let mut sidecars = 0;
        let mut peak = 0;
        for container in super::init(pod) {
            let own = of(&container_limits(container))?;
            peak = peak.max(sidecars + own);
            if super::plan::is_sidecar(container) {
                sidecars += own;
            }
        }
        let sum = pod.spec.iter().flat_map(|s| &s.containers).map(|c| of(&container_limits(c))).sum::<Option<u64>>()?;
        Some(peak.max(sidecars + sum))
    };
    Limits {
        cpu_request_milli: most(|l| Some(l.cpu_request_milli)).unwrap_or(0),
        cpu_limit_milli: most(|l| l.cpu_limit_milli),
        memory_limit_bytes: most(|l| l.memory_limit_bytes),
        pids_max: Some(POD_PIDS_MAX),
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the rules of the API.
pub fn qos_class(pod: &Pod) -> &'static str {
    let containers: Vec<&Container> = super::init(pod).chain(pod.spec.iter().flat_map(|s| &s.containers)).collect();
    let value = |c: &Container, limits: bool, name: &str| {
        let r = c.resources.as_ref()?;
        let list = if limits { r.limits.as_ref() } else { r.requests.as_ref() };
        quantity(list.and_then(|l| l.get(name))).filter(|q| !q.is_zero())
    };
    let names = ["cpu", "memory"];
    let any =
        containers.iter().any(|c| names.iter().any(|n| value(c, true, n).is_some() || value(c, false, n).is_some()));
    let guaranteed = containers.iter().all(|c| {
        names.iter().all(|n| {
            let limit = value(c, true, n);
            limit.is_some() && value(c, false, n).is_none_or(|request| Some(request) == limit)
        })
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// How early the kernel kills this container when memory runs out (the kubelet's rule for each class).
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity: &Capacity) -> i32 {
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = container.resources.as_ref().and_then(|r| {
                let of = |l: Option<&std::collections::BTreeMap<_, _>>| quantity(l.and_then(|l| l.get("memory")));
                of(r.requests.as_ref()).or_else(|| of(r.limits.as_ref()))
            });
            let request = request.map_or(0, |q| u64::try_from(q.value()).unwrap_or(0));
            let share = request.saturating_mul(1000) / capacity.memory_bytes.max(1);
            i32::try_from(1000u64.saturating_sub(share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn quantity(listed: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Option<Quantity> {
    listed.and_then(|q| Quantity::try_from(q).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;

    fn check(resources: &[serde_json::Value]) -> String {
        let containers: Vec<_> =
            resources.iter().enumerate().map(|(n, r)| json!({"name": n.to_string(), "resources": r})).collect();
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap();
        let l = pod_limits(&pod);
        let score = oom_score_adj(
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            &Capacity { cpu_milli: 1000, memory_bytes: 1 << 30, storage_bytes: 0 },
        );
        format!(
            "{} {} {:?} {:?} {score}",
            qos_class(&pod),
            l.cpu_request_milli,
            l.cpu_limit_milli,
            l.memory_limit_bytes
        )
    }

    #[test]
    fn classes_and_sums() {
        let full = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        assert_eq!(check(std::slice::from_ref(&full)), "Guaranteed 500 Some(500) Some(67108864) -997");
        assert_eq!(check(&[json!({})]), "BestEffort 0 None None 1000");
        assert_eq!(check(&[full, json!({"requests": {"cpu": 1}})]), "Burstable 1500 None None 938");
        let lower = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.1", "memory": "512Mi"}});
        assert_eq!(check(&[lower]), "Burstable 100 Some(1000) Some(1073741824) 500");
    }

    #[test]
    fn a_pod_may_need_more_at_its_beginning() {
        let limit = |name: &str, memory: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"limits": {"cpu": "1", "memory": memory}}});
        let check = |init: serde_json::Value| {
            let spec = json!({"initContainers": init, "containers": [limit("c", "10", None)]});
            let limits = pod_limits(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap());
            (limits.cpu_limit_milli, limits.memory_limit_bytes)
        };
        assert_eq!(check(json!([limit("i", "30", None)])), (Some(1000), Some(30)));
        assert_eq!(check(json!([limit("s", "5", Some("Always")), limit("i", "30", None)])), (Some(2000), Some(35)));
        assert_eq!(check(json!([limit("i", "1", None), limit("s", "5", Some("Always"))])), (Some(2000), Some(15)));
        assert_eq!(check(json!([{"name": "i"}])), (None, None), "one without makes it boundless");
    }
}
