//! What pods have of the machine, measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use engine_host::space::{self, Used};
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Api;
use substrate_client::quantity::Quantity;
use substrate_client::requests::pod_requests;
use tokio::time::Instant;

use super::plan::{Candidate, Disk, Share, Signal};
use crate::Shared;
use crate::pod::PodDir;
use crate::pod::plan::runs_of;

/// Entries of a pod that are counted in one go, some seconds' work for a slow disk; beyond it there is at least that much.
const ENTRIES_MAX: u64 = 200_000;
/// A tree is walked again only after this many times as long as it took.
const REST: u32 = 20;

/// What one pod has.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub disk: Disk,
    inodes: u64,
    memory: u64,
    processes: u64,
    /// Memory by container.
    containers: Vec<(String, u64)>,
}

/// Measures of the disk that are still good.
#[derive(Default)]
pub(super) struct Cache(BTreeMap<String, (Instant, Measured)>);

impl Cache {
    /// What a pod has on the disk, measured anew if it is time; none if nothing has changed since.
    pub async fn disk(&mut self, shared: &Shared, pod: &Pod) -> Option<Measured> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let now = Instant::now();
        if self.0.get(&uid).is_some_and(|(due, _)| now < *due) {
            return None;
        }
        let measured = on_disk(shared, pod).await;
        self.0.insert(uid, (Instant::now() + now.elapsed() * REST, measured.clone()));
        Some(measured)
    }

    /// Forgets who is gone.
    pub fn retain(&mut self, here: &BTreeSet<String>) {
        self.0.retain(|uid, _| here.contains(uid));
    }
}

/// Whether a pod has limits on the disk.
pub(super) fn is_limited(pod: &Pod) -> bool {
    crate::pod::all_containers(pod).any(|c| limit(&c).is_some()) || volumes(pod).any(|v| size_limit(v).is_some())
}

/// Volumes that are on the node's disk and end with the pod.
fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter(|v| v.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref().unwrap_or_default().is_empty()))
}

fn read(quantity: &Api) -> Option<(String, u64)> {
    let bytes = u64::try_from(Quantity::try_from(quantity).ok()?.value()).ok()?;
    Some((quantity.0.clone(), bytes)).filter(|_| bytes > 0)
}

fn size_limit(volume: &Volume) -> Option<(String, u64)> {
    read(volume.empty_dir.as_ref()?.size_limit.as_ref()?)
}

fn limit(container: &Container) -> Option<(String, u64)> {
    read(container.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage")?)
}

/// Everything of a pod.
pub(super) async fn measure(shared: &Shared, pod: &Pod) -> Measured {
    let mut measured = on_disk(shared, pod).await;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let of = |path: &str| shared.cgroups.measure(path).map_or(0, |usage| usage.working_set);
    measured.memory = of(&format!("pod{uid}"));
    measured.processes = shared.cgroups.processes(&format!("pod{uid}")).unwrap_or(0);
    let runs = shared.runtime.watch(&uid).await.borrow().containers.clone();
    let running = runs.iter().filter(|run| run.finished.is_none());
    measured.containers =
        running.map(|run| (run.name.clone(), of(&format!("pod{uid}/{}", &run.id[..run.id.len().min(16)])))).collect();
    measured
}

/// What is to be counted together: a name, directories, a limit.
type Parts = (String, Vec<PathBuf>, Option<(String, u64)>);

async fn on_disk(shared: &Shared, pod: &Pod) -> Measured {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let runs = shared.runtime.watch(&uid).await.borrow().containers.clone();
    let dir = PodDir::new(&shared.dir, &uid);
    let volumes: Vec<_> = volumes(pod).map(|v| (v.name.clone(), vec![dir.volume(&v.name)], size_limit(v))).collect();
    let mut containers = Vec::new();
    for c in crate::pod::all_containers(pod) {
        let layer = match runs_of(&runs, &c.name).first() {
            Some(latest) => shared.runtime.writable_layer(&uid, &latest.id).await,
            None => None,
        };
        let logs = dir.log(&c.name, 0).parent().map(PathBuf::from);
        containers.push((c.name.clone(), layer.into_iter().chain(logs).collect::<Vec<_>>(), limit(&c)));
    }
    let walked = tokio::task::spawn_blocking(move || {
        let (mut left, mut all) = (ENTRIES_MAX, Used::default());
        let mut count = |parts: Vec<Parts>| {
            let each = parts.into_iter().map(|(name, dirs, limit)| {
                let used = dirs.iter().map(|dir| space::used(dir, &mut left).unwrap_or_default());
                let used = used.fold(Used::default(), Used::and);
                all = all.and(used);
                (name, used.bytes, limit)
            });
            each.collect::<Vec<_>>()
        };
        let disk = Disk { volumes: count(volumes), containers: count(containers) };
        Measured { disk, inodes: all.inodes, ..Measured::default() }
    });
    walked.await.unwrap_or_default()
}

impl Measured {
    /// The pod as one that could go; none if that would give nothing back.
    pub fn candidate(&self, signal: Signal, pod: &Pod) -> Option<Candidate> {
        let requested = |name: &str| u64::try_from(pod_requests(pod).get(name).value()).unwrap_or(0);
        let (used, requested) = match signal.resource() {
            "memory" => (self.memory, requested("memory")),
            "inodes" => (self.inodes, 0),
            "pids" => (self.processes, 0),
            _ => (self.disk.used(), requested("ephemeral-storage")),
        };
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        Some(Candidate { uid: pod.metadata.uid.clone()?, priority, used, requested })
    }

    /// What its containers have of what is short, and what they asked for.
    pub fn shares(&self, signal: Signal, pod: &Pod) -> Vec<Share> {
        let resource = signal.resource();
        let used: Vec<(String, u64)> = match resource {
            "memory" => self.containers.clone(),
            "ephemeral-storage" => self.disk.containers.iter().map(|(name, bytes, _)| (name.clone(), *bytes)).collect(),
            _ => Vec::new(),
        };
        let requested = |name: &str| {
            let own = crate::pod::container(pod, name)?;
            Some(read(own.resources.as_ref()?.requests.as_ref()?.get(resource)?)?.1)
        };
        used.into_iter().map(|(name, bytes)| (name.clone(), bytes, requested(&name).unwrap_or(0))).collect()
    }
}
