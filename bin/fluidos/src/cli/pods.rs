//! The flags of a machine that runs pods: a node's own (`up`) and an agent's (`join`).

use std::path::PathBuf;

use substrate_kubelet::eviction::{self, plan::Thresholds};
use substrate_kubelet::node::Reserve;

use super::up::directory;

/// What a kubelet is told.
#[derive(clap::Args, Clone, Debug)]
pub struct Pods {
    /// Credentials for registries, for all pods of this machine but those of peers: docker's config.json, read again at each pull. Programs that
    /// give out credentials (credHelpers, credsStore) are not run.
    #[arg(long, env = "FLUIDOS_REGISTRY_CONFIG", value_name = "FILE", value_parser = directory)]
    pub registry_config: Option<PathBuf>,
    /// A directory whose files are pods that run here whatever the API says, one in each, as YAML or JSON (kubelet's --pod-manifest-path).
    #[arg(long, env = "FLUIDOS_STATIC_PODS", value_name = "DIR", value_parser = directory)]
    pub static_pods: Option<PathBuf>,
    /// What of this machine is kept from pods, as cpu=500m,memory=512Mi,ephemeral-storage=1Gi.
    #[arg(long, env = "FLUIDOS_RESERVE", default_value = "", value_name = "NAME=QUANTITY,..")]
    pub reserve: Reserve,
    /// What must be left of this machine; pods are evicted before less is, as memory.available<100Mi,nodefs.available<10%. Signals that
    /// are not named may run out. Default: kubelet's own [memory 100Mi, nodefs 10%, imagefs 15%, inodes of both 5%].
    #[arg(long, env = "FLUIDOS_EVICTION_HARD", value_name = "SIGNAL<QUANTITY,..")]
    pub eviction_hard: Option<Thresholds>,
    /// The socket of a container runtime that runs pods of the handler cri (kubelet's flag of this name): containerd. Without it, one that is at
    /// its usual place is taken.
    #[arg(long, env = "FLUIDOS_CONTAINER_RUNTIME_ENDPOINT", value_name = "unix:///PATH", value_parser = endpoint)]
    pub container_runtime_endpoint: Option<PathBuf>,
    /// What runs pods whose RuntimeClass names no handler: oci, the built-in runtime, or cri, the container runtime of this machine. Without it, a
    /// node begins with cri where there is a container runtime that no other program runs pods by, else with oci, and keeps what it began with.
    /// Pods that there are stay where they are.
    #[arg(long, env = "FLUIDOS_DEFAULT_RUNTIME", value_name = "HANDLER", value_parser = ["oci", "cri"])]
    pub default_runtime: Option<String>,
    /// The network of this machine's own pods: a directory with a CNI configuration, as /etc/cni/net.d, of which the first file counts. Without it
    /// they are on this node's network. Services, policies and DNS hold on both; guests are always on this node's.
    #[arg(long, env = "FLUIDOS_CNI_CONF_DIR", value_name = "DIR", value_parser = directory)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where the plug-ins of that configuration are, in this order.
    #[arg(long, env = "FLUIDOS_CNI_BIN_DIR", value_name = "DIR", value_delimiter = ',', default_value = "/opt/cni/bin,/usr/lib/cni", value_parser = directory)]
    pub cni_bin_dir: Vec<PathBuf>,
}

/// Where container runtimes of distributions listen.
pub const SOCKETS: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

/// A container runtime that this machine has.
pub fn usual_socket() -> Option<PathBuf> {
    SOCKETS.iter().map(PathBuf::from).find(|path| path.exists())
}

fn endpoint(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("{text:?}, needed unix:// and the absolute path of a socket")),
    }
}

impl Pods {
    /// The network that this machine has for pods, if it is to be used.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn cni(&self) -> Result<Option<engine_cni::Network>, engine_cni::Error> {
        self.cni_conf_dir.as_deref().map(|dir| engine_cni::Network::find(dir, &self.cni_bin_dir)).transpose()
    }

    /// When pods have to go.
    pub fn eviction(&self) -> eviction::Options {
        eviction::Options { hard: self.eviction_hard.clone().unwrap_or_default(), ..Default::default() }
    }
}
