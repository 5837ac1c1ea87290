//! A machine that lacks what pods need: `up` says so at once, in one line with a remedy, and leaves nothing.
//!
//! What is missing is really missing: capabilities are taken away, the user is another, devices, cgroups and file systems
//! are hidden in a mount namespace of the process.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fluidos_e2e::command::run;
use fluidos_e2e::lan::Machine;
use fluidos_e2e::node::binary;
use fluidos_e2e::stage::Stage;

/// Nothing is waited for: a debug build on a slow machine starts within this.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Where a node is tried in vain.
struct Place {
    machine: Machine,
    program: PathBuf,
    directory: PathBuf,
}

/// Waits until the kernel knows that nobody else has the machine's address of IPv6 (RFC 4862, section 5.4): the address
/// has a route from then on only, which is no trace of what is tried here.
fn settle(machine: &Machine) {
    let begun = Instant::now();
    while !run("ip", &["-n", &machine.namespace, "-6", "-o", "addr", "show", "tentative"]).unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the address of IPv6 is still not settled");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Place {
    fn new(stage: &mut Stage) -> Self {
        let machine = stage.setup("poor", &[]).unwrap().machine.unwrap();
        // A copy that every user may run, wherever the build is.
        let program = stage.directory().join("fluidos");
        std::fs::copy(binary(), &program).unwrap();
        settle(&machine);
        Self { machine, program, directory: stage.directory().join("poor") }
    }

    /// Everything that `up` could have made here outside its directory.
    fn traces(&self) -> String {
        let links = run("ip", &["-n", &self.machine.namespace, "-o", "link"]).unwrap();
        let routes = run("ip", &["-n", &self.machine.namespace, "route", "show", "table", "all"]).unwrap();
        let processes = Command::new("pgrep").arg("-f").arg(&self.directory).output().unwrap();
        format!("{links}\n{routes}\n{}", String::from_utf8_lossy(&processes.stdout))
    }

    /// Runs `up` behind `wrapper`; it must end at once with exactly `expected`, and leave nothing.
    fn refuses(&self, wrapper: &[&str], expected: &str) {
        let before = self.traces();
        let enter = self.machine.enter();
        let begun = Instant::now();
        // A node that starts all the same ends after a while, and by that the test.
        let mut command = Command::new("timeout");
        command.args(["--signal=INT", "30"]).args(&enter).args(wrapper).arg(&self.program);
        command.args(["up", "--name", "poor", "--no-mdns", "--data-dir"]).arg(&self.directory);
        let output =
            command.stdin(Stdio::null()).env_clear().env("PATH", std::env::var("PATH").unwrap()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.trim_end(), format!("fluidos: {expected}"), "{wrapper:?}: {}", output.status);
        assert_eq!(output.status.code(), Some(1), "{wrapper:?}");
        assert!(output.stdout.is_empty(), "{wrapper:?}: {output:?}");
        assert!(begun.elapsed() < AT_ONCE, "{wrapper:?} took {:?}", begun.elapsed());
        assert!(!self.directory.exists(), "{wrapper:?}: {} was made", self.directory.display());
        assert_eq!(self.traces(), before, "{wrapper:?}: devices, routes, processes");
    }

    /// `up` in a mount namespace of its own, in which a shell first ran `hide`.
    fn refuses_without(&self, hide: &str, expected: &str) {
        let script = format!("{hide} && exec \"$@\"");
        self.refuses(&["unshare", "--mount", "sh", "-ec", &script, "sh"], expected);
    }
}

#[test]
fn a_missing_privilege_is_named_with_its_remedy() {
    let mut stage = Stage::new("priv").unwrap();
    let place = Place::new(&mut stage);
    place.refuses(
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        "root: this is user 65534; run as root, or without pods on this machine: fluidos up --no-agent",
    );
    for capability in ["net_admin", "sys_admin", "mknod"] {
        let missing = format!("--bounding-set=-{capability}");
        place.refuses(
            &["setpriv", &missing],
            &format!(
                "capabilities: CAP_{} is missing; let the service manager or container grant it, or: fluidos up --no-agent",
                capability.to_uppercase()
            ),
        );
    }
}

#[test]
fn a_missing_kernel_feature_is_named_with_its_remedy() {
    let mut stage = Stage::new("feat").unwrap();
    let place = Place::new(&mut stage);
    place.refuses_without(
        "mount -t tmpfs none /dev/net",
        "TUN device for the way to peers: /dev/net/tun is not there; modprobe tun; in a container, pass the device in",
    );
    place.refuses_without(
        "mount -t tmpfs none /sys/fs/cgroup",
        "cgroups for memory and CPU: cgroups: /sys/fs/cgroup has no memory controller; mount cgroup2 at /sys/fs/cgroup, writable",
    );
    // As in a container that may only look at its cgroups. Version 2 is one mount, version 1 one for each controller.
    let memory = Path::new("/sys/fs/cgroup/memory");
    let mounted = if memory.exists() { memory } else { Path::new("/sys/fs/cgroup") };
    let mounted = std::fs::canonicalize(mounted).unwrap().display().to_string();
    place.refuses_without(
        &format!("mount -o remount,bind,ro {mounted}"),
        &format!(
            "cgroups for memory and CPU: {mounted}/: Read-only file system (os error 30); mount cgroup2 at /sys/fs/cgroup, writable"
        ),
    );
    let without = stage.directory().join("filesystems");
    std::fs::write(&without, "nodev\tproc\n\text4\n").unwrap();
    // A machine whose kernel has no modules on disk has no such folder.
    let modules = "if test -d /lib/modules; then mount -t tmpfs none /lib/modules; fi";
    place.refuses_without(
        &format!("mount --bind {} /proc/filesystems && {modules}", without.display()),
        "overlay file system: the kernel does not have it; use a kernel with CONFIG_OVERLAY_FS",
    );
}
