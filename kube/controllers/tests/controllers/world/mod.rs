//! A real API server in process with all controllers, and a small kubelet that runs what it is given.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_controllers::Options;
use substrate_store::Store;

/// Much longer than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct World {
    pub client: Client,
    _tasks: tokio::task::JoinSet<()>,
}

pub async fn world(options: Options) -> World {
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
    let masters = |name: &str| substrate_client::in_process(server.as_user(User::new(name, &["system:masters"])));
    let client = masters("admin");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(kubelet(masters("kubelet")));
    // With the rights that each has in a cluster, no others: what one lacks, its story misses.
    let client_for = move |name: &str| {
        let name = match name {
            "shared-informers" => "system:kube-controller-manager".to_owned(),
            name => format!("system:serviceaccount:kube-system:{name}"),
        };
        substrate_client::in_process(server.as_user(User::new(&name, &["system:serviceaccounts"])))
    };
    tasks.spawn(async move { substrate_controllers::run(client_for, options).await });
    World { client, _tasks: tasks }
}

/// Makes every pod ready at once with an address of its own, and lets go of those that are to end. A pod ends with the code that its
/// annotation `test/exit` says; several codes, one for each completion index, stand between commas.
async fn kubelet(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut addresses: BTreeMap<String, u8> = BTreeMap::new();
    loop {
        for pod in pods.list(&Default::default()).await.unwrap() {
            let (name, uid) = (pod.metadata.name.clone().unwrap(), pod.metadata.uid.clone().unwrap());
            let own: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
            let held = pod.metadata.annotations.iter().flatten().any(|(key, _)| key == "test/held");
            if pod.metadata.deletion_timestamp.is_some() {
                if !held {
                    let _ = own.delete(&name, &DeleteParams::default().grace_period(0)).await;
                }
            } else if is_new(&pod) && !held {
                let next = u8::try_from(addresses.len() + 1).unwrap();
                let number = *addresses.entry(uid).or_insert(next);
                let condition =
                    json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
                let status = match exit_code(&pod) {
                    Some(code) => ended(code),
                    None => json!({"phase": "Running", "podIP": format!("10.1.0.{number}"), "conditions": [condition]}),
                };
                let patch = Patch::Strategic(json!({"status": status}));
                let _ = own.patch_status(&name, &PatchParams::default(), &patch).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_new(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.status.as_ref().is_none_or(|status| status.pod_ip.is_none()) && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let index = annotations.get("batch.kubernetes.io/job-completion-index").and_then(|index| index.parse().ok());
    annotations.get("test/exit")?.split(',').nth(index.unwrap_or(0))?.parse().ok()
}

fn ended(code: i32) -> Value {
    // Long ago: nobody waits before the next try.
    let state = json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}});
    let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [container]})
}

impl World {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }
}

/// Waits until `look` answers `Ok`; what it answered otherwise is the last status seen.
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

/// Waits until a list is empty.
pub async fn gone<K>(what: &str, api: Api<K>)
where
    K: Clone + DeserializeOwned + std::fmt::Debug + Resource,
{
    until(what, async || {
        let left = api.list(&Default::default()).await.unwrap().items;
        let names: Vec<_> = left.iter().map(|object| (&object.meta().name, &object.meta().finalizers)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}
