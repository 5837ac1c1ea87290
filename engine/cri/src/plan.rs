//! What the runtime is told of a sandbox and of a container. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use engine_runtime::{ContainerConfig, SandboxConfig, Seccomp, User, capabilities, cgroups};

use crate::messages::{self as cri, namespace, profile};

/// By what a runtime finds again what is ours; in the form that CRI wants of labels.
pub(crate) mod label {
    /// Whose sandbox or container it is: the directory of one [`CriRuntime`](crate::CriRuntime).
    pub const OWNER: &str = "engine.cri/owner";
    pub const POD: &str = "engine.cri/pod";
    pub const RUN: &str = "engine.cri/run";
    pub const NAME: &str = "engine.cri/name";
    pub const ATTEMPT: &str = "engine.cri/attempt";
    /// An annotation: where the kernel counts out-of-memory kills.
    pub const OOM_FILE: &str = "engine.cri/oom-file";
}

/// What a container takes from outside its configuration.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The image, as the runtime names it.
    pub image: String,
    pub mounts: Vec<cri::Mount>,
    /// The runtime's name of the container whose processes are its own, too.
    pub target: Option<String>,
    /// The file of a profile of seccomp.
    pub profile: Option<String>,
}

pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> cri::Map {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A sandbox; `privileged` if such a container is to run in it.
pub(crate) fn sandbox(config: &SandboxConfig, owner: &str, attempt: u32, privileged: bool) -> cri::PodSandboxConfig {
    let cgroup = config.cgroups.first().and_then(|dir| cgroups::path_in_tree(dir));
    let security = cri::LinuxSandboxSecurityContext {
        namespaces: Some(namespaces(config, namespace::CONTAINER, None)),
        privileged,
        seccomp: Some(cri::SecurityProfile { kind: profile::RUNTIME_DEFAULT, file: String::new() }),
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: config.pod_uid.clone(),
            uid: config.pod_uid.clone(),
            namespace: "pods".to_owned(), // of ours; which one the pod has is not known here
            attempt,
        }),
        // With the machine's network a pod has the machine's name.
        hostname: config.hostname.clone().filter(|_| config.netns.is_some()).unwrap_or_default(),
        log_directory: "/".to_owned(), // a container says the whole path of its log
        labels: labels([(label::OWNER, owner), (label::POD, &config.pod_uid)]),
        annotations: cri::Map::new(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup.map(|path| path.display().to_string()).unwrap_or_default(),
            security: Some(security),
            sysctls: config.sysctls.clone(),
        }),
    }
}

fn namespaces(config: &SandboxConfig, pid: i32, target: Option<&str>) -> cri::NamespaceOption {
    let machine = |is: bool| if is { namespace::NODE } else { namespace::POD };
    let pid = match target {
        Some(_) => namespace::TARGET,
        None if config.share_processes && pid == namespace::CONTAINER => namespace::POD,
        None => pid,
    };
    let target_id = target.unwrap_or_default().to_owned();
    cri::NamespaceOption { network: machine(config.netns.is_none()), pid, ipc: machine(config.host_ipc), target_id }
}

