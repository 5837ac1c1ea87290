//! `fluidos identity`: who a node or an owner is. Files in, files out; nothing is fetched.
#![allow(clippy::print_stdout)] // the answer of a verb

mod change;
mod resolve;
mod show;
mod tell;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use fluidos_identity::{NODE_KEY_FILE, NodeKey};
use serde_json::json;

pub use self::change::{Revoke, Rotate};
pub use self::resolve::{Resolve, read_statements};
pub use self::show::Show;
pub use self::tell::Tell;

/// What is done with an identity.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Identity {
    /// Make a key: of an owner or a certifier, or of a node that has not started yet.
    #[command(
        after_help = "Examples:\n  fluidos identity new --out owner.key\n  fluidos identity new --data-dir /var/lib/fluidos"
    )]
    New(New),
    /// Show who a node or a key is.
    #[command(
        after_help = "Examples:\n  fluidos identity show --data-dir /var/lib/fluidos\n  fluidos identity show --key owner.key --did-document farm.example > did.json"
    )]
    Show(Show),
    /// Give a stopped node another key: the old one signs the hand-over, or the owner if it is lost or stolen.
    #[command(
        after_help = "Examples:\n  fluidos identity rotate --data-dir /var/lib/fluidos\n  fluidos identity rotate --data-dir /var/lib/fluidos --owner-key owner.key --lost did:key:z6Mk…"
    )]
    Rotate(Rotate),
    /// Say that a key counts no more: the key itself, one that follows it, or the owner who vouched for it.
    #[command(
        after_help = "Examples:\n  fluidos identity revoke did:key:z6Mk… --data-dir /var/lib/fluidos --reason 'machine stolen'\n  fluidos identity revoke did:key:z6Mk… --key owner.key --reason 'machine stolen' --out revocation.json"
    )]
    Revoke(Revoke),
    /// Find out offline which key speaks for a node now. Exit 1 if none does.
    #[command(
        after_help = "Example:\n  fluidos identity resolve did:key:z6Mk… --statements history.json --owner node-ownership.jwt"
    )]
    Resolve(Resolve),
    /// Give hand-overs and revocations to nodes: to one of yours, which tells its peers, or to others by their address.
    #[command(
        after_help = "Examples:\n  fluidos identity tell revocation.json --data-dir /var/lib/fluidos\n  fluidos identity tell revocation.json --to 192.0.2.7:7300 --to 192.0.2.8:7300"
    )]
    Tell(Tell),
}

/// Where the key goes.
#[derive(clap::Args, Clone, Debug)]
pub struct New {
    /// The file; it must not be there. Only its owner can read it (0600).
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    out: Option<PathBuf>,
    /// The directory of a node: `fluidos up` would make its key when it starts.
    #[arg(long, value_parser = crate::cli::up::directory, required_unless_present = "out")]
    data_dir: Option<PathBuf>,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Does what the verb says.
pub fn run(identity: &Identity) -> Result<()> {
    match identity {
        Identity::New(new) => new.run(),
        Identity::Show(show) => show.run(),
        Identity::Rotate(rotate) => rotate.run(),
        Identity::Revoke(revoke) => revoke.run(),
        Identity::Resolve(resolve) => resolve.run(),
        Identity::Tell(tell) => tell.run(),
    }
}

impl New {
    fn run(&self) -> Result<()> {
        let path = match (&self.out, &self.data_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(directory)) => {
                let directory = directory.join("identity");
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
                directory.join(NODE_KEY_FILE)
            }
            (None, None) => bail!("needed --out or --data-dir"),
        };
        let key = NodeKey::create(&path)?;
        if let Some(directory) = &self.data_dir {
            // The node is new: an empty log is all there was.
            fluidos_notary::begin(&directory.join(fluidos_notary::LOG_DIRECTORY))?;
        }
        if self.output == "json" {
            println!("{}", serde_json::to_string_pretty(&json!({"did": key.id(), "key": path}))?);
        } else {
            println!("{}", key.id());
            eprintln!("Keep {} safe: who has it is {}.", path.display(), key.id());
        }
        Ok(())
    }
}
