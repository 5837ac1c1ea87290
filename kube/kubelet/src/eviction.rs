//! *Eviction*: pods that are ended because the machine, or what they may have of its disk, runs out.
//!
//! ```text
//! every 10 s: what is left ─▶ thresholds met ─▶ conditions of the Node (taints are for the controller of nodes), new pods refused
//!                                    └─▶ disk: unused images go ─▶ still met: one pod goes, in upstream's order
//!             what pods have on the disk ─▶ beyond their limits: they go
//! ```
//!
//! [`plan`] decides, [`usage`] measures. Static pods and those of the system's priorities never go. Images go all that nobody uses; soft
//! thresholds, minimal reclaims and the memory cgroup's own notification are not there: memory is looked at as often as the rest.

pub mod plan;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine_host::space;
use engine_images::Reference;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Shared;
use crate::manager::Pods;
use crate::static_pods::is_static;
use plan::{Observed, Signal, Thresholds};
use usage::Measured;

/// A pod that is evicted has ended by then, or the next one goes (upstream's `podCleanupTimeout`).
const CLEANUP: Duration = Duration::from_secs(30);
/// From here on a priority is the system's own.
const CRITICAL: i32 = 2_000_000_000;

/// When pods are evicted.
#[derive(Clone, Debug)]
pub struct Options {
    /// What must be left.
    pub hard: Thresholds,
    /// How often it is looked.
    pub interval: Duration,
    /// How long a condition stays after it was seen last.
    pub transition: Duration,
}

impl Default for Options {
    /// Upstream's.
    fn default() -> Self {
        Self { hard: Thresholds::default(), interval: Duration::from_secs(10), transition: Duration::from_secs(300) }
    }
}

/// Who is evicted, and why.
pub(crate) type Evicted = (String, String);

/// Whether a pod stays whatever runs out.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL)
}

/// Why a new pod is refused now.
pub(crate) fn refusal(shared: &Shared, pod: &Pod) -> Option<String> {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let is = |field: &Option<String>, wanted: &str| field.as_deref().is_none_or(|it| it.is_empty() || it == wanted);
    let mut for_memory = tolerations.filter(|t| is(&t.effect, "NoSchedule"));
    let tolerates = for_memory.any(|t| is(&t.key, "node.kubernetes.io/memory-pressure"));
    let best_effort = crate::pod::resources::qos_class(pod) == "BestEffort";
    plan::refusal(&shared.pressure.borrow(), best_effort, tolerates).filter(|_| !is_critical(pod))
}

/// Looks and evicts until dropped.
pub(crate) async fn run(shared: Arc<Shared>, pods: Pods, evict: mpsc::Sender<Evicted>, options: Options) {
    let began = Instant::now();
    let mut last = BTreeMap::new();
    let mut measured = usage::Cache::default();
    loop {
        tokio::time::sleep(options.interval).await;
        let mut evicted = false;
        for pod in active(&pods).iter().filter(|pod| usage::is_limited(pod) && !is_critical(pod)) {
            if let Some(why) = measured.disk(&shared, pod).await.and_then(|measured| measured.disk.exceeded()) {
                evicted |= end(&shared, &evict, pod, why).await;
            }
        }
        let met = look(&shared, &options, &mut last, began).await;
        if let (false, Some(first)) = (evicted, met.first()) {
            reclaim(&shared, &pods, &evict, *first, &options).await;
            look(&shared, &options, &mut last, began).await;
        }
        measured.retain(&pods.borrow().keys().cloned().collect());
    }
}

/// What is short, which the Node then says.
async fn look(
    shared: &Shared,
    options: &Options,
    last: &mut BTreeMap<&'static str, Duration>,
    began: Instant,
) -> Vec<(Signal, u64, u64)> {
    let met = plan::met(&options.hard, &observe(shared).await);
    let pressure = plan::conditions(&met, last, began.elapsed(), options.transition);
    shared.pressure.send_if_modified(|old| std::mem::replace(old, pressure.clone()) != pressure);
    met
}

