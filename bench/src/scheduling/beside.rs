//! Pods bound a second by a scheduler in a process of its own, over sockets: ours at our API server, kube-scheduler at upstream's.
//!
//! All pods wait when the scheduler begins; what is counted goes from the first that a watch shows bound to the last. Both schedulers
//! start anew for each round, with the pods of no other round beside them. Upstream's client may send 5,000 requests a second, which it
//! does not need. Events follow the bindings at both; those that are written later than the last binding are not in the figure.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{ROUNDS, node, pod};
use crate::api::{make, planes};
use crate::figures::spread;
use crate::plane::Plane;
use crate::wire::Wire;

const NODES: usize = 5_000;
/// Shapes, and how many pods of each are bound in a round.
const SHAPES: [(&str, usize); 4] =
    [("Basic", 2_000), ("NodeAffinity", 1_000), ("PodAffinity", 500), ("PodAntiAffinity", 500)];
const PODS: &str = "/api/v1/namespaces/default/pods";
const LIMIT: Duration = Duration::from_secs(180);

/// The figures.
pub async fn measure(binaries: &Path) -> Result<Value> {
    let mut planes = planes(binaries).await?;
    for plane in &planes {
        make(plane, "/api/v1/nodes", NODES, node).await?;
    }
    let mut rows = Vec::new();
    for (shape, count) in SHAPES {
        let mut rates: [Vec<f64>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (plane, rates) in planes.iter_mut().zip(&mut rates) {
                rates.push(round(plane, binaries, shape, count).await?);
            }
        }
        let [ours, theirs] = rates;
        let ratio = spread(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let row = json!({
            "shape": shape, "nodes": NODES, "bound": count, "ours_pods_per_s": spread(ours),
            "kube_scheduler_pods_per_s": spread(theirs), "ratio": ratio,
        });
        #[allow(clippy::print_stderr)] // for who waits
        {
            eprintln!("{row}");
        }
        rows.push(row);
    }
    Ok(Value::Array(rows))
}

async fn round(plane: &mut Plane, binaries: &Path, shape: &'static str, count: usize) -> Result<f64> {
    make(plane, PODS, count, move |number| pod(shape, number)).await?;
    let watching = Wire::open(&plane.address("watcher")?).await?;
    let kubeconfig = plane.kubeconfig("scheduler")?;
    let command = if plane.etcd.is_some() {
        let mut command = Command::new(binaries.join("kube-scheduler"));
        let kubeconfig = kubeconfig.display();
        command.args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".into(),
            "--port=0".into(),
            "--secure-port=0".into(),
            "--kube-api-qps=5000".into(),
            "--kube-api-burst=5000".into(),
        ]);
        command
    } else {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("schedule").arg("--kubeconfig").arg(kubeconfig);
        command
    };
    plane.start("scheduler", command)?;
    let bound = tokio::time::timeout(LIMIT, bound(watching, count)).await;
    plane.stop_last()?;
    let rate = bound.with_context(|| format!("{}: {shape}: not all of {count} pods are bound", plane.name))??;
    let mut wire = Wire::open(&plane.address("admin")?).await?;
    for number in 0..count {
        wire.ask("DELETE", &format!("{PODS}/pod-{number}?gracePeriodSeconds=0"), Bytes::new()).await?;
    }
    Ok(rate)
}

/// Pods a second from the first that is bound to the last.
async fn bound(mut wire: Wire, count: usize) -> Result<f64> {
    let path = format!("{PODS}?watch=true&fieldSelector=spec.nodeName%21%3D");
    let mut body = wire.get(&path, "application/json").await?.into_body();
    let (mut seen, mut begun, mut rest) = (0, None, Vec::new());
    while seen < count {
        let frame = body.frame().await.context("the watch has ended")??;
        let Ok(data) = frame.into_data() else { continue };
        begun.get_or_insert_with(Instant::now);
        rest.extend_from_slice(&data);
        let lines = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in rest.get(..lines).unwrap_or_default().split(|byte| *byte == b'\n') {
            seen += usize::from(line.starts_with(br#"{"type":"ADDED""#));
        }
        rest.drain(..lines);
    }
    let begun = begun.context("nothing was bound")?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
