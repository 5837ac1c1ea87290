//! One change, seen by many: from the moment at which it is sent until the last watcher has it.
//!
//! Watchers are 200 to a connection, each connection a user of its own, as clients of many machines are. They look at bytes, not at
//! objects: what takes time here is what the server does, and the kernel, and TLS at both ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{CONFIG_MAPS, planes};
use crate::figures::Samples;
use crate::plane::Plane;
use crate::wire::Wire;

const CROWDS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const OF_ONE_CONNECTION: usize = 200;
const CHANGES: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn measure(binaries: &Path) -> Result<Value> {
    let planes = planes(binaries).await?;
    let mut rows = Vec::new();
    for watchers in CROWDS {
        let mut figures = Vec::new();
        for plane in &planes {
            let before = plane.memory()?;
            let (times, with) = changes(plane, watchers).await?;
            let each = with.saturating_sub(before) / watchers as u64;
            figures.push(json!({"until_the_last_has_it": times.figures(), "bytes_of_memory_each": each}));
        }
        let [ours, theirs] = figures.as_slice() else { continue };
        rows.push(json!({"watchers": watchers, "changes": CHANGES, "ours": ours, "kube_apiserver": theirs}));
    }
    Ok(Value::Array(rows))
}

/// How many have seen the change, and who waits for all of them.
#[derive(Default)]
struct Seen {
    count: AtomicU64,
    all: Notify,
}

/// How long each change took, and the memory of the plane with its watchers.
async fn changes(plane: &Plane, watchers: usize) -> Result<(Samples, u64)> {
    let path = format!("{CONFIG_MAPS}/watched-{watchers}");
    let mut writer = Wire::open(&plane.address("writer")?).await?;
    let body = |value: usize| {
        Bytes::from(
            json!({"metadata": {"name": format!("watched-{watchers}")}, "data": {"v": value.to_string()}}).to_string(),
        )
    };
    let made: Value = serde_json::from_slice(&writer.ask("POST", CONFIG_MAPS, body(0)).await?)?;
    let revision = made.pointer("/metadata/resourceVersion").and_then(Value::as_str).context("no revision")?;
    let watch =
        format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}&fieldSelector=metadata.name%3Dwatched-{watchers}");
    let seen = Arc::new(Seen::default());
    let mut crowd = JoinSet::new();
    for first in (0..watchers).step_by(OF_ONE_CONNECTION) {
        let mut wire = Wire::open(&plane.address(&format!("watcher-{first}"))?).await?;
        for _ in first..watchers.min(first + OF_ONE_CONNECTION) {
            let answer = wire.get(&watch, "application/json").await?;
            ensure!(answer.status().is_success(), "{}: a watch: {}", plane.name, answer.status());
            let (seen, mut body) = (seen.clone(), answer.into_body());
            crowd.spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    // A line is an event; a small one comes in one frame.
                    let lines = frame.into_data().map(|data| data.iter().filter(|byte| **byte == b'\n').count());
                    if seen.count.fetch_add(lines.unwrap_or(0) as u64, Ordering::AcqRel) + 1 >= watchers as u64 {
                        seen.all.notify_one();
                    }
                }
            });
        }
    }
    let with = plane.memory()?;
    let mut times = Samples::default();
    for change in 0..=CHANGES {
        seen.count.store(0, Ordering::Release);
        let begun = Instant::now();
        writer.ask("PUT", &path, body(change + 1)).await?;
        while seen.count.load(Ordering::Acquire) < watchers as u64 {
            let more = tokio::time::timeout(LIMIT, seen.all.notified()).await;
            more.with_context(|| format!("{}: {:?} of {watchers} have seen the change", plane.name, seen.count))?;
        }
        // The first finds nothing in caches.
        if change > 0 {
            times.add(begun.elapsed());
        }
        ensure!(crowd.try_join_next().is_none(), "{}: a watch has ended", plane.name);
    }
    Ok((times, with))
}
