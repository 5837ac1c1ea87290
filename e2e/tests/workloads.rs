//! Jobs, cron jobs, stateful and daemon sets, and pods that are resized, on a real node, as kubectl sees them from outside.
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
    work_that_ends_work_that_comes_again_and_work_with_a_name_with(1);
}

#[test]
fn work_that_ends_work_that_comes_again_and_work_with_a_name_on_three_machines() {
    work_that_ends_work_that_comes_again_and_work_with_a_name_with(3);
}

fn work_that_ends_work_that_comes_again_and_work_with_a_name_with(machines: usize) {
    let mut stage = Stage::new("work").unwrap();
    let (node, _agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
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
    let on = of(&node, "app=log", ".spec.nodeName");
    assert!(on.matches(" farm\n").count() == 1 && on.lines().count() == machines, "one on each machine: {on}");

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

/// One container is resized as it runs, the other is run again for more memory.
const SIZED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: kept
    image: "busybox:1"
    command: [sleep, "1000"]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
  - name: again
    image: "busybox:1"
    command: [sleep, "1000"]
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
"#;

/// Processor time in a period and bytes of memory that a container may use, as the kernel has it.
fn limits(node: &Node, container: &str) -> String {
    let id = field(node, "pod/sized", &format!(".status.containerStatuses[?(@.name==\"{container}\")].containerID"));
    let run = id.trim_start_matches("oci://").get(..16).unwrap_or_default().to_owned();
    let pod = format!("pod{}/{run}", field(node, "pod/sized", ".metadata.uid"));
    let mut found = Vec::new();
    for (controller, file) in
        [("cpu", "cpu.cfs_quota_us"), ("", "cpu.max"), ("memory", "memory.limit_in_bytes"), ("", "memory.max")]
    {
        for own in
            std::fs::read_dir(std::path::Path::new("/sys/fs/cgroup").join(controller)).into_iter().flatten().flatten()
        {
            if let Ok(text) = std::fs::read_to_string(own.path().join(&pod).join(file)) {
                found.push(text.split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
    }
    found.join(" ")
}

#[test]
fn a_pod_is_resized_while_it_runs() {
    a_pod_is_resized_while_it_runs_with(1);
}

#[test]
fn a_pod_is_resized_while_it_runs_on_three_machines() {
    a_pod_is_resized_while_it_runs_with(3);
}

fn a_pod_is_resized_while_it_runs_with(machines: usize) {
    let mut stage = Stage::new("size").unwrap();
    let (node, _agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    node.apply(SIZED).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/sized", "--timeout=60s"]).unwrap();
    assert_eq!(limits(&node, "kept"), "20000 67108864");
    let resize = |container: &str, resources: &str| {
        let patch = format!(r#"{{"spec": {{"containers": [{{"name": "{container}", "resources": {resources}}}]}}}}"#);
        node.kubectl(&["patch", "pod", "sized", "--subresource=resize", "-p", &patch])
    };
    let restarts = |container: &str| {
        field(&node, "pod/sized", &format!(".status.containerStatuses[?(@.name==\"{container}\")].restartCount"))
    };
    let has = |container: &str, wanted: &str, told: &str| {
        until(wanted, LIMIT, || {
            let path = format!(".status.containerStatuses[?(@.name==\"{container}\")].resources.limits.memory");
            let found = (limits(&node, container), field(&node, "pod/sized", &path));
            if found == (wanted.to_owned(), told.to_owned()) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .unwrap();
    };
    resize("kept", r#"{"limits": {"cpu": "300m", "memory": "96Mi"}}"#).unwrap();
    has("kept", "30000 100663296", "96Mi");
    resize("kept", r#"{"limits": {"cpu": "150m", "memory": "48Mi"}}"#).unwrap();
    has("kept", "15000 50331648", "48Mi");
    assert_eq!(restarts("kept"), "0", "it was never stopped");

    resize("again", r#"{"limits": {"memory": "128Mi"}}"#).unwrap();
    has("again", "20000 134217728", "128Mi");
    assert_eq!((restarts("again"), restarts("kept")), ("1".to_owned(), "0".to_owned()));

    // What the machine has not is not given, and told.
    resize("kept", r#"{"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}"#).unwrap();
    let pending = ".status.conditions[?(@.type==\"PodResizePending\")].reason";
    until("infeasible", LIMIT, || match field(&node, "pod/sized", pending).as_str() {
        "Infeasible" => Ok(()),
        other => Err(other.to_owned()),
    })
    .unwrap();
    assert_eq!(limits(&node, "kept"), "15000 50331648");
    resize("kept", r#"{"requests": {"cpu": "100m"}, "limits": {"cpu": "150m"}}"#).unwrap();
    until("no longer", LIMIT, || match field(&node, "pod/sized", pending).as_str() {
        "" => Ok(()),
        other => Err(other.to_owned()),
    })
    .unwrap();
    // The kubelet says of its node what it has measured.
    let on = field(&node, "pod/sized", ".spec.nodeName");
    let raw = |path: &str| node.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{on}/proxy/{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&raw("stats/summary").unwrap()).unwrap();
    let pod = summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "sized").unwrap();
    let used = |of: &serde_json::Value| of["memory"]["workingSetBytes"].as_u64().unwrap();
    let containers = pod["containers"].as_array().unwrap();
    assert!(containers.len() == 2 && containers.iter().all(|container| used(container) > 0), "{summary}");
    assert!(used(pod) <= (48 + 128) << 20 && used(&summary["node"]) > used(pod), "{summary}");
    assert!(pod["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{summary}");
    let metrics = raw("metrics/resource").unwrap();
    for line in [
        r#"container_cpu_usage_seconds_total{container="kept",namespace="default",pod="sized"} "#,
        "node_memory_working_set_bytes ",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(raw("pods").unwrap().contains(r#""kind":"PodList""#));
    assert_eq!(raw("healthz").unwrap(), "ok");
    assert!(raw("exec/default/sized/kept").is_err());

    let refused = resize("kept", r#"{"limits": {"memory": null}}"#).unwrap_err().to_string();
    assert!(refused.contains("resource limits cannot be removed"), "{refused}");
}
