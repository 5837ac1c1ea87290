//! Putting it together: options in, a handle out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use substrate_network::NodeNetwork;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::events::Recorder;
use crate::manager::{Manager, Pods, sweep_all};
use crate::node::{self, Reserve};
use crate::pod::names::ClusterDns;
use crate::pod::resources::Capacity;
use crate::pod::tokens::Tokens;
use crate::pod::worker;
use crate::{Guests, ImageSource};
use engine_images::ImageStore;
use engine_runtime::cgroups::{self, Cgroups};
use engine_runtime::{OciRuntime, Runtime};

/// What a kubelet is started with.
pub struct Options {
    /// The name of its Node.
    pub node_name: String,
    /// The address that pods report as `hostIP` and the Node as `InternalIP`.
    pub node_address: Ipv4Addr,
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
    /// Asked in order for images that are not here.
    pub image_sources: Vec<Arc<dyn ImageSource>>,
    /// Short hexadecimal digits, unique among the nodes of this machine and always the same for the same node.
    pub instance: String,
    /// What of the machine is kept from pods.
    pub reserve: Reserve,
    /// Who knows the pods that run here for others; without, there are none.
    pub guests: Option<Arc<dyn Guests>>,
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
    pub images: ImageStore,
    pub image_sources: Vec<Arc<dyn ImageSource>>,
    pub cgroups: Cgroups,
    pub network: Option<Arc<NodeNetwork>>,
    pub guests: Option<Arc<dyn Guests>>,
    pub dns: ClusterDns,
    pub host_ip: String,
    pub capacity: Capacity,
    pub reserve: Reserve,
    pub events: Recorder,
    pub dir: PathBuf,
    pub tokens: Tokens,
}

impl Shared {
    /// What pods may have of the machine.
    pub fn free(&self) -> Capacity {
        Capacity {
            cpu_milli: self.capacity.cpu_milli.saturating_sub(self.reserve.cpu_milli),
            memory_bytes: self.capacity.memory_bytes.saturating_sub(self.reserve.memory_bytes),
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
        let runtime = OciRuntime::new(dir.join("run"), options.supervisor)?;
        let cgroups = Cgroups::detect(&cgroup_parent(&options.instance))?;
        cgroups.prepare()?;
        let shared = Arc::new(Shared {
            events: Recorder::start(options.client.clone(), &options.node_name),
            node_name: options.node_name,
            node_labels: options.node_labels,
            client: options.client,
            runtime: Arc::new(runtime),
            images: ImageStore::open(dir.join("images"))?,
            image_sources: options.image_sources,
            cgroups,
            network: options.network,
            guests: options.guests,
            dns: ClusterDns { address: options.cluster_dns, domain: options.cluster_domain },
            host_ip: options.node_address.to_string(),
            capacity: node::capacity(),
            reserve: options.reserve,
            dir,
            tokens: Tokens::default(),
        });
        let (recovered_in, recovered) = watch::channel(false);
        let (manager, pods) = Manager::new(Arc::clone(&shared), recovered_in);
        let tasks = vec![tokio::spawn(manager.run()), tokio::spawn(node::run(Arc::clone(&shared), recovered.clone()))];
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
        if data_dir.join("run").exists() {
            let runtime = OciRuntime::new(data_dir.join("run"), Vec::new())?;
            for uid in runtime.list().await? {
                runtime.remove(&uid).await?;
            }
        }
        Cgroups::detect(&cgroup_parent(instance))?.remove("")?;
        worker::remove_dir(data_dir).map_err(|source| Error::Directory { path: data_dir.to_owned(), source })
    }
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
        if pods == StopPods::Keep {
            return;
        }
        for uid in self.shared.runtime.list().await.unwrap_or_default() {
            if let Err(why) = sweep_all(&self.shared, &uid).await {
                tracing::warn!(uid, "stop a pod: {why}");
            }
        }
        if let Err(e) = self.shared.cgroups.remove("") {
            tracing::warn!("remove the node's cgroup: {e}");
        }
    }
}
