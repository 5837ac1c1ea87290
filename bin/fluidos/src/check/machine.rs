//! What a machine must have so that pods can run on it: looked at, judged, and said before anything is made.
//!
//! ```text
//! look ──▶ Seen ──▶ findings ──┬─▶ fluidos check --pre   all of them
//!                              └─▶ fluidos up            the first that is wrong ends it
//! ```

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};
use engine_packets::probe::{self, Feature};
use engine_runtime::capabilities;
use engine_runtime::cgroups::Cgroups;
use engine_runtime::process;

use super::Finding;

/// Capabilities of the node itself, beside those that its containers are given: mounts and namespaces, and the network.
const OWN: [&str; 2] = ["SYS_ADMIN", "NET_ADMIN"];

/// What was seen of a machine.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The effective user of this process.
    pub user: Option<u32>,
    /// Its effective capabilities, one bit each (`capabilities(7)`).
    pub capabilities: u64,
    /// Whether the kernel has overlayfs, or a module for it that it loads when asked.
    pub overlay: bool,
    /// What is wrong with the cgroups.
    pub cgroups: Option<String>,
    /// Whether there are network namespaces.
    pub namespaces: bool,
    /// What is wrong with the TUN device.
    pub tun: Option<String>,
    /// What the kernel refuses of what pods' networks are made of.
    pub packets: Vec<(Feature, String)>,
    /// Whether the kernel can bound system calls.
    pub seccomp: bool,
    /// What the handler `process` cannot do here.
    pub confined: Option<String>,
    /// Version of the kernel, as far as it matters.
    pub kernel: (u32, u32),
    /// Whether processes of a container can be counted.
    pub pids: bool,
}

/// Looks at this machine; changes nothing.
pub fn look() -> Seen {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (user, capabilities) = process(&status);
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Seen {
        user,
        capabilities,
        packets: if user == Some(0) && missing(capabilities).is_none() { packets() } else { Vec::new() },
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        confined: confined(),
        kernel: version(&release),
        pids: has_pids(),
        overlay: filesystems.lines().any(|line| line.ends_with("overlay")) || is_loadable("overlay"),
        cgroups: cgroups(),
        namespaces: Path::new("/proc/self/ns/net").exists(),
        // Opening it makes no device; it loads the module, where there is one.
        tun: std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").err().map(|error| {
            match error.kind() {
                ErrorKind::NotFound => "/dev/net/tun is not there".into(),
                _ => format!("/dev/net/tun: {error}"),
            }
        }),
    }
}

/// The first needed capability that is not among these.
fn missing(present: u64) -> Option<&'static str> {
    let needed = OWN.iter().filter_map(|name| capabilities::bit(name)).fold(capabilities::default_set(), |a, b| a | b);
    capabilities::first_name(needed & !present)
}

/// What the kernel refuses. Where no network namespace can be made, that is what is wrong, and said by itself.
fn packets() -> Vec<(Feature, String)> {
    let missing = probe::missing().unwrap_or_default();
    missing.into_iter().map(|(feature, error)| (feature, error.to_string())).collect()
}

/// Major and minor of `6.1.0-13-amd64`; what cannot be read is 0.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What pods of RuntimeClass `process` need of the kernel beside the usual.
fn confined() -> Option<String> {
    let nothing = process::missing().map(|why| format!("RuntimeClass process does not work: {why}"));
    nothing.or_else(|| {
        let some = "pods of RuntimeClass process with hostNetwork or hostPID do not start: the kernel keeps no signals and abstract sockets \
                    within them (Linux 6.12)";
        (!process::has_scopes()).then(|| some.to_owned())
    })
}

fn has_pids() -> bool {
    let listed = |path: &str, word: usize| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.split_whitespace().nth(word) == Some("pids"))
    };
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    listed("/proc/cgroups", 0) || unified.split_whitespace().any(|controller| controller == "pids")
}

/// What does not work without, and what brings it.
fn of_packets(feature: Feature) -> (&'static str, &'static str, &'static str) {
    match feature {
        Feature::Bridge => ("bridges", "pods get no network", "modprobe bridge, or a kernel with CONFIG_BRIDGE"),
        Feature::Cable => ("veth", "pods get no network", "modprobe veth, or a kernel with CONFIG_VETH"),
        Feature::Rules => (
            "nftables",
            "Services and policies do not work",
            "modprobe nf_tables, or a kernel with CONFIG_NF_TABLES_IPV4",
        ),
        Feature::Translation => (
            "translation of addresses",
            "Services, node ports and the pods' way out do not work",
            "modprobe nft_nat nft_masq nft_ct, or a kernel with CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT",
        ),
        Feature::Lookup => (
            "look-up of addresses",
            "node ports do not work, and pods could use others' addresses",
            "modprobe nft_fib_ipv4, or a kernel with CONFIG_NFT_FIB_IPV4",
        ),
        Feature::Chance => (
            "choice by chance",
            "Services with several endpoints do not work",
            "modprobe nft_numgen, or a kernel with CONFIG_NFT_NUMGEN",
        ),
        Feature::Hash => (
            "choice by client",
            "Services with sessionAffinity do not work",
            "modprobe nft_hash, or a kernel with CONFIG_NFT_HASH",
        ),
        Feature::Refusal => (
            "refusals",
            "what policies forbid could not be refused",
            "modprobe nft_reject_ipv4, or a kernel with CONFIG_NFT_REJECT_IPV4",
        ),
        Feature::Connections => (
            "list of connections",
            "UDP clients stay with an endpoint that is gone",
            "modprobe nf_conntrack_netlink, or a kernel with CONFIG_NF_CT_NETLINK",
        ),
    }
}

