//! Pods that containerd runs, on a machine that was told of its socket: what kubectl sees of them is what it sees of all others. It is the only
//! machine of a node, and the last of its agents.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::Duration;

use engine_conformance::containerd::Containerd;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::{Stage, together};
use fluidos_e2e::terminal::Terminal;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

const MANIFEST: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc}
handler: runc
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
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
      nodeSelector: {kubernetes.io/hostname: LAST}
      runtimeClassName: containerd
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:1
        command: [sh, -c, "trap 'exit 0' TERM; echo begins; echo $VERSION > /www/index.html; httpd -f -p 8080 -h /www & wait"]
        env: [{name: VERSION, value: one}]
        volumeMounts: [{name: www, mountPath: /www, subPath: pages}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        livenessProbe: {exec: {command: [test, -e, /www/index.html]}, periodSeconds: 1}
        resources: {limits: {memory: 32Mi}}
      volumes: [{name: www, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: built-in}
spec:
  nodeSelector: {kubernetes.io/hostname: farm}
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: passes-through}
spec:
  nodeSelector: {kubernetes.io/hostname: LAST}
  runtimeClassName: runc
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sh, -c, "for n in 1 2 3; do echo line $n; sleep 0.2; done; sleep 100000"]}]
"#;

/// The machines of a node but for the last, which has containerd; none if that is the only one.
struct Others(Vec<Node>);

impl Others {
    /// They are ready; and the last is to be.
    fn new(stage: &mut Stage, machines: usize) -> (Self, Setup) {
        let mut setups = stage.setups(machines, &[]).unwrap();
        let last = setups.pop().unwrap();
        if setups.is_empty() {
            return (Self(Vec::new()), last);
        }
        let (server, agents) = together(&setups).unwrap();
        server.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
        (Self(std::iter::once(server).chain(agents).collect()), last)
    }

    /// Starts the last machine: a node, or one that joins this one or has joined it.
    fn start(&self, last: &Setup) -> Node {
        match self.0.first() {
            None => last.start().unwrap(),
            Some(_) if last.directory.join("agent/agent.json").exists() => last.join(None).unwrap(),
            Some(server) => last.join(Some(&server.invite().unwrap())).unwrap(),
        }
    }

    /// Who answers kubectl.
    fn node<'a>(&'a self, last: &'a Node) -> &'a Node {
        self.0.first().unwrap_or(last)
    }

    /// Takes the last machine off, and its Node.
    fn remove(&self, last: Node) -> Setup {
        let setup = last.terminate().unwrap();
        setup.reset().unwrap();
        if let Some(server) = self.0.first() {
            server.kubectl(&["delete", "node", &setup.name]).unwrap();
        }
        setup
    }
}

/// A containerd of its own for a machine, which is told of it.
fn containerd_for(machine: &mut Setup, directory: &Path, within: &[&str]) -> Containerd {
    let containerd = Containerd::start(directory, Path::new(env!("CARGO_TARGET_TMPDIR")), within);
    containerd.load(&Image::Pause.layout().unwrap(), Image::Pause.reference());
    let endpoint = format!("unix://{}", containerd.socket().display());
    machine.arguments.extend(["--container-runtime-endpoint".to_owned(), endpoint]);
    containerd
}

fn ready(node: &Node) {
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    node.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/built-in",
        "pod/passes-through",
        "pod/by-containerd",
        "--timeout=60s",
    ])
    .unwrap();
}

/// The page of the Service, seen from a pod.
fn page(node: &Node, pod: &str, expected: &str) {
    until(&format!("{pod} reads {expected:?} of the Service by its name"), LIMIT, || {
        let seen = node.kubectl(&["exec", pod, "--", "wget", "-qO-", "http://web.default.svc.cluster.local"]);
        let seen = seen.map_err(|e| format!("{e:#}"))?;
        if seen.trim() == expected { Ok(()) } else { Err(seen) }
    })
    .unwrap();
}

