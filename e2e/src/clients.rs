//! Clients of others: programs that `cargo xtask clients` brings in fixed versions, played against a node of ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::node::Setup;
use crate::root;

/// A program that `cargo xtask clients` brought, by its path below `target/tools`.
///
/// # Errors
/// When it is not there, with what brings it.
pub fn brought(path: &str) -> Result<PathBuf> {
    let file = root().join("target/tools").join(path);
    if !file.exists() {
        bail!("{} is not there; `cargo xtask clients` brings it", file.display());
    }
    Ok(file)
}

/// A client on a node's machine.
#[derive(Debug)]
pub struct Client<'a> {
    /// The node.
    pub setup: &'a Setup,
    /// The program.
    pub program: PathBuf,
}

/// How a client ended.
#[derive(Debug)]
pub struct Told {
    /// Whether it says that it went well.
    pub is_ok: bool,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

impl<'a> Client<'a> {
    /// A client that `cargo xtask clients` brought.
    ///
    /// # Errors
    /// When it is not there, with what brings it.
    pub fn new(setup: &'a Setup, path: &str) -> Result<Self> {
        Ok(Self { setup, program: brought(path)? })
    }

    /// Runs it in a directory with these variables, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run_in(&self, directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Told> {
        self.play(directory, variables, arguments, None)
    }

    /// Runs it with this input, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn given(&self, input: &str, arguments: &[&str]) -> Result<Told> {
        self.play(&self.setup.directory, &[], arguments, Some(input))
    }

    fn play(&self, at: &Path, variables: &[(&str, &str)], arguments: &[&str], input: Option<&str>) -> Result<Told> {
        let mut command = self.setup.client(&self.program);
        // What a client writes beside its output, caches and copies, stays on the stage.
        command.args(arguments).current_dir(at).envs(variables.to_vec());
        command.env("HOME", &self.setup.directory).env("TMPDIR", &self.setup.directory);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes()); // it may end without reading all
        }
        let output = child.wait_with_output().with_context(|| self.program.display().to_string())?;
        Ok(Told {
            is_ok: output.status.success(),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it, with the arguments between spaces, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, arguments: &str) -> Result<Told> {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        self.run_in(&self.setup.directory, &[], &arguments)
    }

    /// What it prints, with the arguments between spaces.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn ok(&self, arguments: &str) -> Result<String> {
        let told = self.run(arguments)?;
        if !told.is_ok {
            bail!("{} {arguments}: {}{}", self.program.display(), told.out, told.error.trim_end());
        }
        Ok(told.out)
    }

    /// What it says when it refuses, with the arguments between spaces.
    ///
    /// # Errors
    /// When it succeeds, with what it prints.
    pub fn refused(&self, arguments: &str) -> Result<String> {
        let told = self.run(arguments)?;
        if told.is_ok {
            bail!("{} {arguments} must fail, but says {}", self.program.display(), told.out);
        }
        Ok(told.error)
    }
}
