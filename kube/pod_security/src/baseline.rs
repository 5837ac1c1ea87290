//! Level `baseline`: nothing that reaches the machine, its network, or what else runs on it. What `restricted` judges more strictly is
//! left to it, so that it is said once.

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Probe, SELinuxOptions, SeccompProfile};

use crate::{Each, Level, Look};

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
const SYSCTLS: [&str; 12] = [
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
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub(crate) fn check(look: &mut Look<'_>, level: Level) {
    reaches(look, level);
    privileges(look, level);
    confinement(look, level);
}

/// What of the machine it shares.
fn reaches(look: &mut Look<'_>, level: Level) {
    let spec = look.spec;
    let namespaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let host: Vec<String> =
        namespaces.iter().filter(|(_, set)| *set == Some(true)).map(|(name, _)| format!("{name}=true")).collect();
    look.report("host namespaces", [joined(&host)]);
    if level < Level::Restricted {
        let paths: Vec<String> =
            spec.volumes.iter().flatten().filter(|v| v.host_path.is_some()).map(|v| format!("{:?}", v.name)).collect();
        let word = if paths.len() > 1 { "volumes" } else { "volume" };
        look.report("hostPath volumes", [joined(&paths).map(|names| format!("{word} {names}"))]);
    }
    let ports: Vec<(&str, Vec<String>)> =
        look.each.iter().map(|each| (each.name, each.container.map(host_ports).unwrap_or_default())).collect();
    let who = look.who(|each| ports.iter().any(|(name, ports)| *name == each.name && !ports.is_empty()));
    let mut used: Vec<String> = ports.into_iter().flat_map(|(_, ports)| ports).collect();
    used.sort();
    used.dedup();
    let (uses, word) = (verb(&who, "uses", "use"), if used.len() > 1 { "hostPorts" } else { "hostPort" });
    look.report("hostPort", [who.map(|who| who.must(&format!("{uses} {word} {}", used.join(", "))))]);
    // A probe is made by the machine's own kubelet: it would look at the machine's network.
    let hosts: Vec<String> = look
        .each
        .iter()
        .filter_map(|each| each.container)
        .flat_map(probe_hosts)
        .map(|host| format!("{host:?}"))
        .collect();
    let who = look.who(|each| each.container.is_some_and(|container| !probe_hosts(container).is_empty()));
    let uses = verb(&who, "uses", "use");
    look.report(
        "probe or lifecycle host",
        [who.map(|who| who.must(&format!("{uses} probe or lifecycle host {}", hosts.join(", "))))],
    );
    let windows = |options: &Option<k8s_openapi::api::core::v1::WindowsSecurityContextOptions>| {
        options.as_ref().is_some_and(|options| options.host_process == Some(true))
    };
    let pod = windows(&look.pod.windows_options)
        .then(|| "pod must not set securityContext.windowsOptions.hostProcess=true".to_owned());
    let who = look.who(|each| windows(&each.context.windows_options));
    look.report(
        "hostProcess",
        [pod, who.map(|who| who.must("must not set securityContext.windowsOptions.hostProcess=true"))],
    );
}

/// What it may do that others may not.
fn privileges(look: &mut Look<'_>, level: Level) {
    let who = look.who(|each| each.context.privileged == Some(true));
    look.report("privileged", [who.map(|who| who.must("must not set securityContext.privileged=true"))]);
    if level < Level::Restricted {
        let (who, added) = adds(look, &CAPABILITIES);
        let what = format!("must not include {added} in securityContext.capabilities.add");
        look.report("non-default capabilities", [who.map(|who| who.must(&what))]);
    }
    let sysctls: Vec<String> = look.pod.sysctls.iter().flatten().map(|sysctl| sysctl.name.clone()).collect();
    let sysctls: Vec<String> = sysctls.into_iter().filter(|name| !SYSCTLS.contains(&name.as_str())).collect();
    look.report("forbidden sysctls", [joined(&sysctls)]);
}

/// The containers that add other capabilities than these, and which.
pub(crate) fn adds(look: &Look<'_>, allowed: &[&str]) -> (Option<crate::Who>, String) {
    let other = |each: &Each<'_>| -> Vec<String> {
        let added = each.context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        added.filter(|name| !allowed.contains(&name.as_str())).map(|name| format!("{name:?}")).collect()
    };
    let mut names: Vec<String> = look.each.iter().flat_map(other).collect();
    names.sort();
    names.dedup();
    (look.who(|each| !other(each).is_empty()), names.join(", "))
}

/// What of the machine's confinement it takes off.
fn confinement(look: &mut Look<'_>, level: Level) {
    let who = look.who(|each| each.context.proc_mount.as_deref().is_some_and(|kind| kind != "Default"));
    let kinds = look.each.iter().filter_map(|each| each.context.proc_mount.clone()).filter(|kind| kind != "Default");
    let kinds: Vec<String> = kinds.map(|kind| format!("{kind:?}")).collect();
    look.report(
        "procMount",
        [who.map(|who| who.must(&format!("must not set securityContext.procMount to {}", kinds.join(", "))))],
    );
    if level < Level::Restricted {
        let open =
            |profile: &Option<SeccompProfile>| profile.as_ref().is_some_and(|profile| profile.type_ == "Unconfined");
        let what = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
        let pod = open(&look.pod.seccomp_profile).then(|| format!("pod {what}"));
        let who = look.who(|each| open(&each.context.seccomp_profile));
        look.report("seccompProfile", [pod, who.map(|who| who.must(what))]);
    }
    let what = "must not set AppArmor profile type to \"Unconfined\"";
    let open = |kind: Option<&str>| kind == Some("Unconfined");
    let pod =
        open(look.pod.app_armor_profile.as_ref().map(|profile| profile.type_.as_str())).then(|| format!("pod {what}"));
    let who = look.who(|each| open(each.context.app_armor_profile.as_ref().map(|profile| profile.type_.as_str())));
    look.report("forbidden AppArmor profile", [pod, who.map(|who| who.must(what))]);
    let pod = selinux(look.pod.se_linux_options.as_ref())
        .map(|why| format!("pod set forbidden securityContext.seLinuxOptions: {why}"));
    let who = look.who(|each| selinux(each.context.se_linux_options.as_ref()).is_some());
    let whys: Vec<String> =
        look.each.iter().filter_map(|each| selinux(each.context.se_linux_options.as_ref())).collect();
    let what = format!("set forbidden securityContext.seLinuxOptions: {}", whys.join("; "));
    look.report("seLinuxOptions", [pod, who.map(|who| who.must(&what))]);
}

fn joined(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(", "))
}

fn verb(who: &Option<crate::Who>, one: &'static str, many: &'static str) -> &'static str {
    if who.as_ref().is_some_and(|who| who.many) { many } else { one }
}

fn host_ports(container: &Container) -> Vec<String> {
    let ports = container.ports.iter().flatten().filter_map(|port| port.host_port);
    ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
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
