//! One object, and all of 5,000 nodes, each read whole.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{NODES, ROUNDS, make, node, planes};
use crate::figures::{Samples, rounded};
use crate::plane::Plane;
use crate::wire::Wire;

const OBJECTS: usize = 5_000;
/// What is asked, how often in a round, and in which form.
const READS: [(&str, &str, usize, &str); 4] = [
    ("get one node", "/api/v1/nodes/node-00042", 500, "application/json"),
    ("list 5,000 nodes", NODES, 3, "application/json"),
    ("list 5,000 nodes from the cache", "/api/v1/nodes?resourceVersion=0", 3, "application/json"),
    (
        "list 5,000 nodes in protobuf from the cache",
        "/api/v1/nodes?resourceVersion=0",
        3,
        "application/vnd.kubernetes.protobuf",
    ),
];

pub async fn measure(binaries: &Path) -> Result<Value> {
    let planes = planes(binaries).await?;
    for plane in &planes {
        make(plane, NODES, OBJECTS, node).await?;
    }
    let mut rows = Vec::new();
    for (what, path, count, accept) in READS {
        let mut sides: [(Samples, usize); 2] = Default::default();
        for round in 0..=ROUNDS {
            for (plane, side) in planes.iter().zip(&mut sides) {
                let (times, bytes) = read(plane, path, count, accept).await?;
                if round > 0 {
                    side.0.extend(times);
                }
                side.1 = bytes;
            }
        }
        let [ours, theirs] = &sides;
        let ratio = |per_mille| rounded(theirs.0.micros(per_mille) / ours.0.micros(per_mille));
        rows.push(json!({
            "what": what, "ours": ours.0.figures(), "kube_apiserver": theirs.0.figures(),
            "bytes": {"ours": ours.1, "kube_apiserver": theirs.1},
            "p50_of_kube_apiserver_over_ours": ratio(500), "p99_of_kube_apiserver_over_ours": ratio(990),
        }));
    }
    Ok(Value::Array(rows))
}

/// How long each took to its last byte, and how many bytes came.
async fn read(plane: &Plane, path: &str, count: usize, accept: &str) -> Result<(Samples, usize)> {
    let mut wire = Wire::open(&plane.address("admin")?).await?;
    let (mut times, mut bytes) = (Samples::default(), 0);
    for _ in 0..count {
        let begun = Instant::now();
        let answer = wire.get(path, accept).await?;
        ensure!(answer.status().is_success(), "{}: {path}: {}", plane.name, answer.status());
        let body: Bytes = answer.into_body().collect().await?.to_bytes();
        times.add(begun.elapsed());
        bytes = body.len();
    }
    Ok((times, bytes))
}
