//! `fluidos log`: what this node has signed, entry by entry, and whether that is what witnesses were shown. It reads the node's directory:
//! no node need run.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{NODE_KEY_FILE, NodeId, NodeKey};
use fluidos_log::{Hash, TreeHead, open_head};
use fluidos_notary::{Book, Comparison, Found, Kept, LOG_DIRECTORY, Remembered, compare, remembered, sight};
use fluidos_rear as rear;
use serde_json::{Value, json};

use crate::connection::with;
use crate::look::{self, Look, Table};
use crate::node;

/// Digits of a digest that are enough to tell two apart.
const SHORT: usize = 12;

/// What is done with the log; without a verb it is listed.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Log {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    look: Look,
}

/// Whose log.
#[derive(clap::Args, Clone, Debug)]
struct Place {
    /// The node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory, default_value = "/var/lib/fluidos")]
    data_dir: PathBuf,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Verb {
    /// Compute the tree again and compare it with every head that a witness keeps. Exit 1 if one does not agree; the first entry that
    /// differs is named.
    #[command(
        after_help = "Examples:\n  fluidos log verify --data-dir /var/lib/fluidos\n  fluidos log verify --offline"
    )]
    Verify {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        look: Look,
        /// Ask nobody: only what witnesses have countersigned before, as it is in the directory.
        #[arg(long)]
        offline: bool,
    },
}

/// Does what the verb says.
pub fn run(log: &Log) -> Result<()> {
    match &log.verb {
        None => list(&log.place.data_dir, &log.look),
        Some(Verb::Verify { place, look, offline }) => verify(&place.data_dir, look, *offline),
    }
}

fn read(data_dir: &Path) -> Result<(Book, Found)> {
    let directory = data_dir.join(LOG_DIRECTORY);
    let (book, found) = fluidos_notary::read(&directory)?;
    if found == Found::Nothing {
        bail!("--data-dir {}: there is no log; no node has run there, or it was lost", data_dir.display());
    }
    Ok((book, found))
}

fn list(data_dir: &Path, look: &Look) -> Result<()> {
    let (book, found) = read(data_dir)?;
    if let Found::Damaged { offset, reason } = found {
        eprintln!("The log is damaged at byte {offset}: {reason}. What is before it follows.");
    }
    let leaves = || book.tree().leaves().iter().zip(book.entries()).enumerate();
    let values: Vec<Value> = leaves()
        .map(|(number, (leaf, entry))| {
            let entry = entry.as_ref();
            json!({
                "number": number, "leaf": leaf, "kind": entry.map(|entry| entry.kind), "of": entry.map(|entry| &entry.of),
                "at": entry.and_then(|entry| entry.at.as_ref()), "digest": entry.map(|entry| entry.digest),
            })
        })
        .collect();
    if look.is_name() {
        leaves().for_each(|(_, (leaf, _))| println!("entry/{leaf}"));
        return Ok(());
    }
    look::show_values(look, &values, || Table {
        heading: &["NR", "KIND", "OF", "AT", "DIGEST", "LEAF"],
        narrow: 5,
        rows: leaves().map(|(number, (leaf, entry))| row(number, leaf, entry.as_ref())).collect(),
        empty: "The log is empty: nothing was signed yet.".into(),
    })
}

fn row(number: usize, leaf: &Hash, entry: Option<&fluidos_log::Entry>) -> Vec<String> {
    let text = |of: &dyn Fn(&fluidos_log::Entry) -> String| entry.map_or_else(|| "?".to_owned(), of);
    vec![
        number.to_string(),
        text(&|entry| entry.kind.to_string()),
        text(&|entry| entry.of.clone()),
        text(&|entry| look::option(entry.at.as_deref())),
        text(&|entry| entry.digest.to_string().chars().take(SHORT).collect()),
        leaf.to_string(),
    ]
}

/// What one comparison has shown.
struct Finding {
    witness: String,
    how: &'static str,
    size: Option<u64>,
    /// Whether nothing contradicts the log.
    agrees: bool,
    result: String,
}

impl Finding {
    fn value(&self) -> Value {
        json!({
            "witness": self.witness, "how": self.how, "entries": self.size, "agrees": self.agrees, "result": self.result,
        })
    }
}

