//! Which handler runs a pod: its RuntimeClass names it. One that this kubelet has not got is refused, never replaced by another.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Api, Client};

/// Containers under the supervisor of this kubelet.
pub const HANDLERS: [&str; 1] = ["oci"];

/// Checks that the pod's class is there and has a handler of this node.
///
/// # Errors
/// Why no sandbox can be made of it, in words; it may be mended in the API.
pub async fn check(client: &Client, pod: &Pod) -> Result<(), String> {
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) else { return Ok(()) };
    let class = Api::<RuntimeClass>::all(client.clone()).get_opt(name).await;
    let class = class.map_err(|error| format!("failed to get runtimeclass.node.k8s.io {name:?}: {error}"))?;
    let class = class.ok_or_else(|| format!("runtimeclass.node.k8s.io {name:?} not found"))?;
    handled(name, &class.handler)
}

fn handled(class: &str, handler: &str) -> Result<(), String> {
    if HANDLERS.contains(&handler) {
        return Ok(());
    }
    let known = HANDLERS.join(", ");
    Err(format!("no runtime for {handler:?} is configured (RuntimeClass {class:?}), needed one of: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_there_is_not_is_refused_by_its_name() {
        assert_eq!(handled("usual", "oci"), Ok(()));
        let refused = "no runtime for \"kata\" is configured (RuntimeClass \"strong\"), needed one of: oci";
        assert_eq!(handled("strong", "kata"), Err(refused.to_owned()));
    }
}
