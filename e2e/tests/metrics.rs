//! `kubectl top`, and an autoscaler that follows what pods really use.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(120);

/// Works while there is a file `/load/go`.
const LOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: work, hostPath: {path: WORK, type: Directory}}]
      containers:
      - name: c
        image: busybox:1
        command: [sh, -c, "while true; do if test -e /load/go; then i=0; while test $i -lt 20000; do i=$((i+1)); done; else sleep 0.2; fi; done"]
        resources: {requests: {cpu: 50m, memory: 8Mi}, limits: {cpu: 200m}}
        volumeMounts: [{name: work, mountPath: /load}]
      - {name: idle, image: "busybox:1", command: [sleep, "10000"], resources: {requests: {cpu: 10m, memory: 4Mi}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: ContainerResource, containerResource: {name: cpu, container: c, target: {type: Utilization, averageUtilization: 100}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
"#;

/// What `kubectl top` prints, once it has something to print.
fn top(node: &Node, arguments: &[&str]) -> Vec<Vec<String>> {
    let told = until("kubectl top", LIMIT, || {
        node.kubectl(&[&["top"], arguments, &["--no-headers"]].concat()).map_err(|error| error.to_string())
    });
    told.unwrap().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn replicas(node: &Node, wanted: &str) {
    until(&format!("{wanted} replicas"), LIMIT, || {
        let told = node.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]).unwrap();
        if told == wanted {
            Ok(())
        } else {
            Err(format!("{told}: {}", node.kubectl(&["describe", "hpa", "web"]).unwrap()))
        }
    })
    .unwrap();
}

#[test]
fn kubectl_top_and_an_autoscaler_see_what_pods_use() {
    kubectl_top_and_an_autoscaler_see_what_pods_use_with(1);
}

#[test]
fn kubectl_top_and_an_autoscaler_see_what_pods_use_on_three_machines() {
    kubectl_top_and_an_autoscaler_see_what_pods_use_with(3);
}

fn kubectl_top_and_an_autoscaler_see_what_pods_use_with(machines: usize) {
    let mut stage = Stage::new("metr").unwrap();
    let (node, _agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    // Nobody has asked yet: nothing is measured, and nothing is invented.
    let early = node.kubectl(&["top", "nodes"]).unwrap_err().to_string();
    assert!(early.contains("metrics not available yet"), "{early}");
    let work = stage.directory().join("work");
    std::fs::create_dir_all(&work).unwrap();
    node.apply(&LOAD.replace("WORK", &work.display().to_string())).unwrap();
    replicas(&node, "1");

    // A machine is known once it has been looked at twice, and each is by itself.
    let nodes = until("the use of all machines", LIMIT, || {
        let rows = top(&node, &["nodes"]);
        if rows.iter().flatten().any(|cell| cell == "<unknown>") { Err(format!("{rows:?}")) } else { Ok(rows) }
    })
    .unwrap();
    assert!(nodes[0][0] == "farm" && nodes[0][1].ends_with('m') && nodes[0][4].ends_with('%'), "{nodes:?}");
    let idle = top(&node, &["pods", "-l", "app=web", "--containers"]);
    assert_eq!(idle.iter().map(|row| row[1].as_str()).collect::<Vec<_>>(), ["c", "idle"]);
    let used = |row: &[String], at: usize| row[at].trim_end_matches("Mi").trim_end_matches('m').parse::<u64>().unwrap();
    assert!(used(&idle[0], 2) < 50, "{idle:?}");

    // Under load as many as are allowed, and a rate near the limit of the container.
    std::fs::write(work.join("go"), "").unwrap();
    replicas(&node, "3");
    let busy = until("the rate of a busy container", LIMIT, || {
        let rows = top(&node, &["pods", "-l", "app=web", "--containers"]);
        let rates: Vec<u64> = rows.iter().filter(|row| row[1] == "c").map(|row| used(row, 2)).collect();
        if rates.len() == 3 && rates.iter().all(|rate| (100..=230).contains(rate)) {
            Ok(rows)
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .unwrap();
    assert!(busy.iter().filter(|row| row[1] == "idle").all(|row| used(row, 2) < 20), "{busy:?}");
    let told = node
        .kubectl(&["get", "hpa", "web", "-o", "jsonpath={.status.conditions[?(@.type=='ScalingActive')].status}"])
        .unwrap();
    assert_eq!(told, "True");
    let raw = node.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"]).unwrap();
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let window = raw["items"][0]["window"].as_str().unwrap().trim_end_matches('s').parse::<f64>().unwrap();
    assert!((10.0..60.0).contains(&window), "{window}");
    let summary = node.kubectl(&["get", "--raw", "/api/v1/nodes/farm/proxy/stats/summary"]).unwrap();
    assert!(summary.contains("usageNanoCores"), "{summary}");

    // And down again.
    std::fs::remove_file(work.join("go")).unwrap();
    replicas(&node, "1");
    let events = node.kubectl(&["get", "events", "--field-selector", "involvedObject.name=web"]).unwrap();
    assert!(
        events.contains("New size: 3; reason: cpu container resource utilization (percentage of request) above target"),
        "{events}"
    );
}
