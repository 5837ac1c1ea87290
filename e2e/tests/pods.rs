//! The life of a pod as kubectl sees it from outside: what comes first, what runs beside, what is done at both ends.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::disk::Disk;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::{Stage, together};
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 10
      volumes: [{name: site, emptyDir: {}}]
      initContainers:
      - name: fetch
        image: busybox:1
        command: [sh, -c, "echo fetching; until test -e /site/go; do sleep 0.1; done; echo welcome > /site/index.html"]
        volumeMounts: [{name: site, mountPath: /site}]
      - name: clock
        image: busybox:1
        restartPolicy: Always
        command: [sh, -c, "trap 'exit 0' TERM; while true; do date > /site/now; sleep 0.2; done"]
        startupProbe: {exec: {command: [test, -s, /site/now]}, periodSeconds: 1}
        volumeMounts: [{name: site, mountPath: /site}]
      containers:
      - name: web
        image: busybox:1
        command: [httpd, -f, -p, "8080", -h, /site]
        lifecycle: {postStart: {exec: {command: [touch, /site/open]}}, preStop: {exec: {command: [sh, -c, "echo closed > /site/closed; sleep 1"]}}}
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: site, mountPath: /site}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - {name: proxy, image: "busybox:1", restartPolicy: Always, command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]}
      containers: [{name: sum, image: "busybox:1", command: [sh, -c, "echo 42"]}]
"#;

