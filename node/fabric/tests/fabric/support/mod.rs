//! Two nodes in one process: an API server, a link and a fabric each, and machines that only pretend.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine_images::{Digest, ImageStore};
use fluidos_fabric::{Fabric, Options};
use fluidos_identity::{NodeId, NodeKey, fabric_prefix};
use fluidos_link::Links;
use fluidos_model::kinds::{Allocation, Contract, crds, names};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::{
    ContainerTarget, Duplex, Error, ExecOptions, ExecOutput, ExecSession, LogOptions, NodeProxies, NodeProxy,
};
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::{Cache, Caches};
use substrate_store::Store;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub const WAIT: Duration = Duration::from_secs(15);
/// What did not fit is asked for again after 10 s, and once more if what was in its way has not ended by then.
const LIMIT: Duration = Duration::from_secs(45);
pub const CONTRACT: &str = "contract-grid-1";
pub const MACHINE: &str = "machine";

pub fn key(seed: u8) -> Arc<NodeKey> {
    Arc::new(NodeKey::from_seed([seed; 32]).unwrap())
}

/// One node of one owner.
pub struct Side {
    pub name: String,
    pub key: Arc<NodeKey>,
    pub client: Client,
    pub links: Links,
    pub proxies: NodeProxies,
    pub images: ImageStore,
    pub fabric: Option<Fabric>,
    pub address: SocketAddr,
    /// Its policies let nobody in.
    pub barred: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Side {
    /// An API with our kinds, and links. Without a fabric yet.
    pub async fn bare(name: &str, seed: u8) -> Self {
        let proxies = NodeProxies::default();
        let server = ApiServer::new(ApiOptions {
            store: Store::memory().unwrap(),
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
            service_cidr_v6: None,
            tokens: Tokens::default(),
            proxies: proxies.clone(),
            admission: Vec::new(),
            version: "v1.34.0".into(),
        })
        .unwrap();
        server.bootstrap().await.unwrap();
        let client = substrate_client::in_process(server.as_user(User::new("test", &["system:masters"])));
        for crd in crds() {
            Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
        }
        for namespace in [names::NAMESPACE, "shop"] {
            let object: Namespace = from(json!({"metadata": {"name": namespace}}));
            Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let key = key(seed);
        let links = links(&key, name, 1);
        let address = links.local_address().unwrap();
        let images = ImageStore::open(directory.path().join("images")).unwrap();
        let name = name.to_owned();
        let barred = Arc::default();
        Self { name, key, client, links, proxies, images, fabric: None, address, barred, tasks: vec![], directory }
    }

    pub async fn start(name: &str, seed: u8) -> Self {
        let mut side = Self::bare(name, seed).await;
        side.start_fabric();
        side
    }

    /// The process ends and another begins, with the same API and key, at another address.
    pub async fn restart(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.fabric = None;
        self.links.stop().await;
        self.links = links(&self.key, &self.name, 2);
        self.address = self.links.local_address().unwrap();
        self.start_fabric();
    }

    pub fn start_fabric(&mut self) {
        let fabric = Fabric::start(self.options()).unwrap();
        self.tasks.push(tokio::spawn(fabric.clone().run()));
        self.fabric = Some(fabric);
    }

    pub fn options(&self) -> Options {
        let barred = self.barred.clone();
        Options {
            client: self.client.clone(),
            caches: Caches::new(self.client.clone()),
            key: self.key.clone(),
            links: self.links.clone(),
            node_name: self.name.clone(),
            proxies: self.proxies.clone(),
            images: Some(self.images.clone()),
            dns_address: dns_of(self.key.id()),
            cluster_domain: "cluster.local".into(),
            prefix_of: Arc::new(|peer| Some(fabric_prefix(peer, 0))),
            speakers: Default::default(),
            admit: Some(Arc::new(move |_, namespace| match barred.load(Ordering::Relaxed) {
                true => Err(format!("policy door forbids Offload from {namespace}")),
                false => Ok(()),
            })),
        }
    }

    /// A machine that pretends to run what is bound to it, and a scheduler that binds everything to it.
    pub fn start_machine(&mut self) -> Arc<Machine> {
        let machine = Arc::new(Machine {
            fabric: self.fabric.clone(),
            client: self.client.clone(),
            prefix: fabric_prefix(&self.key.id(), 0).v4,
            lies: AtomicBool::new(false),
            holds_on: AtomicBool::new(false),
            count: AtomicU32::new(2),
        });
        self.proxies.register(MACHINE, machine.clone());
        self.tasks.push(tokio::spawn(machine.clone().run()));
        machine
    }

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let object: K = from(object);
        let api = Api::<K>::namespaced(self.client.clone(), &object.namespace().unwrap());
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn contract(&self, contract: &Value) -> Contract {
        self.create(contract.clone()).await
    }

    pub async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        Api::<K>::namespaced(self.client.clone(), namespace).delete(name, &DeleteParams::default()).await.unwrap();
    }
}

fn links(key: &NodeKey, name: &str, incarnation: u64) -> Links {
    let options = fluidos_link::Options {
        keep_alive: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(1500),
        ..fluidos_link::Options::new("127.0.0.1:0".parse().unwrap(), name, incarnation)
    };
    Links::start(key.clone(), options).unwrap()
}

impl Drop for Side {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub fn dns_of(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::from_bits(fabric_prefix(&node, 0).v4.to_bits() + 0xf0a)
}

pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Waits until `observe` gives what `done` accepts; a time-out reports the last.
pub async fn until<T: Debug, F: Future<Output = T>>(
    what: &str,
    observe: impl Fn() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let observed = observe().await;
        if done(&observed) {
            return observed;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: after {LIMIT:?} still {observed:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn contract(name: &str, buyer: NodeId, seller: NodeId, cpu: &str, memory: &str, pods: &str) -> Value {
    let party = |id: NodeId, name: &str| {
        json!({"domain": format!("{name}.example"), "nodeID": name, "ip": "127.0.0.1:7300",
            "additionalInformation": {"did": id.to_string(), "name": name}})
    };
    json!({
        "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract",
        "metadata": {"name": name, "namespace": "fluidos"},
        "spec": {
            "flavor": {"metadata": {"name": "flavor", "namespace": "fluidos"}, "spec": {
                "providerID": "grid", "owner": party(seller, "grid"), "availability": true, "networkPropertyType": "",
                "price": {"amount": "0", "currency": "", "period": ""},
                "location": {"city": "Milan", "country": "Italy"},
                "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                    "characteristics": {"architecture": "amd64", "cpu": "4", "memory": "8Gi", "pods": "110"},
                    "properties": {}, "policies": {"partitionability": {}}}}}},
            "transactionID": "t", "buyerClusterID": buyer.to_string(),
            "configuration": {"type": "K8Slice", "data": {"cpu": cpu, "memory": memory, "pods": pods}},
            "buyer": party(buyer, "farm"), "seller": party(seller, "grid")}})
}

pub fn allocation(contract: &str) -> Value {
    json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Allocation",
        "metadata": {"name": names::allocation(contract), "namespace": "fluidos", "labels": {"reservation.fluidos.eu/contract": contract}},
        "spec": {"contract": {"name": contract, "namespace": "fluidos"}, "forwarding": false}})
}

/// A pod of the namespace `shop` on a node.
pub fn pod(name: &str, node: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name, "node-role.kubernetes.io/x": "y"}, "annotations": {"private": "yes"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 2, "containers": [{"name": "main", "image": "flt/app:1",
            "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}}]}});
    change(&mut pod);
    pod
}

/// Two nodes with a link: `farm` buys from `grid`.
pub struct Pair {
    pub farm: Side,
    pub grid: Side,
    pub machine: Arc<Machine>,
    pub wire: Wire,
}

impl Pair {
    /// Both sides, a contract on both, the virtual node ready.
    pub async fn ready() -> Self {
        let farm = Side::start("farm", 1).await;
        let mut grid = Side::start("grid", 2).await;
        let machine = grid.start_machine();
        let wire = Wire::to(grid.address).await;
        farm.links.dial(wire.address, Some(grid.links.id()));
        let pair = Self { farm, grid, machine, wire };
        let terms = contract(CONTRACT, pair.farm.links.id(), pair.grid.links.id(), "1500m", "1Gi", "5");
        pair.grid.contract(&terms).await;
        pair.farm.contract(&terms).await;
        pair.grid.create::<Allocation>(allocation(CONTRACT)).await;
        pair.farm.create::<Allocation>(allocation(CONTRACT)).await;
        pair.node_is("grid", "True").await;
        pair
    }

    pub async fn node_is(&self, node: &str, ready: &str) -> Node {
        let nodes = self.farm.nodes();
        let seen = || async { nodes.get_opt(node).await.unwrap() };
        let what = format!("node {node} Ready={ready}");
        until(&what, seen, |node| node.as_ref().is_some_and(|node| condition(node, "Ready") == ready)).await.unwrap()
    }

    pub fn twin_namespace(&self) -> String {
        format!("twin-{}-shop", self.farm.links.id().tag())
    }

    pub fn twins(&self) -> Api<Pod> {
        self.grid.pods(&self.twin_namespace())
    }

    pub async fn pod_is(&self, name: &str, what: &str, done: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.farm.pods("shop");
        let seen = || async { pods.get_opt(name).await.unwrap() };
        until(&format!("pod {name} {what}"), seen, |pod| pod.as_ref().is_some_and(&done)).await.unwrap()
    }

    pub async fn no_pod(&self, name: &str) {
        let pods = self.farm.pods("shop");
        until(&format!("pod {name} gone"), || async { pods.get_opt(name).await.unwrap() }, Option::is_none).await;
    }

    pub async fn twin(&self, name: &str) -> Pod {
        let twins = self.twins();
        until(&format!("twin {name}"), || async { twins.get_opt(name).await.unwrap() }, Option::is_some).await.unwrap()
    }

    pub async fn no_twin(&self, name: &str) {
        let twins = self.twins();
        until(&format!("twin {name} gone"), || async { twins.get_opt(name).await.unwrap() }, Option::is_none).await;
    }

    pub fn target(&self, pod: &Pod) -> ContainerTarget {
        ContainerTarget {
            namespace: "shop".into(),
            pod: pod.name_any(),
            pod_uid: pod.uid().unwrap(),
            container: "main".into(),
        }
    }
}

pub fn condition(node: &Node, kind: &str) -> String {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.into_iter().find(|c| c.type_ == kind).map(|c| c.status).unwrap_or_default()
}

pub fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Pretends to run pods.
pub struct Machine {
    fabric: Option<Fabric>,
    client: Client,
    prefix: Ipv4Addr,
    /// Reports addresses and names that are not its own.
    pub lies: AtomicBool,
    /// Does not let go of what is to be deleted.
    pub holds_on: AtomicBool,
    count: AtomicU32,
}

impl Machine {
    async fn run(self: Arc<Self>) {
        let pods = Cache::<Pod>::start(Api::all(self.client.clone()));
        let mut changes = pods.changes();
        loop {
            changes.mark_unchanged();
            for pod in pods.list() {
                self.look_after(&pod).await;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    async fn look_after(&self, pod: &Pod) {
        let (namespace, name) = (pod.namespace().unwrap(), pod.name_any());
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let spec = pod.spec.clone().unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            if !self.holds_on.load(Ordering::Relaxed) {
                let _ =
                    api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await;
            }
        } else if spec.node_name.is_none() {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": MACHINE}});
            let _ = api.create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding).await;
        } else if spec.node_name.as_deref() == Some(MACHINE)
            && phase(pod) == "Pending"
            && self.fabric.as_ref().is_none_or(|fabric| fabric.is_confirmed(pod))
        {
            let n = self.count.fetch_add(1, Ordering::Relaxed);
            let lies = self.lies.load(Ordering::Relaxed);
            let address =
                if lies { Ipv4Addr::new(192, 168, 1, 1) } else { Ipv4Addr::from_bits(self.prefix.to_bits() + n) };
            let status = json!({"status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.9.9.9", "hostIPs": [{"ip": "10.9.9.9"}],
                "message": if lies { "\u{1b}[31m".to_owned() + &"x".repeat(5000) } else { String::new() },
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "fluidos.eu/Placed", "status": "True"}],
                "containerStatuses": spec.containers.iter().map(|c| json!({"name": c.name, "image": "other", "imageID": "sha256:1",
                    "containerID": "oci://1", "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})).collect::<Vec<_>>()}});
            let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await;
        }
    }
}

#[async_trait]
impl NodeProxy for Machine {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        let text = format!("{}/{} {} tail={:?}\n", target.namespace, target.pod, target.container, options.tail_lines);
        let first = futures::stream::iter([Ok(Bytes::from(text))]);
        match options.follow {
            true => Ok(first.chain(futures::stream::pending()).boxed()),
            false => Ok(first.boxed()),
        }
    }

    /// Gives back what it is given, then ends with 7.
    async fn exec(&self, _target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        if options.command == ["refused"] {
            return Err(Error::BadRequest("it is not running".into()));
        }
        let (stdin, mut input) = mpsc::channel::<Bytes>(4);
        let (resize, mut sizes) = mpsc::channel(4);
        let (sender, output) = mpsc::channel(4);
        let command = options.command.join(" ");
        tokio::spawn(async move {
            sender.send(ExecOutput::Stderr(Bytes::from(format!("{command}\n")))).await.ok();
            loop {
                tokio::select! {
                    chunk = input.recv() => match chunk {
                        Some(chunk) => drop(sender.send(ExecOutput::Stdout(chunk)).await),
                        None => break,
                    },
                    Some(size) = sizes.recv() => drop(sender.send(ExecOutput::Stderr(Bytes::from(format!("{size:?}")))).await),
                }
            }
            sender.send(ExecOutput::Exit(7)).await.ok();
        });
        Ok(ExecSession { stdin, resize, output })
    }

    async fn port_forward(&self, _target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        if port != 80 {
            return Err(Error::Internal(format!("nobody listens on {port}")));
        }
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        Ok(Box::new(near))
    }
}

/// A wire between the one who dials and the other, which can be cut.
pub struct Wire {
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Wire {
    pub async fn to(target: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = near.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        let task = tokio::spawn(async move {
            let (mut out, mut back, mut dialler) = (vec![0; 65536], vec![0; 65536], None);
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut out) => {
                        dialler = Some(from);
                        if !is_cut.load(Ordering::Relaxed) {
                            let _ = far.send_to(&out[..length], target).await;
                        }
                    }
                    Ok((length, _)) = far.recv_from(&mut back) => {
                        if let Some(dialler) = dialler.filter(|_| !is_cut.load(Ordering::Relaxed)) {
                            let _ = near.send_to(&back[..length], dialler).await;
                        }
                    }
                }
            }
        });
        Self { address, cut, task }
    }

    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An image of one layer, as an OCI archive.
pub fn archive(directory: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(name.len() as u64);
    header.set_mode(0o644);
    layer.append_data(&mut header, "hello", name.as_bytes()).unwrap();
    let layer = layer.into_inner().unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}}).to_string();
    let kind = |of: &str| format!("application/vnd.oci.image.{of}");
    let manifest = json!({"schemaVersion": 2, "mediaType": kind("manifest.v1+json"),
        "config": {"mediaType": kind("config.v1+json"), "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": kind("layer.v1.tar"), "digest": Digest::of(&layer), "size": layer.len()}]})
    .to_string();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": kind("manifest.v1+json"), "digest": Digest::of(manifest.as_bytes()),
        "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}}]})
    .to_string();
    let path = directory.join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json".into(), index.as_bytes());
    for blob in [config.as_bytes(), manifest.as_bytes(), &layer] {
        add(format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.finish().unwrap();
    path
}
