//! Leaving a machine: every pod off it, with no API to ask. For a node that is being removed.

use std::ffi::OsString;
use std::path::Path;

use crate::Error;
use crate::cgroups::Cgroups;
use crate::runtime::{OciRuntime, Runtime};

/// Ends and removes all pods of the kubelet whose directory is `dir`, and its cgroup; how many there were. Addresses are the
/// network's to take back, files the caller's. Absence is fine.
///
/// # Errors
/// A pod could not be removed: its processes may still run.
pub async fn leave(dir: &Path, instance: &str, supervisor: Vec<OsString>) -> Result<usize, Error> {
    let run = dir.join("run");
    if !run.exists() {
        return Ok(0);
    }
    let runtime = OciRuntime::new(run, supervisor)?;
    let pods = runtime.list().await?;
    for pod in &pods {
        runtime.remove(pod).await?;
    }
    Cgroups::detect(&format!("kubelet-{instance}"))?.remove("")?;
    Ok(pods.len())
}
