//! `fluidos identity resolve`: which key speaks for a node, by what was said.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fluidos_identity::{
    Demands, NodeId, Owners, STATEMENTS_BYTES_MAX, STATUS_TEXT_LENGTH_MAX, Standing, Statement, StatusList,
    TrustedIssuers, read_file, resolve,
};
use jiff::Timestamp;
use serde_json::json;

use crate::credential;

/// What is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct Resolve {
    /// A key of the node: the one by which it is known.
    did: NodeId,
    /// Hand-overs and revocations: a node's history.json, or one statement; may be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    statements: Vec<PathBuf>,
    /// The credential of its owner, as the node itself has shown it. Without it only the node's own keys are believed.
    #[arg(long, value_name = "FILE")]
    owner: Option<PathBuf>,
    /// The status list of that owner.
    #[arg(long, value_name = "FILE", requires = "owner")]
    status: Option<PathBuf>,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Returns the statements in files: each a node's history.json, or one statement.
///
/// # Errors
/// When one cannot be read, or is no such file; it is named.
pub fn read_statements(files: &[PathBuf]) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    for path in files {
        let bytes = read_file(path, STATEMENTS_BYTES_MAX)?;
        let read = match bytes.trim_ascii_start().first() {
            Some(b'[') => Statement::parse_all(&bytes),
            _ => Statement::parse(&bytes).map(|statement| vec![statement]),
        };
        statements.extend(read.with_context(|| path.display().to_string())?);
    }
    Ok(statements)
}

impl Resolve {
    /// Does what the verb says.
    #[allow(clippy::print_stdout)] // the answer of a verb
    pub fn run(&self) -> Result<()> {
        let now = Timestamp::now();
        let statements = read_statements(&self.statements)?;
        let standing = resolve(self.did, &statements, &self.owners(now)?, now);
        let told = standing.to_string();
        let (word, detail) = told.split_once(' ').unwrap_or((&told, ""));
        if self.output == "json" {
            println!("{}", serde_json::to_string_pretty(&json!({"standing": word, "detail": detail}))?);
        } else {
            println!("{told}");
        }
        match standing {
            Standing::Current(_) => Ok(()),
            _ => bail!("no key speaks for {}: {word}", self.did),
        }
    }

    fn owners(&self, now: Timestamp) -> Result<Owners> {
        let mut owners = Owners::default();
        let Some(path) = &self.owner else { return Ok(owners) };
        let status = self.status.as_ref().map(|path| -> Result<StatusList> {
            let text = credential::text(path, STATUS_TEXT_LENGTH_MAX)?;
            StatusList::parse(&text).with_context(|| format!("--status {}", path.display()))
        });
        let status = status.transpose()?;
        let demands = Demands { now, issuer: None, subject: None, status: status.as_ref() };
        let verified = credential::read(path)?.verify(&demands).with_context(|| path.display().to_string())?;
        let subject = verified.subject();
        owners
            .shown(subject, &verified, &TrustedIssuers::default(), now)
            .with_context(|| path.display().to_string())?;
        Ok(owners)
    }
}
