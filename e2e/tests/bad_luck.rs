//! Containers that misbehave, and a machine that is switched off: contained, reported, cleaned, and up again, as kubectl sees it; on the only
//! machine of a node, and on the last of three.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fluidos_e2e::command::{output, run};
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

const CALM: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: calm}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "mkdir /site && echo calm > /site/index.html && exec httpd -f -p 8080 -h /site"]
    livenessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1, failureThreshold: 2}
    readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
"#;

/// Forks without end; floods its log; leaves mounts and children that nobody waits for, and hears no SIGTERM.
const WILD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "sh -c 'while true; do sleep 1000 & done' 2>&1 | head -n 1; echo no more; sleep 1000"]
    resources: {limits: {cpu: 500m, memory: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: floods}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "yes 'a line of which there are far too many for any disk' | head -n 700000; echo the last line"]
---
apiVersion: v1
kind: Pod
metadata: {name: leaves}
spec:
  nodeName: MACHINE
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:1
    securityContext: {privileged: true}
    volumeMounts: [{name: v, mountPath: /v}]
    command: [sh, -c, "mount -t tmpfs left /v && mkdir /v/deep && mount -t tmpfs left /v/deep && trap '' TERM && (setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; (sleep 0 &) ; echo up; while true; do sleep 1; done"]
"#;

/// The machine that the story is about: the only one, or the last of the agents.
fn machine_of<'a>(node: &'a Node, agents: &'a [Node]) -> &'a Setup {
    &agents.last().unwrap_or(node).setup
}

/// The processes of a machine's containers.
fn processes(setup: &Setup) -> BTreeSet<u32> {
    setup.machine.as_ref().unwrap().processes().unwrap()
}

fn uid(node: &Node, pod: &str) -> String {
    node.kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]).unwrap()
}

fn says(node: &Node, pod: &str, line: &str) {
    until(&format!("{pod} says {line:?}"), LIMIT, || match node.kubectl(&["logs", pod, "--tail=1"]) {
        Ok(log) if log.trim_end() == line => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

fn size_of(directory: &Path) -> u64 {
    let told = run("du", &["-sb", &directory.to_string_lossy()]).unwrap();
    told.split_whitespace().next().unwrap().parse().unwrap()
}

/// What of a pod is on the machine: mounts, cgroups, processes, files.
fn traces(setup: &Setup, uid: &str) -> Vec<String> {
    let mut traces = Vec::new();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(uid)).map(str::to_owned));
    let found = output("find", &["/sys/fs/cgroup", "-name", &format!("pod{uid}*")]).unwrap();
    traces.extend(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned));
    for pid in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let about =
            ["cgroup", "cmdline", "mountinfo"].map(|name| std::fs::read_to_string(pid.join(name)).unwrap_or_default());
        if about.iter().any(|text| text.contains(uid)) {
            traces.push(pid.display().to_string());
        }
    }
    let files = output("find", &[&*setup.directory.to_string_lossy(), "-name", uid]).unwrap();
    traces.extend(String::from_utf8_lossy(&files.stdout).lines().map(str::to_owned));
    traces
}

#[test]
fn containers_that_misbehave_are_contained_and_cleaned() {
    containers_that_misbehave_are_contained_and_cleaned_with(1);
}

#[test]
fn containers_that_misbehave_are_contained_and_cleaned_on_three_machines() {
    containers_that_misbehave_are_contained_and_cleaned_with(3);
}

