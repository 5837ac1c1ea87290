//! The PodSecurity standard `baseline`: what no pod of another owner, and no pod of a service that is sold, may have. Pure.
//!
//! The words are those of k8s.io/pod-security-admission, so that a user finds them where everybody else does.

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, PodSpec, Probe, SELinuxOptions};

/// Capabilities that `baseline` lets a container add.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls of a pod's own namespaces.
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// Says what of a pod violates the standard, in one sentence.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(spec: &PodSpec) -> Result<(), String> {
    let mut violations = Vec::new();
    check_pod(spec, &mut violations);
    for container in containers(spec) {
        check_container(container, &mut violations);
    }
    match violations.is_empty() {
        true => Ok(()),
        false => Err(format!("violates PodSecurity \"baseline:latest\": {}", violations.join(", "))),
    }
}

/// All containers of a pod, also those that only begin it.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn check_pod(spec: &PodSpec, violations: &mut Vec<String>) {
    let namespaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let host: Vec<String> =
        namespaces.iter().filter(|(_, set)| *set == Some(true)).map(|(name, _)| format!("{name}=true")).collect();
    if !host.is_empty() {
        violations.push(format!("host namespaces ({})", host.join(", ")));
    }
    let paths: Vec<String> =
        spec.volumes.iter().flatten().filter(|v| v.host_path.is_some()).map(|v| format!("{:?}", v.name)).collect();
    if !paths.is_empty() {
        violations.push(format!("hostPath volumes (volume {})", paths.join(", ")));
    }
    let context = spec.security_context.clone().unwrap_or_default();
    let sysctls: Vec<&str> = context
        .sysctls
        .iter()
        .flatten()
        .map(|sysctl| sysctl.name.as_str())
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    if !sysctls.is_empty() {
        violations.push(format!("forbidden sysctls ({})", sysctls.join(", ")));
    }
    if context.seccomp_profile.is_some_and(|profile| profile.type_ == "Unconfined") {
        violations
            .push("seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")".into());
    }
    if context.app_armor_profile.is_some_and(|profile| profile.type_ == "Unconfined") {
        violations.push("forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")".into());
    }
    if let Some(why) = selinux(context.se_linux_options.as_ref()) {
        violations.push(format!("seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: {why})"));
    }
    if context.windows_options.is_some_and(|options| options.host_process == Some(true)) {
        violations.push("hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)".into());
    }
}

fn check_container(container: &Container, violations: &mut Vec<String>) {
    let name = &container.name;
    let context = container.security_context.clone().unwrap_or_default();
    let mut add = |what: &str, detail: String| violations.push(format!("{what} (container {name:?} {detail})"));
    if context.privileged == Some(true) {
        add("privileged", "must not set securityContext.privileged=true".into());
    }
    let ports: Vec<String> = container
        .ports
        .iter()
        .flatten()
        .filter_map(|p| p.host_port)
        .filter(|p| *p != 0)
        .map(|p| p.to_string())
        .collect();
    if !ports.is_empty() {
        add("hostPort", format!("uses hostPort {}", ports.join(", ")));
    }
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let added: Vec<String> =
        added.filter(|name| !CAPABILITIES.contains(&name.as_str())).map(|name| format!("{name:?}")).collect();
    if !added.is_empty() {
        add(
            "non-default capabilities",
            format!("must not include {} in securityContext.capabilities.add", added.join(", ")),
        );
    }
    if let Some(kind) = context.proc_mount.as_deref().filter(|kind| *kind != "Default") {
        add("procMount", format!("must not set securityContext.procMount to {kind:?}"));
    }
    if context.seccomp_profile.is_some_and(|profile| profile.type_ == "Unconfined") {
        add("seccompProfile", "must not set securityContext.seccompProfile.type to \"Unconfined\"".into());
    }
    if context.app_armor_profile.is_some_and(|profile| profile.type_ == "Unconfined") {
        add("forbidden AppArmor profile", "must not set AppArmor profile type to \"Unconfined\"".into());
    }
    if let Some(why) = selinux(context.se_linux_options.as_ref()) {
        add("seLinuxOptions", format!("set forbidden securityContext.seLinuxOptions: {why}"));
    }
    if context.windows_options.is_some_and(|options| options.host_process == Some(true)) {
        add("hostProcess", "must not set securityContext.windowsOptions.hostProcess=true".into());
    }
    // A probe is made by the machine's own kubelet: it would look at the provider's network.
    let hosts: Vec<String> = probe_hosts(container).into_iter().map(|host| format!("{host:?}")).collect();
    if !hosts.is_empty() {
        add("probe or lifecycle host", format!("uses probe or lifecycle host {}", hosts.join(", ")));
    }
}

fn probe_hosts(container: &Container) -> Vec<String> {
    let of_probe = |probe: &Probe| {
        [
            probe.http_get.as_ref().and_then(|get| get.host.clone()),
            probe.tcp_socket.as_ref().and_then(|tcp| tcp.host.clone()),
        ]
    };
    let of_handler = |handler: &LifecycleHandler| {
        [
            handler.http_get.as_ref().and_then(|get| get.host.clone()),
            handler.tcp_socket.as_ref().and_then(|tcp| tcp.host.clone()),
        ]
    };
    let of_lifecycle = |lifecycle: &Lifecycle| [lifecycle.post_start.clone(), lifecycle.pre_stop.clone()];
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let handlers = container.lifecycle.iter().flat_map(of_lifecycle).flatten();
    let hosts =
        probes.into_iter().flatten().flat_map(of_probe).chain(handlers.flat_map(|handler| of_handler(&handler)));
    hosts.flatten().filter(|host| !host.is_empty()).collect()
}

fn selinux(options: Option<&SELinuxOptions>) -> Option<String> {
    let options = options?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (kind, user, role) = (text(&options.type_), text(&options.user), text(&options.role));
    if !SELINUX_TYPES.contains(&kind.as_str()) {
        Some(format!("type {kind:?}"))
    } else if !user.is_empty() {
        Some(format!("user {user:?}"))
    } else {
        (!role.is_empty()).then(|| format!("role {role:?}"))
    }
}
