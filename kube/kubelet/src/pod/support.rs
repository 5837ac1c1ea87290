//! What this kubelet does not do, said before anything is started. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::host_ports;
use super::located::is_located;
use crate::node::is_extended;

/// The first thing `pod` asks for that is not built, in words; `None` when all of it is.
pub fn unsupported(pod: &Pod, dual: bool) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let host_network = spec.host_network == Some(true);
    let context = spec.security_context.clone().unwrap_or_default();
    let of_pod = [
        (spec.resources.is_some(), "resources of a whole pod"),
        (spec.host_users == Some(false), "user namespaces (hostUsers: false)"),
        (
            context.app_armor_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"),
            "AppArmor profiles of type Localhost",
        ),
        (spec.resource_claims.iter().flatten().next().is_some(), "resource claims"),
        (spec.os.as_ref().is_some_and(|os| os.name != "linux"), "operating systems other than linux"),
    ];
    let found = of_pod.iter().find(|(asked, _)| *asked).map(|(_, what)| (*what).to_owned());
    found
        .or_else(|| spec.volumes.iter().flatten().find_map(volume))
        .or_else(|| super::init(pod).chain(&spec.containers).find_map(|c| container(c, host_network, dual)))
}

fn volume(volume: &Volume) -> Option<String> {
    let known = volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some();
    let odd = match (&volume.empty_dir, &volume.projected) {
        (Some(dir), _) => dir.medium.as_deref().is_some_and(|m| !m.is_empty() && m != "Memory"),
        (None, Some(p)) => {
            p.sources.iter().flatten().any(|s| s.cluster_trust_bundle.is_some() || s.pod_certificate.is_some())
        }
        (None, None) => !known && !is_located(volume),
    };
    odd.then(|| format!("the kind of volume {:?}", volume.name))
}

/// The same of one container; `dual` says whether pods have addresses of both families.
pub fn container(container: &Container, host_network: bool, dual: bool) -> Option<String> {
    let ports = container.ports.iter().flatten();
    let mounts = container.volume_mounts.iter().flatten();
    let context = container.security_context.clone().unwrap_or_default();
    let resources = container.resources.clone().unwrap_or_default();
    let listed = resources.limits.iter().flatten().chain(resources.requests.iter().flatten());
    let other = listed
        .map(|(name, _)| name)
        .find(|n| !matches!(n.as_str(), "cpu" | "memory" | "ephemeral-storage") && !is_extended(n));
    let checks = [
        (
            mounts.clone().any(|m| m.mount_propagation.as_deref() == Some("Bidirectional")),
            "mountPropagation Bidirectional",
        ),
        (mounts.clone().any(|m| m.recursive_read_only.as_deref() == Some("Enabled")), "recursiveReadOnly Enabled"),
        (container.volume_devices.iter().flatten().next().is_some(), "block volumes"),
        (context.app_armor_profile.is_some_and(|p| p.type_ == "Localhost"), "AppArmor profiles of type Localhost"),
        (context.proc_mount.as_deref().is_some_and(|p| p != "Default"), "procMount"),
    ];
    let port = (!host_network)
        .then(|| ports.filter_map(|port| host_ports::refused(port, dual)).next())
        .flatten()
        .map(str::to_owned);
    let found = checks.iter().find(|(asked, _)| *asked).map(|(_, what)| (*what).to_owned()).or(port);
    found
        .or_else(|| other.map(|name| format!("the resource {name}")))
        .map(|what| format!("{what} (container {})", container.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value) -> Option<String> {
        unsupported(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap(), false)
    }

    #[test]
    fn named_in_words() {
        let c = json!({"name": "c"});
        assert_eq!(
            check(json!({"containers": [c], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]})),
            None
        );
        let port = json!({"name": "i", "ports": [{"containerPort": 1, "hostPort": 1, "protocol": "SCTP"}]});
        assert_eq!(
            check(json!({"containers": [c], "initContainers": [port]})).unwrap(),
            "hostPort for SCTP (container i)"
        );
        let path = json!({"containers": [c], "volumes": [{"name": "v", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}]});
        assert_eq!(check(path).unwrap(), "the kind of volume \"v\"");
        let port = json!({"name": "c", "ports": [{"containerPort": 1, "hostPort": 1, "protocol": "SCTP"}]});
        assert_eq!(check(json!({"containers": [port]})).unwrap(), "hostPort for SCTP (container c)");
        assert_eq!(check(json!({"containers": [port], "hostNetwork": true})), None);
        let counted = json!({"name": "c", "resources": {"limits": {"example.com/licence": "1"}}});
        assert_eq!(
            check(json!({"containers": [counted]})),
            None,
            "what a Node advertises is counted, by the scheduler"
        );
        let pages = json!({"name": "c", "resources": {"limits": {"hugepages-2Mi": "1Gi"}}});
        assert_eq!(check(json!({"containers": [pages]})).unwrap(), "the resource hugepages-2Mi (container c)");
    }
}
