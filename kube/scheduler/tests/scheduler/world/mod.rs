//! A scheduler over a real API server in process.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use substrate_apiserver::admission::Admission;
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_scheduler::{Guaranteed, Options};
use substrate_store::Store;

const DEADLINE: Duration = Duration::from_secs(20);

pub async fn cluster() -> (Client, tokio::task::JoinSet<()>) {
    cluster_with(None).await
}

pub async fn cluster_with(guarantees: Option<Guaranteed>) -> (Client, tokio::task::JoinSet<()>) {
    cluster_by(Options { guarantees, ..Options::default() }).await
}

pub async fn cluster_by(options: Options) -> (Client, tokio::task::JoinSet<()>) {
    cluster_of(options, Vec::new()).await
}

pub async fn cluster_of(options: Options, admission: Vec<Arc<dyn Admission>>) -> (Client, tokio::task::JoinSet<()>) {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission,
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client_for =
        |name: &str, groups: &[&str]| substrate_client::in_process(server.as_user(User::new(name, groups)));
    let mut tasks = tokio::task::JoinSet::new();
    let options = Options { back_off_first: Duration::from_millis(100), ..options };
    tasks.spawn(substrate_scheduler::run(client_for("system:kube-scheduler", &[]), options));
    (client_for("admin", &["system:masters"]), tasks)
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

pub async fn add_node(client: &Client, name: &str) {
    let node =
        json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
}

pub async fn add_pod(client: &Client, name: &str, more: Value) {
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let pod = json!({"metadata": {"name": name}, "spec": spec});
    pods(client).create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

pub fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), "default")
}

pub async fn by_node(client: &Client) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods(client).list(&Default::default()).await.unwrap() {
        *counts.entry(pod.spec.unwrap().node_name.unwrap_or_default()).or_default() += 1;
    }
    counts
}
