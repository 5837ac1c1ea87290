//! Memory, and how long one write and one read take, with the number of objects; and memory after they are gone.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, NODES, PODS, load, make, node, planes, pod};
use crate::plane::Plane;

const STEPS: [usize; 5] = [0, 100, 1_000, 10_000, 50_000];
const NODES_OF_A_LARGE_CLUSTER: usize = 5_000;
const PODS_THAT_GO: usize = 10_000;
const PROBES: usize = 200;
/// Until what was freed has been given back.
const SETTLED: Duration = Duration::from_secs(60);

pub async fn measure(binaries: &Path) -> Result<Value> {
    let planes = planes(binaries).await?;
    let mut sides = Vec::new();
    for plane in &planes {
        let idle = plane.memory()?;
        let mut steps = Vec::new();
        let mut before = 0;
        for objects in STEPS {
            fill(plane, before, objects).await?;
            before = objects;
            steps.push(step(plane, objects).await?);
        }
        sides.push(json!({"name": plane.name, "idle_bytes": idle, "config_maps": steps}));
    }
    drop(planes);
    for (side, large) in sides.iter_mut().zip(large(binaries).await?) {
        if let Some(side) = side.as_object_mut() {
            side.insert("large".into(), large);
        }
    }
    Ok(Value::Array(sides))
}

/// Memory of each with the objects of a large cluster, and after its pods are gone, twice.
async fn large(binaries: &Path) -> Result<Vec<Value>> {
    let planes = planes(binaries).await?;
    let mut sides = Vec::new();
    for plane in &planes {
        let idle = plane.memory()?;
        make(plane, NODES, NODES_OF_A_LARGE_CLUSTER, node).await?;
        sides.push(vec![idle, plane.memory()?]);
    }
    for _ in 0..2 {
        for (plane, side) in planes.iter().zip(&mut sides) {
            make(plane, PODS, PODS_THAT_GO, pod).await?;
            side.push(plane.memory()?);
            remove(plane).await?;
        }
        tokio::time::sleep(SETTLED).await;
        for (plane, side) in planes.iter().zip(&mut sides) {
            side.push(plane.memory()?);
        }
    }
    let what =
        ["idle", "with_5000_nodes", "with_10000_pods_too", "pods_gone", "with_10000_pods_again", "pods_gone_again"];
    Ok(sides
        .into_iter()
        .map(|side| what.into_iter().zip(side).map(|(what, bytes)| (what.to_owned(), json!(bytes))).collect())
        .collect())
}

/// ConfigMaps of 1 KiB, from one number to another.
async fn fill(plane: &Plane, from: usize, to: usize) -> Result<()> {
    let text = "x".repeat(1_000);
    load(&plane.address("admin")?, super::MAKERS, to - from, move |mut wire, number| {
        let body = json!({"metadata": {"name": format!("object-{}", from + number)}, "data": {"value": text}});
        async move { wire.ask("POST", CONFIG_MAPS, Bytes::from(body.to_string())).await.map(|_| ()) }
    })
    .await
    .map(|_| ())
}

async fn step(plane: &Plane, objects: usize) -> Result<Value> {
    let address = plane.address("admin")?;
    let memory = plane.memory()?;
    let writes = load(&address, 1, PROBES, move |mut wire, number| async move {
        let body = json!({"metadata": {"name": format!("probe-{objects}-{number}")}, "data": {"v": "x"}});
        wire.ask("POST", CONFIG_MAPS, Bytes::from(body.to_string())).await.map(|_| ())
    })
    .await?;
    let reads = load(&address, 1, PROBES, move |mut wire, number| async move {
        wire.ask("GET", &format!("{CONFIG_MAPS}/probe-{objects}-{number}"), Bytes::new()).await.map(|_| ())
    })
    .await?;
    Ok(json!({"objects": objects, "bytes": memory, "create": writes.each.figures(), "get": reads.each.figures()}))
}

/// Deletes every pod, as a client does that has a list of them.
async fn remove(plane: &Plane) -> Result<()> {
    load(&plane.address("admin")?, super::MAKERS, PODS_THAT_GO, |mut wire, number| async move {
        let path = format!("{PODS}/pod-{number:06}?gracePeriodSeconds=0");
        wire.ask("DELETE", &path, Bytes::new()).await.map(|_| ())
    })
    .await
    .map(|_| ())
}
