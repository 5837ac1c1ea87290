//! Jobs, cron jobs, stateful and daemon sets on a real node, as kubectl sees them from outside.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

/// A cron job fires within a minute; what it starts, in moments.
const LIMIT: Duration = Duration::from_secs(90);

const WORK: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "busybox:1", command: [sh, -c, "echo done"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: parts}
spec:
  completionMode: Indexed
  completions: 3
  parallelism: 3
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "busybox:1", command: [sh, -c, "echo $JOB_COMPLETION_INDEX of $(hostname)"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: wrong}
spec:
  backoffLimit: 3
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "busybox:1", command: [sh, -c, "exit 42"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  timeZone: Europe/Rome
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: "busybox:1", command: [sh, -c, "echo tick"]}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: busybox:1
        command: [sh, -c, "httpd -f -p 8080 -h /etc; exit 1"]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "busybox:1", command: [sh, -c, "while true; do sleep 1; done"]}]
"#;

/// What kubectl prints of an object by a path.
fn field(node: &Node, object: &str, path: &str) -> String {
    node.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]).unwrap()
}

/// The pods of a set with what was made of them, one on each line.
fn of(node: &Node, selector: &str, path: &str) -> String {
    let path = format!("jsonpath={{range .items[*]}}{{.metadata.name}} {{{path}}}{{\"\\n\"}}{{end}}");
    node.kubectl(&["get", "pods", "-l", selector, "-o", &path]).unwrap()
}

#[test]
fn work_that_ends_work_that_comes_again_and_work_with_a_name() {
    let mut stage = Stage::new("work").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(WORK).unwrap();

    node.kubectl(&["wait", "--for=condition=Complete", "job/sum", "job/parts", "--timeout=60s"]).unwrap();
    assert_eq!(field(&node, "job/sum", ".status.succeeded"), "3");
    assert_eq!(of(&node, "job-name=sum", ".status.phase").matches("Succeeded").count(), 3, "no pod too many");
    let logs = node.kubectl(&["logs", "-l", "job-name=parts", "--tail=-1"]).unwrap();
    let mut logs: Vec<&str> = logs.lines().collect();
    logs.sort_unstable();
    assert_eq!(logs, ["0 of parts-0", "1 of parts-1", "2 of parts-2"]);
    assert_eq!(field(&node, "job/parts", ".status.completedIndexes"), "0-2");
    node.kubectl(&["wait", "--for=condition=Failed", "job/wrong", "--timeout=60s"]).unwrap();
    assert_eq!(field(&node, "job/wrong", ".status.conditions[?(@.type==\"Failed\")].reason"), "PodFailurePolicy");

    node.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).unwrap();
    let names = of(&node, "app=db", ".spec.hostname");
    assert_eq!(names, "db-0 db-0\ndb-1 db-1\ndb-2 db-2\n");
    node.kubectl(&["rollout", "status", "daemonset/log", "--timeout=60s"]).unwrap();
    assert_eq!(of(&node, "app=log", ".spec.nodeName").matches(" farm\n").count(), 1);

    // A roll-out replaces all of them, the last first, and can be taken back.
    let before = of(&node, "app=db", ".metadata.uid");
    node.kubectl(&["set", "env", "statefulset/db", "daemonset/log", "VERSION=2"]).unwrap();
    node.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]).unwrap();
    node.kubectl(&["rollout", "status", "daemonset/log", "--timeout=60s"]).unwrap();
    let after = of(&node, "app=db", ".metadata.uid");
    assert!(after.lines().count() == 3 && after.lines().all(|line| !before.contains(line)), "{before}{after}");
    let inside = node.kubectl(&["exec", "db-0", "--", "sh", "-c", "echo $VERSION"]).unwrap();
    assert_eq!(inside, "2\n");
    let history = node.kubectl(&["rollout", "history", "statefulset/db"]).unwrap();
    assert!(history.contains("1 ") && history.contains("2 "), "{history}");
    node.kubectl(&["rollout", "undo", "daemonset/log"]).unwrap();
    node.kubectl(&["rollout", "status", "daemonset/log", "--timeout=60s"]).unwrap();

    until("the cron job has fired and its job has succeeded", LIMIT, || {
        let last = field(&node, "cronjob/tick", ".status.lastSuccessfulTime");
        if last.is_empty() { Err(node.kubectl(&["get", "cronjobs,jobs,pods"]).unwrap()) } else { Ok(()) }
    })
    .unwrap();
    let output = node.kubectl_with(&["delete", "-f", "-", "--timeout=60s"], WORK).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("nothing is left", LIMIT, || {
        let left = node.get(&["pods,jobs,controllerrevisions"]).unwrap();
        if left["items"].as_array().unwrap().is_empty() { Ok(()) } else { Err(left["items"].to_string()) }
    })
    .unwrap();
}
