//! Programs that are run and waited for.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Runs a command; its standard output, trimmed at the end.
///
/// # Errors
/// When it cannot be started or fails, with what it wrote on standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = output(program, arguments)?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs a command, whatever comes of it.
///
/// # Errors
/// When it cannot be started.
pub fn output(program: &str, arguments: &[&str]) -> Result<Output> {
    Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program} {}", arguments.join(" ")))
}
