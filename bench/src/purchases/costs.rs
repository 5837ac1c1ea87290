//! What a purchase costs the node, counted in what does not depend on who else uses the machine: requests to its API, revisions of its store,
//! and time of the processor.
//!
//! ```text
//!  so many in force ─▶ rest ─▶ MORE purchases, rest ─▶ their releases, rest
//! ```
//! A rest lets rooms look at what has changed, so that their work is counted, too. What the node does in a rest without anything new is taken off.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::{AT_ONCE, Sold, give_back, processor_ms, purchase, start, together};
use crate::figures::rounded;

/// In force when it begins.
const LIVE: [u32; 2] = [8, 512];
/// Purchases that are counted.
const MORE: u32 = 96;
/// A room looks again after some seconds at the latest.
const REST: Duration = Duration::from_secs(6);

/// The figures.
pub async fn measure(binary: &Path) -> Result<Value> {
    let directory = tempfile::Builder::new().prefix("flt-bench-").tempdir()?;
    let (node, flavor) = start(binary, directory.path()).await?;
    let kubeconfig = Kubeconfig::read_from(directory.path().join("node/kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let counter = Counter { client: kube::Client::try_from(config)?, pid: node.id().context("the node has ended")? };
    let number = Arc::new(AtomicU32::new(0));
    let buy = |many: u32, sold: &Sold| {
        let (flavor, sold) = (flavor.clone(), sold.clone());
        together(&number, many, move |number| {
            let bought = purchase(flavor.clone(), number, sold.clone());
            async { bought.await.map(|_| ()) }
        })
    };
    let (stay, mut in_force) = (Sold::default(), 0);
    let mut figures = Vec::new();
    for live in LIVE {
        buy(live - in_force, &stay).await?;
        in_force = live;
        tokio::time::sleep(REST).await;
        let nothing = counter.rest().await?;
        let before = counter.look().await?;
        let sold = Sold::default();
        buy(MORE, &sold).await?;
        let bought = counter.rest_since(&before).await?;
        let before = counter.look().await?;
        together(&number, MORE, move |_| give_back(sold.clone())).await?;
        let released = counter.rest_since(&before).await?;
        figures.push(json!({
            "in_force": live, "purchase": each(&bought, &nothing), "release": each(&released, &nothing),
        }));
    }
    Ok(json!({ "at_once": AT_ONCE, "counted": MORE, "costs_of_one": figures }))
}

/// What a node has used, by what it is: requests by verb and resource, `revisions`, `processor_ms`.
type Used = BTreeMap<String, f64>;

struct Counter {
    client: kube::Client,
    pid: u32,
}

impl Counter {
    /// What has been used until now.
    async fn look(&self) -> Result<Used> {
        let metrics = self.client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
        let mut used = Used::from([("processor_ms".to_owned(), processor_ms(self.pid)?)]);
        for (name, value) in metrics.lines().filter_map(|line| line.rsplit_once(' ')) {
            let value = || value.parse::<f64>().with_context(|| format!("{name} {value}"));
            if name == "substrate_store_revision" {
                used.insert("revisions".into(), value()?);
            } else if let Some(labels) = name.strip_prefix("apiserver_request_total{") {
                let label =
                    |name: &str| labels.split_once(&format!("{name}=\""))?.1.split_once('"').map(|(text, _)| text);
                let of = |name: &str| label(name).unwrap_or_default();
                let resource = [of("resource"), of("subresource")].join("/");
                *used
                    .entry(format!("{} {} {}", of("verb"), resource.trim_end_matches('/'), of("code")))
                    .or_default() += value()?;
            }
        }
        Ok(used)
    }

    async fn rest(&self) -> Result<Used> {
        let before = self.look().await?;
        self.rest_since(&before).await
    }

    async fn rest_since(&self, before: &Used) -> Result<Used> {
        tokio::time::sleep(REST).await;
        let now = self.look().await?;
        Ok(now.into_iter().map(|(name, used)| (name.clone(), used - before.get(&name).unwrap_or(&0.0))).collect())
    }
}

/// What of it each took, without what would have been used anyhow; what fewer than one in fifty took is left out.
fn each(used: &Used, nothing: &Used) -> BTreeMap<String, f64> {
    let one = |(name, used): (&String, &f64)| {
        (name.clone(), rounded((used - nothing.get(name).unwrap_or(&0.0)) / f64::from(MORE)))
    };
    used.iter().map(one).filter(|(_, used)| *used >= 0.02).collect()
}