/// What is left now; what cannot be read is not there, and logged.
async fn observe(shared: &Shared) -> Observed {
    let dir = shared.dir.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut all = Observed::new();
        let mut note = |found: std::io::Result<Vec<(Signal, space::Room)>>| match found {
            Ok(rooms) => all.extend(rooms),
            Err(e) => tracing::warn!("what is left of the machine cannot be read: {e}"),
        };
        note(space::memory().map(|room| vec![(Signal::Memory, room)]));
        note(space::processes().map(|room| vec![(Signal::Pid, room)]));
        let disk = |path: &std::path::Path, bytes, inodes| {
            space::file_system(path).map(|(room, files)| vec![(bytes, room), (inodes, files)])
        };
        note(disk(&dir, Signal::NodeFs, Signal::NodeInodes));
        note(disk(&dir.join("images"), Signal::ImageFs, Signal::ImageInodes));
        all
    });
    looked.await.unwrap_or_default()
}

/// Pods that have something of the machine and are not about to give it back.
fn active(pods: &Pods) -> Vec<Arc<Pod>> {
    let over = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
    };
    pods.borrow().values().filter(|pod| !over(pod)).cloned().collect()
}

/// Gets back what is short: images that nobody uses, then one pod.
async fn reclaim(
    shared: &Shared,
    pods: &Pods,
    evict: &mpsc::Sender<Evicted>,
    met: (Signal, u64, u64),
    options: &Options,
) {
    let signal = met.0;
    shared.events.of_node(
        &shared.node_name,
        "EvictionThresholdMet",
        format!("Attempting to reclaim {}", signal.resource()),
    );
    if signal.is_disk() {
        remove_images(shared, pods).await;
        let now = plan::met(&options.hard, &observe(shared).await);
        if !now.iter().any(|(signal, ..)| signal.is_disk()) {
            return;
        }
    }
    let mut all = BTreeMap::new();
    let mut candidates = Vec::new();
    for pod in active(pods).into_iter().filter(|pod| !is_critical(pod)) {
        let measured = usage::measure(shared, &pod).await;
        candidates.extend(measured.candidate(signal, &pod));
        all.insert(pod.metadata.uid.clone().unwrap_or_default(), (pod, measured));
    }
    plan::order(signal, &mut candidates);
    for candidate in candidates {
        let Some((pod, measured)) = all.get(&candidate.uid) else { continue };
        let why = plan::message(met, &Measured::shares(measured, signal, pod));
        if end(shared, evict, pod, why).await {
            return;
        }
    }
    tracing::warn!("{} is short, and no pod is left that could be evicted", signal.resource());
}

/// Removes every image that no pod of this machine names.
async fn remove_images(shared: &Shared, pods: &Pods) {
    let named = |pod: &Arc<Pod>| crate::pod::all_containers(pod).filter_map(|c| c.image.clone()).collect::<Vec<_>>();
    let used: Vec<String> = active(pods).iter().flat_map(named).collect();
    let used: BTreeSet<String> =
        used.iter().filter_map(|image| Some(image.parse::<Reference>().ok()?.to_string())).collect();
    let there = shared.images.list().await.inspect_err(|e| tracing::warn!("list the images: {e}")).unwrap_or_default();
    for image in there.into_iter().filter(|image| !used.contains(&image.reference)) {
        let Ok(reference) = image.reference.parse::<Reference>() else { continue };
        match shared.images.remove(&reference).await {
            Ok(_) => tracing::info!(image = image.reference, "removed: the disk is full and no pod uses it"),
            Err(e) => tracing::warn!(image = image.reference, "remove an image: {e}"),
        }
    }
}

/// Has a pod evicted and waits until it has ended; whether that has begun.
async fn end(shared: &Shared, evict: &mpsc::Sender<Evicted>, pod: &Pod, why: String) -> bool {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    tracing::info!(pod = pod.metadata.name, "evicted: {why}");
    if evict.send((uid.clone(), why)).await.is_err() {
        return false;
    }
    let ended = async {
        while shared.runtime.list().await.is_ok_and(|here| here.contains(&uid)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(CLEANUP, ended).await.is_err() {
        tracing::warn!(pod = pod.metadata.name, "an evicted pod did not end within {} s", CLEANUP.as_secs());
    }
    true
}
