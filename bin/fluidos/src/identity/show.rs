//! `fluidos identity show`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{
    Credential, DidWeb, Handover, IdentityDirectory, NodeId, NodeKey, Statement, fabric_prefix, first_key,
};
use serde_json::{Value, json};

use crate::credential;

/// Credentials of a node that are listed: one of its owner and a few of certifiers.
const CREDENTIALS_MAX: usize = fluidos_identity::PEER_CREDENTIALS_MAX;

/// Who is shown.
#[derive(clap::Args, Clone, Debug)]
pub struct Show {
    /// A node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory, required_unless_present = "key")]
    data_dir: Option<PathBuf>,
    /// A key of an owner or a certifier.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print the document for this domain's /.well-known/did.json: with it the domain vouches for the key.
    #[arg(long, value_name = "DOMAIN")]
    did_document: Option<String>,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// A credential in the node's directory, or why it is none.
struct Held {
    file: PathBuf,
    credential: Result<Credential>,
}

impl Show {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let directory = self.data_dir.as_ref().map(|directory| directory.join("identity"));
        let (id, first, before, directory) = match (&self.key, directory) {
            (Some(key), _) => {
                let id = NodeKey::open(key)?.id();
                (id, id, Vec::new(), None)
            }
            (None, Some(directory)) => {
                let (id, before) = node(&directory)?;
                let statements: Vec<Statement> = before.iter().cloned().map(Statement::from).collect();
                (id, first_key(id, &statements), before, Some(directory))
            }
            (None, None) => return Err(anyhow!("needed --data-dir or --key")),
        };
        if let Some(domain) = &self.did_document {
            let web: DidWeb = format!("did:web:{domain}").parse().context("--did-document")?;
            println!("{}", serde_json::to_string_pretty(&web.document(&id))?);
            eprintln!("To be published as {}", web.document_url());
            return Ok(());
        }
        let held = directory.as_deref().map(held).transpose()?.unwrap_or_default();
        if self.output == "json" {
            println!("{}", serde_json::to_string_pretty(&described(&id, &first, &before, &held))?);
        } else {
            print(&id, &first, &before, &held);
        }
        Ok(())
    }
}

/// Returns the name of the node in a directory, and what its keys of before have said. It is not made here: `up` does that.
fn node(directory: &Path) -> Result<(NodeId, Vec<Handover>)> {
    if !directory.exists() {
        bail!("{}: no node has run there; run `fluidos up` first", directory.display());
    }
    let identity = IdentityDirectory::open(directory, false)?;
    let key = identity.key().ok_or_else(|| anyhow!("{}: the node has no key", directory.display()))?;
    Ok((key.id(), identity.predecessors().into_iter().cloned().collect()))
}

/// Returns the credentials in a node's directory: the files that end with `.jwt`.
fn held(directory: &Path) -> Result<Vec<Held>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jwt") {
            files.push(path);
        }
    }
    files.sort();
    if files.len() > CREDENTIALS_MAX {
        eprintln!("{}: {} credentials, the first {CREDENTIALS_MAX} are shown", directory.display(), files.len());
    }
    files.truncate(CREDENTIALS_MAX);
    Ok(files.into_iter().map(|file| Held { credential: credential::read(&file), file }).collect())
}

fn described(id: &NodeId, first: &NodeId, before: &[Handover], held: &[Held]) -> Value {
    let credentials = held.iter().map(|held| match &held.credential {
        Ok(credential) => json!({"file": held.file, "credential": credential::described(credential)}),
        Err(error) => json!({"file": held.file, "error": format!("{error:#}")}),
    });
    let before = before.iter().map(|h| json!({"did": h.from(), "handedOverAt": h.at(), "by": h.by()}));
    json!({
        "did": id,
        "fingerprint": id.fingerprint(),
        "fabricPrefix": fabric_prefix(first, 0).to_string(),
        "predecessors": before.collect::<Vec<_>>(),
        "credentials": credentials.collect::<Vec<_>>(),
    })
}

fn print(id: &NodeId, first: &NodeId, before: &[Handover], held: &[Held]) {
    println!("did          {id}");
    println!("fingerprint  {}", id.fingerprint());
    println!("prefix       {}", fabric_prefix(first, 0));
    for handover in before {
        let by =
            if handover.by() == handover.from() { "itself".into() } else { format!("its owner {}", handover.by()) };
        println!("before       {} until {}, handed over by {by}", handover.from(), handover.at());
    }
    for Held { file, credential } in held {
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        match credential {
            Ok(credential) => {
                let claims: Vec<String> =
                    credential.claims().iter().map(|(name, value)| format!("{name}={value}")).collect();
                let about = if credential.subject() == *id { "" } else { " about another node" };
                println!(
                    "credential   {file}: {}{about}: {} by {} until {}",
                    credential.kind(),
                    claims.join(", "),
                    credential.issuer(),
                    credential.valid_until()
                );
            }
            Err(error) => println!("credential   {file}: {error:#}"),
        }
    }
}
