//! What a machine must have so that pods can run on it: looked at, judged, and said before anything is made.
//!
//! ```text
//! look ──▶ Seen ──▶ findings ──┬─▶ fluidos check --pre   all of them
//!                              └─▶ fluidos up            the first that is wrong ends it
//! ```

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};
use engine_runtime::capabilities;
use engine_runtime::cgroups::Cgroups;

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
}

/// Looks at this machine; changes nothing.
pub fn look() -> Seen {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (user, capabilities) = process(&status);
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    Seen {
        user,
        capabilities,
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
    let needed = OWN.iter().filter_map(|name| capabilities::bit(name)).fold(capabilities::default_set(), |a, b| a | b);
    let missing = capabilities::first_name(needed & !seen.capabilities);
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
    }
    findings
}

/// Refuses a machine on which pods cannot run.
///
/// # Errors
/// One line: what is wrong first, how to mend it, and where to see the rest.
pub fn require(seen: &Seen) -> Result<()> {
    let findings = findings(seen);
    let mut wrong = findings.iter().filter_map(|f| f.wrong.as_ref().map(|(seen, remedy)| (&f.what, seen, remedy)));
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
    fn the_process_status_is_read() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nCapInh:\t0\nCapEff:\t00000000000000ff\n";
        assert_eq!(process(status), (Some(2), 0xff));
        assert_eq!(process("garbage"), (None, 0));
    }
}
