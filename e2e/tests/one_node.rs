//! One node: what a user does on a machine that has no Kubernetes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use fluidos_e2e::command;
use fluidos_e2e::images::Image;
use fluidos_e2e::lan;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

const SHOP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {index.html: "hello from a config map\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: open-sesame}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:1
        command: [sh, -c, "echo serving; httpd -f -p 8080 -h /site; exit 1"]
        env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: password, key: password}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1}
        resources: {limits: {cpu: 200m, memory: 32Mi}}
        volumeMounts: [{name: site, mountPath: /site}, {name: scratch, mountPath: /scratch}]
      volumes:
      - {name: site, configMap: {name: site}}
      - {name: scratch, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"#;

fn start(stage: &mut Stage, name: &str) -> Node {
    stage.start(name, &["--no-mdns"]).unwrap()
}

fn pods(node: &Node) -> Vec<(String, String, String)> {
    let list = node.get(&["pods", "-l", "app=web"]).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let ready = p["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
            (
                text(&p["metadata"]["name"]),
                text(&p["metadata"]["uid"]),
                ready.map(|c| text(&c["status"])).unwrap_or_default(),
            )
        })
        .collect()
}

fn all_ready(node: &Node, count: usize) -> Vec<(String, String, String)> {
    until("all pods ready", LIMIT, || {
        let pods = pods(node);
        if pods.len() == count && pods.iter().all(|p| p.2 == "True") { Ok(pods) } else { Err(format!("{pods:?}")) }
    })
    .unwrap()
}

#[test]
fn an_application_runs_and_is_looked_into_and_goes() {
    let mut stage = Stage::new("one").unwrap();
    let policy = stage.directory().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let (policy, log) = (policy.display().to_string(), stage.directory().join("audit.json"));
    let audit = ["--audit-policy-file", &policy, "--audit-log-path", log.to_str().unwrap()];
    let node = stage.start("farm", &[["--no-mdns"].as_slice(), &audit].concat()).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let applied = node.apply(SHOP).unwrap();
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    node.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();
    let pods = all_ready(&node, 2);
    let pod = pods[0].0.as_str();

    assert_eq!(node.kubectl(&["logs", pod]).unwrap(), "serving\n");
    let inside = |command: &str| node.kubectl(&["exec", pod, "--", "sh", "-c", command]).unwrap();
    assert_eq!(inside("echo $PASSWORD $NODE"), "open-sesame farm\n");
    assert_eq!(inside("wget -q -O - http://web.default.svc.cluster.local/"), "hello from a config map\n");
    assert_eq!(inside("cat /proc/self/status | grep NoNewPrivs >/dev/null && touch /scratch/x && ls /scratch"), "x\n");
    let failed = node.kubectl_with(&["exec", "-i", pod, "--", "sh", "-c", "cat; exit 7"], "typed\n").unwrap();
    assert_eq!((failed.stdout.as_slice(), failed.status.code()), (&b"typed\n"[..], Some(7)));

    // Follow the log of what is yet to be written.
    let mut follow = node.setup.kubectl_command(&["logs", "-f", pod]).stdout(Stdio::piped()).spawn().unwrap();
    inside("echo later > /proc/1/fd/1");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "serving");
    assert_eq!(lines.next().unwrap().unwrap(), "later");
    follow.kill().unwrap();
    follow.wait().unwrap();

    // A crash is mended, and counted.
    // The command dies with the container's first process, unless it was quicker.
    let killed = node.kubectl_with(&["exec", pod, "--", "killall", "httpd"], "").unwrap();
    assert!(matches!(killed.status.code(), Some(0 | 137)), "{killed:?}");
    until("the container is restarted", LIMIT, || {
        let restarts =
            node.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]).unwrap();
        if restarts != "0" && !restarts.is_empty() { Ok(()) } else { Err(format!("restarts: {restarts:?}")) }
    })
    .unwrap();
    all_ready(&node, 2);

    // Scale and roll.
    node.kubectl(&["scale", "deploy/web", "--replicas=3"]).unwrap();
    all_ready(&node, 3);
    node.kubectl(&["set", "env", "deploy/web", "VERSION=2"]).unwrap();
    node.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();

    let described = node.kubectl(&["describe", "deploy", "web"]).unwrap();
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let output = node.kubectl_with(&["delete", "-f", "-", "--timeout=60s"], SHOP).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("nothing is left", LIMIT, || {
        let left = node.get(&["pods,replicasets,endpointslices", "-l", "app=web"]).unwrap();
        if left["items"].as_array().unwrap().is_empty() { Ok(()) } else { Err(left["items"].to_string()) }
    })
    .unwrap();
    every_part_was_itself_and_had_its_rights(&log);
}

