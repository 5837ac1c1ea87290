//! How a verb reaches the API: kubectl's flags.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// kubectl's connection flags; they stand before or after the verb.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The kubeconfig; else $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace. Default: `fluidos` for our kinds, `default` for workloads.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

impl Connection {
    /// A client with the caller's rights.
    ///
    /// # Errors
    /// When there is no kubeconfig or it cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        let path = self
            .kubeconfig
            .clone()
            .or_else(|| std::env::var_os("KUBECONFIG").map(PathBuf::from))
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config")))
            .ok_or_else(|| anyhow!("no kubeconfig: give --kubeconfig or KUBECONFIG (the node wrote DIR/kubeconfig)"))?;
        Ok(substrate_client::from_kubeconfig(&path, self.context.as_deref()).await?)
    }

    /// The namespace that is meant.
    pub fn namespace_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(default)
    }
}

/// Runs what needs the API.
///
/// # Errors
/// What `work` says.
pub fn with<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
