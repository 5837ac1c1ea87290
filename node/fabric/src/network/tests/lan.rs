//! Machines on a LAN, each a thread with a network namespace of its own; all of it is gone with the threads.
//!
//! ```text
//!  thread flt-lan: flt-lan (bridge) ─┬─ lan0 192.0.2.1 ─ thread flt-node-1: API, Links, NodeNetwork, fabric
//!                                    ├─ lan0 192.0.2.2 ─ thread flt-node-2 …
//! ```

use std::fmt::Debug;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;
use fluidos_link::Links;
use fluidos_model::kinds::{Contract, crds, names};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Cache;
use substrate_network::{Attachment, ConfinedPod, NodeNetwork, Options as NetworkOptions};
use substrate_store::Store;
use tokio::sync::oneshot;

use super::{key, own};
use crate::network::{Handle, Options, run};

/// Much longer than anything here takes, also on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the program `ip`");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) async fn until<T: Debug>(what: &str, mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn on_lan<F: AsyncFnOnce(Lan) + Send + 'static>(test: F) {
    let thread = std::thread::Builder::new().name("flt-lan".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        ip("link add flt-lan type bridge");
        ip("link set flt-lan up");
        let lan = Lan { dir: tempfile::Builder::new().prefix("flt-fabric-").tempdir().unwrap() };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(lan));
    });
    thread.unwrap().join().unwrap();
}

pub(super) struct Lan {
    dir: tempfile::TempDir,
}

/// A node as far as the fabric's network needs one.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) seed: u8,
    pub(super) links: Links,
    pub(super) network: NodeNetwork,
    pub(super) fabric: Handle,
    client: Client,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lan {
    pub(super) async fn node(&self, seed: u8) -> Node {
        self.machine(seed, true).await
    }

    /// A node whose fabric has no network of its own.
    pub(super) async fn carrier(&self, seed: u8) -> Node {
        self.machine(seed, false).await
    }

    async fn machine(&self, seed: u8, has_pods: bool) -> Node {
        let dir = self.dir.path().join(seed.to_string());
        let (thread_id, got_thread_id) = std::sync::mpsc::channel();
        let (wired, is_wired) = std::sync::mpsc::channel();
        let (started, is_started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            thread_id.send(nix::unistd::gettid()).unwrap();
            is_wired.recv().unwrap();
            ip(&format!("address add 192.0.2.{seed}/24 dev lan0"));
            ip("link set lan0 up");
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            runtime.block_on(async {
                let _ = started.send(start(seed, dir, handle, has_pods).await);
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name(format!("flt-node-{seed}")).spawn(work).unwrap();
        let machine = got_thread_id.recv().unwrap();
        ip(&format!("link add flt-lan-{seed} type veth peer name lan0 netns {machine}"));
        ip(&format!("link set flt-lan-{seed} master flt-lan up"));
        wired.send(()).unwrap();
        let mut node = is_started.await.unwrap();
        (node.stop, node.thread) = (Some(stop), Some(thread));
        node
    }
}

async fn start(seed: u8, dir: PathBuf, runtime: tokio::runtime::Handle, has_pods: bool) -> Node {
    let key = key(seed);
    let id = key.id();
    let client = api().await;
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7300));
    let links = Links::start(key, fluidos_link::Options::new(listen, format!("node{seed}"), 1)).unwrap();
    let own = own(seed);
    let network = NodeNetwork::open(NetworkOptions {
        instance: id.tag(),
        data_dir: dir,
        pod_cidr: own.pods,
        service_cidr: own.services,
        cni: None,
        ipv6: None,
    })
    .await
    .unwrap();
    let fabric = Handle::default();
    let contracts = Cache::start(Api::<Contract>::namespaced(client.clone(), "fluidos"));
    let labelled = kube::runtime::watcher::Config::default().labels(names::LABEL_CONTRACT);
    let twins = Cache::start_with(Api::<Pod>::all(client.clone()), labelled);
    let options = Options {
        own: id,
        contracts,
        twins,
        services: super::super::Services::start(&client),
        links: links.clone(),
        network: has_pods.then(|| network.clone()),
        speakers: Default::default(),
    };
    let running = run(options, fabric.clone());
    tokio::spawn(async move { running.await.unwrap() });
    Node { id, seed, links, network, fabric, client, runtime, stop: None, thread: None }
}

async fn api() -> Client {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client = substrate_client::in_process(server.as_user(User::new("admin", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("fluidos".into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    client
}

impl Node {
    /// Does something on this machine.
    pub(super) async fn here<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.unwrap()
    }

    pub(super) async fn pod(&self, uid: &'static str) -> Attachment {
        let network = self.network.clone();
        self.here(async move { network.attach(uid).await.unwrap() }).await
    }

    /// A pod of somebody else, as the kubelet attaches it.
    pub(super) async fn guest(&self, uid: &'static str, of: &Node) -> Attachment {
        let network = self.network.clone();
        let allow_to = vec![super::prefix(&of.id)];
        self.here(async move {
            let guest = network.attach_confined(uid).await.unwrap();
            let confined = ConfinedPod { address: guest.address, allow_to, own_cluster: false };
            network.set_confined(vec![confined]).await.unwrap();
            guest
        })
        .await
    }

    /// Writes this side's copy of a contract.
    pub(super) async fn agree(&self, buyer: NodeId, seller: NodeId) -> String {
        let contracts = Api::<Contract>::namespaced(self.client.clone(), "fluidos");
        let name = format!("contract-{}-{}", buyer.tag(), seller.tag());
        let contract = super::contract(&name, buyer, seller);
        let status = serde_json::json!({"status": {"phase": "Active"}});
        let written = name.clone();
        self.here(async move {
            contracts.create(&PostParams::default(), &contract).await.unwrap();
            contracts.patch_status(&written, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        })
        .await;
        name
    }

    /// Serves what it sold with what it bought.
    pub(super) async fn serve(&self, sold: &str, bought: &str) {
        let contracts = Api::<Contract>::namespaced(self.client.clone(), "fluidos");
        let (sold, patch) = (sold.to_owned(), serde_json::json!({"spec": {"servedBy": bought}}));
        let served = async move {
            contracts.patch(&sold, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).unwrap()
        };
        self.here(served).await;
    }

    /// Writes a twin as the fabric and a kubelet do.
    pub(super) async fn twin(&self, contract: &str, address: Ipv4Addr, notes: serde_json::Value) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), "fluidos");
        let pod = serde_json::json!({"metadata": {"name": "twin", "labels": {names::LABEL_CONTRACT: contract}, "annotations": notes},
            "spec": {"containers": [{"name": "main", "image": "flt/app:1"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let status = serde_json::json!({"status": {"podIP": address}});
        self.here(async move {
            pods.create(&PostParams::default(), &pod).await.unwrap();
            pods.patch_status("twin", &PatchParams::default(), &Patch::Merge(status)).await.map(drop).unwrap();
        })
        .await;
    }

    pub(super) async fn end(&self, contract: String) {
        let contracts = Api::<Contract>::namespaced(self.client.clone(), "fluidos");
        self.here(async move { contracts.delete(&contract, &Default::default()).await.map(|_| ()).unwrap() }).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "machine {} failed", self.seed);
        }
    }
}

/// Runs in a pod.
pub(super) fn within<T: Send + 'static>(
    pod: &Attachment,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let netns = pod.netns.clone();
    std::thread::spawn(move || {
        setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}
