//! Which handler runs a pod: its RuntimeClass names it. One that this kubelet has not got is refused, never replaced by another.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Api, Client};

/// The handler that the pod's class names, which is one of these; none for a pod without a class.
///
/// # Errors
/// Why no sandbox can be made of it, in words; it may be mended in the API.
pub async fn handler(client: &Client, pod: &Pod, known: &[String]) -> Result<Option<String>, String> {
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) else { return Ok(None) };
    let class = Api::<RuntimeClass>::all(client.clone()).get_opt(name).await;
    let class = class.map_err(|error| format!("failed to get runtimeclass.node.k8s.io {name:?}: {error}"))?;
    let class = class.ok_or_else(|| format!("runtimeclass.node.k8s.io {name:?} not found"))?;
    handled(name, class.handler, known).map(Some)
}

fn handled(class: &str, handler: String, known: &[String]) -> Result<String, String> {
    if known.contains(&handler) {
        return Ok(handler);
    }
    let known = known.join(", ");
    Err(format!("no runtime for {handler:?} is configured (RuntimeClass {class:?}), needed one of: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_there_is_not_is_refused_by_its_name() {
        let known = ["cri".to_owned(), "oci".to_owned()];
        assert_eq!(handled("usual", "oci".into(), &known), Ok("oci".into()));
        let refused = "no runtime for \"kata\" is configured (RuntimeClass \"strong\"), needed one of: cri, oci";
        assert_eq!(handled("strong", "kata".into(), &known), Err(refused.to_owned()));
    }
}
