//! The command line: what can be asked for, and who answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::image::{self, Image};
use crate::node;
use crate::reset::{self, Reset};

#[derive(Parser)]
#[command(
    name = "fluidos",
    version,
    about = "Machines and clusters of different owners run each other's Kubernetes workloads under a contract both have signed."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node until it is told to stop.
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<Up>),
    /// The images of this machine.
    #[command(subcommand)]
    Image(Image),
    /// Take everything of a node off this machine; its key is kept.
    Reset(Reset),
}

const UP_EXAMPLES: &str = "Examples:
  fluidos up --name farm --data-dir /var/lib/fluidos
  fluidos up --name grid --domain grid.example --data-dir /var/lib/fluidos --offer cpu=4,memory=8Gi,pods=50 --location city=Milan
  fluidos up --name farm --data-dir /var/lib/fluidos --peer 192.0.2.7:7300";

/// What a node is told when it starts.
#[derive(clap::Args, Clone, Debug)]
pub struct Up {
    /// The node's name: its Node object, and how peers call it.
    #[arg(long, env = "FLUIDOS_NAME")]
    pub name: String,
    /// The owner's domain. It is a claim, not a proof.
    #[arg(long, env = "FLUIDOS_DOMAIN", default_value = "fluidos.eu")]
    pub domain: String,
    /// Where the node keeps its key, objects, images and contracts. The same directory is the same node.
    #[arg(long, env = "FLUIDOS_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Where the Kubernetes API listens.
    #[arg(long, env = "FLUIDOS_API", default_value = "127.0.0.1:6443")]
    pub api: SocketAddr,
    /// Where peers reach this node: TCP for REAR, UDP for the link.
    #[arg(long, env = "FLUIDOS_REAR", default_value = "0.0.0.0:7300")]
    pub rear: SocketAddr,
    /// Do not run pods here: no kubelet, no Node for this machine, no root needed.
    #[arg(long, env = "FLUIDOS_NO_AGENT")]
    pub no_agent: bool,
    /// What happens to running containers when the node is told to stop with SIGTERM.
    #[arg(long, env = "FLUIDOS_ON_STOP", value_enum, default_value_t = OnStop::Keep)]
    pub on_stop: OnStop,
}

/// What happens to containers at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// They run on.
    Keep,
    /// They are stopped.
    Stop,
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Up(up) => node::up(&up),
        Verb::Image(image) => image::run(&image),
        Verb::Reset(reset) => reset::run(&reset),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fluidos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
