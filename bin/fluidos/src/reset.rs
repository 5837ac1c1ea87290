//! `fluidos reset`: takes everything of a node off the machine.
#![allow(clippy::print_stdout)] // the answer of a verb

mod left;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fluidos_identity::NodeKey;

use crate::join::{self, Membership};
use crate::node::machine;

/// What is taken off.
#[derive(clap::Args, Clone, Debug)]
pub struct Reset {
    /// The node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The node's key as well: afterwards it is another node, and its contracts cannot be proven.
    #[arg(long)]
    identity: bool,
}

/// The parts of a node's directory, but for its key.
const PARTS: &[&str] = &["store", "format", "pki", "kubelet", "network", "volumes", "kubeconfig", "kubectl-cache"];

/// Does what the verb says.
pub fn run(reset: &Reset) -> Result<()> {
    let directory = &reset.data_dir;
    if let Some(member) = Membership::find(directory)? {
        return leave(reset, &member);
    }
    if !directory.join("identity").exists() && !directory.join("store").exists() {
        bail!("--data-dir {}: no node has run there", directory.display());
    }
    // The lock of the store tells whether a node runs in it.
    let store = substrate_store::Store::open(&directory.join("store"));
    if let Err(substrate_store::Error::InUse { .. }) = store {
        bail!(
            "--data-dir {}: its node is running; stop it first (SIGTERM, or Ctrl-C at its terminal)",
            directory.display()
        );
    }
    // Sealed objects are not read here: what is said then is less, and the same is asked.
    let behind = store.as_ref().map(|store| left::behind(store, jiff::Timestamp::now())).unwrap_or_default();
    drop(store);
    behind.iter().for_each(|line| println!("{line}"));
    if !reset.yes && !confirmed(directory, reset.identity)? {
        bail!("nothing was changed; --yes does not ask");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pods = runtime.block_on(machine::leave(directory))?;
    // The log goes with the key that signs it. With the key it stays: what was signed is still owed, and peers give it back.
    for part in PARTS.iter().copied().chain(reset.identity.then_some(["identity", "log"]).into_iter().flatten()) {
        remove(&directory.join(part))?;
    }
    println!("{pods} pods ended; network, images, volumes and objects of {} removed", directory.display());
    if reset.identity {
        println!("its key is gone too");
    } else if directory.join("identity").exists() {
        println!("its key is kept: did={}", NodeKey::load_or_create(&directory.join("identity"))?.id());
    }
    Ok(())
}

/// An agent has no objects and no contracts, and its key is good for nothing without its Node.
fn leave(reset: &Reset, member: &Membership) -> Result<()> {
    let directory = &reset.data_dir;
    let _lock = join::lock(directory)?;
    if !reset.yes && !confirmed(directory, false)? {
        bail!("nothing was changed; --yes does not ask");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pods = runtime.block_on(machine::leave(directory))?;
    for part in ["kubelet", "network", "volumes", "agent"] {
        remove(&directory.join(part))?;
    }
    println!("{pods} pods ended; network, images, volumes and key of {} removed", directory.display());
    println!("its Node is at {}: kubectl delete node {}", member.server, member.name);
    Ok(())
}

fn confirmed(directory: &Path, identity: bool) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("there is nobody to ask; --yes does not ask");
    }
    let key = if identity { ", its key included" } else { "" };
    println!(
        "All pods, objects, images, volumes and contracts of the node in {} will be gone{key}. Type yes to go on:",
        directory.display()
    );
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
