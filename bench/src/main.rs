//! The benches that need no second machine: `fluidos-bench NAME` prints one JSON object of figures. `cargo xtask bench` builds what is
//! measured, calibrates, and keeps the result.
//!
//! | name | what | beside |
//! |---|---|---|
//! | `decisions` | a decision of the policy point | cedar-policy as it comes |
//! | `ranking` | what the answers of 10,000 providers are worth | itself at 1, 10, 100, … |
//! | `market` | 1,000 providers answer one request, one is bought from | itself at 1, 10, 100 |
//! | `scheduling` | pods placed a second, by the choice alone, over an API in process, and by sockets | kube-scheduler v1.20.2 |
//! | `api` | writes, reads, watchers and growth of the API server | etcd and kube-apiserver v1.20.2 |
//! | `purchases` | whole purchases at a node, each over a new connection | nginx that serves the same bytes |
//!
//! Four are no benches: `announce` makes the crowd of the bench `announcers`, which `cargo xtask` measures from outside; `serve` is the API
//! server, and `schedule` the scheduler, that stand beside upstream's; `bound` is what no API server can be quicker than.
//!
//! A *figure* is a median with minimum and maximum of at least five runs; two programs take turns, A B A B.

mod announcers;
mod api;
mod decisions;
mod figures;
mod market;
mod plane;
mod purchases;
mod ranking;
mod scheduling;
mod seller;
mod wire;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

/// Measures one thing.
#[derive(Parser)]
struct Bench {
    /// Which: decisions, ranking, market, scheduling, api, purchases.
    name: String,
    /// The `fluidos` that is measured, for purchases.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How many nodes are announced, for announce.
    #[arg(long, default_value_t = 1000)]
    count: u16,
    /// One part alone: of api writes, reads, watchers, growth; of purchases costs, which is no part of the whole.
    #[arg(long)]
    only: Option<String>,
    /// The folder of upstream's programs, for api and scheduling.
    #[arg(long)]
    upstream: Option<PathBuf>,
    /// Of the API, for schedule.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where the store is, and the port, for serve.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    if bench.name == "announce" {
        return announcers::announce(bench.count).await;
    }
    if bench.name == "serve" {
        return plane::serve(&bench.directory, bench.port).await;
    }
    if bench.name == "bound" {
        return api::bound::serve(&bench.directory, bench.port).await;
    }
    if bench.name == "schedule" {
        return scheduling::run(&bench.kubeconfig.context("schedule: --kubeconfig is missing: of which API?")?).await;
    }
    let upstream = |name: &str| {
        bench.upstream.clone().with_context(|| format!("{name}: --upstream is missing: where is kube-apiserver?"))
    };
    let figures = match (bench.name.as_str(), &bench.binary) {
        ("api", _) => api::measure(&upstream("api")?, bench.only.as_deref()).await?,
        ("decisions", _) => decisions::measure().await?,
        ("ranking", _) => ranking::measure(),
        ("market", _) => market::measure().await?,
        ("scheduling", _) => scheduling::measure(&upstream("scheduling")?).await?,
        ("purchases", Some(binary)) => match bench.only.as_deref() {
            Some("costs") => purchases::costs::measure(binary).await?,
            Some(other) => bail!("purchases has no part {other:?}; there is costs"),
            None => purchases::measure(binary).await?,
        },
        ("purchases", None) => bail!("purchases: --binary is missing: which fluidos?"),
        (other, _) => {
            bail!("there is no bench {other:?}; there are decisions, ranking, market, scheduling, api, purchases")
        }
    };
    #[allow(clippy::print_stdout)] // the result is what this program is for
    {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    Ok(())
}
