//! A small disk for what a node keeps in a folder, so that it can be full: in memory, at a path below the node's directory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::run;
use crate::node::Setup;

/// A small disk, until it is dropped.
#[derive(Debug)]
pub struct Disk {
    setup: Setup,
    path: PathBuf,
}

impl Disk {
    /// A disk of so many bytes at a folder of a node that was never started.
    ///
    /// # Errors
    /// When it cannot be mounted: it needs root.
    pub fn mount(setup: &Setup, folder: &str, size_bytes: u64) -> Result<Self> {
        let path = setup.directory.join(folder);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&setup.directory, PermissionsExt::from_mode(0o700))?; // as a node makes it
        let disk = Self { setup: setup.clone(), path };
        disk.apply(&format!("size={size_bytes}"))?;
        Ok(disk)
    }

    /// Gives it another size, in bytes.
    ///
    /// # Errors
    /// When there is more on it.
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        self.apply(&format!("remount,size={size_bytes}"))
    }

    /// Bytes that are on it.
    ///
    /// # Errors
    /// When `df` fails.
    pub fn used_bytes(&self) -> Result<u64> {
        let told = run("df", &["--output=used", "-B1", &self.path.display().to_string()])?;
        told.lines().last().context("no line")?.trim().parse().with_context(|| told.clone())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn apply(&self, options: &str) -> Result<()> {
        run("mount", &["-t", "tmpfs", "-o", options, "flt-disk", &self.path.display().to_string()]).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What runs is told on the disk: when that is gone, nobody ends it. The folder itself cannot be removed yet, which is what this says.
        let _ = self.setup.reset();
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status(); // a story that fails says why
    }
}
