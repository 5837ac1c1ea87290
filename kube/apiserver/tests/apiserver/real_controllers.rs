//! Upstream's own controllers and scheduler (v1.20.2) at work on our API: typed Go clients that read and write protobuf.
//!
//! ```text
//! kube-controller-manager ─┐  TLS, protobuf                       ┌─ the test: what a user asks for, in JSON,
//! kube-scheduler ──────────┴───────────────────▶ our API server ◀─┘  and the kubelet of two nodes
//! ```
//! No controller and no scheduler of ours runs: what comes of a Deployment here, theirs made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use substrate_apiserver::tls::{self, Authority};

use crate::support;
use crate::support::{Api, api};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const NAMESPACE: &str = "/api/v1/namespaces/flt";
const APPS: &str = "/apis/apps/v1/namespaces/flt";
const JOBS: &str = "/apis/batch/v1/namespaces/flt/jobs";

/// Those whose kinds are served in the version that v1.20 asks for: it asks for budgets, cron jobs and EndpointSlices in `v1beta1`.
const CONTROLLERS: &str = "clusterrole-aggregation,daemonset,deployment,endpoint,garbagecollector,job,namespace,\
    persistentvolume-binder,podgc,pv-protection,pvc-protection,replicaset,replicationcontroller,resourcequota,\
    root-ca-cert-publisher,serviceaccount,statefulset,ttl";

/// Programs of upstream and where they write; ended when dropped.
struct Programs {
    processes: Vec<Child>,
    directory: tempfile::TempDir,
}

impl Drop for Programs {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // What has ended already needs no end.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Programs {
    async fn start(api: &Api) -> Self {
        let binaries = PathBuf::from(
            std::env::var_os("FLT_REAL_KUBERNETES").expect("FLT_REAL_KUBERNETES is the directory of kube-scheduler"),
        );
        let directory = tempfile::Builder::new().prefix("flt-real-").tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("ca.pem"), &authority.certificate_pem).unwrap();
        let identity = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"]).unwrap();
        let config = Arc::new(authority.server_config(&identity).unwrap());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(tls::serve(api.server.clone(), listener, config));
        let mut programs = Self { processes: Vec::new(), directory };
        let authority_file = programs.directory.path().join("ca.pem").display().to_string();
        let arguments = [format!("--controllers={CONTROLLERS}"), format!("--root-ca-file={authority_file}")];
        // All its controllers are one user here. The scheduler has no right but those of its role.
        programs.run(&binaries, ["kube-controller-manager", "system:masters"], &authority, port, &arguments);
        // Preemption asks for budgets in `v1beta1`.
        let arguments = ["--feature-gates=PodDisruptionBudget=false".to_owned()];
        programs.run(&binaries, ["kube-scheduler", "system:authenticated"], &authority, port, &arguments);
        programs
    }

    fn run(
        &mut self,
        binaries: &Path,
        [name, group]: [&str; 2],
        authority: &Authority,
        port: u16,
        arguments: &[String],
    ) {
        let at = |end: &str| self.directory.path().join(format!("{name}{end}"));
        let identity = authority.client(&format!("system:{name}"), &[group]).unwrap();
        std::fs::write(at(".crt"), identity.certificate_pem).unwrap();
        tls::write_private(&at(".key"), identity.key_pem.as_bytes()).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "ours",
            "clusters": [{ "name": "ours", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.directory.path().join("ca.pem") } }],
            "users": [{ "name": "ours", "user": { "client-certificate": at(".crt"), "client-key": at(".key") } }],
            "contexts": [{ "name": "ours", "context": { "cluster": "ours", "user": "ours" } }],
        });
        std::fs::write(at(".kubeconfig"), config.to_string()).unwrap();
        let log = std::fs::File::create(at(".log")).unwrap();
        let process = Command::new(binaries.join(name))
            .arg(format!("--kubeconfig={}", at(".kubeconfig").display()))
            .arg(format!("--kube-api-content-type={PROTOBUF}"))
            .args(["--port=0", "--secure-port=0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        self.processes.push(process);
    }

    /// What they say is wrong: klog begins such lines with E or F. A conflict is none: who writes what its cache had tries again.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let log = std::fs::read_to_string(self.directory.path().join(format!("{name}.log"))).unwrap();
            let wrong = log.lines().filter(|line| !line.contains("the object has been modified")).filter(|line| {
                let mut letters = line.chars();
                matches!(letters.next(), Some('E' | 'F')) && letters.next().is_some_and(|c| c.is_ascii_digit())
            });
            complaints.extend(wrong.map(|line| format!("{name}: {line}")));
        }
        complaints
    }

    /// Waits until what is at `path` is as asked, while the kubelets do their part.
    async fn until(&self, api: &Api, path: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            kubelets(api).await;
            let (_, found) = api.get(path).await;
            if is_there(&found) {
                return found;
            }
            assert!(Instant::now() < end, "60 s, and {path} is {found:#}\n{}", self.complaints().join("\n"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What kubelets would: a pod that has a node runs, one of a job succeeds, one that is to end has ended.
async fn kubelets(api: &Api) {
    let (_, pods) = api.get(&format!("{NAMESPACE}/pods")).await;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let path = format!("{NAMESPACE}/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        if pod["spec"]["nodeName"].is_null() {
            continue;
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            api.delete(&format!("{path}?gracePeriodSeconds=0")).await;
        } else if pod["status"]["phase"] == "Pending" {
            let is_job = pod["metadata"]["labels"]["job-name"].is_string();
            let phase = if is_job { "Succeeded" } else { "Running" };
            let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
            let status = json!({ "status": { "phase": phase, "podIP": "10.1.0.1", "conditions": [ready] } });
            let (code, told) = api.patch(&format!("{path}/status"), "merge-patch", status).await;
            assert!(code == 200 || code == 404, "{told:#}");
        }
    }
}

async fn make(api: &Api, path: &str, object: Value) {
    let (code, told) = api.post(path, object).await;
    assert_eq!(code, 201, "{told:#}");
}

async fn two_nodes(api: &Api) {
    for name in ["flt-a", "flt-b"] {
        make(api, "/api/v1/nodes", json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } })).await;
        let room = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
        let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = json!({ "status": { "capacity": room, "allocatable": room, "conditions": [ready] } });
        let (code, told) = api.patch(&format!("/api/v1/nodes/{name}/status"), "merge-patch", status).await;
        assert_eq!(code, 200, "{told:#}");
    }
}

