//! 1 KiB written for good: `Put` at etcd, and the creation of a ConfigMap that holds 1 KiB at both API servers; the same request at a server
//! that does no more than sync it ([`super::bound`]).

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, Load, ROUNDS, load, planes};
use crate::figures::{Samples, spread};
use crate::plane::Plane;
use crate::wire::Address;

/// Clients, and how many writes of a round they share.
const CROWDS: [(usize, usize); 2] = [(1, 300), (64, 6_400)];
pub const BYTES: usize = 1_024;

#[derive(Default)]
struct Side {
    per_second: Vec<f64>,
    each: Samples,
}

impl Side {
    fn add(&mut self, load: &Load) {
        self.per_second.push(load.per_second());
        self.each.extend(load.each.clone());
    }

    fn figures(&self) -> Value {
        json!({"per_second": spread(self.per_second.clone()), "each": self.each.figures()})
    }

    fn over(&self, other: &Self) -> Value {
        spread(self.per_second.iter().zip(&other.per_second).map(|(a, b)| a / b).collect())
    }
}

pub async fn measure(binaries: &Path) -> Result<Value> {
    let [ours, upstream] = planes(binaries).await?;
    let bound = Plane::bound().await?;
    let etcd = upstream.etcd.clone().context("upstream has no etcd")?;
    let mut rows = Vec::new();
    let mut name = 0;
    for (clients, count) in CROWDS {
        let mut sides: [Side; 4] = Default::default();
        // The first round fills caches of all and is not counted.
        for round in 0..=ROUNDS {
            name += 1;
            let loads = [
                put(&etcd, clients, count, name).await?,
                create(&upstream.address("admin")?, clients, count, name).await?,
                create(&ours.address("admin")?, clients, count, name).await?,
                create(&bound.address("admin")?, clients, count, name).await?,
            ];
            if round > 0 {
                sides.iter_mut().zip(&loads).for_each(|(side, load)| side.add(load));
            }
        }
        let [put, theirs, created, most] = &sides;
        let p99 = theirs.each.micros(990) / created.each.micros(990);
        rows.push(json!({
            "clients": clients, "writes_of_a_round": count,
            "etcd_put": put.figures(), "kube_apiserver_create": theirs.figures(), "ours_create": created.figures(),
            "bound": most.figures(), "ratio_to_bound": created.over(most),
            "ratio_to_etcd": created.over(put), "ratio_to_kube_apiserver": created.over(theirs),
            "p99_of_kube_apiserver_over_ours": crate::figures::rounded(p99),
        }));
    }
    Ok(json!({"bytes": BYTES, "rows": rows}))
}

async fn put(etcd: &Address, clients: usize, count: usize, round: usize) -> Result<Load> {
    let value = Bytes::from(vec![b'x'; BYTES]);
    load(etcd, clients, count, move |mut wire, number| {
        let value = value.clone();
        async move { wire.etcd_put(&format!("/flt/{round}/{number}"), &value).await }
    })
    .await
}

async fn create(api: &Address, clients: usize, count: usize, round: usize) -> Result<Load> {
    let text = "x".repeat(BYTES);
    load(api, clients, count, move |mut wire, number| {
        let body = json!({"metadata": {"name": format!("write-{round}-{number}")}, "data": {"value": text}});
        async move { wire.ask("POST", CONFIG_MAPS, Bytes::from(body.to_string())).await.map(|_| ()) }
    })
    .await
}
