//! Pods placed a second, in the shapes of scheduler_perf: by the choice alone, and by the whole loop over an API in process.
//!
//! Nodes have 4 CPUs, 32 GiB and room for 110 pods, and are in three zones; pods ask for 100m and 500 MiB. As many run already as are
//! placed. The choice: on a view, one pod after the other, each counted before the next. The loop: all pods are there when the scheduler
//! begins; from then until every one is bound, API server, watches and events in the same process. [`beside`] runs it as a process, beside
//! kube-scheduler.

mod beside;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use substrate_scheduler::{Options, Placement, Profile, View};

use crate::figures::spread;
use crate::seller;

const ROUNDS: usize = 5;
const SHAPES: [&str; 5] = ["Basic", "NodeAffinity", "PodAffinity", "PodAntiAffinity", "TopologySpread"];

/// The figures.
pub async fn measure(upstream: &Path) -> Result<Value> {
    let mut rows = Vec::new();
    for nodes in [500, 5_000] {
        for shape in SHAPES {
            rows.push(chosen(shape, nodes)?);
        }
    }
    let loops = [bound(500, 1_000).await?, bound(5_000, 2_000).await?];
    Ok(json!({ "choice": rows, "loop": loops, "beside_kube_scheduler": beside::measure(upstream).await? }))
}

/// Our scheduler with its defaults, at the API of that kubeconfig, until the process is ended.
pub async fn run(kubeconfig: &Path) -> Result<()> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    substrate_scheduler::run(Client::try_from(config)?, Options::default()).await;
    Ok(())
}

fn node(number: usize) -> Value {
    let name = format!("node-{number:04}");
    let zone = format!("zone{}", number % 3);
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}})
}

fn pod(shape: &str, number: usize) -> Value {
    let term = |key: &str| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution":
            [{"labelSelector": {"matchLabels": {"app": shape}}, "topologyKey": key, "namespaces": ["default"]}]})
    };
    let requests = json!({"cpu": "100m", "memory": "500Mi"});
    let mut spec = json!({"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.9", "resources": {"requests": requests}}]});
    match shape {
        "NodeAffinity" => {
            let expression =
                json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone0", "zone1"]});
            let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
            spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        }
        "PodAffinity" => spec["affinity"] = json!({"podAffinity": term("topology.kubernetes.io/zone")}),
        "PodAntiAffinity" => spec["affinity"] = json!({"podAntiAffinity": term("kubernetes.io/hostname")}),
        "TopologySpread" => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": shape}}}]);
        }
        _ => {}
    }
    let name = format!("pod-{number}");
    json!({"metadata": {"name": name, "uid": name, "namespace": "default", "labels": {"app": shape}}, "spec": spec})
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> Result<Arc<T>> {
    Ok(Arc::new(serde_json::from_value(value)?))
}

/// Pods a second by the choice alone.
fn chosen(shape: &str, nodes: usize) -> Result<Value> {
    let all = (0..nodes).map(|number| of::<Node>(node(number))).collect::<Result<Vec<_>>>()?;
    // Each node has room for one of those that keep apart.
    let count = if shape == "PodAntiAffinity" { nodes * 2 / 5 } else { nodes };
    let pods = (0..2 * count).map(|number| of::<Pod>(pod(shape, number))).collect::<Result<Vec<_>>>()?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let mut placement = Placement::new(View::new(all.clone(), [], []), Profile::default());
        for pod in &pods[..count] {
            placement.place(pod.clone())?;
        }
        let begun = Instant::now();
        for pod in &pods[count..] {
            placement.place(pod.clone())?;
        }
        rates.push(count as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(json!({ "shape": shape, "nodes": nodes, "running": count, "placed": count, "pods_per_s": spread(rates) }))
}

/// Pods a second by the whole loop.
async fn bound(nodes: usize, count: usize) -> Result<Value> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let client = seller::api().await?;
        let (all, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::namespaced(client.clone(), "default"));
        for number in 0..nodes {
            all.create(&PostParams::default(), &serde_json::from_value(node(number))?).await?;
        }
        for number in 0..count {
            pods.create(&PostParams::default(), &serde_json::from_value(pod("Basic", number))?).await?;
        }
        let begun = Instant::now();
        let scheduler = tokio::spawn(substrate_scheduler::run(client.clone(), Options::default()));
        wait(&client, count).await?;
        rates.push(count as f64 / begun.elapsed().as_secs_f64());
        scheduler.abort();
    }
    Ok(json!({ "shape": "Basic", "nodes": nodes, "bound": count, "pods_per_s": spread(rates) }))
}

async fn wait(client: &Client, count: usize) -> Result<()> {
    let begun = Instant::now();
    let cache = substrate_client::Cache::start(Api::<Pod>::all(client.clone()));
    let mut changes = cache.changes();
    loop {
        let has_node = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if cache.list().iter().filter(|pod| has_node(pod)).count() == count {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "not all of {count} pods are bound after two minutes");
        changes.mark_unchanged();
        tokio::time::timeout(Duration::from_secs(10), changes.changed())
            .await
            .context("nothing is bound any more")??;
        // Looking at each change would be most of the work.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
