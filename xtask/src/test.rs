//! `cargo xtask test`: what the continuous integration runs, and nothing else.

mod programs;

use anyhow::Result;

use crate::machine::{FOR_TESTS, command, install, run, run_with, schemathesis};
use crate::tidy::Tidy;

/// The features that a released binary may lack.
const ALL: &str = "fluidos/wasm";

/// Options of the task.
#[derive(clap::Args)]
pub struct Test {
    /// Only the tests, without formatting, lints and structure.
    #[arg(long)]
    only: bool,
    /// Ask a real kube-apiserver (v1.20.2, built from Debian's source into target/, some 6 minutes the first time)
    /// and ours the same, and compare what they answer; then let real controllers and a real scheduler work on ours.
    #[arg(long)]
    real_kubernetes: bool,
}

impl Test {
    pub fn run(&self) -> Result<()> {
        if self.real_kubernetes {
            return real_kubernetes();
        }
        install(FOR_TESTS)?;
        schemathesis()?;
        crate::clients::install()?;
        if !self.only {
            run("cargo", &["fmt", "--all", "--check"])?;
            Tidy::default().run()?;
        }
        let built = programs::build(ALL)?;
        // The story of two machines begins with what a user copies to them.
        crate::dist::Dist { program: Some(built.binary.clone()), agent: false }.run()?;
        let outcome = built.run(|| if self.only { Ok(()) } else { lints() });
        run("cargo", &["test", "--workspace", "--features", ALL, "--locked", "--doc"])?;
        // The main job, whole: the same command that a newcomer runs, with the program that is here.
        run_with("cargo", &["xtask", "demo"], &[("FLUIDOS_BIN", built.binary.as_os_str())])?;
        outcome
    }
}

/// Looks for lints. Stories run beside and mostly wait, and have the processors first.
fn lints() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--features", ALL, "--all-targets", "--locked", "--", "-D", "warnings"];
    run("nice", &[["-n", "19", "cargo"].as_slice(), &clippy].concat())
}

/// The differential test, and that of controllers and scheduler. Not part of the others: it needs Debian 12, root, and a compiler of Go.
fn real_kubernetes() -> Result<()> {
    let directory = std::path::absolute("target/real-kubernetes")?;
    let root = directory.display().to_string();
    run("bash", &["xtask/real-kubernetes/build.sh", &root])?;
    for (test, wrong) in [
        ("real::", "the two servers answer differently"),
        ("real_controllers::", "controllers and scheduler of upstream do not work on our API"),
    ] {
        let status = command("cargo")
            .args([
                "test",
                "--package",
                "substrate-apiserver",
                "--test",
                "apiserver",
                "--",
                "--ignored",
                "--nocapture",
                test,
            ])
            .env("FLT_REAL_KUBERNETES", directory.join("bin"))
            .status()?;
        anyhow::ensure!(status.success(), "{wrong}");
    }
    Ok(())
}

/// Writes the page of what is served.
pub fn reference() -> Result<()> {
    let status = command("cargo")
        .args(["test", "--quiet", "--package", "substrate-apiserver", "--test", "apiserver", "reference::"])
        .env("FLT_BLESS", "1")
        .status()?;
    anyhow::ensure!(status.success(), "the kinds that are served do not build");
    Ok(())
}
