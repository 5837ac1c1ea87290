//! As whom and with what rights a container runs: the pod's and the container's security contexts, decided. Pure.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use nix::fcntl::OFlag;

use super::ConfigError;
use engine_host::rooted::Rooted;
use engine_runtime::capabilities;
use engine_runtime::{Seccomp, User};

/// A profile that names every call has some 20 KiB.
const PROFILE_MAX: u64 = 1 << 20;
/// What a pod may set without being asked, as upstream lists it.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

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
/// `profile` answers the text of a Localhost profile. Where it is `fenced` (the handler `process`) it has no capability that it does not
/// name, and nobody is root unasked.
///
/// # Errors
/// It asks for something that cannot be had: a profile that is not there, an unknown capability, a user that is root although
/// it must not be, a way through the fences.
pub fn decide(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    fenced: bool,
    profile: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Rights, ConfigError> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    if fenced && (privileged || own.allow_privilege_escalation == Some(true)) {
        let what = if privileged { "privileged" } else { "allowPrivilegeEscalation" };
        let why = format!(
            "{what}: true with the handler process, whose fences let nobody through; take it away, or use the handler oci"
        );
        return Err(ConfigError::Unsupported(why));
    }
    let uid = id(own.run_as_user.or(of_pod.run_as_user), "runAsUser")?;
    let gid = id(own.run_as_group.or(of_pod.run_as_group), "runAsGroup")?;
    let mut groups = Vec::new();
    for group in of_pod.supplemental_groups.iter().flatten().chain(&of_pod.fs_group) {
        groups.extend(id(Some(*group), "a group")?);
    }
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) && !(fenced && uid.is_none()) {
        must_not_be_root(uid, image_user)?;
    }
    let (add, drop) =
        own.capabilities.map(|c| (c.add.unwrap_or_default(), c.drop.unwrap_or_default())).unwrap_or_default();
    let capabilities = match privileged {
        true => capabilities::all(),
        false => capabilities::resolve(if fenced { 0 } else { capabilities::default_set() }, &add, &drop)
            .map_err(|name| ConfigError::Invalid(format!("unknown capability {name:?}")))?,
    };
    Ok(Rights {
        // A uid without a gid is not the image's user any more; its group is then root's, as engines have it.
        user: User {
            image_user: image_user.to_owned(),
            uid,
            gid,
            groups,
            only_these_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        },
        capabilities,
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        seccomp: seccomp(own.seccomp_profile.or(of_pod.seccomp_profile).as_ref(), profile)?,
    })
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    text: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Seccomp, ConfigError> {
    let file = profile.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
    match profile.map_or("RuntimeDefault", |p| p.type_.as_str()) {
        "Localhost" => text(file).map(Seccomp::Profile).map_err(ConfigError::Invalid),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        other => Err(ConfigError::Unsupported(format!("seccomp profile of type {other}"))),
    }
}