fn verify(data_dir: &Path, look: &Look, offline: bool) -> Result<()> {
    let (book, found) = read(data_dir)?;
    let identity = data_dir.join("identity");
    let key = NodeKey::open(&identity.join(NODE_KEY_FILE)).context("the node's key is needed to ask its witnesses")?;
    let (origin, keys) = (node::first_of(&identity, &key), node::notary::keys(&identity, &key)?);
    let witnesses = remembered(&data_dir.join(LOG_DIRECTORY)).map_err(|error| anyhow!("{error}"))?;
    let mut findings = vec![own(&book, &found)];
    for witness in &witnesses {
        findings.push(countersigned(&book, witness, origin, &keys));
    }
    if !offline {
        with(async {
            for witness in &witnesses {
                findings.push(asked(&book, witness, &key, origin, &keys).await);
            }
            Ok(())
        })?;
    }
    let values: Vec<Value> = findings.iter().map(Finding::value).collect();
    let rows = findings.iter().map(|finding| {
        let size = finding.size.map_or_else(|| "?".to_owned(), |size| size.to_string());
        vec![finding.witness.clone(), finding.how.into(), size, finding.result.clone()]
    });
    look::show_values(look, &values, || Table {
        heading: &["WITNESS", "HOW", "ENTRIES", "RESULT"],
        narrow: 4,
        rows: rows.collect(),
        empty: String::new(),
    })?;
    if witnesses.is_empty() {
        eprintln!("Nobody has witnessed this log yet: the other parties of contracts do.");
    }
    let wrong = findings.iter().filter(|finding| !finding.agrees).count();
    if wrong > 0 {
        bail!("{wrong} of {} comparisons do not agree with the log", findings.len());
    }
    Ok(())
}

fn own(book: &Book, found: &Found) -> Finding {
    let size = Some(book.tree().size());
    let (agrees, result) = match found {
        Found::Damaged { offset, reason } => {
            (false, format!("damaged at byte {offset}, behind entry {}: {reason}", book.tree().size()))
        }
        _ if !book.missing().is_empty() => {
            (false, format!("{} entries are known by their hash only", book.missing().len()))
        }
        _ => {
            let root: String = book.tree().root().to_string().chars().take(SHORT).collect();
            (true, format!("whole, root {root}…"))
        }
    };
    Finding { witness: "this node".into(), how: "journal", size, agrees, result }
}

/// What a witness has signed before, as it is in the directory.
fn countersigned(book: &Book, witness: &Remembered, origin: NodeId, keys: &BTreeSet<NodeId>) -> Finding {
    let finding =
        |size, agrees, result| Finding { witness: witness.did.to_string(), how: "countersigned", size, agrees, result };
    let head = match open_head(&witness.head) {
        Ok(head) => head,
        Err(error) => return finding(None, false, error.to_string()),
    };
    let ours = head.value().origin == origin && head.signers().any(|signer| keys.contains(&signer));
    if !ours || !head.signed_by(&witness.did) {
        return finding(None, false, "the head is not signed by this node and the witness".into());
    }
    let (agrees, result) = judged(book, head.value());
    finding(Some(head.value().size), agrees, result)
}

/// What a witness says now. One that does not answer contradicts nothing.
async fn asked(book: &Book, witness: &Remembered, key: &NodeKey, origin: NodeId, keys: &BTreeSet<NodeId>) -> Finding {
    let finding =
        |size, agrees, result| Finding { witness: witness.did.to_string(), how: "asked", size, agrees, result };
    let ask = async {
        let address: SocketAddr = witness.address.parse().context("its address")?;
        let client = rear::Client::new(key, rear::Target { address, expected: Some(witness.did) })?;
        let kept = client.kept_head(origin).await?;
        anyhow::Ok((client, kept))
    };
    let (client, kept) = match ask.await {
        Ok(answered) => answered,
        Err(error) => return finding(None, true, format!("? no answer: {error:#}")),
    };
    match sight(&kept, origin, keys) {
        Err(reason) => finding(None, true, format!("? its answer proves nothing: {reason}")),
        Ok(Kept::Nothing) => finding(Some(0), true, "it keeps nothing any more".into()),
        Ok(Kept::Head { head, leaves, rewritten }) => {
            let (mut agrees, mut result) = judged(book, head.value());
            if !agrees && let Some(first) = first_difference(book, &client, leaves).await {
                result = format!("{result}; {first}");
            }
            if rewritten {
                agrees = false;
                result = format!("{result}; it was shown two histories, both signed by this node");
            }
            finding(Some(head.value().size), agrees, result)
        }
    }
}

fn judged(book: &Book, head: &TreeHead) -> (bool, String) {
    let size = book.tree().size();
    match compare(book, head) {
        Comparison::Agrees => (true, "agrees".into()),
        Comparison::Past => (true, format!("of epoch {}, before the log was begun anew", head.epoch)),
        Comparison::More => (false, format!("it keeps {} entries, the log has {size}", head.size)),
        Comparison::Differs => (false, format!("it keeps another history of {} entries", head.size)),
    }
}

/// Names the first entry in which the log differs from the leaves that a witness keeps.
async fn first_difference(book: &Book, client: &rear::Client, leaves: u64) -> Option<String> {
    let own = book.tree().leaves();
    let mut number = 0usize;
    while (number as u64) < leaves {
        let page = client.kept_leaves(number as u64).await.ok().filter(|page| !page.is_empty())?;
        for kept in page {
            let Some(leaf) = own.get(number) else { return Some(format!("entry {number} is not here")) };
            if *leaf != kept {
                let named = book.entries()[number].as_ref();
                let of = named.map_or_else(|| "?".to_owned(), |entry| format!("{} of {}", entry.kind, entry.of));
                return Some(format!("entry {number} is the first that differs: here {of}"));
            }
            number += 1;
        }
    }
    None
}