const POLICY: &str =
    "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata}]}";

/// What a part lacks a right for would be retried for ever, and nobody would see it.
fn every_part_was_itself_and_had_its_rights(log: &std::path::Path) {
    let text = std::fs::read_to_string(log).unwrap();
    let events: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut users = std::collections::BTreeSet::new();
    for event in &events {
        let (user, groups) = (event["user"]["username"].as_str().unwrap(), event["user"]["groups"].to_string());
        assert_ne!(event["annotations"]["authorization.k8s.io/decision"], "forbid", "{event}");
        // One that fits the rules and not the object (a namespace that goes, a quota) is no lack of rights.
        let why = event["responseStatus"]["message"].as_str().unwrap_or_default();
        assert!(!why.contains(" is not allowed to ") && !why.contains(" can only "), "{event}");
        assert!(!groups.contains("system:masters") || ["admin", "fluidos"].contains(&user), "{event}");
        users.insert(user);
    }
    for part in [
        "admin",
        "fluidos",
        "system:kube-controller-manager",
        "system:kube-scheduler",
        "system:node:farm",
        "system:serviceaccount:kube-system:deployment-controller",
        "system:serviceaccount:kube-system:endpointslice-controller",
        "system:serviceaccount:kube-system:replicaset-controller",
    ] {
        assert!(users.contains(part), "{part} has asked for nothing: {users:?}");
    }
}

#[test]
fn a_node_that_is_killed_comes_back_with_everything() {
    let mut stage = Stage::new("back").unwrap();
    let node = start(&mut stage, "farm");
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(SHOP).unwrap();
    let before = all_ready(&node, 2);
    let processes = |node: &Node| {
        let pod = &before[0].0;
        node.kubectl(&[
            "get",
            "pod",
            pod,
            "-o",
            "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}",
        ])
        .unwrap()
    };
    let container = processes(&node);
    let did = node.ready_line.split(' ').find(|w| w.starts_with("did=")).unwrap().to_owned();
    let setup = node.kill();
    let node = setup.start().unwrap();
    assert!(node.ready_line.contains(&did), "the same directory is the same node");
    assert_eq!(all_ready(&node, 2), before, "the same pods");
    assert_eq!(processes(&node), container, "their containers ran on");
    let setup = node.terminate().unwrap();
    let begun = Instant::now();
    let node = setup.start().unwrap();
    assert_eq!(all_ready(&node, 2), before);
    assert!(begun.elapsed() < LIMIT, "started and ready again within {LIMIT:?}, not {:?}", begun.elapsed());
    node.kubectl(&["delete", "deploy", "web", "--timeout=60s"]).unwrap();
    until(
        "the pods are gone",
        LIMIT,
        || if pods(&node).is_empty() { Ok(()) } else { Err(format!("{:?}", pods(&node))) },
    )
    .unwrap();
}

#[test]
fn ctrl_c_stops_the_containers_and_sigterm_keeps_them() {
    let mut stage = Stage::new("sig").unwrap();
    let node = start(&mut stage, "farm");
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(SHOP).unwrap();
    all_ready(&node, 2);
    let directory = node.setup.directory.display().to_string();
    let containers = || command::run("pgrep", &["-f", &format!("pod-supervisor {directory}")]).unwrap_or_default();
    let setup = node.terminate().unwrap();
    assert_eq!(containers().lines().count(), 2, "SIGTERM keeps them");
    let node = setup.start().unwrap();
    all_ready(&node, 2);
    command::run("kill", &["-INT", &node.pid().to_string()]).unwrap();
    until("the containers end", LIMIT, || if containers().is_empty() { Ok(()) } else { Err(containers()) }).unwrap();
}

