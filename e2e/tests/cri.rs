//! Pods that containerd runs, on a node that was told of its socket: what kubectl sees of them is what it sees of all others.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::Duration;

use engine_conformance::containerd::Containerd;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
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
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: passes-through}
spec:
  runtimeClassName: runc
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sh, -c, "for n in 1 2 3; do echo line $n; sleep 0.2; done; sleep 100000"]}]
"#;

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
    let mut stage = Stage::new("cri").unwrap();
    let mut setup = stage.setup("one", &["--no-mdns"]).unwrap();
    let enter = setup.machine.as_ref().unwrap().enter();
    let within: Vec<&str> = enter.iter().map(String::as_str).collect();
    let mut containerd =
        Containerd::start(&stage.directory().join("containerd"), Path::new(env!("CARGO_TARGET_TMPDIR")), &within);
    containerd.load(&Image::Pause.layout().unwrap(), Image::Pause.reference());
    let endpoint = format!("unix://{}", containerd.socket().display());
    let flags = ["--container-runtime-endpoint", &endpoint, "--default-runtime", "oci"];
    setup.arguments.extend(flags.map(str::to_owned));
    let node = setup.start().unwrap();
    assert!(node.ready_line.ends_with(" runtime=oci"), "{}", node.ready_line);
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let status = node.get(&["node", "one"]).unwrap();
    let handlers = status["status"]["runtimeHandlers"].to_string();
    assert!(["\"cri\"", "\"oci\"", "\"runc\""].iter().all(|name| handlers.contains(name)), "{handlers}");

    // The guide's own manifest, which has the class that the rest uses.
    let guide = std::fs::read_to_string(fluidos_e2e::root().join("docs/guides/runtimes-cri.md")).unwrap();
    let manifest = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    node.apply(manifest).unwrap();
    node.apply(MANIFEST).unwrap();
    ready(&node);
    // The image came from the node's own store, and no name of it was taken in containerd.
    let images = containerd.ctr(&["images", "list", "-q"]).unwrap();
    assert!(images.contains("docker.io/library/busybox@sha256:") && !images.contains("busybox:1"), "{images}");
    let web = node.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).unwrap();
    let web = web.lines().next().unwrap().trim().to_owned();
    // From either runtime to pods of the other, by Service and name.
    page(&node, "built-in", "one");
    page(&node, &web, "one");
    page(&node, "passes-through", "one");

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

    // The node is killed: the same containers run on.
    let before = ids(&node);
    let node = node.kill().start().unwrap();
    ready(&node);
    assert_eq!(ids(&node), before);
    page(&node, "built-in", "one");
    // containerd is killed: pods answer, and when it is back the node goes on.
    containerd.kill();
    page(&node, "built-in", "one");
    containerd.again(&within);
    assert_eq!(ids(&node), before);
    node.kubectl(&["set", "env", "deployment/web", "VERSION=two"]).unwrap();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    page(&node, "built-in", "two");

    // What is taken off the machine is all of it.
    let setup = node.terminate().unwrap();
    setup.reset().unwrap();
    assert_eq!(containerd.ctr(&["containers", "list", "-q"]).unwrap(), "");
    let images = containerd.ctr(&["images", "list", "-q"]).unwrap();
    assert!(!images.contains("busybox"), "{images}");
    let cni = stage.directory().join("containerd/cni");
    assert_eq!(std::fs::read_dir(cni.join("net.d")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(cni.join("bin")).unwrap().count(), 0);
}

const PLAIN: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "busybox:1", command: [sleep, "100000"]}]
"#;

fn plain_runs(node: &Node) {
    node.kubectl(&["wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"]).unwrap();
}

#[test]
fn containerd_runs_all_pods_where_nobody_else_has_it() {
    let mut stage = Stage::new("crid").unwrap();
    let mut setup = stage.setup("one", &["--no-mdns"]).unwrap();
    let enter = setup.machine.as_ref().unwrap().enter();
    let within: Vec<&str> = enter.iter().map(String::as_str).collect();
    let directory = stage.directory().join("containerd");
    let mut containerd = Containerd::start(&directory, Path::new(env!("CARGO_TARGET_TMPDIR")), &within);
    containerd.load(&Image::Pause.layout().unwrap(), Image::Pause.reference());
    let endpoint = format!("unix://{}", containerd.socket().display());
    setup.arguments.extend(["--container-runtime-endpoint".to_owned(), endpoint]);
    let node = setup.start().unwrap();
    assert!(node.ready_line.ends_with(" runtime=cri"), "{}", node.ready_line);
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let wide = node.kubectl(&["get", "node", "one", "-o", "wide"]).unwrap();
    assert!(wide.contains("cri://"), "{wide}");
    node.apply(PLAIN).unwrap();
    plain_runs(&node);
    let count = |containerd: &Containerd| containerd.ctr(&["containers", "list", "-q"]).unwrap().lines().count();
    assert_eq!(count(&containerd), 2, "the sandbox and the container");
    let before = ids(&node);

    // The node begins again before containerd does: it goes on with it, and nothing has moved.
    containerd.kill();
    let setup = node.kill();
    let again = std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            containerd.again(&within);
        });
        let node = setup.start().unwrap();
        late.join().unwrap();
        node
    });
    plain_runs(&again);
    assert_eq!(ids(&again), before);
    let setup = again.terminate().unwrap();
    setup.reset().unwrap();
    assert_eq!(count(&containerd), 0);

    // Another program's pods have their network there: it is left alone.
    std::fs::write(directory.join("cni/net.d/05-other.conflist"), "{}").unwrap();
    let node = setup.start().unwrap();
    assert!(node.ready_line.ends_with(" runtime=oci"), "{}", node.ready_line);
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(PLAIN).unwrap();
    plain_runs(&node);
    assert_eq!(count(&containerd), 0);
    node.terminate().unwrap().reset().unwrap();
}