fn ids(node: &Node) -> Vec<String> {
    let pods = node.get(&["pods"]).unwrap();
    let all = pods["items"].as_array().unwrap().iter();
    let mut ids: Vec<_> = all.map(|pod| pod["status"]["containerStatuses"][0]["containerID"].to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn pods_of_containerd_are_pods() {
    pods_of_containerd("cri", 1);
}

#[test]
fn pods_of_containerd_are_pods_on_three_machines() {
    pods_of_containerd("cri3", 3);
}

fn pods_of_containerd(stage: &str, machines: usize) {
    let mut stage = Stage::new(stage).unwrap();
    let (others, mut last) = Others::new(&mut stage, machines);
    let enter = last.machine.as_ref().unwrap().enter();
    let within: Vec<&str> = enter.iter().map(String::as_str).collect();
    let directory = stage.directory().join("containerd");
    let mut containerd = containerd_for(&mut last, &directory, &within);
    last.arguments.extend(["--default-runtime", "oci"].map(str::to_owned));
    let last = others.start(&last);
    assert!(last.ready_line.ends_with(" runtime=oci"), "{}", last.ready_line);
    last.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let node = others.node(&last);
    let status = node.get(&["node", &last.setup.name]).unwrap();
    let handlers = status["status"]["runtimeHandlers"].to_string();
    assert!(["\"cri\"", "\"oci\"", "\"runc\""].iter().all(|name| handlers.contains(name)), "{handlers}");

    // The guide's own manifest, which has the class that the rest uses.
    let guide = std::fs::read_to_string(fluidos_e2e::root().join("docs/guides/runtimes-cri.md")).unwrap();
    let manifest = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let here = format!("  nodeSelector: {{kubernetes.io/hostname: {}}}\n  runtimeClassName:", last.setup.name);
    node.apply(&manifest.replace("  runtimeClassName:", &here)).unwrap();
    node.apply(&MANIFEST.replace("LAST", &last.setup.name)).unwrap();
    ready(node);
    // The image came from the node's own store, and no name of it was taken in containerd.
    let images = containerd.ctr(&["images", "list", "-q"]).unwrap();
    assert!(images.contains("docker.io/library/busybox@sha256:") && !images.contains("busybox:1"), "{images}");
    let web = node.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).unwrap();
    let web = web.lines().next().unwrap().trim().to_owned();
    // From either runtime to pods of the other, by Service and name.
    page(node, "built-in", "one");
    page(node, &web, "one");
    page(node, "passes-through", "one");

    let followed = node.kubectl(&["logs", "passes-through", "-f", "--limit-bytes=21"]).unwrap();
    assert_eq!(followed.trim(), "line 1\nline 2\nline 3");
    let mut terminal = Terminal::open(&node.setup.kubectl_command(&["exec", "-it", &web, "--", "sh"]), 33, 99).unwrap();
    terminal.types("stty size; tty").unwrap();
    terminal.shows("33 99").unwrap();
    terminal.types("exit 7").unwrap();
    assert_eq!(terminal.ends().unwrap(), Some(7));
    let copied = node.kubectl_with(&["exec", "-i", &web, "--", "cat"], "to its end").unwrap();
    assert_eq!(String::from_utf8_lossy(&copied.stdout), "to its end", "a standard input ends");
    let forward = node.forward(web.trim_start_matches("pod/"), 8080).unwrap();
    assert_eq!(node.fetch(&forward.address).unwrap().trim(), "one");
    drop(forward);
    until("kubectl top", LIMIT, || {
        let top = node.kubectl(&["top", "pods", "-l", "app=web", "--no-headers"]).map_err(|e| format!("{e:#}"))?;
        if top.lines().count() == 2 { Ok(()) } else { Err(top) }
    })
    .unwrap();

    // What runs them is killed: the same containers run on.
    let before = ids(node);
    let last = others.start(&last.kill());
    let node = others.node(&last);
    ready(node);
    assert_eq!(ids(node), before);
    page(node, "built-in", "one");
    // containerd is killed: pods answer, and when it is back the node goes on.
    containerd.kill();
    page(node, "built-in", "one");
    containerd.again(&within);
    assert_eq!(ids(node), before);
    node.kubectl(&["set", "env", "deployment/web", "VERSION=two"]).unwrap();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    page(node, "built-in", "two");

    // What is taken off the machine is all of it.
    others.remove(last);
    assert_eq!(containerd.ctr(&["containers", "list", "-q"]).unwrap(), "");
    let images = containerd.ctr(&["images", "list", "-q"]).unwrap();
    assert!(!images.contains("busybox"), "{images}");
    let cni = directory.join("cni");
    assert_eq!(std::fs::read_dir(cni.join("net.d")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(cni.join("bin")).unwrap().count(), 0);
}

const PLAIN: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeSelector: {kubernetes.io/hostname: LAST}
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sleep, "100000"]}]
"#;

fn plain_runs(node: &Node) {
    node.kubectl(&["wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"]).unwrap();
}

#[test]
fn containerd_runs_all_pods_where_nobody_else_has_it() {
    containerd_runs_all_pods("crid", 1);
}

#[test]
fn containerd_runs_all_pods_of_an_agent_where_nobody_else_has_it() {
    containerd_runs_all_pods("cra3", 3);
}

fn containerd_runs_all_pods(stage: &str, machines: usize) {
    let mut stage = Stage::new(stage).unwrap();
    let (others, mut last) = Others::new(&mut stage, machines);
    let enter = last.machine.as_ref().unwrap().enter();
    let within: Vec<&str> = enter.iter().map(String::as_str).collect();
    let directory = stage.directory().join("containerd");
    let mut containerd = containerd_for(&mut last, &directory, &within);
    let last = others.start(&last);
    let plain = PLAIN.replace("LAST", &last.setup.name);
    assert!(last.ready_line.ends_with(" runtime=cri"), "{}", last.ready_line);
    last.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let node = others.node(&last);
    let wide = node.kubectl(&["get", "node", &last.setup.name, "-o", "wide"]).unwrap();
    assert!(wide.contains("cri://"), "{wide}");
    node.apply(&plain).unwrap();
    plain_runs(node);
    let count = |containerd: &Containerd| containerd.ctr(&["containers", "list", "-q"]).unwrap().lines().count();
    assert_eq!(count(&containerd), 2, "the sandbox and the container");
    let before = ids(node);

    // The machine begins again before containerd does: it goes on with it, and nothing has moved.
    containerd.kill();
    let setup = last.kill();
    let last = std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            containerd.again(&within);
        });
        let last = others.start(&setup);
        late.join().unwrap();
        last
    });
    let node = others.node(&last);
    plain_runs(node);
    assert_eq!(ids(node), before);
    let setup = others.remove(last);
    assert_eq!(count(&containerd), 0);

    // Another program's pods have their network there: it is left alone.
    std::fs::write(directory.join("cni/net.d/05-other.conflist"), "{}").unwrap();
    let last = others.start(&setup);
    assert!(last.ready_line.ends_with(" runtime=oci"), "{}", last.ready_line);
    last.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let node = others.node(&last);
    // Its machine was taken away with it.
    node.kubectl(&["delete", "pod", "plain", "--force", "--ignore-not-found"]).unwrap();
    node.apply(&plain).unwrap();
    plain_runs(node);
    assert_eq!(count(&containerd), 0);
    others.remove(last);
}
