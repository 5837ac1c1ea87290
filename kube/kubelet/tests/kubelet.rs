//! The whole kubelet: a real API server in process, real containers, in a network namespace of its own; each case with the built-in runtime
//! and with containerd ([`runtimes`]), both at once. Needs root and busybox-static. It runs without the usual harness, because it is its own
//! supervisor.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "kubelet/evictions.rs"]
mod evict;
#[path = "kubelet/life.rs"]
mod life;
#[path = "kubelet/probes.rs"]
mod probes;
#[path = "kubelet/processes.rs"]
mod processes;
#[path = "kubelet/runtimes.rs"]
mod runtimes;
#[path = "kubelet/statics.rs"]
mod statics;
#[path = "kubelet/volumes.rs"]
mod volumes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine_conformance::images as support;
use engine_images::{Admitted, Caller, Error as ImageError, ImageStore, Reference};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::{ContainerTarget, ExecOptions, ExecOutput, LogOptions, NodeProxies, NodeProxy};
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_kubelet::eviction::Options as Eviction;
use substrate_kubelet::node::Reserve;
use substrate_kubelet::{Guests, Handle, ImageSource, Kubelet, Options, StopPods};
use substrate_network::NodeNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODE: &str = "flt-node";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "supervisor") {
        return engine_runtime::supervisor::main(&args[2..]);
    }
    if args.get(1).is_some_and(|a| a == "plugin") {
        return engine_cri::network::plugin();
    }
    let Ok(name) = std::env::var(runtimes::VARIABLE) else { return runtimes::both(&args[1..]) };
    // Nothing of this is seen on the machine's own network.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    // What the kubelet complains of is beside what a case has found.
    let complaints = tracing_subscriber::EnvFilter::try_from_env("FLT_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(complaints).init();
    let mut handler = runtimes::Handler::start(&name); // its streams are on this network, too
    let wanted = args.get(1).and_then(|a| a.to_str()).filter(|a| !a.starts_with('-')).unwrap_or("").to_owned();
    type Case = fn(&mut World) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    let cases: &[(&str, Case)] = &[
        ("the_node_is_registered", |w| Box::pin(the_node_is_registered(w))),
        ("a_pod_lives_and_ends", |w| Box::pin(a_pod_lives_and_ends(w))),
        ("a_pod_is_looked_into", |w| Box::pin(a_pod_is_looked_into(w))),
        ("crashes_back_off", |w| Box::pin(crashes_back_off(w))),
        ("jobs_succeed_and_fail", |w| Box::pin(jobs_succeed_and_fail(w))),
        ("what_is_missing_is_waited_for", |w| Box::pin(what_is_missing_is_waited_for(w))),
        ("images_come_from_sources", |w| Box::pin(images_come_from_sources(w))),
        ("unsupported_pods_say_so", |w| Box::pin(unsupported_pods_say_so(w))),
        ("unhealthy_containers_are_restarted", |w| Box::pin(unhealthy_containers_are_restarted(w))),
        ("a_restart_finds_what_runs", |w| Box::pin(a_restart_finds_what_runs(w))),
        ("stale_copies_stop_before_ready", |w| Box::pin(stale_copies_stop_before_ready(w))),
        ("what_others_say_is_corrected", |w| Box::pin(what_others_say_is_corrected(w))),
        ("a_guest_waits_for_its_owner", |w| Box::pin(a_guest_waits_for_its_owner(w))),
        ("host_paths", |w| Box::pin(volumes::host_paths(w))),
        ("a_guest_gets_no_files_of_the_machine", |w| Box::pin(volumes::a_guest_gets_no_files_of_the_machine(w))),
        ("sub_paths_are_expanded", |w| Box::pin(volumes::sub_paths_are_expanded(w))),
        ("claims_get_directories", |w| Box::pin(volumes::claims_get_directories(w))),
        ("kernels_settings_and_profiles", |w| Box::pin(volumes::kernels_settings_and_profiles(w))),
        ("containers_see_each_other", |w| Box::pin(volumes::containers_see_each_other(w))),
        ("a_lost_sandbox_is_replaced", |w| Box::pin(a_lost_sandbox_is_replaced(w))),
        ("init_containers_come_first", |w| Box::pin(life::init_containers_come_first(w))),
        ("init_containers_run_again_in_a_new_sandbox", |w| {
            Box::pin(life::init_containers_run_again_in_a_new_sandbox(w))
        }),
        ("sidecars_run_beside", |w| Box::pin(life::sidecars_run_beside(w))),
        ("hooks_run_at_both_ends", |w| Box::pin(life::hooks_run_at_both_ends(w))),
        ("deadlines_and_stop_signals", |w| Box::pin(life::deadlines_and_stop_signals(w))),
        ("last_words_come_from_the_log", |w| Box::pin(life::last_words_come_from_the_log(w))),
        ("names_and_rules_of_ones_own", |w| Box::pin(life::names_and_rules_of_ones_own(w))),
        ("what_a_pod_may_have_of_the_disk", |w| Box::pin(evict::what_a_pod_may_have_of_the_disk(w))),
        ("one_container_out_of_memory", |w| Box::pin(evict::one_container_out_of_memory(w))),
        ("memory_that_runs_out", |w| Box::pin(evict::memory_that_runs_out(w))),
        ("process_ids_that_run_out", |w| Box::pin(evict::process_ids_that_run_out(w))),
        ("a_full_disk", |w| Box::pin(evict::a_full_disk(w))),
        ("pods_are_stopped_by_a_runtime_that_was_away", |w| Box::pin(pods_are_stopped_by_a_runtime_that_was_away(w))),
        ("static_pods_are_shown", |w| Box::pin(statics::static_pods_are_shown(w))),
        ("static_pods_need_no_api", |w| Box::pin(statics::static_pods_need_no_api(w))),
        ("probes_and_hooks_over_https", |w| Box::pin(probes::probes_and_hooks_over_https(w))),
        ("probes_over_grpc", |w| Box::pin(probes::probes_over_grpc(w))),
        ("programs_of_the_machine_run", |w| Box::pin(processes::programs_of_the_machine_run(w))),
        ("images_run_behind_fences", |w| Box::pin(processes::images_run_behind_fences(w))),
        ("programs_that_are_refused", |w| Box::pin(processes::programs_that_are_refused(w))),
        ("sidecars_are_probed", |w| Box::pin(probes::sidecars_are_probed(w))),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    for (case_name, case) in cases {
        let full = format!("{}::{case_name}", handler.name());
        if !handler.holds(case_name) || !full.contains(&wanted) {
            continue;
        }
        let started = Instant::now();
        let mut world = runtime.block_on(World::new(&handler));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(case(&mut world))));
        let swept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(world.sweep())));
        if result.is_err() || swept.is_err() {
            println!("test {full} ... FAILED");
            failed.push(full);
            // What it has left is not counted against the next.
            drop(handler);
            handler = runtimes::Handler::start(&name);
            continue;
        }
        println!("test {full} ... ok ({} ms)", started.elapsed().as_millis());
    }
    println!("{}: {} failed: {}", handler.name(), failed.len(), failed.join(", "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct World {
    dir: tempfile::TempDir,
    client: kube::Client,
    network: Arc<NodeNetwork>,
    handle: Handle,
    eviction: Eviction,
    handler: runtimes::Handler,
}

/// Looked at more often than usual; the machine that runs the test may be short of anything, unless a test says what must be left.
fn evictions(hard: &str) -> Eviction {
    let hard = hard.parse().unwrap();
    Eviction { hard, interval: Duration::from_millis(500), transition: Duration::from_secs(2) }
}

/// Serves the image `carried:1` as a peer would, blob by blob.
struct Carrier(ImageStore);

#[async_trait]
impl ImageSource for Carrier {
    fn name(&self) -> &str {
        "carrier"
    }

    async fn fetch(
        &self,
        reference: &Reference,
        _pod: &Pod,
        caller: &Caller,
        store: &ImageStore,
    ) -> Result<bool, ImageError> {
        let Some(image) = self.0.find(reference).await? else { return Ok(false) };
        let mut manifest = Vec::new();
        self.0.open_blob(&image.digest).await?.read_to_end(&mut manifest).await.unwrap();
        let incoming = store.incoming(reference, &manifest, caller, Admitted::Everybody).await?;
        for blob in incoming.needed() {
            incoming.take(blob, self.0.open_blob(&blob.digest)).await?;
        }
        incoming.finish().await?;
        Ok(true)
    }
}

/// Pods of the name `guest` are somebody else's, who says by a file that they may start.
struct Confirmed(std::path::PathBuf);

impl Guests for Confirmed {
    fn is_guest(&self, pod: &Pod) -> bool {
        pod.metadata.name.as_deref() == Some("guest")
    }

    fn owner(&self, pod: &Pod) -> Option<String> {
        self.is_guest(pod).then(|| "somebody".to_owned())
    }

    fn may_start(&self, _pod: &Pod) -> bool {
        self.0.exists()
    }
}

impl World {
    async fn new(handler: &runtimes::Handler) -> Self {
        let dir = tempfile::Builder::new().prefix("flt-kubelet-").tempdir().unwrap();
        let server = ApiServer::new(ApiOptions {
            store: substrate_store::Store::memory().unwrap(),
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
            service_cidr_v6: None,
            tokens: Tokens::default(),
            proxies: NodeProxies::default(),
            admission: Vec::new(),
            version: "v1.34.0".into(),
        })
        .unwrap();
        server.bootstrap().await.unwrap();
        let client = substrate_client::in_process(server.as_user(User::new("flt", &["system:masters"])));
        let network = NodeNetwork::open(substrate_network::Options {
            instance: handler.instance().into(),
            data_dir: dir.path().join("network"),
            pod_cidr: "100.99.0.0/24".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cni: None,
            ipv6: None,
        })
        .await
        .unwrap();
        let network = Arc::new(network);
        let carrier = ImageStore::open(dir.path().join("carrier")).unwrap();
        let carried = support::layout(
            &dir.path().join("src2"),
            "carried:1",
            json!({"Cmd": ["sleep", "1000"]}),
            &[support::busybox().bytes()],
        );
        carrier.load(carried, None).await.unwrap();
        let eviction = evictions("");
        let handle = kubelet(dir.path(), &client, &network, (&eviction, handler)).await;
        let config = json!({"Entrypoint": ["sh", "-c"], "Cmd": ["sleep 1000"], "Env": ["FROM=image"]});
        let source = support::layout(&dir.path().join("src"), "busy:1", config, &[support::busybox().bytes()]);
        handle.images().load(source, None).await.unwrap();
        Self { dir, client, network, handle, eviction, handler: handler.clone() }
    }

    async fn restart(&mut self) {
        // Two of them at once would both start what has to run again, of which one finds its port taken.
        self.handle.stop(StopPods::Keep).await;
        self.handle = kubelet(self.dir.path(), &self.client, &self.network, (&self.eviction, &self.handler)).await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// Creates a pod; `spec` is completed with the node.
    async fn create(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!(NODE);
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    async fn sh(&self, name: &str, script: &str) -> Pod {
        self.create(name, json!({"containers": [{"name": "main", "image": "busy:1", "args": [script]}]})).await
    }

    /// A directory of each pod that the runtime has something of.
    fn sandboxes(&self) -> PathBuf {
        self.handler.sandboxes(&self.dir.path().join("node"))
    }

    /// Waits until the pod satisfies `condition`; panics with its last status.
    async fn wait(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut last = Value::Null;
        while Instant::now() < deadline {
            if let Some(pod) = self.pods().get_opt(name).await.unwrap() {
                last = serde_json::to_value(pod).unwrap();
                if condition(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut said = Vec::new();
        for previous in [true, false] {
            let options = LogOptions { previous, ..LogOptions::default() };
            let target = self.target(&last, last["spec"]["containers"][0]["name"].as_str().unwrap_or_default());
            said.push(match self.handle.logs(&target, &options).await {
                Ok(mut log) => log.next().await.map(|part| format!("{part:?}")).unwrap_or_default(),
                Err(e) => e.to_string(),
            });
        }
        panic!(
            "pod {name}: last seen {}\nevents {:?}\nits logs, the one before first: {said:?}",
            serde_json::to_string_pretty(&last["status"]).unwrap(),
            self.events(name).await
        );
    }

    async fn ready(&self, name: &str) -> Value {
        self.wait(name, |p| condition(p, "Ready") == "True").await
    }

    async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.gone(name).await;
    }

    async fn gone(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while let Some(pod) = self.pods().get_opt(name).await.unwrap() {
            assert!(Instant::now() < deadline, "pod {name} does not go: {:?}", pod.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `reason: message` of everything that was said about a pod.
    async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let all = api.list(&ListParams::default()).await.unwrap();
        let own = all.items.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
        own.map(|e| format!("{}: {}", e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect()
    }

    async fn wait_event(&self, name: &str, part: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let events = self.events(name).await;
            if events.iter().any(|e| e.contains(part)) {
                return;
            }
            assert!(Instant::now() < deadline, "no event {part:?} in {events:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn target(&self, pod: &Value, container: &str) -> ContainerTarget {
        let text = |path: &str| pod["metadata"][path].as_str().unwrap_or_default().to_owned();
        ContainerTarget {
            namespace: "default".into(),
            pod: text("name"),
            pod_uid: text("uid"),
            container: container.into(),
        }
    }

    async fn logs(&self, pod: &Value, options: LogOptions) -> String {
        let mut stream = self.handle.logs(&self.target(pod, "main"), &options).await.unwrap();
        let mut text = String::new();
        while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_secs(30), stream.next()).await {
            text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
        }
        text
    }

    /// Waits until its log is this: a container is ready as soon as it runs, and what it says comes a moment later.
    async fn says(&self, pod: &Value, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut text = self.logs(pod, LogOptions::default()).await;
        while text != expected && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            text = self.logs(pod, LogOptions::default()).await;
        }
        assert_eq!(text, expected);
    }

    async fn exec(&self, pod: &Value, command: &[&str]) -> (String, ExecOutput) {
        let command = command.iter().map(|s| (*s).to_owned()).collect();
        let options = ExecOptions { command, stdout: true, stderr: true, ..ExecOptions::default() };
        let mut session = self.handle.exec(&self.target(pod, "main"), &options).await.unwrap();
        let mut text = String::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await.unwrap().unwrap() {
                ExecOutput::Stdout(b) | ExecOutput::Stderr(b) => text.push_str(&String::from_utf8_lossy(&b)),
                last => return (text, last),
            }
        }
    }

    async fn sweep(self) {
        self.handle.stop(StopPods::Stop).await;
        Arc::into_inner(self.network.clone());
        drop(self.handle);
        (*self.network).clone().destroy().await.unwrap();
        self.handler.swept(&self.dir.path().join("node")).await;
        for tree in ["memory", "pids", ""] {
            let path = Path::new("/sys/fs/cgroup").join(tree).join(format!("kubelet-{}", self.handler.instance()));
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

async fn kubelet(
    dir: &Path,
    client: &kube::Client,
    network: &Arc<NodeNetwork>,
    how: (&Eviction, &runtimes::Handler),
) -> Handle {
    let handle = start(dir, client, network, how).await;
    tokio::time::timeout(Duration::from_secs(40), handle.recovered())
        .await
        .expect("the kubelet did not recover within 40 s");
    handle
}

async fn start(
    dir: &Path,
    client: &kube::Client,
    network: &Arc<NodeNetwork>,
    (eviction, handler): (&Eviction, &runtimes::Handler),
) -> Handle {
    Kubelet::start(Options {
        node_name: NODE.into(),
        node_address: network.gateway(),
        node_address_v6: None,
        data_dir: dir.join("node"),
        client: client.clone(),
        network: Some(Arc::clone(network)),
        cluster_dns: network.dns_address(),
        cluster_domain: "cluster.local".into(),
        node_labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        supervisor: vec![std::env::current_exe().unwrap().into(), "supervisor".into()],
        runners: Vec::new(),
        image_sources: vec![Arc::new(Carrier(ImageStore::open(dir.join("carrier")).unwrap()))],
        instance: handler.instance().into(),
        reserve: "cpu=100m,ephemeral-storage=1Mi".parse::<Reserve>().unwrap(),
        guests: Some(Arc::new(Confirmed(dir.join("confirmed")))),
        static_pods: Some(dir.join("static")),
        eviction: eviction.clone(),
        container_runtime: handler.container_runtime(),
        default_runtime: Some(handler.name().to_owned()),
    })
    .await
    .unwrap()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or("?")
}

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

async fn the_node_is_registered(world: &mut World) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let deadline = Instant::now() + Duration::from_secs(30);
    let node = loop {
        let node = serde_json::to_value(nodes.get(NODE).await.unwrap()).unwrap();
        if condition(&node, "Ready") == "True" {
            break node;
        }
        assert!(Instant::now() < deadline, "{node:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(node["metadata"]["labels"]["zone"], "a");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], NODE);
    assert!(node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap().starts_with("v1.34"));
    assert!(node["status"]["allocatable"]["cpu"].as_str().unwrap().ends_with("900m"), "{node:#}");
    let disk =
        |of: &str| node["status"][of]["ephemeral-storage"].as_str().unwrap().trim_end_matches("Ki").parse::<u64>();
    assert_eq!(disk("capacity").unwrap() - disk("allocatable").unwrap(), 1024, "what is reserved");
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    assert!(!taints.iter().any(|t| t["key"] == "node.kubernetes.io/not-ready"), "{taints:?}");
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-node-lease");
    // It comes after the Node, whose heartbeat it is.
    let lease = loop {
        match leases.get_opt(NODE).await.unwrap() {
            Some(lease) => break lease,
            None => assert!(Instant::now() < deadline, "the node has no lease"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some(NODE), Some(40)));
}

async fn a_pod_lives_and_ends(world: &mut World) {
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client.clone());
    let map = json!({"metadata": {"name": "conf"}, "data": {"index.html": "served", "COLOR": "green"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(world.client.clone());
    let secret = json!({"metadata": {"name": "keys"}, "stringData": {"token": "s3cret"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let services: Api<Service> = Api::default_namespaced(world.client.clone());
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let script = "echo color $COLOR $TOKEN $DB_SERVICE_PORT $MY_IP $FROM $HOSTNAME; cat /keys/token; echo; touch /scratch/x /fast/x; \
        trap 'echo bye; exit 0' TERM; httpd -f -p 8080 -h /www & wait";
    let spec = json!({
        "terminationGracePeriodSeconds": 20,
        "volumes": [{"name": "www", "configMap": {"name": "conf"}}, {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "scratch", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "containers": [{"name": "main", "image": "busy:1", "args": [script],
            "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "COLOR"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1},
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "www", "mountPath": "/www"}, {"name": "keys", "mountPath": "/keys"},
                {"name": "scratch", "mountPath": "/scratch"}, {"name": "fast", "mountPath": "/fast"}]}],
    });
    let asked = Instant::now();
    world.create("web", spec).await;
    let pod = world.ready("web").await;
    println!("created to ready: {} ms", asked.elapsed().as_millis());
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("100.99.0."), "{ip}");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    assert_eq!(main_status(&pod)["restartCount"], 0);
    assert!(main_status(&pod)["imageID"].as_str().unwrap().starts_with("docker.io/library/busy@sha256:"));

    let text = world.logs(&pod, LogOptions::default()).await;
    assert_eq!(text, format!("color green s3cret 5432 {ip} image web\ns3cret\n"));
    let (text, last) = world
        .exec(
            &pod,
            &[
                "sh",
                "-c",
                "cat /www/COLOR; cat /etc/hosts /etc/resolv.conf; hostname; ls -l /www/index.html; cat /proc/mounts",
            ],
        )
        .await;
    assert_eq!(last, ExecOutput::Exit(0));
    for part in [
        "green",
        &format!("{ip}\tweb\n"),
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local",
        "\nweb\n",
        "tmpfs /fast tmpfs",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let mut stream = world.handle.port_forward(&world.target(&pod, ""), 8080).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("served"), "{answer}");
    assert!(world.handle.port_forward(&world.target(&pod, ""), 9).await.is_err());

    for part in [
        "Pulled: Container image \"busy:1\" already present",
        "Created: Created container: main",
        "Started: Started container main",
    ] {
        world.wait_event("web", part).await;
    }
    let follow = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
    let mut follower = world.handle.logs(&world.target(&pod, "main"), &follow).await.unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let asked = Instant::now();
    world.delete("web").await;
    println!("deleted to gone: {} ms", asked.elapsed().as_millis());
    let said = tokio::time::timeout(Duration::from_secs(20), follower.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(said, "bye\n", "it was asked before it was killed");
    world.wait_event("web", "Killing: Stopping container main").await;
    for left in [world.sandboxes().join(uid), world.dir.path().join("node/pods").join(uid)] {
        assert!(!left.exists(), "{}", left.display());
    }
    assert!(world.network.attached().await.is_empty());
}

/// An ephemeral container beside a running one: its processes, its status, its log, and who attaches to it.
async fn a_pod_is_looked_into(world: &mut World) {
    let main = json!({"name": "main", "image": "busy:1", "args": ["exec sleep 1000"]});
    world.create("seen", json!({"containers": [main], "terminationGracePeriodSeconds": 1})).await;
    let pod = world.ready("seen").await;
    let target = |name: &str| world.target(&pod, name);
    let missing = world.handle.attach(&target("nobody"), &ExecOptions::default()).await.err().unwrap();
    assert_eq!(missing.to_string(), "container nobody is not valid for pod seen");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busy:1", "targetContainerName": "main",
        "stdin": true, "tty": true, "command": ["sh"]}]}});
    let patch = kube::api::Patch::Strategic(debug);
    world.pods().patch_ephemeral_containers("seen", &Default::default(), &patch).await.unwrap();
    let state = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"].clone();
    world.wait("seen", |p| state(p)["running"].is_object()).await;
    let options = ExecOptions { stdin: true, stdout: true, tty: true, ..ExecOptions::default() };
    let mut session = world.handle.attach(&target("debug"), &options).await.unwrap();
    session.stdin.send("ps\nexit 7\n".into()).await.unwrap();
    let mut said = String::new();
    let end = loop {
        match tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await.unwrap().unwrap() {
            ExecOutput::Stdout(b) | ExecOutput::Stderr(b) => said.push_str(&String::from_utf8_lossy(&b)),
            last => break last,
        }
    };
    assert_eq!(end, ExecOutput::Exit(7));
    assert!(said.contains("sleep 1000"), "{said}");
    let after = world.wait("seen", |p| state(p)["terminated"]["exitCode"] == 7).await;
    assert_eq!((condition(&after, "Ready"), &after["status"]["phase"]), ("True", &json!("Running")));
    assert_eq!(main_status(&after)["restartCount"], 0);
    let mut log = world.handle.logs(&target("debug"), &LogOptions::default()).await.unwrap();
    assert!(String::from_utf8_lossy(&log.next().await.unwrap().unwrap()).contains("ps"), "it has a log");
    let over = world.handle.attach(&target("debug"), &options).await.err().unwrap();
    assert_eq!(over.to_string(), "container \"debug\" in pod \"seen\" is not running");
    world.delete("seen").await;
}

async fn crashes_back_off(world: &mut World) {
    world.sh("crash", "echo run; echo last words > /dev/termination-log; exit 3").await;
    let pod = world.wait("crash", |p| main_status(p)["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    let status = main_status(&pod);
    assert_eq!(status["restartCount"], 1);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=main pod=crash_default("), "{message}");
    let last = &status["lastState"]["terminated"];
    assert_eq!(
        (last["exitCode"].as_i64(), last["reason"].as_str(), last["message"].as_str()),
        (Some(3), Some("Error"), Some("last words\n"))
    );
    assert_eq!(pod["status"]["phase"], "Running");
    world.wait_event("crash", "BackOff: Back-off restarting failed container main in pod crash_default(").await;
    assert_eq!(world.logs(&pod, LogOptions { previous: true, ..LogOptions::default() }).await, "run\n");
    world.delete("crash").await;
}

async fn jobs_succeed_and_fail(world: &mut World) {
    let job = |script: &str| {
        json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "busy:1", "args": [script],
        "resources": {"limits": {"memory": "16Mi"}}}]})
    };
    world.create("good", job("echo fine")).await;
    world.create("bad", job("exit 2")).await;
    world.create("big", job("exec tail -c 90000000 /dev/zero")).await;
    let mut program = job("");
    program["containers"][0]["command"] = json!(["nope"]);
    world.create("none", program).await;
    let over = |p: &Value| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let good = world.wait("good", over).await;
    assert_eq!(
        (good["status"]["phase"].as_str(), main_status(&good)["state"]["terminated"]["reason"].as_str()),
        (Some("Succeeded"), Some("Completed"))
    );
    let bad = world.wait("bad", over).await;
    assert_eq!(
        (bad["status"]["phase"].as_str(), main_status(&bad)["state"]["terminated"]["exitCode"].as_i64()),
        (Some("Failed"), Some(2))
    );
    let big = world.wait("big", over).await;
    assert_eq!(main_status(&big)["state"]["terminated"]["reason"], "OOMKilled");
    let none = world.wait("none", over).await;
    let ended = &main_status(&none)["state"]["terminated"];
    assert_eq!((ended["reason"].as_str(), ended["exitCode"].as_i64()), (Some("StartError"), Some(128)));
    assert!(ended["message"].as_str().unwrap().contains("executable file not found in $PATH"), "{ended}");
    // What has ended holds nothing of the machine, and its log can still be read.
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::fs::read_dir(world.sandboxes()).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "sandboxes of ended pods stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.logs(&good, LogOptions::default()).await, "fine\n");
    for name in ["good", "bad", "big", "none"] {
        world.delete(name).await;
    }
}

async fn what_is_missing_is_waited_for(world: &mut World) {
    let spec = json!({"containers": [{"name": "main", "image": "busy:1", "args": ["sleep 100"], "envFrom": [{"configMapRef": {"name": "later"}}]}]});
    world.create("needy", spec).await;
    let pod =
        world.wait("needy", |p| main_status(p)["state"]["waiting"]["reason"] == "CreateContainerConfigError").await;
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], "configmap \"later\" not found");
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client.clone());
    let map = json!({"metadata": {"name": "later"}, "data": {"A": "1"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    world.ready("needy").await;
    world.wait_event("needy", "Failed: Error: configmap \"later\" not found").await;
}

async fn images_come_from_sources(world: &mut World) {
    let spec = |image: &str| json!({"containers": [{"name": "main", "image": image}]});
    world.create("carried", spec("carried:1")).await;
    world.ready("carried").await;
    world.wait_event("carried", "Pulled: Successfully pulled image \"carried:1\"").await;
    world.create("absent", spec("absent:1")).await;
    let pod = world.wait("absent", |p| main_status(p)["state"]["waiting"]["reason"] == "ErrImagePull").await;
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "failed to pull image \"absent:1\": no image source has it");
    world.create("odd", spec("UPPER/x")).await;
    world.wait("odd", |p| main_status(p)["state"]["waiting"]["reason"] == "InvalidImageName").await;
}

async fn unsupported_pods_say_so(world: &mut World) {
    let port = json!({"name": "main", "image": "busy:1", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "SCTP"}]});
    world.create("port", json!({"containers": [port]})).await;
    let pod = world.wait("port", |p| main_status(p)["state"]["waiting"]["reason"] == "NotSupported").await;
    let told = "not supported on this node: hostPort for SCTP (container main)";
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], told);
    world.wait_event("port", "NotSupported: not supported on this node: hostPort for SCTP").await;
    world.delete("port").await;
    let class = json!({"metadata": {"name": "strong"}, "handler": "kata"});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(world.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let spec = json!({"runtimeClassName": "strong", "containers": [{"name": "main", "image": "busy:1"}]});
    world.create("strong", spec).await;
    let pod = world.wait("strong", |p| main_status(p)["state"]["waiting"]["reason"] == "CreatePodSandboxError").await;
    let known = world.handler.handlers().join(", ");
    let told = format!("no runtime for \"kata\" is configured (RuntimeClass \"strong\"), needed one of: {known}");
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], told);
    world.delete("strong").await;
}

async fn unhealthy_containers_are_restarted(world: &mut World) {
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "busy:1", "args": ["touch /tmp/ok; sleep 1000"],
        "livenessProbe": {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}}]});
    world.create("live", spec).await;
    let pod = world.ready("live").await;
    world.exec(&pod, &["sh", "-c", "rm /tmp/ok 2>/dev/null || busybox rm /tmp/ok"]).await;
    let pod = world.wait("live", |p| main_status(p)["restartCount"] == 1 && condition(p, "Ready") == "True").await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 137);
    world.wait_event("live", "Unhealthy: Liveness probe failed").await;
    world.wait_event("live", "Killing: Container main failed liveness probe, will be restarted").await;
}

async fn a_restart_finds_what_runs(world: &mut World) {
    world.sh("steady", "echo once; sleep 1000").await;
    let told = world.dir.path().join("told");
    let main = json!({"name": "main", "image": "busy:1", "args": ["until test -e /told/end; do sleep 0.1; done; rm /told/end; exit 4"],
        "volumeMounts": [{"name": "told", "mountPath": "/told"}]});
    let volume = json!({"name": "told", "hostPath": {"path": told, "type": "DirectoryOrCreate"}});
    world.create("brief", json!({"volumes": [volume], "containers": [main]})).await;
    let before = world.ready("steady").await;
    world.ready("brief").await;
    world.handle.stop(StopPods::Keep).await;
    std::fs::write(told.join("end"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.restart().await;
    let pod = world.wait("brief", |p| main_status(p)["restartCount"] == 1).await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 4, "what happened meanwhile is known");
    let after = world.ready("steady").await;
    assert_eq!(main_status(&after)["containerID"], main_status(&before)["containerID"]);
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(world.logs(&after, LogOptions::default()).await, "once\n");
    assert_eq!(world.exec(&after, &["true"]).await.1, ExecOutput::Exit(0));
}

async fn pods_are_stopped_by_a_runtime_that_was_away(world: &mut World) {
    world.sh("steady", "trap 'exit 0' TERM; sleep 1000 & wait").await;
    world.ready("steady").await;
    let away = world.handler.is_away(Duration::from_secs(1));
    tokio::join!(away, world.handle.stop(StopPods::Stop));
    let left = std::fs::read_dir(world.sandboxes()).unwrap().count();
    assert_eq!(left, 0, "what it refused while it was away is stopped when it is back");
}

async fn stale_copies_stop_before_ready(world: &mut World) {
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "busy:1", "args": ["sleep 1000"]}]});
    world.create("evicted", spec.clone()).await;
    world.sh("deleted", "trap '' TERM; sleep 1000").await;
    let evicted = world.ready("evicted").await;
    world.ready("deleted").await;
    world.handle.stop(StopPods::Keep).await;
    // While the machine is away one pod is removed at once, and one is asked to go.
    world
        .pods()
        .delete("evicted", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
        .await
        .unwrap();
    world
        .pods()
        .delete("deleted", &DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() })
        .await
        .unwrap();
    world.create("evicted", spec).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let uid = evicted["metadata"]["uid"].as_str().unwrap();
    assert!(world.sandboxes().join(uid).exists(), "it runs on without us");
    world.restart().await;
    assert!(!world.sandboxes().join(uid).exists(), "stopped before recovery is over");
    world.gone("deleted").await;
    let again = world.ready("evicted").await;
    assert_ne!(again["metadata"]["uid"], evicted["metadata"]["uid"]);
}

