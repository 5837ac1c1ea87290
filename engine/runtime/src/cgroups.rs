//! Limits by cgroup, version 1 and 2.
//!
//! ```text
//! v2  /sys/fs/cgroup/            kubelet-INSTANCE/podUID/CONTAINER
//! v1  /sys/fs/cgroup/memory/     kubelet-INSTANCE/podUID/CONTAINER      and cpu, cpuacct, pids
//! ```
//!
//! [`settings`] decides (pure); [`Cgroups`] writes. A hybrid machine (version 1 controllers, an empty version 2
//! tree beside them) is version 1. Conversions are those of the kubelet and of KEP-2254.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where every distribution mounts them.
const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 controllers that are used; a set of them may be mounted together, with a link for each name.
const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];
const V2_CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The kubelet's and the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses quotas under a millisecond.
const CPU_QUOTA_US_MIN: u64 = 1_000;
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;

/// Which interface the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree per controller.
    V1,
    /// One tree.
    V2,
}

/// What a cgroup may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Share of the processor under contention, in thousandths of one.
    pub cpu_request_milli: u64,
    /// Hard limit in thousandths of a processor.
    pub cpu_limit_milli: Option<u64>,
    /// Hard limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Hard limit on processes and threads.
    pub pids_max: Option<u64>,
}

impl Limits {
    /// What holds both: of each the larger, and no limit where one has none.
    pub fn larger(&self, other: &Self) -> Self {
        Self {
            cpu_request_milli: self.cpu_request_milli.max(other.cpu_request_milli),
            cpu_limit_milli: self.cpu_limit_milli.zip(other.cpu_limit_milli).map(|(a, b)| a.max(b)),
            memory_limit_bytes: self.memory_limit_bytes.zip(other.memory_limit_bytes).map(|(a, b)| a.max(b)),
            pids_max: self.pids_max.zip(other.pids_max).map(|(a, b)| a.max(b)),
        }
    }
}

/// What something has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it began.
    pub cpu: Duration,
    /// Memory in bytes.
    pub memory: u64,
    /// … without what the kernel takes back first.
    pub working_set: u64,
}

/// One value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which controller's tree (version 1).
    pub controller: &'static str,
    /// Which file.
    pub file: &'static str,
    /// What to write.
    pub value: String,
}

/// Why limits cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no usable cgroups.
    #[error("cgroups: {0}")]
    Unusable(String),
    /// A file was refused by the kernel.
    #[error("cgroup {}: {action}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The values that express `limits`.
