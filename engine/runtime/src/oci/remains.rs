//! What is left of a sandbox whose supervisor is gone: the state files of its containers.

use std::fs;
use std::path::Path;

use crate::oci::supervisor::STATUS_FILE;
use crate::{ContainerStatus, Finished};

/// Containers of a sandbox, below its directory.
pub const CONTAINERS_DIR: &str = "containers";

/// What the files of a dead supervisor say: what ran then was killed with it.
pub(crate) fn remains(dir: &Path) -> Vec<ContainerStatus> {
    let mut containers = Vec::new();
    let entries = fs::read_dir(dir.join(CONTAINERS_DIR)).into_iter().flatten().flatten();
    for entry in entries {
        let Ok(bytes) = fs::read(entry.path().join(STATUS_FILE)) else { continue };
        let Ok(mut status) = serde_json::from_slice::<ContainerStatus>(&bytes) else { continue };
        if status.finished.is_none() {
            let at_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
            status.pid = None;
            status.finished =
                Some(Finished { at_ns, exit_code: 137, signal: 9, oom_killed: false, lost: true, error: None });
            if let Ok(bytes) = serde_json::to_vec(&status) {
                // So that the time of its end stays the same; when it cannot be written, it is found anew.
                let _ = engine_host::files::write_durably(&entry.path().join(STATUS_FILE), &bytes, 0o600);
            }
        }
        containers.push(status);
    }
    containers.sort_by(|a, b| (&a.name, a.attempt).cmp(&(&b.name, b.attempt)));
    containers
}