#[test]
fn two_nodes_share_a_machine() {
    let mut stage = Stage::new("same").unwrap();
    let one = start(&mut stage, "one");
    let mut setup = stage.setup("two", &["--no-mdns", "--api", "127.0.0.1:6444", "--rear", "0.0.0.0:7301"]).unwrap();
    setup.machine.clone_from(&one.setup.machine);
    let two = setup.start().unwrap();
    for node in [&one, &two] {
        node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
        node.apply(SHOP).unwrap();
    }
    for node in [&one, &two] {
        let pods = all_ready(node, 2);
        let page = node.kubectl(&["exec", &pods[0].0, "--", "wget", "-q", "-O", "-", "http://web/"]).unwrap();
        assert_eq!(page, "hello from a config map\n");
    }
    // One goes, and takes nothing of the other along.
    let setup = one.kill();
    setup.reset().unwrap();
    let pods = all_ready(&two, 2);
    let page = two.kubectl(&["exec", &pods[0].0, "--", "wget", "-q", "-O", "-", "http://web/"]).unwrap();
    assert_eq!(page, "hello from a config map\n");
    let again = two.setup.clone();
    drop(two.kill());
    again.reset().unwrap();
}

#[test]
fn a_reset_leaves_nothing_of_a_node() {
    let mut stage = Stage::new("rst").unwrap();
    let node = start(&mut stage, "farm");
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(SHOP).unwrap();
    all_ready(&node, 2);
    let directory = node.setup.directory.display().to_string();
    let ours = || command::run("pgrep", &["-f", &directory]).unwrap_or_default();
    assert!(!ours().is_empty(), "processes of the running node are found by {directory}");
    let instances = node.setup.machine.as_ref().unwrap().instances().unwrap();
    let [instance] = instances.as_slice() else { panic!("one node runs here, and its devices say {instances:?}") };
    assert!(!lan::cgroups_of(instance).is_empty(), "cgroups of the running node are found by {instance}");
    let refused = node.setup.reset().unwrap_err().to_string();
    assert!(refused.contains("its node is running"), "{refused}");
    let setup = node.kill();
    let said = setup.reset().unwrap();
    assert!(said.starts_with("2 pods ended"), "{said}");
    assert_eq!(ours(), "", "no process");
    assert_eq!(lan::cgroups_of(instance), Vec::<std::path::PathBuf>::new(), "no cgroup");
    let machine = setup.machine.as_ref().unwrap();
    let links = command::run("ip", &["-n", &machine.namespace, "-o", "link"]).unwrap();
    assert_eq!(links.lines().count(), 2, "lo and the cable: {links}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&directory), "no mount");
    assert_eq!(std::fs::read_dir(&setup.directory).unwrap().count(), 0, "no file");
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let mut stage = Stage::new("why").unwrap();
    let node = start(&mut stage, "farm");
    let refused = |arguments: &[&str], expected: &str| {
        let output = node.setup.fluidos(arguments).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = told.lines().find(|l| l.starts_with("fluidos: ")).unwrap_or_default();
        assert!(!output.status.success() && line.contains(expected), "{arguments:?}: {told}");
    };
    let directory = node.setup.directory.display().to_string();
    refused(&["up", "--name", "other", "--data-dir", &directory], "in use");
    let second = stage.directory().join("second").display().to_string();
    refused(&["up", "--name", "other", "--data-dir", &second], "--api 127.0.0.1:6443: cannot listen");
    let open = stage.directory().join("open");
    std::fs::create_dir(&open).unwrap();
    refused(&["up", "--name", "other", "--data-dir", &open.display().to_string()], "chmod 700");
    refused(&["image", "load", "/nonexistent"], "/nonexistent");
    refused(&["image", "pull", "127.0.0.1:9/nginx"], "image pull 127.0.0.1:9/nginx");
}