/// Effective user and capabilities, as `/proc/PID/status` says them (`proc(5)`).
fn process(status: &str) -> (Option<u32>, u64) {
    let field = |name: &str, number: usize| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(number).map(str::to_owned)
    };
    let user = field("Uid:", 1).and_then(|id| id.parse().ok());
    let capabilities = field("CapEff:", 0).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    (user, capabilities.unwrap_or(0))
}

/// Whether the running kernel has a module of this name on disk: a mount loads it.
fn is_loadable(module: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
    let list = std::fs::read_to_string(list).unwrap_or_default();
    let file = format!("/{module}.ko");
    list.lines().filter_map(|line| line.split(':').next()).any(|path| path.contains(&file))
}

/// What hinders the kubelet from making its cgroups.
fn cgroups() -> Option<String> {
    match Cgroups::detect("") {
        Err(error) => Some(error.to_string()),
        Ok(found) => found.dirs("").into_iter().find_map(|directory| {
            let refused = rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK).err()?;
            Some(format!("{}: {refused}", directory.display()))
        }),
    }
}

/// Judges what was seen, in the order in which it is mended.
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let wrong = |is: bool, what: &str, remedy: &'static str| is.then(|| (what.to_owned(), remedy));
    let root = match seen.user {
        Some(0) => None,
        Some(user) => Some(format!("this is user {user}")),
        None => Some("the user of this process is not known".into()),
    };
    let missing = missing(seen.capabilities);
    let remedy = "run as root, or without pods on this machine: fluidos up --no-agent";
    let is_root = root.is_none();
    let mut findings = vec![
        Finding::new("root", root.map(|seen| (seen, remedy))),
        Finding::new(
            "overlay file system",
            wrong(!seen.overlay, "the kernel does not have it", "use a kernel with CONFIG_OVERLAY_FS"),
        ),
        Finding::new(
            "network namespaces",
            wrong(!seen.namespaces, "/proc/self/ns/net is not there", "use a kernel with CONFIG_NET_NS"),
        ),
    ];
    // What another user is refused says nothing about what root will be.
    if is_root {
        findings.push(Finding::new(
            "capabilities",
            missing.map(|name| {
                let remedy = "let the service manager or container grant it, or: fluidos up --no-agent";
                (format!("CAP_{name} is missing"), remedy)
            }),
        ));
        findings.push(Finding::new(
            "cgroups for memory and CPU",
            seen.cgroups.clone().map(|seen| (seen, "mount cgroup2 at /sys/fs/cgroup, writable")),
        ));
        findings.push(Finding::new(
            "TUN device for the way to peers",
            seen.tun.clone().map(|seen| (seen, "modprobe tun; in a container, pass the device in")),
        ));
        findings.push(Finding::new("network of pods: what the kernel does with packets", None));
        for (feature, refused) in &seen.packets {
            let (name, without, remedy) = of_packets(*feature);
            let finding =
                Finding::new(format!("network of pods: {name}"), Some((format!("{without} ({refused})"), remedy)));
            // The node does without these until they are asked for.
            let rare = matches!(feature, Feature::Hash | Feature::Connections);
            findings.push(if rare { finding.optional() } else { finding });
        }
        if !seen.packets.is_empty() {
            findings.retain(|finding| finding.what != "network of pods: what the kernel does with packets");
        }
    }
    findings.push(Finding::new(
        "system calls are bounded",
        wrong(
            !seen.seccomp,
            "the kernel has no seccomp: containers with a profile do not start",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ));
    findings.push(
        Finding::new(
            "processes are counted",
            wrong(
                !seen.pids,
                "a container that forks without end takes the machine",
                "use a kernel with CONFIG_CGROUP_PIDS, and mount it",
            ),
        )
        .optional(),
    );
    let confined = seen.confined.clone().map(|seen| (seen, process::REMEDY));
    findings.push(Finding::new("processes are confined by Landlock", confined).optional());
    let old = seen.kernel < (5, 9);
    let (major, minor) = seen.kernel;
    findings.push(
        Finding::new(
            "Linux 5.9",
            old.then(|| {
                (format!("this is {major}.{minor}: pods with shareProcessNamespace do not start"), "use a newer kernel")
            }),
        )
        .optional(),
    );
    findings
}

