//! Putting it together: options in, a handle out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use substrate_network::NodeNetwork;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::events::Recorder;
use crate::eviction::{self, plan::Signal};
use crate::manager::{Manager, Pods, sweep_all};
use crate::node::{self, Reserve};
use crate::pod::names::ClusterDns;
use crate::pod::resources::Capacity;
use crate::pod::tokens::Tokens;
use crate::pod::worker;
use crate::{Guests, ImageSource, static_pods};
use engine_cri::{CriRuntime, network::Plugin};
use engine_images::ImageStore;
use engine_runtime::cgroups::{self, Cgroups};
use engine_runtime::{Hosted, OciRuntime, Runtime, Runtimes, process};

/// Images pulled at once, each with a few layers: more would only divide the line (`maxParallelImagePulls`).
const PULLS_MAX: usize = 4;
/// What works for pods ends at its next step, and no step takes longer than this.
const STOP_MAX: Duration = Duration::from_secs(10);
/// What could not be taken off the machine is tried again after this.
const STOP_AGAIN: Duration = Duration::from_millis(200);

/// What a kubelet is started with.
pub struct Options {
    /// The name of its Node.
    pub node_name: String,
    /// The address that pods report as `hostIP` and the Node as `InternalIP`.
    pub node_address: Ipv4Addr,
    /// Its address of IPv6, if it has one and is to say so: then both are told.
    pub node_address_v6: Option<Ipv6Addr>,
    /// Where everything of it is kept; one kubelet per directory.
    pub data_dir: PathBuf,
    /// Its client, with its own user.
    pub client: kube::Client,
    /// The pods' network; without it only pods with `hostNetwork` run.
    pub network: Option<Arc<NodeNetwork>>,
    /// The address of the cluster's DNS.
    pub cluster_dns: Option<Ipv4Addr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Labels of the Node, beside the well-known ones.
    pub node_labels: BTreeMap<String, String>,
    /// The command line that leads to [`engine_runtime::supervisor::main`].
    pub supervisor: Vec<OsString>,
    /// Handlers whose containers a runner of the same program runs, and the words that lead to it: see [`engine_runtime::runner`].
    pub runners: Vec<(String, Vec<String>)>,
    /// Asked in order for images that are not here.
    pub image_sources: Vec<Arc<dyn ImageSource>>,
    /// Short hexadecimal digits, unique among the nodes of this machine and always the same for the same node.
    pub instance: String,
    /// What of the machine is kept from pods.
    pub reserve: Reserve,
    /// Who knows the pods that run here for others; without, there are none.
    pub guests: Option<Arc<dyn Guests>>,
    /// A directory of files with pods that run here whatever the API says.
    pub static_pods: Option<PathBuf>,
    /// When pods are ended because the machine runs out of something.
    pub eviction: eviction::Options,
    /// A container runtime of the machine, beside the built-in one.
    pub container_runtime: Option<ContainerRuntime>,
    /// The handler of pods whose RuntimeClass names none; without, the built-in one.
    pub default_runtime: Option<String>,
}

/// Where a container runtime is.
pub struct ContainerRuntime {
    /// Its socket.
    pub socket: PathBuf,
    /// What gives its pods their network.
    pub plugin: Plugin,
}

