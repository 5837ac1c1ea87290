//! The node's directory: only its owner may enter.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Makes the directory if it is absent, and refuses one that others can read.
pub fn prepare(path: &Path) -> Result<()> {
    let shown = path.display();
    if !path.exists() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).with_context(|| format!("--data-dir {shown}: cannot make it"))?;
    }
    let metadata = std::fs::metadata(path).with_context(|| format!("--data-dir {shown}"))?;
    if !metadata.is_dir() {
        bail!("--data-dir {shown} is not a directory");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("--data-dir {shown} has mode {mode:03o}, so others could read the node's key; run: chmod 700 {shown}");
    }
    Ok(())
}