/// A container, and the sandbox as this container is told of it.
///
/// # Errors
/// What the runtime cannot do.
pub(crate) fn container(
    config: &ContainerConfig,
    sandbox: &SandboxConfig,
    owner: &str,
    given: Given,
) -> Result<(cri::ContainerConfig, cri::PodSandboxConfig), String> {
    let pid = if config.host_pid { namespace::NODE } else { namespace::CONTAINER };
    let (user, user_name, group) = user(&config.user)?;
    let seccomp = match &config.seccomp {
        _ if config.privileged => (profile::UNCONFINED, None),
        Seccomp::RuntimeDefault => (profile::RUNTIME_DEFAULT, None),
        Seccomp::Unconfined => (profile::UNCONFINED, None),
        Seccomp::Profile(_) => (profile::LOCALHOST, given.profile),
    };
    let rights = cri::Capability {
        add: capabilities::names(config.capabilities).map(str::to_owned).collect(),
        drop: vec!["ALL".to_owned()], // first: what is added is all there is
    };
    let unless_privileged = |paths: &[&str]| match config.privileged {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let security = cri::LinuxContainerSecurityContext {
        capabilities: Some(rights).filter(|_| !config.privileged),
        privileged: config.privileged,
        namespaces: Some(namespaces(sandbox, pid, given.target.as_deref())),
        user,
        user_name,
        read_only_root: config.read_only_root,
        groups: config.user.groups.iter().map(|group| i64::from(*group)).collect(),
        no_new_privs: config.no_new_privs,
        group,
        // The runtime hides nothing by itself.
        masked_paths: unless_privileged(&engine_runtime::MASKED_PATHS),
        read_only_paths: unless_privileged(&engine_runtime::READ_ONLY_PATHS),
        seccomp: Some(cri::SecurityProfile { kind: seccomp.0, file: seccomp.1.unwrap_or_default() }),
    };
    let mut own = labels([
        (label::OWNER, owner),
        (label::POD, &sandbox.pod_uid),
        (label::RUN, &config.id),
        (label::NAME, &config.name),
    ]);
    own.insert(label::ATTEMPT.to_owned(), config.attempt.to_string());
    let oom_file = config.oom_file.iter().map(|file| (label::OOM_FILE.to_owned(), file.display().to_string()));
    let envs = config.env.iter().filter_map(|pair| pair.split_once('='));
    // A name and an attempt are given once to a runtime; a run whose start was lost on the way must not bar the next.
    let unique = config.id.get(..12).unwrap_or(&config.id);
    let container = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: format!("{}-{unique}", config.name), attempt: config.attempt }),
        image: Some(cri::ImageSpec { image: given.image }),
        command: config.args.clone(),
        working_dir: config.cwd.clone(),
        envs: envs.map(|(key, value)| cri::KeyValue { key: key.to_owned(), value: value.to_owned() }).collect(),
        mounts: given.mounts,
        labels: own,
        annotations: oom_file.collect::<BTreeMap<_, _>>(),
        log_path: config.log.strip_prefix("/").unwrap_or(&config.log).display().to_string(),
        stdin: config.stdin || config.tty, // a terminal is always open
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources { oom_score_adj: config.oom_score_adj.into() }),
            security: Some(security),
        }),
    };
    let mut outer = self::sandbox(sandbox, owner, 0, config.privileged);
    if let (Some(linux), Some(dir)) = (&mut outer.linux, config.cgroups.first()) {
        // The container's own cgroup, which has its limits: what the runtime makes is inside it.
        linux.cgroup_parent = cgroups::path_in_tree(dir).map(|path| path.display().to_string()).unwrap_or_default();
    }
    Ok((container, outer))
}

type Identity = (Option<cri::Int64Value>, String, Option<cri::Int64Value>);

/// As whom, in CRI's words: a number or a name, and a group only with one of them.
fn user(user: &User) -> Result<Identity, String> {
    if user.only_these_groups {
        return Err(
            "supplementalGroupsPolicy: Strict is not supported by the handler, needed Merge or the handler \"oci\""
                .to_owned(),
        );
    }
    let number = |id: u32| Some(cri::Int64Value { value: id.into() });
    let group = user.gid.and_then(number);
    let (of_image, has_group) =
        user.image_user.split_once(':').map_or((user.image_user.as_str(), false), |(name, _)| (name, true));
    Ok(match (user.uid, of_image.parse::<u32>()) {
        (Some(uid), _) => (number(uid), String::new(), group),
        (None, _) if group.is_none() && has_group => (None, String::new(), None), // the runtime reads the image itself
        (None, Ok(uid)) => (number(uid), String::new(), group),
        (None, Err(_)) if of_image.is_empty() => (group.as_ref().and_then(|_| number(0)), String::new(), group),
        (None, Err(_)) => (None, of_image.to_owned(), group),
    })
}

/// A mount of the machine's file or directory.
pub(crate) fn mount(mount: &engine_runtime::Mount, host: &Path) -> cri::Mount {
    cri::Mount {
        inside: mount.destination.display().to_string(),
        host: host.display().to_string(),
        read_only: mount.read_only,
        propagation: i32::from(mount.follows_host), // private, or from the machine into the container
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    fn told(image_user: &str, uid: Option<u32>, gid: Option<u32>) -> String {
        let of = User { image_user: image_user.into(), uid, gid, ..User::default() };
        let (number, name, group) = user(&of).unwrap();
        format!("{:?} {name:?} {:?}", number.map(|n| n.value), group.map(|n| n.value))
    }

    #[test]
    fn users_in_the_words_of_cri() {
        assert_eq!(told("web:web", None, None), "None \"\" None");
        assert_eq!(told("web", Some(5), Some(6)), "Some(5) \"\" Some(6)");
        assert_eq!(told("web:web", None, Some(6)), "None \"web\" Some(6)");
        assert_eq!(told("7:8", None, Some(6)), "Some(7) \"\" Some(6)");
        assert_eq!(told("", None, Some(6)), "Some(0) \"\" Some(6)");
        assert_eq!(told("", None, None), "None \"\" None");
        assert_eq!(told("web", None, None), "None \"web\" None");
        assert!(user(&User { only_these_groups: true, ..User::default() }).is_err());
    }
}