fn containers_that_misbehave_are_contained_and_cleaned_with(machines: usize) {
    let mut stage = Stage::new("luck").unwrap();
    let (node, agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    let machine = machine_of(&node, &agents);
    node.apply(&CALM.replace("MACHINE", &machine.name)).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/calm", "--timeout=60s"]).unwrap();
    node.apply(&WILD.replace("MACHINE", &machine.name)).unwrap();

    // It comes as far as the limit of its pod, and is told so by the kernel.
    says(&node, "forks", "no more");
    let forks = uid(&node, "forks");
    // By their cgroup: other processes of the machine see mounts of the pod, too.
    let is_in = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroups| cgroups.contains(&forks))
    };
    let count = processes(machine).into_iter().filter(is_in).count();
    assert!((3000..=4096).contains(&count), "{count} processes, of which a pod may have 4,096");
    // Of 44 MB two files are left at most, and the end of them is told.
    node.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/floods", "--timeout=90s"]).unwrap();
    says(&node, "floods", "the last line");
    let logs = output(
        "find",
        &[&*machine.directory.to_string_lossy(), "-path", &format!("*{}*", uid(&node, "floods")), "-name", "*.log*"],
    )
    .unwrap();
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    let sizes: Vec<u64> = logs.lines().map(|path| size_of(Path::new(path))).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size < 11 << 20), "{sizes:?} {logs}");
    let lines = node.kubectl(&["logs", "floods"]).unwrap().lines().count();
    assert!(lines > 100_000, "what is in both files is told: {lines} lines");
    says(&node, "leaves", "up");

    // Others have not noticed.
    let calm = node.get(&["pod", "calm"]).unwrap();
    assert_eq!(calm["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(node.kubectl(&["exec", "calm", "--", "cat", "/site/index.html"]).unwrap(), "calm\n");

    for pod in ["forks", "floods", "leaves"] {
        let uid = uid(&node, pod);
        assert!(!traces(machine, &uid).is_empty(), "{pod}: nothing is seen of it while it is there");
        node.kubectl(&["delete", "pod", pod, "--timeout=60s"]).unwrap();
        until(&format!("nothing is left of {pod}"), LIMIT, || match traces(machine, &uid) {
            traces if traces.is_empty() => Ok(()),
            traces => Err(traces.join("\n")),
        })
        .unwrap();
    }
    assert_eq!(node.get(&["pod", "calm"]).unwrap()["status"]["containerStatuses"][0]["restartCount"], 0);
}

const LIVES: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: MACHINE
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: busybox:1
        command: [sh, -c, "mkdir -p /site && echo here > /site/index.html && exec httpd -f -p 8080 -h /site"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  nodeName: MACHINE
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1", command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  nodeName: MACHINE
  restartPolicy: OnFailure
  containers: [{name: c, image: "busybox:1", command: [echo, "done"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  nodeName: MACHINE
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1", command: [sleep, "1000"]}]
"#;

/// What the power takes with it when it goes: processes, mounts, cgroups, and what is in the network of the machine.
fn power_cut(running: Node) -> Setup {
    let machine = running.setup.machine.clone().unwrap();
    let instances = machine.instances().unwrap();
    let containers = processes(&running.setup);
    let setup = running.kill();
    let own = format!("pod-supervisor {}", setup.directory.display());
    let supervisors = String::from_utf8(output("pgrep", &["-f", &own]).unwrap().stdout).unwrap();
    // Who could write down how containers ended goes first: the power leaves no time for that.
    for pid in supervisors.lines().map(str::to_owned).chain(containers.iter().map(u32::to_string)) {
        let _ = output("kill", &["-9", &pid]); // some go with their parents
    }
    until("all processes are gone", LIMIT, || match processes(&setup) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .unwrap();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let below = setup.directory.display().to_string();
    for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&below)) {
        run("umount", &["-l", at]).unwrap();
    }
    for instance in &instances {
        let found =
            output("find", &["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*kubelet-{instance}*")])
                .unwrap();
        for directory in String::from_utf8(found.stdout).unwrap().lines() {
            let _ = std::fs::remove_dir(directory); // what is not empty is seen by what comes
        }
        let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = spaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for name in names.filter(|name| name.contains(instance.as_str())) {
            run("ip", &["netns", "del", &name]).unwrap();
        }
    }
    let links = run("ip", &["-n", &machine.namespace, "-o", "link"]).unwrap();
    for name in links.lines().filter_map(|line| line.split(": ").nth(1)).map(|name| name.split('@').next().unwrap()) {
        if !matches!(name, "lo" | "eth0") {
            let _ = output("ip", &["-n", &machine.namespace, "link", "del", name]); // one end of a cable takes the other along
        }
    }
    setup
}

#[test]
fn pods_come_back_after_the_power_was_cut() {
    pods_come_back_after_the_power_was_cut_with(1);
}

/// It is an agent's power; the server and the other agent have theirs.
#[test]
fn pods_come_back_after_the_power_was_cut_on_three_machines() {
    pods_come_back_after_the_power_was_cut_with(3);
}

fn pods_come_back_after_the_power_was_cut_with(machines: usize) {
    let mut stage = Stage::new("powr").unwrap();
    let (mut node, mut agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    node.apply(&LIVES.replace("MACHINE", &machine_of(&node, &agents).name)).unwrap();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/once", "pod/again", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/done", "--timeout=60s"]).unwrap();
    let before = node.get(&["pods"]).unwrap();
    let uids = |all: &Value| -> BTreeSet<String> {
        all["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    };
    match agents.pop() {
        Some(agent) => agents.push(power_cut(agent).join(None).unwrap()),
        None => node = power_cut(node).start().unwrap(),
    }
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    let one = |name: &str| node.get(&["pod", name]).unwrap();
    until("what runs again and what has ended", LIMIT, || {
        let phase = |name| one(name)["status"]["phase"].as_str().unwrap_or_default().to_owned();
        let again = &one("again")["status"]["containerStatuses"][0];
        let seen = (phase("once"), phase("done"), again["restartCount"].clone(), again["state"]["running"].is_object());
        if seen == ("Failed".into(), "Succeeded".into(), 1.into(), true) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .unwrap();
    assert_eq!(uids(&node.get(&["pods"]).unwrap()), uids(&before), "they are the same pods");
    let ended = &one("once")["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["reason"], "ContainerStatusUnknown", "{ended}");
    assert_eq!(ended["exitCode"], 137, "{ended}");
    // The network is there again, for new pods and for those that came back.
    let own = node.kubectl(&["exec", "again", "--", "wget", "-q", "-O", "-", "http://web"]).unwrap();
    assert_eq!(own, "here\n");
    assert_eq!(node.kubectl(&["logs", "done"]).unwrap(), "done\n", "logs outlive it");
}
