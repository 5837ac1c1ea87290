//! Our API server beside etcd and kube-apiserver, all over sockets of loopback and with the same durability.
//!
//! | part | what | beside |
//! |---|---|---|
//! | [`writes`] | 1 KiB written for good by 1 and by 64 clients | etcd's own `Put`; a ConfigMap at kube-apiserver; what the machine allows ([`bound`]) |
//! | [`reads`] | one object, and all of 5,000 nodes, JSON and protobuf | kube-apiserver |
//! | [`watchers`] | one change seen by 1 to 10,000 watchers | kube-apiserver |
//! | [`growth`] | memory and the time of a write with the number of objects, and after they are gone | etcd and kube-apiserver |
//!
//! The peer's objects are upstream's kinds, so one JSON is sent to both. The client is this program, on the same cores.

pub mod bound;
mod growth;
mod reads;
mod watchers;
mod writes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::figures::Samples;
use crate::plane::Plane;
use crate::wire::{Address, Wire};

/// Rounds in which the two take turns.
const ROUNDS: usize = 5;
/// What may be on its way at once when a crowd of objects is made.
const MAKERS: usize = 32;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// All parts, or the one of this name, each at control planes of its own.
pub async fn measure(binaries: &Path, only: Option<&str>) -> Result<Value> {
    let is_wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut parts = serde_json::Map::new();
    // It takes a quarter of an hour: what is there is shown as it comes.
    let mut add = |name: &str, figures: Value| {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("{name}: {figures}");
        }
        parts.insert(name.to_owned(), figures);
    };
    if is_wanted("writes") {
        add("writes", writes::measure(binaries).await?);
    }
    if is_wanted("reads") {
        add("reads", reads::measure(binaries).await?);
    }
    if is_wanted("watchers") {
        add("watchers", watchers::measure(binaries).await?);
    }
    if is_wanted("growth") {
        add("growth", growth::measure(binaries).await?);
    }
    anyhow::ensure!(!parts.is_empty(), "there are writes, reads, watchers and growth");
    Ok(Value::Object(parts))
}

/// Both, with the namespace that objects go into.
pub async fn planes(binaries: &Path) -> Result<[Plane; 2]> {
    let both = [Plane::ours().await?, Plane::upstream(binaries).await?];
    for plane in &both {
        // Upstream's server makes it by itself, sooner or later.
        let mut wire = Wire::open(&plane.address("admin")?).await?;
        let body = Bytes::from(json!({"metadata": {"name": "default"}}).to_string());
        let made = wire.send("POST", "/api/v1/namespaces", "application/json", body).await?.status();
        anyhow::ensure!(made.is_success() || made == http::StatusCode::CONFLICT, "{}: {made}", plane.name);
    }
    Ok(both)
}

/// How long all of them took together, and each.
pub struct Load {
    whole: Duration,
    each: Samples,
    count: usize,
}

impl Load {
    fn per_second(&self) -> f64 {
        self.count as f64 / self.whole.as_secs_f64()
    }
}

/// So many requests, by clients that each have a connection of their own and send one after the other.
async fn load<F>(
    address: &Address,
    clients: usize,
    count: usize,
    one: impl Fn(Wire, usize) -> F + Clone + Send + 'static,
) -> Result<Load>
where
    F: Future<Output = Result<()>> + Send,
{
    let mut wires = Vec::new();
    for _ in 0..clients {
        wires.push(Wire::open(address).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for wire in wires {
        let (next, one) = (next.clone(), one.clone());
        workers.spawn(async move {
            let mut each = Samples::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(each);
                }
                let begun = Instant::now();
                one(wire.clone(), number).await?;
                each.add(begun.elapsed());
            }
        });
    }
    let mut each = Samples::default();
    while let Some(done) = workers.join_next().await {
        each.extend(done??);
    }
    Ok(Load { whole: begun.elapsed(), each, count })
}

/// Makes so many objects.
pub async fn make<F>(plane: &Plane, path: &'static str, count: usize, body: F) -> Result<Load>
where
    F: Fn(usize) -> Value + Copy + Send + 'static,
{
    load(&plane.address("admin")?, MAKERS, count, move |mut wire, number| async move {
        wire.ask("POST", path, Bytes::from(body(number).to_string())).await.map(|_| ())
    })
    .await
}

/// A node as a machine writes it: capacity, conditions, ten images; some 3 KB.
fn node(number: usize) -> Value {
    let name = format!("node-{number:05}");
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "KubeletHasSufficient", "message": "kubelet has what it needs",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let image = |image: usize| {
        json!({"names": [format!("registry.example/team/application-{image}@sha256:{image:064}"),
        format!("registry.example/team/application-{image}:v1.{image}")], "sizeBytes": 12_345_678 + image})
    };
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": format!("zone-{}", number % 3)}},
        "status": {"capacity": {"cpu": "4", "memory": "32Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "conditions": [condition("Ready", "True"), condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False")],
            "images": (0..10).map(image).collect::<Vec<_>>(),
            "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1.0", "osImage": "Debian",
                "containerRuntimeVersion": "oci://1", "kubeletVersion": "v1.20.2", "kubeProxyVersion": "v1.20.2",
                "operatingSystem": "linux", "architecture": "amd64"}}})
}

/// A pod of one container, bound to a node that is not there.
fn pod(number: usize) -> Value {
    json!({"metadata": {"name": format!("pod-{number:06}"), "labels": {"app": "bench", "tier": format!("{}", number % 10)}},
        "spec": {"nodeName": format!("node-{:05}", number % 5_000), "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "registry.example/team/application:v1",
                "env": [{"name": "MODE", "value": "bench"}], "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]}})
}
