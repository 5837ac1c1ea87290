//! `cargo xtask dist`: a tar with everything that a machine needs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::machine::{output, root, run};
use crate::release;

/// Options of the task.
#[derive(clap::Args)]
pub struct Dist {
    /// Pack the debug build: quicker to make, larger.
    #[arg(long)]
    pub debug: bool,
}

impl Dist {
    pub fn run(&self) -> Result<()> {
        let binary = release::binary(self.debug)?;
        let name = format!("fluidos-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let directory = root().join("target/dist").join(&name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("completions"))?;
        fs::copy(&binary, directory.join("fluidos")).context("copy the binary")?;
        for (source, target) in [
            ("deploy/systemd/fluidos.service", "fluidos.service"),
            ("examples/shop.yaml", "shop.yaml"),
            ("README.md", "README.md"),
            ("LICENSE", "LICENSE"),
        ] {
            fs::copy(root().join(source), directory.join(target)).with_context(|| format!("copy {source}"))?;
        }
        for shell in ["bash", "zsh", "fish"] {
            let script = output(&binary.display().to_string(), &["completion", shell])?;
            fs::write(directory.join("completions").join(format!("fluidos.{shell}")), script)?;
        }
        let tar: PathBuf = root().join("target/dist").join(format!("{name}.tar.gz"));
        let parent = root().join("target/dist").display().to_string();
        run("tar", &["-C", &parent, "-czf", &tar.display().to_string(), &name])?;
        let size = fs::metadata(&tar)?.len();
        println!("{} ({:.1} MiB; the binary {:.1} MiB)", tar.display(), mib(size), mib(fs::metadata(&binary)?.len()));
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