/// Why a kubelet cannot start; the message says what to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image store.
    #[error(transparent)]
    Images(#[from] engine_images::Error),
    /// The runtime's directory.
    #[error(transparent)]
    Runtime(#[from] engine_runtime::Error),
    /// The machine's cgroups.
    #[error(transparent)]
    Cgroups(#[from] cgroups::Error),
    /// The data directory.
    #[error("create or remove {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What happens to running pods when the kubelet stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopPods {
    /// They run on under their supervisors; the next start finds them.
    Keep,
    /// They are killed and taken off the machine; the next start runs them anew.
    Stop,
}

/// What all parts share.
pub(crate) struct Shared {
    pub node_name: String,
    pub node_labels: BTreeMap<String, String>,
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    /// The same, with the names of its handlers.
    pub runtimes: Arc<Runtimes>,
    pub images: ImageStore,
    pub image_sources: Vec<Arc<dyn ImageSource>>,
    /// Images that may be pulled at once.
    pub pulls: Semaphore,
    /// Bytes that a pull had no room for.
    pub disk_full: watch::Sender<u64>,
    pub cgroups: Cgroups,
    pub network: Option<Arc<NodeNetwork>>,
    pub guests: Option<Arc<dyn Guests>>,
    pub dns: ClusterDns,
    pub host_ip: String,
    /// Both, where it has both.
    pub host_ips: Vec<String>,
    pub capacity: Capacity,
    pub reserve: Reserve,
    pub events: Recorder,
    pub dir: PathBuf,
    pub tokens: Tokens,
    pub sampler: crate::stats::Sampler,
    /// What of the machine is kept free for itself.
    thresholds: eviction::plan::Thresholds,
    /// The conditions of pressure that the Node has.
    pub pressure: watch::Sender<BTreeSet<&'static str>>,
    /// The static pod that a pod of the API shows, by uids.
    shown: RwLock<BTreeMap<String, String>>,
    /// Whatever works for a pod: its worker, its starts and hooks. A kubelet that has stopped has none.
    pub work: TaskTracker,
}

impl Shared {
    /// Notes which static pod a pod of the API shows.
    pub fn shown_as(&self, mirror: String, own: Option<String>) {
        let mut all = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        match own {
            Some(own) => drop(all.insert(mirror, own)),
            None => drop(all.remove(&mirror)),
        }
    }

    /// The uid that a pod of the API has on this machine.
    pub fn uid_here(&self, uid: &str) -> String {
        let all = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).map_or(uid, String::as_str).to_owned()
    }

    /// What pods may have of the machine: all but what is reserved, and what must always be left.
    pub fn free(&self) -> Capacity {
        let (all, kept) = (&self.capacity, &self.reserve);
        let left = |signal, total: u64| self.thresholds.0.get(&signal).map_or(0, |least| least.of(total));
        let memory = kept.memory_bytes.saturating_add(left(Signal::Memory, all.memory_bytes));
        let storage = kept.storage_bytes.saturating_add(left(Signal::NodeFs, all.storage_bytes));
        Capacity {
            cpu_milli: all.cpu_milli.saturating_sub(kept.cpu_milli),
            memory_bytes: all.memory_bytes.saturating_sub(memory),
            storage_bytes: all.storage_bytes.saturating_sub(storage),
        }
    }
}

/// A kubelet: see [`Kubelet::start`].
pub struct Kubelet;

/// A running kubelet. Cheap to clone; it runs until [`Handle::stop`].
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pods: Pods,
    tasks: Arc<tokio::sync::Mutex<Vec<JoinHandle<()>>>>,
    recovered: watch::Receiver<bool>,
}

impl Kubelet {
    /// Starts a kubelet: it finds the pods of an earlier run, stops those that the API has no more, and then reports
    /// its Node ready.
    ///
    /// # Errors
    /// The machine or the directory cannot be used; nothing has been started.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        let dir = options.data_dir;
        let pods_dir = dir.join("pods");
        std::fs::create_dir_all(&pods_dir).map_err(|source| Error::Directory { path: pods_dir, source })?;
        let found =
            runtimes(&dir, options.supervisor, &options.runners, options.container_runtime, options.default_runtime);
        let runtimes = Arc::new(found.await?);
        let cgroups = Cgroups::detect(&cgroup_parent(&options.instance))?;
        cgroups.prepare()?;
        let shared = Arc::new(Shared {
            events: Recorder::start(options.client.clone(), &options.node_name),
            node_name: options.node_name,
            node_labels: options.node_labels,
            client: options.client,
            runtime: Arc::clone(&runtimes) as Arc<dyn Runtime>,
            runtimes,
            images: ImageStore::open(dir.join("images"))?,
            image_sources: options.image_sources,
            pulls: Semaphore::new(PULLS_MAX),
            disk_full: watch::channel(0).0,
            cgroups,
            network: options.network,
            guests: options.guests,
            dns: ClusterDns { address: options.cluster_dns, domain: options.cluster_domain },
            host_ip: options.node_address.to_string(),
            host_ips: [options.node_address.to_string()]
                .into_iter()
                .chain(options.node_address_v6.map(|address| address.to_string()))
                .collect(),
            capacity: node::capacity(&dir),
            reserve: options.reserve,
            dir,
            tokens: Tokens::default(),
            sampler: Default::default(),
            thresholds: options.eviction.hard.clone(),
            pressure: watch::channel(BTreeSet::new()).0,
            shown: RwLock::default(),
            work: TaskTracker::new(),
        });
        let (recovered_in, recovered) = watch::channel(false);
        let (evict, evictions) = mpsc::channel(1); // they go one after the other
        let (statics_in, statics) = watch::channel(options.static_pods.is_none().then(Default::default));
        let (manager, pods, mirrors) = Manager::new(Arc::clone(&shared), recovered_in, (statics.clone(), evictions));
        let mut tasks =
            vec![tokio::spawn(manager.run()), tokio::spawn(node::run(Arc::clone(&shared), recovered.clone()))];
        tasks.push(tokio::spawn(crate::images::run(Arc::clone(&shared))));
        if let Some(dir) = options.static_pods {
            tasks.push(tokio::spawn(static_pods::watch(dir, shared.node_name.clone(), statics_in)));
        }
        tasks.push(tokio::spawn(eviction::run(Arc::clone(&shared), pods.clone(), evict, options.eviction)));
        tasks.push(tokio::spawn(static_pods::keep(Arc::clone(&shared), statics, mirrors)));
        Ok(Handle { shared, pods, tasks: Arc::new(tokio::sync::Mutex::new(tasks)), recovered })
    }
}