pub fn settings(version: Version, limits: &Limits) -> Vec<Setting> {
    let shares = (limits.cpu_request_milli * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
    let quota = limits.cpu_limit_milli.map(|milli| (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN));
    let mut out = Vec::new();
    let mut set = |controller, file, value: String| out.push(Setting { controller, file, value });
    match version {
        Version::V1 => {
            set("cpu", "cpu.shares", shares.to_string());
            if let Some(quota) = quota {
                set("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string());
                set("cpu", "cpu.cfs_quota_us", quota.to_string());
            }
            if let Some(bytes) = limits.memory_limit_bytes {
                set("memory", "memory.limit_in_bytes", bytes.to_string());
            }
        }
        Version::V2 => {
            // Shares 2..262144 to weights 1..10000 (KEP-2254).
            set("cpu", "cpu.weight", (1 + ((shares - 2) * 9999) / 262_142).to_string());
            if let Some(quota) = quota {
                set("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}"));
            }
            if let Some(bytes) = limits.memory_limit_bytes {
                set("memory", "memory.max", bytes.to_string());
                // A container that is killed rather than swapped: the limit is the limit.
                set("memory", "memory.swap.max", "0".to_owned());
            }
        }
    }
    if let Some(pids) = limits.pids_max {
        set("pids", "pids.max", pids.to_string());
    }
    out
}

/// The cgroups below one parent.
#[derive(Clone, Debug)]
pub struct Cgroups {
    version: Version,
    mount: PathBuf,
    parent: String,
}

impl Cgroups {
    /// Finds out what the machine has; `parent` is the name of this node's own cgroup.
    ///
    /// # Errors
    /// No cgroups are mounted, or a controller that limits need is missing.
    pub fn detect(parent: &str) -> Result<Self, Error> {
        Self::at(Path::new(MOUNT), parent)
    }

    fn at(mount: &Path, parent: &str) -> Result<Self, Error> {
        let version = if mount.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        let found = Self { version, mount: mount.to_owned(), parent: parent.to_owned() };
        match version {
            Version::V2 => {
                let path = mount.join("cgroup.controllers");
                let have = fs::read_to_string(&path).map_err(io_error("read", &path))?;
                for need in V2_CONTROLLERS {
                    if !have.split_whitespace().any(|c| c == need) {
                        return Err(Error::Unusable(format!("controllers are \"{}\", needed {need}", have.trim())));
                    }
                }
            }
            Version::V1 => {
                for need in V1_CONTROLLERS {
                    if !mount.join(need).join("cgroup.procs").exists() {
                        return Err(Error::Unusable(format!("{} has no {need} controller", mount.display())));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Which interface it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The directories of the cgroup `path` (relative to the parent; empty for the parent itself).
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let dir =
            |base: PathBuf| if path.is_empty() { base.join(&self.parent) } else { base.join(&self.parent).join(path) };
        match self.version {
            Version::V2 => vec![dir(self.mount.clone())],
            Version::V1 => V1_CONTROLLERS.iter().map(|c| dir(self.mount.join(c))).collect(),
        }
    }

    /// Creates the parent, so that a machine that does not allow it is known at once.
    ///
    /// # Errors
    /// The kernel refuses; with version 2 inside a container it usually does not hand down controllers.
    pub fn prepare(&self) -> Result<(), Error> {
        if self.version == Version::V2 {
            self.delegate("")?;
        }
        self.dirs("").iter().try_for_each(|dir| fs::create_dir_all(dir).map_err(io_error("create", dir)))
    }

    /// Creates the cgroup and writes its limits; both again when it exists.
    ///
    /// # Errors
    /// The kernel refuses a directory or a value.
    pub fn create(&self, path: &str, limits: &Limits) -> Result<Vec<PathBuf>, Error> {
        if self.version == Version::V2 {
            self.delegate(path)?;
        }
        let dirs = self.dirs(path);
        for dir in &dirs {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        for setting in settings(self.version, limits) {
            let file = self.file(path, setting.controller, setting.file);
            match fs::write(&file, &setting.value) {
                Ok(()) => {}
                // Kernels without swap accounting have no such file, and then nothing swaps beyond the limit.
                Err(e) if e.kind() == io::ErrorKind::NotFound && setting.file == "memory.swap.max" => {}
                Err(e) => return Err(io_error("write", &file)(e)),
            }
        }
        Ok(dirs)
    }

    /// The file that counts out-of-memory kills.
    pub fn oom_file(&self, path: &str) -> PathBuf {
        match self.version {
            Version::V1 => self.file(path, "memory", "memory.oom_control"),
            Version::V2 => self.file(path, "memory", "memory.events"),
        }
    }

    /// Memory in use in bytes and processor time used, if the cgroup exists.
    pub fn usage(&self, path: &str) -> Option<(u64, Duration)> {
        let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        match self.version {
            Version::V1 => {
                let memory = number(self.file(path, "memory", "memory.usage_in_bytes"))?;
                Some((memory, Duration::from_nanos(number(self.file(path, "cpuacct", "cpuacct.usage"))?)))
            }
            Version::V2 => {
                let stat = fs::read_to_string(self.file(path, "cpu", "cpu.stat")).ok()?;
                let used = stat.lines().find_map(|l| l.strip_prefix("usage_usec "))?.parse().ok()?;
                Some((number(self.file(path, "memory", "memory.current"))?, Duration::from_micros(used)))
            }
        }
    }

    /// What the cgroup has used, if it exists.
    pub fn measure(&self, path: &str) -> Option<Usage> {
        let (memory, cpu) = self.usage(path)?;
        let stat = fs::read_to_string(self.file(path, "memory", "memory.stat")).unwrap_or_default();
        let name = if self.version == Version::V1 { "total_inactive_file " } else { "inactive_file " };
        let idle = stat.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        Some(Usage { cpu, memory, working_set: memory.saturating_sub(idle) })
    }

    /// How many processes and threads are in the cgroup and below, if it exists.
    pub fn processes(&self, path: &str) -> Option<u64> {
        fs::read_to_string(self.file(path, "pids", "pids.current")).ok()?.trim().parse().ok()
    }

    /// Kills what is in the cgroup and below, and removes it; absence is fine.
    ///
    /// # Errors
    /// Processes do not go, or the kernel keeps the directory.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        let mut dirs = self.dirs(path);
        if self.version == Version::V1 {
            // Other programs that make a cgroup inside ours make it with all controllers, and leave what is above it.
            let all = fs::read_dir(&self.mount).into_iter().flatten().flatten();
            dirs.extend(all.map(|controller| controller.path().join(&self.parent).join(path)));
        }
        dirs.iter().try_for_each(|dir| self.remove_dir(dir))
    }

    fn remove_dir(&self, dir: &Path) -> Result<(), Error> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error("list", dir)(e)),
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                self.remove_dir(&entry.path())?;
            }
        }
        // A killed process leaves its cgroup a moment later: 100 times 10 ms is what a loaded machine needs.
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..100 {
            for pid in pids(dir) {
                // It may have ended meanwhile, which is what is wanted.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            match fs::remove_dir(dir) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => last = e,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io_error("remove", dir)(last))
    }

    /// Version 2: a controller works in a cgroup only when every cgroup above hands it down.
    fn delegate(&self, path: &str) -> Result<(), Error> {
        let mut dir = self.mount.clone();
        let full = if path.is_empty() { self.parent.clone() } else { format!("{}/{path}", self.parent) };
        for part in full.split('/') {
            let file = dir.join("cgroup.subtree_control");
            for controller in V2_CONTROLLERS {
                fs::write(&file, format!("+{controller}")).map_err(io_error("hand down a controller in", &file))?;
            }
            dir.push(part);
            fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        }
        Ok(())
    }

    fn file(&self, path: &str, controller: &str, file: &str) -> PathBuf {
        match self.version {
            Version::V1 => self.mount.join(controller).join(&self.parent).join(path).join(file),
            Version::V2 => self.mount.join(&self.parent).join(path).join(file),
        }
    }
}

/// How another program names the cgroup of a directory, whichever version: by its path in the tree (`/kubelet-x/podU`).
pub fn path_in_tree(dir: &Path) -> Option<PathBuf> {
    let inside = dir.strip_prefix(MOUNT).ok()?;
    let mut parts = inside.components();
    if !Path::new(MOUNT).join("cgroup.controllers").exists() {
        parts.next(); // the controller
    }
    Some(Path::new("/").join(parts.as_path()))
}

/// How often the kernel says it killed for memory: `oom_kill N` in both versions' files.
pub fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn pids(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn text(version: Version, limits: Limits) -> String {
        settings(version, &limits).iter().map(|s| format!("{}={}", s.file, s.value)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn limits_in_both_languages() {
        let limits = Limits {
            cpu_request_milli: 250,
            cpu_limit_milli: Some(500),
            memory_limit_bytes: Some(64 << 20),
            pids_max: Some(100),
        };
        let v1 = "cpu.shares=256; cpu.cfs_period_us=100000; cpu.cfs_quota_us=50000; memory.limit_in_bytes=67108864; pids.max=100";
        assert_eq!(text(Version::V1, limits), v1);
        let v2 = "cpu.weight=10; cpu.max=50000 100000; memory.max=67108864; memory.swap.max=0; pids.max=100";
        assert_eq!(text(Version::V2, limits), v2);
    }

    #[test]
    fn nothing_asked_is_the_least_share() {
        assert_eq!(text(Version::V1, Limits::default()), "cpu.shares=2");
        assert_eq!(text(Version::V2, Limits::default()), "cpu.weight=1");
        let tiny = Limits { cpu_limit_milli: Some(1), ..Limits::default() };
        assert!(text(Version::V1, tiny).contains("cfs_quota_us=1000"));
    }

    #[test]
    fn a_version_2_machine_gets_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let cgroups = Cgroups::at(dir.path(), "kubelet-x").unwrap();
        let limits = Limits { memory_limit_bytes: Some(1 << 20), ..Limits::default() };
        let dirs = cgroups.create("pod1/c1", &limits).unwrap();
        assert_eq!(dirs, [dir.path().join("kubelet-x/pod1/c1")]);
        assert_eq!(fs::read_to_string(dirs[0].join("memory.max")).unwrap(), "1048576");
        assert!(dir.path().join("kubelet-x/pod1/cgroup.subtree_control").exists());
        fs::write(dir.path().join("cgroup.controllers"), "cpu pids").unwrap();
        assert!(Cgroups::at(dir.path(), "x").unwrap_err().to_string().contains("needed memory"));
    }
}
