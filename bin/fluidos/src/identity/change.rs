//! `fluidos identity rotate` and `revoke`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{
    HISTORY_FILE, Handover, IdentityDirectory, NodeId, NodeKey, Revocation, Statement, fabric_prefix, replace_file,
};
use jiff::Timestamp;
use serde_json::json;
use substrate_store::Store;

/// Whose key is changed.
#[derive(clap::Args, Clone, Debug)]
pub struct Rotate {
    /// The node's directory; the node must be stopped.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
    /// The owner's key, when the node's is lost or stolen. It must have vouched for the node before.
    #[arg(long, value_name = "FILE")]
    owner_key: Option<PathBuf>,
    /// The key that is lost. Default: the one in the directory.
    #[arg(long, value_name = "DID", requires = "owner_key")]
    lost: Option<NodeId>,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// What counts no more.
#[derive(clap::Args, Clone, Debug)]
pub struct Revoke {
    /// The key.
    did: NodeId,
    /// The directory of the node that says so: its own key, or one that came before. It keeps the statement. The node must be
    /// stopped, and does not start again if it is its own key.
    #[arg(long, value_parser = crate::cli::up::directory, required_unless_present = "key")]
    data_dir: Option<PathBuf>,
    /// The key of who says so, if it is not the node's.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Why, in a line.
    #[arg(long)]
    reason: String,
    /// Where to put the statement. Default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Rotate {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let _stopped = stopped(&self.data_dir)?;
        let path = self.data_dir.join("identity");
        let now = Timestamp::now();
        let handover = match &self.owner_key {
            None => open(&path)?.rotate(now)?,
            Some(owner) => {
                let owner = NodeKey::open(owner).context("--owner-key")?;
                let mut identity = IdentityDirectory::open(&path, self.lost.is_some())?;
                let lost = self.lost.or(identity.key().map(NodeKey::id));
                let lost = lost.ok_or_else(|| anyhow!("{}: there is no key; say which is --lost", path.display()))?;
                identity.recover(&owner, lost, now)?
            }
        };
        self.print(&handover, &path.join(HISTORY_FILE))
    }

    #[allow(clippy::print_stdout)] // the answer of a verb
    fn print(&self, handover: &Handover, history: &Path) -> Result<()> {
        let (from, to) = (handover.from(), handover.to());
        if self.output == "json" {
            let told = json!({"from": from, "to": to, "by": handover.by(), "at": handover.at(), "history": history});
            println!("{}", serde_json::to_string_pretty(&told)?);
            return Ok(());
        }
        println!("{from} handed over to {to}");
        eprintln!("The hand-over is in {}; the old key is gone from this directory.", history.display());
        eprintln!("Credentials name the old key: have new ones issued for {to}.");
        if handover.by() == from {
            eprintln!(
                "Pods and Services keep their addresses, and contracts go on: peers see the hand-over when the node starts."
            );
        } else {
            eprintln!(
                "The addresses of pods and Services follow the key that its owner has put in its place: from {} to {}.",
                fabric_prefix(&from, 0).v4_cidr(),
                fabric_prefix(&to, 0).v4_cidr()
            );
        }
        Ok(())
    }
}

impl Revoke {
    /// Does what the verb says.
    #[allow(clippy::print_stdout)] // the answer of a verb
    pub fn run(&self) -> Result<()> {
        let _stopped = self.data_dir.as_deref().map(stopped).transpose()?;
        let path = self.data_dir.as_ref().map(|directory| directory.join("identity"));
        let mut identity = path.as_deref().map(open).transpose()?;
        let key = match (&self.key, &identity) {
            (Some(path), _) => NodeKey::open(path).context("--key")?,
            (None, Some(identity)) => {
                let key = identity.key().cloned().ok_or_else(|| anyhow!("the node has no key; sign with --key"))?;
                let before = identity.predecessors().iter().any(|handover| handover.from() == self.did);
                if key.id() != self.did && !before {
                    bail!("{} is neither this node's key nor one before it", self.did);
                }
                key
            }
            (None, None) => bail!("needed --data-dir or --key"),
        };
        let revocation = Revocation::new(self.did, &key, &self.reason, Timestamp::now())?;
        if let Some(identity) = &mut identity {
            identity.revoke(revocation.clone())?;
        }
        let text = serde_json::to_string(&Statement::from(revocation).envelope())? + "\n";
        match &self.out {
            Some(path) => replace_file(path, text.as_bytes())?,
            None => print!("{text}"),
        }
        eprintln!("{} counts no more, says {}. Give it to its peers: fluidos identity tell.", self.did, key.id());
        Ok(())
    }
}

fn open(path: &Path) -> Result<IdentityDirectory> {
    if !path.exists() {
        bail!("{}: no node has run there", path.display());
    }
    Ok(IdentityDirectory::open(path, false)?)
}

/// Holds a node's store, so that it neither runs nor starts meanwhile. `None` if it has never run.
fn stopped(directory: &Path) -> Result<Option<Store>> {
    let store = directory.join("store");
    if !store.exists() {
        return Ok(None);
    }
    // The store keeps its lock in a thread of its own, which needs no runtime.
    match Store::open(&store) {
        Ok(store) => Ok(Some(store)),
        Err(substrate_store::Error::InUse { .. }) => bail!(
            "--data-dir {}: its node is running; stop it first (SIGTERM, or Ctrl-C at its terminal)",
            directory.display()
        ),
        Err(error) => Err(error).with_context(|| format!("--data-dir {}", directory.display())),
    }
}
