//! What a pod keeps: claims of the class that every node with pods has, over the end of pods, and what is left of them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

const KEPT: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      shareProcessNamespace: true
      containers:
      - name: db
        image: busybox:1
        command: [sh, -c, "echo start >> /data/log; sleep 1234"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

fn ready(node: &Node) {
    node.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).unwrap();
}

fn field(node: &Node, of: &[&str], path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    node.kubectl(&[&["get"], of, &["-o", &output]].concat()).unwrap()
}

#[test]
fn a_claim_outlives_its_pods() {
    a_claim_outlives_its_pods_with(1);
}

#[test]
fn a_claim_outlives_its_pods_on_three_machines() {
    a_claim_outlives_its_pods_with(3);
}

fn a_claim_outlives_its_pods_with(machines: usize) {
    let mut stage = Stage::new("volm").unwrap();
    let (node, _agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    node.apply(KEPT).unwrap();
    ready(&node);
    let log = |node: &Node| node.kubectl(&["exec", "db-0", "--", "cat", "/data/log"]).unwrap();
    assert_eq!(log(&node), "start\n");

    let uid = field(&node, &["pod", "db-0"], ".metadata.uid");
    node.kubectl(&["delete", "pod", "db-0", "--timeout=60s"]).unwrap();
    until("another db-0", LIMIT, || {
        let now = node.kubectl(&["get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}"]).unwrap_or_default();
        if !now.is_empty() && now != uid { Ok(()) } else { Err(now) }
    })
    .unwrap();
    ready(&node);
    assert_eq!(log(&node), "start\nstart\n", "what the first pod wrote is there");

    // A debugger in a copy of it sees its processes, as it asks for.
    let debug = ["debug", "db-0", "--copy-to=copy", "--image=busybox:1", "--container=look", "-q", "--attach=false"];
    node.kubectl(&[&debug[..], &["--", "sleep", "1000"]].concat()).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/copy", "--timeout=60s"]).unwrap();
    let seen = node.kubectl(&["exec", "copy", "-c", "look", "--", "ps"]).unwrap();
    assert!(seen.contains("sleep 1234"), "{seen}");
    node.kubectl(&["delete", "pod", "copy", "--timeout=60s"]).unwrap();

    // It grows, and goes when it is asked to.
    node.kubectl(&["patch", "pvc", "data-db-0", "-p", r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#])
        .unwrap();
    until("2 GiB", LIMIT, || {
        let size = field(&node, &["pvc", "data-db-0"], ".status.capacity.storage");
        if size == "2Gi" { Ok(()) } else { Err(size) }
    })
    .unwrap();
    let volume = field(&node, &["pvc", "data-db-0"], ".spec.volumeName");
    let path = field(&node, &["pv", &volume], ".spec.local.path");
    assert!(std::path::Path::new(&path).join("log").exists(), "{path}");
    node.kubectl(&["delete", "statefulset/db", "pvc/data-db-0", "--timeout=60s"]).unwrap();
    until("the directory is gone", LIMIT, || {
        let left = node.get(&["pv"]).unwrap()["items"].clone();
        if !std::path::Path::new(&path).exists() && left == serde_json::json!([]) {
            Ok(())
        } else {
            Err(left.to_string())
        }
    })
    .unwrap();
}
