//! `cargo xtask bench NAME`: the measurements behind the figures in the documentation. Never part of the tests.

mod agent;
mod announcers;
pub mod main_job;
mod network;
pub mod pods;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::machine::{install, output, root, run, target};
use crate::release;

/// Those that the package `fluidos-bench` makes; the first five measure nodes in network namespaces from here.
const NAMES: [&str; 11] = [
    "main-job",
    "pods",
    "network",
    "agent",
    "announcers",
    "decisions",
    "ranking",
    "market",
    "scheduling",
    "purchases",
    "api",
];
/// What a bench takes beside it.
const NGINX: (&str, &str, &str) = ("nginx-light", "/usr/sbin/nginx", "the peer of the bench purchases");
const ETCD: (&str, &str, &str) = ("etcd-server", "/usr/bin/etcd", "the peer of the benches api and scheduling");

/// Options of the task.
#[derive(clap::Args)]
pub struct Bench {
    /// Which: main-job, pods, network, agent, announcers, decisions, ranking, market, scheduling, purchases, api.
    name: String,
    /// Measure the debug build.
    #[arg(long)]
    debug: bool,
}

impl Bench {
    pub fn run(&self) -> Result<()> {
        if !NAMES.contains(&self.name.as_str()) {
            bail!("there is no bench {:?}; there are {}", self.name, NAMES.join(", "));
        }
        install(match self.name.as_str() {
            "purchases" => &[NGINX],
            "api" | "scheduling" => &[ETCD],
            "pods" => &pods::PEERS,
            "network" => &network::PEERS,
            _ => &[],
        })?;
        // Of what is built: the tree may go on while it is measured.
        let commit = output("git", &["describe", "--always", "--dirty"])?;
        let profile = if self.debug { "debug" } else { "release" };
        let built = target().join(profile);
        let mut binary = built.join("fluidos");
        if matches!(self.name.as_str(), "main-job" | "pods" | "network" | "agent" | "announcers" | "purchases") {
            binary = release::binary(release::NODE, self.debug)?;
        }
        if !matches!(self.name.as_str(), "main-job" | "pods" | "network" | "agent") {
            let mut build = vec!["build", "--locked", "--package", "fluidos-bench"];
            build.extend((!self.debug).then_some("--release"));
            run("cargo", &build)?;
        }
        let calibration = calibration()?;
        println!("calibration: {calibration}");
        let figures = match self.name.as_str() {
            "main-job" => main_job::measure(&binary)?,
            "pods" => pods::measure(&binary, &upstream(&["kubelet"])?)?,
            "network" => network::measure(&binary)?,
            "agent" => agent::measure(&binary, &release::binary(release::AGENT, self.debug)?)?,
            "announcers" => announcers::measure(&binary, &built.join("fluidos-bench"))?,
            name => {
                let program = built.join("fluidos-bench");
                let mut command = Command::new(program);
                command.arg(name).arg("--binary").arg(&binary);
                if matches!(name, "api" | "scheduling") {
                    command.arg("--upstream").arg(upstream(&[])?);
                }
                // What it says on its way is for who waits.
                let output = command.stderr(Stdio::inherit()).output()?;
                ensure!(output.status.success(), "{name}: {}", output.status);
                serde_json::from_slice(&output.stdout).context("the figures")?
            }
        };
        let result = json!({
            "bench": self.name, "command": format!("cargo xtask bench {}", self.name), "profile": profile,
            "commit": commit.trim(),
            "date": output("date", &["-u", "+%F"])?.trim(), "calibration": calibration, "figures": figures,
        });
        let path: PathBuf = root().join("bench/results").join(format!("{}.json", self.name));
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        std::fs::write(&path, serde_json::to_string_pretty(&result)? + "\n")?;
        println!("{}", path.display());
        Ok(())
    }
}

/// The folder of upstream's programs, these or the control plane's, built from Debian's source when they are not there.
fn upstream(programs: &[&str]) -> Result<PathBuf> {
    let directory = target().join("real-kubernetes");
    let script = ["xtask/real-kubernetes/build.sh", &directory.to_string_lossy()];
    run("bash", &[&script[..], programs].concat())?;
    Ok(directory.join("bin"))
}

/// What kind of machine this is: figures of another are not comparable.
fn calibration() -> Result<Value> {
    let file = target().join("fdatasync.probe");
    let mut times = Vec::new();
    for i in 0..50u8 {
        std::fs::write(&file, [i; 1024])?;
        let handle = std::fs::File::open(&file)?;
        let begun = Instant::now();
        handle.sync_data()?;
        times.push(begun.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(&file)?;
    times.sort_unstable();
    let kernel = Command::new("uname").arg("-r").output()?;
    Ok(json!({
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": String::from_utf8_lossy(&kernel.stdout).trim(),
        "fdatasync_p50_us": times[times.len() / 2],
    }))
}
