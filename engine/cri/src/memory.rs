//! *Memory that ran out*: whether the kernel has killed a container for it, as the kernel says it.
//!
//! containerd tells it by an event of its own, which comes after the end, or never: its shim drops it if the container's cgroup is gone before it
//! has looked (`pkg/oom/v1`). The cgroup that has the limits is ours and is there until its end has been told:
//!
//! ```text
//! ours, with the limits        v2  counts the kills in all that is below (`memory.events`)
//!  └─ the runtime's            v1  counts those in itself, so the runtime's counts, and goes with the container:
//!                                  who has asked is told of ours by an eventfd (admin-guide/cgroup-v1/memory, "OOM Control")
//! ```
//!
//! What was found is kept in a file beside the pod's, for who asks when the cgroup is gone. Thin: on v1 nobody listens while this program is down, and the
//! runtime's word is all there is of what happened then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use engine_runtime::cgroups;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::kept;

/// Who listens: one descriptor for each container that runs, by its pod and its run.
#[derive(Default)]
pub(crate) struct Memory {
    heard: Mutex<BTreeMap<(String, String), EventFd>>,
}

impl Memory {
    fn heard(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), EventFd>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens from now on, if one has to: before the container starts, or when one is found that runs.
    pub fn listen(&self, pod_uid: &str, run: &str, oom_file: &Path) {
        let control = oom_file.with_file_name("cgroup.event_control");
        let key = (pod_uid.to_owned(), run.to_owned());
        if self.heard().contains_key(&key) || !control.exists() {
            return; // with version 2 the file itself is enough
        }
        match register(oom_file, &control) {
            Ok(event) => drop(self.heard().insert(key, event)),
            Err(e) => tracing::warn!(
                "listen to {}: {e}; that memory ran out is known by the runtime alone",
                control.display()
            ),
        }
    }

    /// Whether the kernel has killed in it. `kept` is where that is written down, once it is so.
    pub fn ran_out(&self, pod_uid: &str, run: &str, oom_file: &Path, kept: &Path) -> bool {
        let mut heard = self.heard(); // until it is written down: two may ask at once, and the kernel tells it once
        if kept.exists() {
            return true;
        }
        let heard = heard.remove(&(pod_uid.to_owned(), run.to_owned()));
        let told = heard.is_some_and(|event| event.read().is_ok_and(|times| times > 0));
        // A cgroup that is taken away is told, too.
        let killed = (told && oom_file.exists()) || cgroups::oom_kills(oom_file) > 0;
        if killed && let Err(e) = kept::remember(kept, &()) {
            tracing::warn!("{e}");
        }
        killed
    }

    /// Listens no more: to a run, or to all of a pod.
    pub fn let_go(&self, pod_uid: &str, run: Option<&str>) {
        self.heard().retain(|(pod, of), _| pod != pod_uid || run.is_some_and(|run| run != of));
    }
}

fn register(oom_file: &Path, control: &Path) -> io::Result<EventFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let file = File::open(oom_file)?;
    fs::write(control, format!("{} {}", event.as_raw_fd(), file.as_raw_fd()))?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::path::PathBuf;
    use std::process::Command;

    use engine_runtime::cgroups::{Cgroups, Limits, Version};

    use super::*;

    /// The cgroups of a container, with the one in them that a runtime makes; taken away at the end.
    struct Place(Cgroups);

    impl Place {
        fn new() -> Self {
            let cgroups = Cgroups::detect(&format!("flt-cri-memory-{}", std::process::id())).unwrap();
            cgroups.prepare().unwrap();
            Self(cgroups)
        }

        /// Runs a command in the inner cgroup of one with so much memory, and takes the inner one away as containerd does.
        fn run(&self, name: &str, command: &str) -> (PathBuf, Memory) {
            let limits = Limits { memory_limit_bytes: Some(16 << 20), ..Limits::default() };
            self.0.create(name, &limits).unwrap();
            let file = self.0.oom_file(name);
            let inner = file.with_file_name("inner");
            fs::create_dir(&inner).unwrap();
            let memory = Memory::default();
            memory.listen("pod", name, &file);
            assert_eq!(memory.heard().len(), usize::from(self.0.version() == Version::V1));
            let script = format!("echo $$ > {}/cgroup.procs; exec {command}", inner.display());
            Command::new("sh").args(["-c", &script]).status().unwrap();
            fs::remove_dir(&inner).unwrap();
            (file, memory)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            for name in ["big", "small", ""] {
                let _ = self.0.remove(name); // a test that failed says so
            }
        }
    }

    #[test]
    fn what_the_kernel_says() {
        let place = Place::new();
        let dir = tempfile::tempdir().unwrap();
        let (file, memory) = place.run("big", "busybox tail -c 90000000 /dev/zero");
        let kept = dir.path().join("big");
        assert!(memory.ran_out("pod", "big", &file, &kept));
        assert!(memory.heard().is_empty(), "its end is told");
        place.0.remove("big").unwrap();
        assert!(Memory::default().ran_out("pod", "big", &file, &kept), "who begins anew knows it");
        // One that ends well, and one whose cgroup goes before it is looked at.
        let (file, memory) = place.run("small", "true");
        let kept = dir.path().join("small");
        assert!(!memory.ran_out("pod", "small", &file, &kept) && !kept.exists());
        memory.listen("pod", "small", &file);
        place.0.remove("small").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200)); // the kernel tells it from a task of its own
        assert!(!memory.ran_out("pod", "small", &file, &kept));
    }
}