async fn what_others_say_is_corrected(world: &mut World) {
    world.sh("judged", "sleep 1000").await;
    world.ready("judged").await;
    let lie = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]}});
    let params = kube::api::PatchParams::default();
    let changed = world.pods().patch_status("judged", &params, &kube::api::Patch::Merge(&lie)).await.unwrap();
    assert_eq!(condition(&serde_json::to_value(changed).unwrap(), "Ready"), "False");
    world.ready("judged").await;
}

async fn a_guest_waits_for_its_owner(world: &mut World) {
    let spec = json!({"containers": [{"name": "main", "image": "busy:1", "args": ["sleep 1000"]}]});
    world.create("guest", spec).await;
    let waiting = world.wait("guest", |pod| main_status(pod)["state"]["waiting"]["reason"] == "AwaitingOwner").await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    std::fs::write(world.dir.path().join("confirmed"), "").unwrap();
    world.ready("guest").await;
    // What runs is not asked about: a restart of the kubelet leaves it alone.
    std::fs::remove_file(world.dir.path().join("confirmed")).unwrap();
    let container = main_status(&world.ready("guest").await)["containerID"].clone();
    world.restart().await;
    assert_eq!(main_status(&world.ready("guest").await)["containerID"], container);
}

async fn a_lost_sandbox_is_replaced(world: &mut World) {
    world.sh("lost", "sleep 1000").await;
    let pod = world.ready("lost").await;
    world.handler.kill_sandbox(world, &pod);
    let pod = world.wait("lost", |p| main_status(p)["restartCount"] == 1 && condition(p, "Ready") == "True").await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
}