/// The text of a profile below the directory of profiles; a name cannot lead out of it.
///
/// # Errors
/// There is none, or it is larger than 1 MiB.
pub fn local_profile(dir: &Path, name: &str) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot load seccomp profile {:?}: {e}", dir.join(name));
    let root = Rooted::open(dir).map_err(failed)?;
    let file = root.open_in(Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(failed)?;
    let mut text = String::new();
    File::from(file).take(PROFILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > PROFILE_MAX {
        true => Err(failed(std::io::Error::other("it is larger than 1 MiB"))),
        false => Ok(text),
    }
}

/// The first setting of the kernel that a pod may not have, in the words of every kubelet. Those that are allowed are
/// of the pod's own namespaces and cost nobody else anything.
pub fn forbidden_sysctl(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let asked = spec.security_context.as_ref()?.sysctls.iter().flatten();
    asked.into_iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let quoted = &sysctl.name;
        match SYSCTLS.contains(&name.as_str()) {
            false => Some(format!("forbidden sysctl: {quoted:?} not allowlisted")),
            true if name.starts_with("net.") && spec.host_network == Some(true) => {
                Some(format!("forbidden sysctl: {quoted:?} not allowed with host net enabled"))
            }
            true if name.starts_with("kernel.") && spec.host_ipc == Some(true) => {
                Some(format!("forbidden sysctl: {quoted:?} not allowed with host ipc enabled"))
            }
            true => None,
        }
    })
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
        judged(of_pod, own, image_user, false)
    }

    fn judged(
        of_pod: serde_json::Value,
        own: serde_json::Value,
        image_user: &str,
        fenced: bool,
    ) -> Result<Rights, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"securityContext": of_pod,
            "containers": [{"name": "c", "securityContext": own}]}}))
        .unwrap();
        let profile = |name: &str| if name == "there" { Ok("{}".into()) } else { Err(format!("no {name}")) };
        decide(&pod, &pod.spec.as_ref().unwrap().containers[0], image_user, fenced, &profile).map_err(|e| e.to_string())
    }

    #[test]
    fn settings_that_a_pod_may_not_have() {
        let said = |spec: serde_json::Value, name: &str| {
            let mut spec = spec;
            spec["containers"] = json!([]);
            spec["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            forbidden_sysctl(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
                .unwrap_or_default()
        };
        assert_eq!(said(json!({}), "net.ipv4.tcp_syncookies"), "");
        assert_eq!(said(json!({}), "net/ipv4/tcp_syncookies"), "");
        assert_eq!(said(json!({}), "kernel.msgmax"), "forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        let host = json!({"hostNetwork": true, "hostIPC": true});
        let net = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled";
        assert_eq!(said(host.clone(), "net.ipv4.tcp_syncookies"), net);
        let ipc = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled";
        assert_eq!(said(host, "kernel.shm_rmid_forced"), ipc);
    }

    #[test]
    fn profiles_are_read_below_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("seccomp/audit")).unwrap();
        std::fs::write(dir.path().join("seccomp/audit/a.json"), "{}").unwrap();
        std::fs::write(dir.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink("../secret", dir.path().join("seccomp/out")).unwrap();
        let read = |name: &str| local_profile(&dir.path().join("seccomp"), name);
        assert_eq!(read("audit/a.json").unwrap(), "{}");
        for name in ["none", "out", "../secret"] {
            assert!(read(name).unwrap_err().starts_with("cannot load seccomp profile"), "{name}");
        }
        std::fs::write(dir.path().join("seccomp/large"), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(read("large").unwrap_err().contains("larger than 1 MiB"));
    }

    #[test]
    fn nothing_said_is_the_default_profile() {
        let rights = check(json!({}), json!({}), "").unwrap();
        assert_eq!(rights.capabilities, capabilities::default_set());
        assert_eq!((rights.seccomp, rights.no_new_privs, rights.privileged), (Seccomp::RuntimeDefault, false, false));
    }

    #[test]
    fn behind_fences_nothing_is_usual() {
        let fenced = |own: serde_json::Value| judged(json!({"runAsNonRoot": true}), own, "", true);
        assert_eq!(fenced(json!({})).unwrap().capabilities, 0, "who runs there is not root unasked");
        assert_eq!(fenced(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}})).unwrap().capabilities, 1 << 10);
        assert_eq!(fenced(json!({"runAsUser": 0})).unwrap_err(), "container's runAsUser breaks non-root policy");
        for name in ["privileged", "allowPrivilegeEscalation"] {
            let refused = fenced(json!({name: true})).unwrap_err();
            assert!(refused.starts_with(&format!("not supported on this node: {name}: true with the handler process")));
        }
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
        let local = |name: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
        assert_eq!(check(json!({}), local("x"), "").unwrap_err(), "no x");
        assert_eq!(check(json!({}), local("there"), "").unwrap().seccomp, Seccomp::Profile("{}".into()));
        let odd = check(json!({}), json!({"seccompProfile": {"type": "Odd"}}), "");
        assert_eq!(odd.unwrap_err(), "not supported on this node: seccomp profile of type Odd");
        let root = check(json!({"runAsNonRoot": true}), json!({}), "");
        assert_eq!(root.unwrap_err(), "container has runAsNonRoot and image will run as root");
        assert!(check(json!({"runAsNonRoot": true}), json!({}), "web").unwrap_err().contains("non-numeric user (web)"));
        assert!(check(json!({"runAsNonRoot": true}), json!({}), "101:5").is_ok());
        assert!(check(json!({}), json!({"capabilities": {"add": ["FLY"]}}), "").unwrap_err().contains("FLY"));
    }
}
