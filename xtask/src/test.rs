//! `cargo xtask test`: what the continuous integration runs, and nothing else.

use anyhow::Result;

use crate::machine::{FOR_TESTS, install, run, schemathesis};
use crate::tidy::Tidy;

/// Options of the task.
#[derive(clap::Args)]
pub struct Test {
    /// Only the tests, without formatting, lints and structure.
    #[arg(long)]
    only: bool,
}

impl Test {
    pub fn run(&self) -> Result<()> {
        install(FOR_TESTS)?;
        schemathesis()?;
        if !self.only {
            run("cargo", &["fmt", "--all", "--check"])?;
            Tidy::default().run()?;
            run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
        }
        // The stories in e2e run the binary itself.
        run("cargo", &["build", "--locked", "--package", "fluidos"])?;
        // The story of two machines begins with what a user copies to them.
        crate::dist::Dist { debug: true }.run()?;
        run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])?;
        // The main job, whole: the same command that a newcomer runs.
        run("cargo", &["xtask", "demo"])
    }
}
