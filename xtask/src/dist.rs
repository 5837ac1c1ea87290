//! `cargo xtask dist`: a tar with everything that a machine needs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::machine::{output, root, run};
use crate::release;

/// What a device has room for, with everything included; and one that only joins.
const NODE_MAX_MIB: f64 = 40.0;
const AGENT_MAX_MIB: f64 = 25.0;

/// Options of the task.
#[derive(clap::Args)]
pub struct Dist {
    /// Pack this program instead of building one: cargo's debug build is quicker to make, and larger.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Pack `fluidos-agent`, which only joins a node, and nothing else.
    #[arg(long)]
    pub agent: bool,
}

/// What is packed beside the program, and where it lies there.
const OF_A_NODE: &[(&str, &str)] = &[
    ("deploy/systemd/fluidos.service", "fluidos.service"),
    ("deploy/systemd/fluidos-agent.service", "fluidos-agent.service"),
    ("examples/shop.yaml", "shop.yaml"),
    ("README.md", "README.md"),
    ("LICENSE", "LICENSE"),
];
const OF_AN_AGENT: &[(&str, &str)] = &[("docs/guides/agents.md", "agents.md"), ("LICENSE", "LICENSE")];

impl Dist {
    pub fn run(&self) -> Result<()> {
        let (program, files, most) = match self.agent {
            false => (release::NODE, OF_A_NODE, NODE_MAX_MIB),
            true => (release::AGENT, OF_AN_AGENT, AGENT_MAX_MIB),
        };
        let binary = self.program.clone().map_or_else(|| release::binary(program, false), Ok)?;
        let name = format!("{program}-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let directory = root().join("target/dist").join(&name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("completions"))?;
        fs::copy(&binary, directory.join(program)).context("copy the binary")?;
        if self.agent {
            // The unit is of the larger program.
            let unit = fs::read_to_string(root().join("deploy/systemd/fluidos-agent.service"))?;
            let unit = unit
                .replace("/bin/fluidos join", "/bin/fluidos-agent join")
                .replace(": fluidos join", ": fluidos-agent join");
            fs::write(directory.join("fluidos-agent.service"), unit)?;
        }
        for (source, target) in files {
            fs::copy(root().join(source), directory.join(target)).with_context(|| format!("copy {source}"))?;
        }
        for shell in ["bash", "zsh", "fish"] {
            let script = output(&binary.display().to_string(), &["completion", shell])?;
            fs::write(directory.join("completions").join(format!("{program}.{shell}")), script)?;
        }
        let tar: PathBuf = root().join("target/dist").join(format!("{name}.tar.gz"));
        let parent = root().join("target/dist").display().to_string();
        run("tar", &["-C", &parent, "-czf", &tar.display().to_string(), &name])?;
        let size = fs::metadata(&tar)?.len();
        let of_binary = mib(fs::metadata(&binary)?.len());
        println!("{} ({:.1} MiB; the binary {of_binary:.1} MiB)", tar.display(), mib(size));
        if self.program.is_none() && of_binary > most {
            eprintln!(
                "warning: the binary is {of_binary:.1} MiB, over its limit of {most}: look at profile.release in Cargo.toml"
            );
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
