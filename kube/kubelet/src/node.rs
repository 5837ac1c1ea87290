//! The Node object of this machine and its heartbeat.
//!
//! ```text
//! start ─▶ Node (Ready=False, "recovering") ─▶ leftovers stopped ─▶ Ready=True ─▶ lease every 10 s, status every 5 min or when the API says something else
//!                                                                                            (also of the images that are here)
//! ```
//!
//! A machine that comes back must not be believed before it has stopped what was moved elsewhere meanwhile: Ready is
//! reported only after the recovery of [`crate::manager`]. What others wrote on the Node (labels, taints) stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use engine_host::space;
use engine_runtime::Runtimes;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;

use crate::Shared;
use crate::pod::resources::Capacity;
use crate::pod::status::whole_second;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A node is given up by others 40 s after its last word (`nodeLeaseDurationSeconds`).
const LEASE_DURATION: Duration = Duration::from_secs(40);
/// And speaks four times within that.
const LEASE_INTERVAL: Duration = Duration::from_secs(10);
/// The kubelet's `nodeStatusReportFrequency`: the lease carries the heartbeat between.
const STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// How soon a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
const VERSION: &str = concat!("v1.34.0+substrate-", env!("CARGO_PKG_VERSION"));
/// The kubelet's default `maxPods`.
const PODS_MAX: u64 = 110;

/// What of the machine is kept from pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes of the disk.
    pub storage_bytes: u64,
}

impl std::str::FromStr for Reserve {
    type Err = String;

    /// `cpu=500m,memory=1Gi,ephemeral-storage=2Gi`, each as it may be missing.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut reserve = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part.split_once('=').ok_or_else(|| format!("{part:?}: needed NAME=QUANTITY"))?;
            let quantity: substrate_client::quantity::Quantity =
                amount.parse().map_err(|e| format!("{part:?}: {e}"))?;
            let (field, value) = match name {
                "cpu" => (&mut reserve.cpu_milli, quantity.milli_value()),
                "memory" => (&mut reserve.memory_bytes, quantity.value()),
                "ephemeral-storage" => (&mut reserve.storage_bytes, quantity.value()),
                _ => return Err(format!("{name:?}: needed cpu, memory or ephemeral-storage")),
            };
            *field = u64::try_from(value).map_err(|_| format!("{part:?}: needed a quantity that is not negative"))?;
        }
        Ok(reserve)
    }
}

/// What the machine has: processors, memory, and the file system of `dir`; or what a cgroup above us leaves of it.
pub fn capacity(dir: &Path) -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let unread = |e: &std::io::Error| tracing::warn!("what the machine has cannot be read: {e}");
    let memory = space::memory().inspect_err(unread).unwrap_or_default();
    let (storage, _) = space::file_system(dir).inspect_err(unread).unwrap_or_default();
    Capacity { cpu_milli: cpus * 1000, memory_bytes: memory.total, storage_bytes: storage.total }
}

/// Keeps the Node and its lease until dropped.
pub(crate) async fn run(shared: std::sync::Arc<Shared>, mut recovered: watch::Receiver<bool>) {
    let mut ready = *recovered.borrow_and_update();
    let mut pressure = shared.pressure.subscribe();
    let mut status_due = tokio::time::Instant::now();
    let mut lease_due = tokio::time::Instant::now();
    loop {
        let now = tokio::time::Instant::now();
        if now >= status_due {
            status_due = match report(&shared, ready).await {
                Ok(()) => now + STATUS_INTERVAL,
                Err(e) => {
                    tracing::warn!(node = shared.node_name, "report the node: {e}");
                    now + RETRY
                }
            };
        }
        if now >= lease_due {
            lease_due = match renew(&shared).await {
                Ok(()) => {
                    // While we could not be heard, others said Unknown for us and tainted the Node.
                    if is_misjudged(&shared, ready).await {
                        status_due = now;
                    }
                    now + LEASE_INTERVAL
                }
                Err(e) => {
                    tracing::warn!(node = shared.node_name, "renew the node's lease: {e}");
                    now + RETRY
                }
            };
        }
        tokio::select! {
            () = tokio::time::sleep_until(status_due.min(lease_due)) => {}
            Ok(()) = recovered.changed() => {
                // Nothing is lost when dropped: the value is read again.
                ready = *recovered.borrow_and_update();
                status_due = tokio::time::Instant::now();
            }
            Ok(()) = pressure.changed() => status_due = tokio::time::Instant::now(),
        }
    }
}

/// Whether the API says something else about this machine than we do. An API that does not answer says nothing.
async fn is_misjudged(shared: &Shared, ready: bool) -> bool {
    let api: Api<Node> = Api::all(shared.client.clone());
    let Ok(Some(node)) = api.get_opt(&shared.node_name).await else { return false };
    let conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let wanted = if ready { "True" } else { "False" };
    let agrees = conditions.iter().any(|c| c.type_ == "Ready" && c.status == wanted);
    let images = node.status.as_ref().and_then(|status| status.images.clone()).unwrap_or_default();
    let has_others = crate::images::told(shared).await.is_some_and(|told| told != images);
    !agrees || has_others || is_advertised_anew(&node)
}

/// Whether an administrator has advertised something that pods are not given yet.
fn is_advertised_anew(node: &Node) -> bool {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    advertised(node).any(|(name, amount)| allocatable.and_then(|all| all.get(name)) != Some(amount))
}