/// An object of `apps/v1` with pods of that name.
fn workload(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name },
        "spec": { "selector": { "matchLabels": { "app": name } }, "template": template(name) },
    });
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn template(name: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": { "containers": [{
            "name": "main", "image": "busybox:1", "env": [{ "name": "A", "value": "b" }],
            "resources": { "requests": { "cpu": "100m", "memory": "10Mi" } },
            "readinessProbe": { "httpGet": { "path": "/", "port": "http" } },
            "ports": [{ "name": "http", "containerPort": 80 }] }] },
    })
}

/// Names in a list, with the node of each.
fn nodes_of(pods: &Value) -> Vec<&str> {
    let mut nodes: Vec<&str> =
        pods["items"].as_array().unwrap().iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    nodes
}

fn has(list: &Value, count: usize) -> bool {
    list["items"].as_array().is_some_and(|items| items.len() == count)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real kube-controller-manager and kube-scheduler: cargo xtask test --real-kubernetes"]
async fn controllers_and_scheduler_of_upstream_work_on_our_api() {
    let api = api().await;
    two_nodes(&api).await;
    let programs = Programs::start(&api).await;
    make(&api, "/api/v1/namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "flt" } }))
        .await;
    // Accounts and the authority's certificate come into every namespace.
    programs.until(&api, &format!("{NAMESPACE}/serviceaccounts/default"), |o| o["kind"] == "ServiceAccount").await;
    let root = format!("{NAMESPACE}/configmaps/kube-root-ca.crt");
    let root = programs.until(&api, &root, |o| o["kind"] == "ConfigMap").await;
    assert!(root["data"]["ca.crt"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));

    make(
        &api,
        &format!("{NAMESPACE}/resourcequotas"),
        json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
        "spec": { "hard": { "pods": "20", "requests.cpu": "3" } } }),
    )
    .await;
    // Nothing is let in before its quota is counted.
    let quota = format!("{NAMESPACE}/resourcequotas/q");
    programs.until(&api, &quota, |o| o["status"]["used"] == json!({ "pods": "0", "requests.cpu": "0" })).await;
    make(
        &api,
        &format!("{NAMESPACE}/services"),
        json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] } }),
    )
    .await;
    // Deployment, ReplicaSet, pods, nodes, Endpoints; then a roll-out.
    let deployments = format!("{APPS}/deployments");
    make(&api, &deployments, workload("Deployment", "web", json!({ "replicas": 4 }))).await;
    let web = format!("{deployments}/web");
    programs.until(&api, &web, |o| o["status"]["availableReplicas"] == 4).await;
    let pods = format!("{NAMESPACE}/pods?labelSelector=app%3Dweb");
    assert_eq!(nodes_of(&api.get(&pods).await.1), ["flt-a", "flt-a", "flt-b", "flt-b"]);
    let endpoints = format!("{NAMESPACE}/endpoints/web");
    let found = programs.until(&api, &endpoints, |o| has(&json!({ "items": o["subsets"][0]["addresses"] }), 4)).await;
    assert_eq!(found["subsets"][0]["ports"], json!([{ "port": 80, "protocol": "TCP" }]));
    let image = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "busybox:2" }]);
    assert_eq!(api.patch(&web, "json-patch", image).await.0, 200);
    programs
        .until(&api, &web, |o| {
            o["status"]["observedGeneration"] == 2
                && o["status"]["updatedReplicas"] == 4
                && o["status"]["availableReplicas"] == 4
                && o["status"]["replicas"] == 4
        })
        .await;
    let (_, sets) = api.get(&format!("{APPS}/replicasets")).await;
    let mut sizes: Vec<&Value> = sets["items"].as_array().unwrap().iter().map(|set| &set["spec"]["replicas"]).collect();
    sizes.sort_by_key(|size| size.as_i64());
    assert_eq!(sizes, [&json!(0), &json!(4)]);

    // In order, one for each node, and to the end.
    make(
        &api,
        &format!("{APPS}/statefulsets"),
        workload("StatefulSet", "row", json!({ "replicas": 2, "serviceName": "row" })),
    )
    .await;
    make(&api, &format!("{APPS}/daemonsets"), workload("DaemonSet", "each", json!({}))).await;
    let mut task = template("task");
    task["spec"]["restartPolicy"] = "Never".into();
    make(
        &api,
        JOBS,
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "task" },
        "spec": { "completions": 2, "template": task } }),
    )
    .await;
    programs.until(&api, &format!("{APPS}/statefulsets/row"), |o| o["status"]["readyReplicas"] == 2).await;
    programs.until(&api, &format!("{APPS}/daemonsets/each"), |o| o["status"]["numberReady"] == 2).await;
    let each = api.get(&format!("{NAMESPACE}/pods?labelSelector=app%3Deach")).await.1;
    assert_eq!(nodes_of(&each), ["flt-a", "flt-b"]);
    let done = programs.until(&api, &format!("{JOBS}/task"), |o| o["status"]["succeeded"] == 2).await;
    assert_eq!(done["status"]["conditions"][0]["type"], "Complete");
    // Four of the Deployment, two, and two; those of the job have ended.
    programs.until(&api, &quota, |o| o["status"]["used"] == json!({ "pods": "8", "requests.cpu": "800m" })).await;

    // A pod that fits nowhere, and why.
    let mut huge = support::pod("huge");
    huge["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "5", "memory": "1Mi" } });
    make(&api, "/api/v1/namespaces/default/pods", huge).await;
    let huge = "/api/v1/namespaces/default/pods/huge";
    let found = programs.until(&api, huge, |o| o["status"]["conditions"][0]["type"] == "PodScheduled").await;
    assert_eq!(found["status"]["conditions"][0]["message"], "0/2 nodes are available: 2 Insufficient cpu.");

    // What a Deployment made goes with it, and all with the namespace.
    let (code, told) = api.delete(&web).await;
    assert_eq!(code, 200, "{told:#}");
    programs.until(&api, &format!("{APPS}/replicasets"), |o| has(o, 0)).await;
    programs.until(&api, &pods, |o| has(o, 0)).await;
    // From here on they may try to make pods where nothing is made any more, and say so.
    let complaints = programs.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    api.delete(NAMESPACE).await;
    programs.until(&api, NAMESPACE, |o| o["reason"] == "NotFound").await;
}
