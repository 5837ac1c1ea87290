//! As whom and with what rights a container runs: the pod's and the container's security contexts, decided. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::ConfigError;
use engine_runtime::capabilities;
use engine_runtime::{Seccomp, User};

/// The rights of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// As whom.
    pub user: User,
    /// Capabilities as a bit set.
    pub capabilities: u64,
    /// Whether set-uid programs are powerless.
    pub no_new_privs: bool,
    /// No confinement.
    pub privileged: bool,
    /// Whether the image is read-only.
    pub read_only_root: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
}

/// What `container` of `pod` gets, for an image whose user is `image_user`.
///
/// A pod that says nothing gets the RuntimeDefault filter (KEP-2413, on).
///
/// # Errors
/// It asks for something that cannot be had: a Localhost profile, an unknown capability, a user that is root although
/// it must not be.
pub fn decide(pod: &Pod, container: &Container, image_user: &str) -> Result<Rights, ConfigError> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let uid = id(own.run_as_user.or(of_pod.run_as_user), "runAsUser")?;
    let gid = id(own.run_as_group.or(of_pod.run_as_group), "runAsGroup")?;
    let mut groups = Vec::new();
    for group in of_pod.supplemental_groups.iter().flatten().chain(&of_pod.fs_group) {
        groups.extend(id(Some(*group), "a group")?);
    }
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        must_not_be_root(uid, image_user)?;
    }
    let (add, drop) =
        own.capabilities.map(|c| (c.add.unwrap_or_default(), c.drop.unwrap_or_default())).unwrap_or_default();
    let capabilities = match privileged {
        true => capabilities::all(),
        false => capabilities::resolve(&add, &drop)
            .map_err(|name| ConfigError::Invalid(format!("unknown capability {name:?}")))?,
    };
    Ok(Rights {
        // A uid without a gid is not the image's user any more; its group is then root's, as engines have it.
        user: User { image_user: image_user.to_owned(), uid, gid, groups },
        capabilities,
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        seccomp: seccomp(own.seccomp_profile.or(of_pod.seccomp_profile).as_ref())?,
    })
}

fn seccomp(profile: Option<&SeccompProfile>) -> Result<Seccomp, ConfigError> {
    match profile.map_or("RuntimeDefault", |p| p.type_.as_str()) {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        other => Err(ConfigError::Unsupported(format!("seccomp profile of type {other}"))),
    }
}

fn must_not_be_root(uid: Option<u32>, image_user: &str) -> Result<(), ConfigError> {
    let name = image_user.split(':').next().unwrap_or_default();
    match (uid, name.parse::<u32>()) {
        (Some(0), _) => Err(ConfigError::Invalid("container's runAsUser breaks non-root policy".to_owned())),
        (Some(_), _) => Ok(()),
        (None, Ok(0)) => Err(ConfigError::Invalid("container has runAsNonRoot and image will run as root".to_owned())),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) if name.is_empty() => {
            Err(ConfigError::Invalid("container has runAsNonRoot and image will run as root".to_owned()))
        }
        (None, Err(_)) => Err(ConfigError::Invalid(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        ))),
    }
}

fn id(value: Option<i64>, what: &str) -> Result<Option<u32>, ConfigError> {
    match value.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(ConfigError::Invalid(format!("{what} is no 32-bit id"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;

    fn check(of_pod: serde_json::Value, own: serde_json::Value, image_user: &str) -> Result<Rights, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"securityContext": of_pod,
            "containers": [{"name": "c", "securityContext": own}]}}))
        .unwrap();
        decide(&pod, &pod.spec.as_ref().unwrap().containers[0], image_user).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_said_is_the_default_profile() {
        let rights = check(json!({}), json!({}), "").unwrap();
        assert_eq!(rights.capabilities, capabilities::default_set());
        assert_eq!((rights.seccomp, rights.no_new_privs, rights.privileged), (Seccomp::RuntimeDefault, false, false));
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let of_pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "Unconfined"}});
        let rights = check(
            of_pod,
            json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
            "web",
        )
        .unwrap();
        assert_eq!((rights.user.uid, rights.user.gid, rights.user.groups.as_slice()), (Some(9), Some(2), &[4, 3][..]));
        assert_eq!((rights.capabilities, rights.no_new_privs, rights.seccomp), (0, true, Seccomp::Unconfined));
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let localhost = check(json!({}), json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}), "");
        assert_eq!(localhost.unwrap_err(), "not supported on this node: seccomp profile of type Localhost");
        let root = check(json!({"runAsNonRoot": true}), json!({}), "");
        assert_eq!(root.unwrap_err(), "container has runAsNonRoot and image will run as root");
        assert!(check(json!({"runAsNonRoot": true}), json!({}), "web").unwrap_err().contains("non-numeric user (web)"));
        assert!(check(json!({"runAsNonRoot": true}), json!({}), "101:5").is_ok());
        assert!(check(json!({}), json!({"capabilities": {"add": ["FLY"]}}), "").unwrap_err().contains("FLY"));
    }
}
