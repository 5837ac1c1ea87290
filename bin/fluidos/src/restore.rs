//! `fluidos restore`: a node made of a backup (`backup.rs`), or how it stands with records that this node has lost, and the owner's word that what is missing is gone.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fluidos_model::kinds::{LogState, TransparencyLog, names};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::backup::{self, Place};
use crate::connection::{Connection, with};
use crate::look::{self, Look, Table, known};

/// A line.
const REASON_MAX: usize = 200;

/// What is restored, or done about lost records; without anything it is told how it stands.
#[derive(clap::Args, Clone, Debug)]
pub struct Restore {
    /// A backup, of which the directory is made; it must be empty or absent.
    #[arg(value_name = "FILE", conflicts_with = "accept_loss")]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Give up what nobody gives back, and sell again: why, in a line. It stays in the log.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    accept_loss: Option<String>,
    #[command(flatten)]
    look: Look,
}

fn reason(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > REASON_MAX || text.chars().any(char::is_control) {
        bail!("needed a line of at most {REASON_MAX} characters");
    }
    Ok(text.to_owned())
}

/// Does what the verb says.
pub fn run(connection: &Connection, restore: &Restore) -> Result<()> {
    if let Some(file) = &restore.file {
        return backup::restore(file, &restore.place);
    }
    with(async {
        let client = connection.client().await?;
        let api = Api::<TransparencyLog>::namespaced(client, connection.namespace_or(names::NAMESPACE));
        let log = api.get(names::LOG).await.with_context(|| format!("get transparencylogs/{}", names::LOG))?;
        let status = log.status.clone().unwrap_or_default();
        if let Some(reason) = &restore.accept_loss {
            if status.state == LogState::Complete {
                bail!("nothing is missing: there is no loss to accept");
            }
            let patch = json!({"metadata": {"annotations": {names::ANNOTATION_ACCEPT_LOSS: reason}}});
            api.patch(names::LOG, &PatchParams::default(), &Patch::Merge(patch)).await.context("accept the loss")?;
            eprintln!("The node gives up what is missing: fluidos restore tells when it sells again.");
            return Ok(());
        }
        look::show(&restore.look, "transparencylogs", &[log], |_| {
            let rows = status.witnesses.iter().map(|witness| {
                let size = witness.size.map_or_else(|| "?".to_owned(), |size| size.to_string());
                let (at, role) = (witness.at.clone().unwrap_or_default(), if witness.witness { "yes" } else { "no" });
                vec![witness.did.clone(), role.into(), size, witness.state.clone(), known(&at), witness.message.clone()]
            });
            Table {
                heading: &["PEER", "WITNESS", "ENTRIES", "STATE", "AT", "MESSAGE"],
                narrow: 4,
                rows: rows.collect(),
                empty: "Nobody was asked: no other node is known.".into(),
            }
        })?;
        let restored = status.restored.clone().unwrap_or_default();
        let back = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        eprintln!(
            "{}: {} here, {} missing; back are {}, {}, {}",
            status.state.as_str(),
            if status.size == 1 { "1 entry".to_owned() } else { format!("{} entries", status.size) },
            status.missing,
            back(restored.contracts, "contract"),
            back(restored.receipts, "receipt"),
            back(restored.invoices, "invoice"),
        );
        if !status.message.is_empty() {
            eprintln!("{}", status.message);
        }
        restored.refused.iter().for_each(|refused| eprintln!("refused: {refused}"));
        Ok(())
    })
}
