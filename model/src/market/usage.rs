//! What pods ask for, and how much of a contract that is: by it capacity that is paid per use is paid. Pure.
//!
//! ```text
//!  pods that run ─▶ Σ requests ─▶ of what was bought, the resource of which most is asked for ─▶ share, 0 to 1 000 000
//!  used = Σ time × share, while the capacity is ready for the buyer          charge = used × price of the contract
//! ```
//! Both parties see the same pods with the same requests, so both compute the same share. A pod that requests nothing counts as one
//! of the pods that were bought.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{Amounts, Quantity, Resource};

/// All of a contract, in parts per million.
pub const SHARE_MOST: u64 = 1_000_000;

/// Returns what a pod asks for: the sum of its containers, or the largest of those that run before them; and one pod.
///
/// # Errors
/// An amount is none, or of something that is not sold, in words.
pub fn requested(spec: &PodSpec) -> Result<Amounts, String> {
    let mut sum = Amounts { pods: 1, ..Amounts::default() };
    for container in &spec.containers {
        sum = sum.checked_add(&of(container)?).ok_or("it asks for more than can be counted")?;
    }
    for container in spec.init_containers.iter().flatten() {
        sum = sum.most(&of(container)?);
    }
    Ok(sum)
}

fn of(container: &Container) -> Result<Amounts, String> {
    let mut amounts = Amounts::default();
    let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
    for (name, text) in requests {
        let resource = Resource::requested(name).map_err(|_| format!("{name} is not sold"))?;
        let quantity = Quantity::parse(&text.0).map_err(|_| format!("{name} {:?} is no amount", text.0))?;
        amounts.set(&resource, resource.asked(quantity));
    }
    Ok(amounts)
}

/// Returns how much of what was bought is asked for, in parts per million: of the resource of which most is, a rest dropped, and
/// never more than all.
pub fn share(bought: &Amounts, requested: &Amounts) -> u64 {
    let parts = bought.resources().filter(|resource| bought.get(resource) != 0).map(|resource| {
        let part = u128::from(requested.get(&resource)) * u128::from(SHARE_MOST) / u128::from(bought.get(&resource));
        u64::try_from(part).unwrap_or(SHARE_MOST)
    });
    parts.max().unwrap_or(0).min(SHARE_MOST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    fn pod(requests: &serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})).unwrap()
    }

    #[test]
    fn the_share_is_that_of_the_resource_of_which_most_is_asked_for() {
        let bought = Amounts { cpu_milli: 2000, memory_bytes: 4 << 30, pods: 10, ..Amounts::default() };
        let share_of = |requests: serde_json::Value| share(&bought, &requested(&pod(&requests)).unwrap());
        assert_eq!(share_of(json!({"cpu": "500m", "memory": "512Mi"})), 250_000);
        assert_eq!(share_of(json!({"cpu": "100m", "memory": "3Gi"})), 750_000);
        assert_eq!(share_of(json!({})), 100_000, "one of ten pods");
        assert_eq!(share_of(json!({"cpu": "8"})), SHARE_MOST, "never more than all");
        assert_eq!(share(&Amounts::default(), &bought), 0, "of nothing, nothing");
        assert_eq!(requested(&pod(&json!({"hugepages-2Mi": "1Gi"}))), Err("hugepages-2Mi is not sold".into()));
        assert_eq!(
            requested(&pod(&json!({"pods": "1"}))),
            Err("pods is not sold".into()),
            "no container asks for pods"
        );
        let devices = Amounts::asked([(Resource::GPU, "4")]).unwrap();
        assert_eq!(share(&devices, &requested(&pod(&json!({"nvidia.com/gpu": "1"}))).unwrap()), 250_000);
    }

    #[test]
    fn what_runs_first_counts_if_it_is_larger() {
        let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}},
                                         {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
                          "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}}}]});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(requested(&spec).unwrap(), Amounts { cpu_milli: 1000, pods: 1, ..Amounts::default() });
    }
}