/// READY and STATUS, as people read them.
fn row(node: &Node, label: &str) -> String {
    let table = node.kubectl(&["get", "pods", "-l", label, "--no-headers"]).unwrap();
    table.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn init_containers_sidecars_and_hooks() {
    init_containers_sidecars_and_hooks_with(1);
}

#[test]
fn init_containers_sidecars_and_hooks_on_three_machines() {
    init_containers_sidecars_and_hooks_with(3);
}

fn init_containers_sidecars_and_hooks_with(machines: usize) {
    let mut stage = Stage::new("life").unwrap();
    let (node, _agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    node.apply(SHOP).unwrap();
    let is = |label: &'static str, wanted: &'static str| {
        until(wanted, LIMIT, || match row(&node, label) {
            row if row == wanted => Ok(()),
            row => Err(row),
        })
        .unwrap();
    };
    is("app=shop", "0/2 Init:0/2");
    let name = node.kubectl(&["get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[0].metadata.name}"]).unwrap();
    // Before it has started it has no log.
    until("its log", LIMIT, || match node.kubectl(&["logs", &name, "-c", "fetch"]) {
        Ok(log) if log == "fetching\n" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    let early = node.kubectl(&["logs", &name, "-c", "web"]).unwrap_err().to_string();
    assert!(early.contains("waiting to start: PodInitializing"), "{early}");
    let described = node.kubectl(&["describe", "pod", &name]).unwrap();
    assert!(
        described.contains("Init Containers:") && described.contains("Initialized                 False"),
        "{described}"
    );
    node.kubectl(&["exec", &name, "-c", "fetch", "--", "touch", "/site/go"]).unwrap();
    node.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]).unwrap();
    is("app=shop", "2/2 Running");
    let seen = node.kubectl(&["exec", &name, "-c", "web", "--", "ls", "/site"]).unwrap();
    assert!(["go", "index.html", "now", "open"].iter().all(|file| seen.contains(file)), "{seen}");

    // A sidecar that is killed runs again, and nothing else does.
    node.kubectl(&["exec", &name, "-c", "clock", "--", "kill", "1"]).unwrap();
    until("another clock", LIMIT, || {
        let path =
            "jsonpath={.status.initContainerStatuses[1].restartCount} {.status.containerStatuses[0].restartCount}";
        let counts = node.kubectl(&["get", "pod", &name, "-o", path]).unwrap();
        if counts == "1 0" { Ok(()) } else { Err(counts) }
    })
    .unwrap();

    // A Job is done when its container is, whatever runs beside it.
    node.kubectl(&["wait", "--for=condition=Complete", "job/sum", "--timeout=60s"]).unwrap();
    is("job-name=sum", "0/2 Completed");
    assert_eq!(node.kubectl(&["logs", "job/sum", "-c", "sum"]).unwrap(), "42\n");
    node.kubectl(&["delete", "deployment/shop", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=delete", &format!("pod/{name}"), "--timeout=60s"]).unwrap();
}

const STANDING: &str = "apiVersion: v1
kind: Pod
metadata: {name: standing, labels: {app: standing}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, \"echo here; exec sleep 1000\"]
";

/// One that fills the disk of its machine as soon as it is told to, and one that asks for nothing.
const HUNGRY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "until test -e /v/go; do sleep 0.1; done; dd if=/dev/zero of=/v/much bs=1M count=80; exec sleep 1000"]
    volumeMounts: [{name: v, mountPath: /v}]
---
apiVersion: v1
kind: Pod
metadata: {name: calm}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1", command: [sleep, "1000"]}]
"#;

#[test]
fn pods_of_files_and_what_is_kept_from_pods() {
    pods_of_files_and_what_is_kept_from_pods_with(1);
}

#[test]
fn pods_of_files_and_what_is_kept_from_pods_on_three_machines() {
    pods_of_files_and_what_is_kept_from_pods_with(3);
}

/// A file of the machine is a pod; the API shows it, and cannot take it away. What a machine says that pods may have, and whom it evicts when
/// its disk is full.
fn pods_of_files_and_what_is_kept_from_pods_with(machines: usize) {
    let mut stage = Stage::new("files").unwrap();
    let files = stage.directory().join("files");
    std::fs::create_dir_all(&files).unwrap();
    let mut setups = stage.setups(machines, &[]).unwrap();
    let machine = setups.last_mut().unwrap();
    let eviction = "memory.available<32Mi,nodefs.available<32Mi";
    let flags =
        ["--static-pods", &files.display().to_string(), "--reserve", "memory=64Mi", "--eviction-hard", eviction];
    machine.arguments.extend(flags.map(str::to_owned));
    let machine = machine.clone();
    let _disk = Disk::mount(&machine, "kubelet", 96 << 20).unwrap();
    let (node, _agents) = together(&setups).unwrap();
    machine.load(&Image::Busybox.layout().unwrap()).unwrap();
    std::fs::write(files.join("standing.yaml"), STANDING).unwrap();
    let mirror = format!("standing-{}", machine.name);
    let uid = |before: &str| {
        let path = "jsonpath={.metadata.uid} {.status.conditions[?(@.type==\"Ready\")].status}";
        until("the mirror", LIMIT, || match node.kubectl(&["get", "pod", &mirror, "-o", path]) {
            Ok(seen) if seen.ends_with(" True") && seen.trim_end_matches(" True") != before => {
                Ok(seen.trim_end_matches(" True").to_owned())
            }
            other => Err(format!("{other:?}")),
        })
        .unwrap()
    };
    let first = uid("");
    assert_eq!(node.kubectl(&["logs", &mirror]).unwrap(), "here\n");
    assert!(node.kubectl(&["describe", "pod", &mirror]).unwrap().contains("Started container main"));
    node.kubectl(&["delete", "pod", &mirror, "--wait=false"]).unwrap();
    let second = uid(&first);
    assert_eq!(node.kubectl(&["logs", &mirror]).unwrap(), "here\n", "it was not run anew");
    let of = |what: &str| {
        let path = format!("jsonpath={{.status.{what}.memory}}");
        let text = node.kubectl(&["get", "node", &machine.name, "-o", &path]).unwrap();
        text.trim_end_matches("Ki").parse::<u64>().unwrap()
    };
    assert_eq!(of("capacity") - of("allocatable"), 96 << 10, "what is reserved, and what must be left");

    whom_a_full_disk_evicts(&node, &machine.name);
    assert_eq!(uid(""), second, "what is a file stays");
    std::fs::remove_file(files.join("standing.yaml")).unwrap();
    until("its end", LIMIT, || match node.kubectl(&["get", "pods", "-l", "app=standing", "-o", "name"]) {
        Ok(seen) if seen.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    drop((node, _agents));
}

/// The machine looks every 10 s: who has the most goes, with a reason that the API tells, and nobody comes while it is short.
fn whom_a_full_disk_evicts(node: &Node, machine: &str) {
    node.apply(&HUNGRY.replace("MACHINE", machine)).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/hungry", "pod/calm", "--timeout=60s"]).unwrap();
    node.kubectl(&["exec", "hungry", "--", "touch", "/v/go"]).unwrap();
    let status = |pod: &str| node.get(&["pod", pod]).unwrap()["status"].clone();
    let evicted = until("an eviction", LIMIT, || match status("hungry") {
        status if status["phase"] == "Failed" => Ok(status),
        status => Err(status.to_string()),
    })
    .unwrap();
    assert_eq!(evicted["reason"], "Evicted", "{evicted}");
    let why = evicted["message"].as_str().unwrap();
    assert!(
        why.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 32Mi, available: "),
        "{why}"
    );
    assert!(why.contains("Container c was using ") && why.contains("request is 0"), "{why}");
    let short = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type==\"DiskPressure\")].status}";
        node.kubectl(&["get", "node", name, "-o", path]).unwrap()
    };
    let all = node.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).unwrap();
    for name in all.split(' ') {
        assert_eq!(short(name), if name == machine { "True" } else { "False" }, "{name}");
    }
    until("the reason is told of the machine", LIMIT, || {
        let told = node.kubectl(&["describe", "node", machine]).map_err(|error| error.to_string())?;
        let words =
            ["EvictionThresholdMet", "Attempting to reclaim ephemeral-storage", "node.kubernetes.io/disk-pressure"];
        if words.iter().all(|word| told.contains(word)) { Ok(()) } else { Err(told) }
    })
    .unwrap();
    let late = HUNGRY.replace("MACHINE", machine).replace("hungry", "late");
    node.apply(late.split("---").next().unwrap()).unwrap();
    until("a refusal", LIMIT, || match status("late") {
        status if status["message"] == "Pod was rejected: The node had condition: [DiskPressure]. " => Ok(()),
        status => Err(status.to_string()),
    })
    .unwrap();
    let calm = status("calm");
    assert!(calm["phase"] == "Running" && calm["containerStatuses"][0]["restartCount"] == 0, "{calm}");
    node.kubectl(&["delete", "pod", "hungry", "late", "calm", "--timeout=60s"]).unwrap();
}
