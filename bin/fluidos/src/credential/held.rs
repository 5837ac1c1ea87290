//! `fluidos credential add`, `ls` and `rm`: what a node has to show of itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{
    CREDENTIAL_LENGTH_MAX, Held, HeldKind, IdentityDirectory, NodeId, NodeKey, PEER_CREDENTIALS_MAX,
    PRESENTED_LISTS_MAX, STATUS_TEXT_LENGTH_MAX, replace_file,
};
use serde_json::{Value, json};

use super::described;

/// What is added.
#[derive(clap::Args, Clone, Debug)]
pub struct Add {
    /// A credential about this node, or the status list that one names.
    file: PathBuf,
    /// The node's directory; it may be running.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
}

/// What is listed.
#[derive(clap::Args, Clone, Debug)]
pub struct Ls {
    /// The node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// What is shown no more.
#[derive(clap::Args, Clone, Debug)]
pub struct Rm {
    /// Its file name, as `ls` prints it.
    name: String,
    /// The node's directory; it may be running.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
}

impl Add {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let directory = self.data_dir.join("identity");
        let node = node(&directory)?;
        let held = Held::read(self.file.clone());
        let shown = self.file.display();
        let name = match held.what.as_ref().map_err(|error| anyhow!("{shown}: {error}"))? {
            HeldKind::Credential(credential) if credential.subject() != node => {
                bail!("{shown}: it is about {}, and this node is {node}", credential.subject())
            }
            HeldKind::Credential(credential) => {
                check_length(&held.text, CREDENTIAL_LENGTH_MAX)?;
                format!("{}-{}.jwt", credential.kind().name().to_lowercase(), credential.issuer().tag())
            }
            HeldKind::List(list) => {
                check_length(&held.text, STATUS_TEXT_LENGTH_MAX)?;
                format!("{}.status", list.issuer().tag())
            }
        };
        let path = free(&directory, &name, &held)?;
        let is_list = matches!(held.what, Ok(HeldKind::List(_)));
        let (what, max) =
            if is_list { ("status lists", PRESENTED_LISTS_MAX) } else { ("credentials", PEER_CREDENTIALS_MAX) };
        let others =
            Held::all(&directory).iter().filter(|h| h.path != path && h.path.extension() == path.extension()).count();
        if others >= max {
            bail!("there are {others} {what} already, at most {max}; take one away: fluidos credential rm NAME");
        }
        replace_file(&path, format!("{}\n", held.text).as_bytes())?;
        println!("{}", path.file_name().unwrap_or_default().to_string_lossy());
        eprintln!("Peers are shown it within some seconds, if the node runs.");
        Ok(())
    }
}

/// The file for a credential or list: that of the one it renews, else one that is not there.
fn free(directory: &Path, name: &str, held: &Held) -> Result<PathBuf> {
    let renews = |known: &Held| match (&known.what, &held.what) {
        (Ok(HeldKind::Credential(old)), Ok(HeldKind::Credential(new))) => {
            (old.issuer(), old.kind(), old.claims()) == (new.issuer(), new.kind(), new.claims())
        }
        (Ok(HeldKind::List(old)), Ok(HeldKind::List(new))) => (old.issuer(), old.id()) == (new.issuer(), new.id()),
        _ => false,
    };
    if let Some(known) = Held::all(directory).into_iter().find(renews) {
        return Ok(known.path);
    }
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, "jwt"));
    let numbered = (2..=PEER_CREDENTIALS_MAX + 1).map(|n| format!("{stem}-{n}.{extension}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered).map(|name| directory.join(name));
    names.find(|path| !path.exists()).context("every name for it is taken; see: fluidos credential ls")
}

impl Ls {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let directory = self.data_dir.join("identity");
        let node = node(&directory)?;
        let all = Held::all(&directory);
        if self.output == "json" {
            let values: Vec<Value> = all.iter().map(value).collect();
            println!("{}", serde_json::to_string_pretty(&values)?);
            return Ok(());
        }
        if all.is_empty() {
            eprintln!("This node has nothing to show. Its owner vouches for it: fluidos credential issue --help");
        }
        for held in &all {
            println!("{}", line(held, &node));
        }
        Ok(())
    }
}

fn line(held: &Held, node: &NodeId) -> String {
    let name = name(held);
    match &held.what {
        Ok(HeldKind::Credential(credential)) => {
            let claims: Vec<String> =
                credential.claims().iter().map(|(name, value)| format!("{name}={value}")).collect();
            let about = if credential.subject() == *node { "" } else { " about another node, not shown" };
            let (kind, by, until) = (credential.kind(), credential.issuer(), credential.valid_until());
            format!("{name}: {kind}{about}: {} by {by} until {until}", claims.join(", "))
        }
        Ok(HeldKind::List(list)) => {
            format!("{name}: status list {} of {} until {}", list.id(), list.issuer(), list.valid_until())
        }
        Err(error) => format!("{name}: not shown: {error}"),
    }
}

fn value(held: &Held) -> Value {
    match &held.what {
        Ok(HeldKind::Credential(credential)) => json!({"name": name(held), "credential": described(credential)}),
        Ok(HeldKind::List(list)) => json!({"name": name(held), "list": {
            "id": list.id(), "issuer": list.issuer(), "validUntil": list.valid_until(), "revoked": list.revoked_count(),
        }}),
        Err(error) => json!({"name": name(held), "error": error}),
    }
}

impl Rm {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let directory = self.data_dir.join("identity");
        let all = Held::all(&directory);
        let held = all.iter().find(|held| name(held) == self.name).ok_or_else(|| {
            let names: Vec<String> = all.iter().map(name).collect();
            anyhow!("nothing is shown as {}; there are: {}", self.name, names.join(", "))
        })?;
        std::fs::remove_file(&held.path).with_context(|| format!("remove {}", held.path.display()))?;
        println!("{} is shown no more", self.name);
        Ok(())
    }
}

fn name(held: &Held) -> String {
    held.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn node(directory: &Path) -> Result<NodeId> {
    if !directory.exists() {
        bail!("{}: no node has run there; make its key: fluidos identity new --data-dir DIR", directory.display());
    }
    let identity = IdentityDirectory::open(directory, false)?;
    identity.key().map(NodeKey::id).ok_or_else(|| anyhow!("{}: the node has no key", directory.display()))
}

fn check_length(text: &str, max: usize) -> Result<()> {
    if text.len() > max {
        bail!("{} characters, at most {max}", text.len());
    }
    Ok(())
}
