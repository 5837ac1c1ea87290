//! The machine: commands on it, and what must be installed on it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Runs a command at the root and fails with it.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    println!("\n$ {shown}");
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command at the root without showing it; what it said is shown if it fails.
pub fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(|_| ())
}

/// What a command prints.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Debian packages that tests and the demo use, and the file by which each is known to be there.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("busybox-static", "/bin/busybox", "a program for test images"),
    ("iproute2", "/sbin/ip", "network namespaces for tests"),
    ("util-linux", "/usr/bin/nsenter", "to enter them"),
];

/// Installs what is missing, and says so first.
pub fn install() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(_, file, _)| !std::path::Path::new(file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("These Debian packages are missing and will be installed:");
    for (package, _, why) in &missing {
        println!("  {package:<16} {why}");
    }
    run("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|(package, _, _)| *package));
    run("apt-get", &arguments)
}