impl Kubelet {
    /// Takes everything of a kubelet that does not run off the machine: its pods, its cgroups, its directory. What is not
    /// there is fine.
    ///
    /// # Errors
    /// Something of it stays; the message says what.
    pub async fn purge(data_dir: &Path, instance: &str) -> Result<(), Error> {
        if let Some(cri) = CriRuntime::again(&data_dir.join("cri"))? {
            cri.purge().await?;
        }
        if data_dir.join("run").exists() {
            // Whoever else runs a pod, it stands on a supervisor.
            let oci = OciRuntime::new(data_dir.join("run"), Vec::new())?;
            for uid in oci.list().await? {
                oci.remove(&uid).await?;
            }
        }
        Cgroups::detect(&cgroup_parent(instance))?.remove("")?;
        worker::remove_dir(data_dir).map_err(|source| Error::Directory { path: data_dir.to_owned(), source })
    }
}

/// The runtimes of a kubelet, each by the handler that RuntimeClasses name.
async fn runtimes(
    dir: &Path,
    supervisor: Vec<OsString>,
    runners: &[(String, Vec<String>)],
    other: Option<ContainerRuntime>,
    default: Option<String>,
) -> Result<Runtimes, engine_runtime::Error> {
    let oci = OciRuntime::new(dir.join("run"), supervisor)?;
    let mut all = Runtimes::new(dir.join("handlers"), "oci", Arc::new(oci.clone()))?;
    all.add(process::HANDLER, Arc::new(oci.clone().fenced()));
    for (handler, words) in runners {
        all.add(handler, Arc::new(Hosted::new(handler, oci.clone(), words, &dir.join(handler))?));
    }
    if let Some(ContainerRuntime { socket, plugin }) = other {
        let cri = Arc::new(CriRuntime::new(engine_cri::Options { socket, dir: dir.join("cri"), plugin })?);
        let own = all.handlers();
        for handler in cri.handlers().await.iter().filter(|handler| !own.contains(handler)) {
            all.add(handler, Arc::clone(&cri) as Arc<dyn Runtime>);
        }
        all.add(engine_cri::HANDLER, cri);
    }
    default.map_or(Ok(()), |handler| all.set_default(&handler))?;
    Ok(all)
}

/// The name of a node's own cgroup.
fn cgroup_parent(instance: &str) -> String {
    format!("kubelet-{instance}")
}

impl Handle {
    /// The machine's images.
    pub fn images(&self) -> &ImageStore {
        &self.shared.images
    }

    /// Memory in use in bytes and processor time used by a pod of this machine, if it is there.
    pub fn usage(&self, pod_uid: &str) -> Option<(u64, Duration)> {
        self.shared.cgroups.usage(&format!("pod{pod_uid}"))
    }

    /// Waits until leftovers of an earlier run have been looked after, which is when the Node becomes ready.
    pub async fn recovered(&self) {
        let mut recovered = self.recovered.clone();
        // The sender lives in the manager's task: gone means stopped, and then nobody waits for readiness.
        let _ = recovered.wait_for(|r| *r).await;
    }

    /// Stops the kubelet. The Node stays in the API and is found not ready by its lease.
    pub async fn stop(&self, pods: StopPods) {
        for task in self.tasks.lock().await.drain(..) {
            task.abort();
            let _ = task.await; // aborted, as it should be
        }
        // The workers were aborted with their manager. One that still starts something would leave it behind.
        self.shared.work.close();
        if tokio::time::timeout(STOP_MAX, self.shared.work.wait()).await.is_err() {
            tracing::warn!("{} tasks of pods do not end", self.shared.work.len());
        }
        if pods == StopPods::Keep {
            return;
        }
        let deadline = tokio::time::Instant::now() + STOP_MAX;
        while let Err(why) = self.sweep_pods().await {
            // A container runtime that was ending a pod as its worker was aborted refuses to end it a second time until it has.
            if tokio::time::Instant::now() > deadline {
                tracing::warn!("stop the pods: {why}");
                break;
            }
            tokio::time::sleep(STOP_AGAIN).await;
        }
        if let Err(e) = self.shared.cgroups.remove("") {
            tracing::warn!("remove the node's cgroup: {e}");
        }
    }

    /// Takes every pod off the machine; what is wrong with one holds up no other.
    async fn sweep_pods(&self) -> Result<(), String> {
        let mut left = Vec::new();
        for uid in self.shared.runtime.list().await.map_err(|e| e.to_string())? {
            if let Err(why) = sweep_all(&self.shared, &uid).await {
                left.push(format!("{uid}: {why}"));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}
