//! The benches that need no second machine: `fluidos-bench NAME` prints one JSON object of figures. `cargo xtask bench` builds what is
//! measured, calibrates, and keeps the result.
//!
//! | name | what | beside |
//! |---|---|---|
//! | `decisions` | a decision of the policy point | cedar-policy as it comes |
//! | `ranking` | what the answers of 10,000 providers are worth | itself at 1, 10, 100, … |
//! | `market` | 1,000 providers answer one request, one is bought from | itself at 1, 10, 100 |
//! | `scheduling` | pods placed a second, by the choice alone and over an API in process | itself at 500 and 5,000 nodes |
//! | `purchases` | whole purchases at a node, each over a new connection | nginx that serves the same bytes |
//!
//! `announce` is no bench: it makes the crowd of the bench `announcers`, which `cargo xtask` measures from outside.
//!
//! A *figure* is a median with minimum and maximum of at least five runs; two programs take turns, A B A B.

mod announcers;
mod decisions;
mod figures;
mod market;
mod purchases;
mod ranking;
mod scheduling;
mod seller;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

/// Measures one thing.
#[derive(Parser)]
struct Bench {
    /// Which: decisions, ranking, market, scheduling, purchases.
    name: String,
    /// The `fluidos` that is measured, for purchases.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How many nodes are announced, for announce.
    #[arg(long, default_value_t = 1000)]
    count: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    if bench.name == "announce" {
        return announcers::announce(bench.count).await;
    }
    let figures = match (bench.name.as_str(), &bench.binary) {
        ("decisions", _) => decisions::measure().await?,
        ("ranking", _) => ranking::measure(),
        ("market", _) => market::measure().await?,
        ("scheduling", _) => scheduling::measure().await?,
        ("purchases", Some(binary)) => purchases::measure(binary).await?,
        ("purchases", None) => bail!("purchases: --binary is missing: which fluidos?"),
        (other, _) => bail!("there is no bench {other:?}; there are decisions, ranking, market, scheduling, purchases"),
    };
    #[allow(clippy::print_stdout)] // the result is what this program is for
    {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    Ok(())
}