/// Refuses a machine on which pods cannot run.
///
/// # Errors
/// One line: what is wrong first, how to mend it, and where to see the rest.
pub fn require(seen: &Seen) -> Result<()> {
    let findings = findings(seen);
    let mut wrong = findings
        .iter()
        .filter(|finding| !finding.optional)
        .filter_map(|f| f.wrong.as_ref().map(|(seen, remedy)| (&f.what, seen, remedy)));
    let Some((what, seen, remedy)) = wrong.next() else { return Ok(()) };
    match wrong.count() {
        0 => bail!("{what}: {seen}; {remedy}"),
        more => bail!("{what}: {seen}; {remedy} ({more} more: fluidos check --pre)"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn well() -> Seen {
        Seen {
            user: Some(0),
            capabilities: capabilities::all(),
            overlay: true,
            cgroups: None,
            namespaces: true,
            tun: None,
            packets: Vec::new(),
            seccomp: true,
            confined: None,
            kernel: (6, 1),
            pids: true,
        }
    }

    fn refused(seen: Seen) -> String {
        require(&seen).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_first_is_said_with_its_remedy() {
        require(&well()).unwrap();
        let without = |name: &str| capabilities::all() & !capabilities::bit(name).unwrap();
        // Not every capability is needed: this kind of machine often lacks this one.
        require(&Seen { capabilities: without("SYS_RESOURCE"), ..well() }).unwrap();
        for name in ["SYS_ADMIN", "NET_ADMIN", "MKNOD"] {
            let told = refused(Seen { capabilities: without(name), ..well() });
            assert!(told.starts_with(&format!("capabilities: CAP_{name} is missing; let ")), "{told}");
        }
        let refused_too = Some("Permission denied".to_owned());
        let told = refused(Seen {
            user: Some(1000),
            capabilities: 0,
            cgroups: refused_too.clone(),
            tun: refused_too,
            ..well()
        });
        assert_eq!(
            told, "root: this is user 1000; run as root, or without pods on this machine: fluidos up --no-agent",
            "what follows from being another user is not said as well"
        );
        let told = refused(Seen { tun: Some("/dev/net/tun is not there".into()), overlay: false, ..well() });
        assert_eq!(
            told,
            "overlay file system: the kernel does not have it; use a kernel with CONFIG_OVERLAY_FS (1 more: fluidos check --pre)"
        );
    }

    #[test]
    fn what_does_not_work_without_a_feature_is_said_with_it() {
        let without = |feature| Seen { packets: vec![(feature, "No such file or directory".into())], ..well() };
        let told = refused(without(Feature::Chance));
        assert_eq!(
            told,
            "network of pods: choice by chance: Services with several endpoints do not work (No such file or directory); modprobe nft_numgen, or \
             a kernel with CONFIG_NFT_NUMGEN"
        );
        // What is rare does not keep a node from starting, and is told.
        require(&without(Feature::Hash)).unwrap();
        let told: Vec<String> = findings(&without(Feature::Hash)).iter().map(Finding::text).collect();
        assert!(
            told.iter().any(|line| line.starts_with("– network of pods: choice by client: Services with")),
            "{told:?}"
        );
        let old = Seen { kernel: version("5.4.0-150-generic"), pids: false, ..well() };
        require(&old).unwrap();
        let told: Vec<String> = findings(&old).iter().map(Finding::text).collect();
        assert!(
            told.iter().any(|line| line.starts_with("– Linux 5.9: this is 5.4: pods with shareProcess")),
            "{told:?}"
        );
        assert!(
            told.iter().any(|line| line.starts_with("– processes are counted: a container that forks")),
            "{told:?}"
        );
        let open = Seen { confined: Some("RuntimeClass process does not work: no Landlock".into()), ..well() };
        require(&open).unwrap();
        let told: Vec<String> = findings(&open).iter().map(Finding::text).collect();
        let line = "– processes are confined by Landlock: RuntimeClass process does not work: no Landlock";
        assert!(told.iter().any(|told| told.starts_with(line) && told.contains("lsm=")), "{told:?}");
        assert!(refused(Seen { seccomp: false, ..well() }).starts_with("system calls are bounded: the kernel has no"));
    }

    #[test]
    fn the_process_status_is_read() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nCapInh:\t0\nCapEff:\t00000000000000ff\n";
        assert_eq!(process(status), (Some(2), 0xff));
        assert_eq!(process("garbage"), (None, 0));
    }
}
