//! `fluidos identity tell`: gives statements about keys to a node of the owner, or to nodes of anybody.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_discovery::introductions::present;
use fluidos_identity::{
    NodeKey, Presentation, STATEMENTS_BYTES_MAX, STATEMENTS_DIRECTORY, STATEMENTS_MAX, Statement, read_file,
    replace_file,
};
use fluidos_link::Links;

/// A node that is there answers within a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told, to whom.
#[derive(clap::Args, Clone, Debug)]
pub struct Tell {
    /// A hand-over or a revocation, or a node's history.json.
    file: PathBuf,
    /// The directory of a node of yours, which may be running: it believes what may be believed, and tells its peers.
    #[arg(long, value_parser = crate::cli::up::directory, required_unless_present = "to")]
    data_dir: Option<PathBuf>,
    /// A node, by the address of its --rear; may be repeated. It believes only what the key itself, or its owner, has signed.
    #[arg(long, value_name = "ADDR:PORT")]
    to: Vec<String>,
}

impl Tell {
    /// Does what the verb says.
    #[allow(clippy::print_stdout)] // the answer of a verb
    pub fn run(&self) -> Result<()> {
        let bytes = read_file(&self.file, STATEMENTS_BYTES_MAX)?;
        let statements = match bytes.trim_ascii_start().first() {
            Some(b'[') => Statement::parse_all(&bytes),
            _ => Statement::parse(bytes.trim_ascii()).map(|statement| vec![statement]),
        };
        let statements = statements.with_context(|| self.file.display().to_string())?;
        if let Some(directory) = &self.data_dir {
            keep(&directory.join("identity"), &statements)?;
            println!("{} told to the node of {}", statements.len(), directory.display());
        }
        if self.to.is_empty() {
            return Ok(());
        }
        let shown = Presentation {
            statements: statements.iter().map(Statement::envelope).collect(),
            ..Presentation::default()
        };
        let bytes = shown.to_bytes().map_err(|error| anyhow!(error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut failed = 0;
        for address in &self.to {
            match runtime.block_on(tell(address, &bytes)) {
                Ok(()) => println!("{} told to {address}", statements.len()),
                Err(error) => {
                    eprintln!("{address}: {error:#}");
                    failed += 1;
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} were not told", self.to.len());
        }
        Ok(())
    }
}

/// Puts each statement beside those that the node was told before.
fn keep(identity: &std::path::Path, statements: &[Statement]) -> Result<()> {
    if !identity.exists() {
        bail!("{}: no node has run there", identity.display());
    }
    let directory = identity.join(STATEMENTS_DIRECTORY);
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let there = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?.count();
    if there + statements.len() > STATEMENTS_MAX {
        bail!("{}: {there} statements are there, at most {STATEMENTS_MAX}", directory.display());
    }
    for statement in statements {
        let text = serde_json::to_string(&statement.envelope())? + "\n";
        let kind = match statement {
            Statement::Handover(_) => "handover",
            Statement::Revocation(_) => "revocation",
        };
        let by = match statement {
            Statement::Handover(handover) => handover.by(),
            Statement::Revocation(revocation) => revocation.by(),
        };
        let name = format!("{kind}-{}-by-{}.json", statement.about().tag(), by.tag());
        replace_file(&directory.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Tells one node, under a key that is made for it and says nothing.
async fn tell(address: &str, bytes: &[u8]) -> Result<()> {
    let addresses = tokio::net::lookup_host(address).await.context("look it up")?;
    let target: SocketAddr = addresses.min().context("it has no address")?;
    let any: SocketAddr =
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let links = Links::start(NodeKey::generate()?, fluidos_link::Options::new(any, "tell", 1))?;
    links.dial(target, None);
    let telling = async {
        let session = loop {
            if let Some(peer) = links.peers().first().and_then(|peer| links.get(&peer.id)) {
                break peer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        present(&session, bytes).await.map_err(|error| anyhow!(error))
    };
    let told = tokio::time::timeout(PATIENCE, telling).await;
    let why = links.dials().into_iter().next().map(|(_, status)| format!("{status:?}")).unwrap_or_default();
    links.stop().await;
    told.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}: {why}")))
}
