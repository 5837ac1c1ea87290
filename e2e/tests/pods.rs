//! The life of a pod as kubectl sees it from outside: what comes first, what runs beside, what is done at both ends.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
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
    let mut stage = Stage::new("life").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
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