/// Creates the Node, or brings it up to date.
async fn report(shared: &Shared, ready: bool) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let name = &shared.node_name;
    let labels = labels(name, &shared.node_labels);
    let found = match api.get_opt(name).await? {
        Some(found) => found,
        None => {
            let metadata =
                ObjectMeta { name: Some(name.clone()), labels: Some(labels.clone()), ..ObjectMeta::default() };
            match api.create(&PostParams::default(), &Node { metadata, ..Node::default() }).await {
                Err(kube::Error::Api(e)) if e.code == 409 => api.get(name).await?,
                other => other?,
            }
        }
    };
    // Taints are for the controller of nodes: no node says of itself whom it is fit for.
    let known = found.metadata.labels.clone().unwrap_or_default();
    if labels.iter().any(|(k, v)| known.get(k) != Some(v)) {
        let change = json!({"metadata": {"labels": labels}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    }
    let mut status = status(shared, &found, ready);
    if let Some(images) = crate::images::told(shared).await {
        status["images"] = json!(images);
    }
    let status = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.map(drop)
}

fn labels(name: &str, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = own.clone();
    let arch = engine_images::architecture();
    for (key, value) in [("kubernetes.io/hostname", name), ("kubernetes.io/arch", arch), ("kubernetes.io/os", "linux")]
    {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn status(shared: &Shared, found: &Node, ready: bool) -> serde_json::Value {
    let resources = |capacity: Capacity| {
        let cpu = if capacity.cpu_milli.is_multiple_of(1000) {
            (capacity.cpu_milli / 1000).to_string()
        } else {
            format!("{}m", capacity.cpu_milli)
        };
        let kib = |bytes: u64| format!("{}Ki", bytes / 1024);
        json!({"cpu": cpu, "memory": kib(capacity.memory_bytes), "ephemeral-storage": kib(capacity.storage_bytes), "pods": PODS_MAX.to_string()})
    };
    let mut allocatable = resources(shared.free());
    for (name, amount) in advertised(found) {
        allocatable[name] = json!(amount);
    }
    let hosts = shared.host_ips.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    let addresses: Vec<_> = hosts.chain([json!({"type": "Hostname", "address": shared.node_name})]).collect();
    json!({
        "capacity": resources(shared.capacity),
        "allocatable": allocatable,
        "addresses": addresses,
        "conditions": conditions(found, ready, &shared.pressure.borrow()),
        "nodeInfo": node_info(shared.runtimes.default_handler()),
        "runtimeHandlers": runtime_handlers(&shared.runtimes),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    })
}

/// Extended resources that an administrator has put into the capacity of the Node: what has them is not ours to know, all of them can be
/// given to pods (Kubernetes, "Advertise Extended Resources for a Node").
fn advertised(found: &Node) -> impl Iterator<Item = (&str, &Quantity)> {
    let capacity = found.status.iter().filter_map(|status| status.capacity.as_ref()).flatten();
    capacity.map(|(name, amount)| (name.as_str(), amount)).filter(|(name, _)| is_extended(name))
}

/// Whether a resource is one of those that a cluster gives a name: qualified, and not of Kubernetes' own domain.
pub(crate) fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.")
}

fn conditions(found: &Node, ready: bool, pressure: &BTreeSet<&str>) -> Vec<serde_json::Value> {
    let old = found.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let now = Time(whole_second(Timestamp::now()));
    let (is, reason, message) = match ready {
        true => ("True", "KubeletReady", "kubelet is posting ready status"),
        false => ("False", "KubeletNotReady", "the pods of an earlier run are being looked after"),
    };
    let has = |kind, no: (&'static str, &'static str), yes: (&'static str, &'static str)| match pressure.contains(kind)
    {
        true => (kind, "True", yes.0, yes.1),
        false => (kind, "False", no.0, no.1),
    };
    let wanted = [
        has(
            "MemoryPressure",
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ),
        has(
            "DiskPressure",
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ),
        has(
            "PIDPressure",
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ),
        ("Ready", is, reason, message),
    ];
    let own = wanted.into_iter().map(|(kind, status, reason, message)| {
        let earlier = old.iter().find(|c| c.type_ == kind && c.status == status).and_then(|c| c.last_transition_time.clone());
        let since = earlier.unwrap_or_else(|| now.clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": since})
    });
    let foreign = old.iter().filter(|c| !wanted.iter().any(|(kind, ..)| *kind == c.type_)).map(|c| json!(c));
    own.chain(foreign).collect()
}

/// What RuntimeClasses may name here, and by the empty name what runs pods without one (KEP-3857).
fn runtime_handlers(runtimes: &Runtimes) -> serde_json::Value {
    let features = json!({"recursiveReadOnlyMounts": false, "userNamespaces": false});
    let names = std::iter::once(String::new()).chain(runtimes.handlers());
    names.map(|name| json!({"name": name, "features": features})).collect()
}

fn node_info(default_handler: &str) -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let pretty =
        release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"').to_owned();
    json!({
        "architecture": engine_images::architecture(),
        "operatingSystem": "linux",
        "osImage": pretty,
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "machineID": read("/etc/machine-id"),
        "systemUUID": read("/sys/class/dmi/id/product_uuid"),
        "kubeletVersion": VERSION,
        "kubeProxyVersion": "",
        "containerRuntimeVersion": format!("{default_handler}://{}", env!("CARGO_PKG_VERSION")),
    })
}

/// Renews the lease, creating it when it is not there.
async fn renew(shared: &Shared) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), LEASE_NAMESPACE);
    let renew_time = MicroTime(microsecond(Timestamp::now()));
    let name = &shared.node_name;
    let patch = json!({"spec": {"renewTime": renew_time, "holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION.as_secs()}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(e)) if e.code == 404 => {}
        other => return other.map(drop),
    }
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let owner = nodes.get_opt(name).await?.and_then(|n| n.metadata.uid).map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }]
    });
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.clone()), owner_references: owner, ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            renew_time: Some(renew_time),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

/// The API keeps microseconds.
fn microsecond(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
