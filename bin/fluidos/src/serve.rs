//! `fluidos serve catalog`: a board where nodes that share no LAN announce themselves.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_catalog::{Access, Catalog, Options, serve};
use fluidos_identity::{IdentityDirectory, NodeId};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What can be served beside a node.
#[derive(clap::Subcommand)]
pub enum Serve {
    /// Keep signed announcements of nodes, and give them to those who may read. Joins no peering.
    #[command(after_help = "Examples:
  fluidos serve catalog --data-dir /var/lib/fluidos-catalog
  fluidos serve catalog --data-dir DIR --tenant public=open --tenant club=members --member did:key:z6Mk...")]
    Catalog(CatalogFlags),
}

/// The flags of `fluidos serve catalog`.
#[derive(clap::Args)]
pub struct CatalogFlags {
    /// Where it listens, with HTTPS.
    #[arg(long, default_value = "0.0.0.0:7400", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Where it keeps its key and its journal.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// A board: open to everybody, or to members, who alone read it, too. May be given several times.
    #[arg(long, default_value = "public=open", value_name = "NAME=open|members", value_parser = tenant)]
    tenant: Vec<(String, Access)>,
    /// A member, by the DID of its node. May be given several times.
    #[arg(long, value_name = "DID")]
    member: Vec<NodeId>,
}

/// Serves until a signal ends it.
pub fn run(what: &Serve) -> Result<()> {
    let Serve::Catalog(flags) = what;
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLUIDOS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(catalog(flags))
}

async fn catalog(flags: &CatalogFlags) -> Result<()> {
    let directory = &flags.data_dir;
    std::fs::create_dir_all(directory).with_context(|| format!("--data-dir {}", directory.display()))?;
    let key = IdentityDirectory::key_to_run(&directory.join("identity"))?;
    let options =
        Options { directory: directory.clone(), tenants: flags.tenant.clone(), members: flags.member.clone() };
    let catalog = Catalog::open(options).map_err(|reason| anyhow!(reason))?;
    let listener = TcpListener::bind(flags.listen).await;
    let listener = listener.with_context(|| format!("--listen {}: cannot listen", flags.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    ready(&key.id(), listener.local_addr()?)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    serve(listener, &key, catalog, stop).await.context("the catalog is not served any more")
}

/// The one line on standard output: it serves. What nodes are given is `did@address`.
fn ready(did: &NodeId, address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready did={did} catalog=https://{address}")?;
    Ok(out.flush()?)
}

fn tenant(text: &str) -> Result<(String, Access)> {
    match text.split_once('=') {
        Some((name, "open")) => Ok((name.into(), Access::Open)),
        Some((name, "members")) => Ok((name.into(), Access::Members)),
        _ => bail!("{text}: needed NAME=open or NAME=members"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tenant_is_open_or_of_members() {
        assert_eq!(tenant("club=members").unwrap(), ("club".into(), Access::Members));
        assert!(tenant("club").unwrap_err().to_string().contains("needed NAME=open"));
        assert!(tenant("club=all").is_err());
    }
}
