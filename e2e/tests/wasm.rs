//! WebAssembly on a node: a module that runs once, and a function behind a Service that an ordinary pod calls; on the only machine, and on the
//! last of three, called from the first.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../engine/wasm/tests/support/mod.rs"]
mod guests;

use std::time::Duration;

use fluidos_e2e::images::{Image, webassembly};
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

const SHOP: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: wasm}
handler: wasm
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 0
  template:
    spec:
      nodeName: MACHINE
      runtimeClassName: wasm
      restartPolicy: Never
      containers:
      - name: once
        image: hello:1
        args: ["one", "two words"]
        env: [{name: GREETING, value: good day}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: function}
spec:
  replicas: 2
  selector: {matchLabels: {app: function}}
  template:
    metadata: {labels: {app: function}}
    spec:
      nodeName: MACHINE
      runtimeClassName: wasm
      terminationGracePeriodSeconds: 1
      containers:
      - name: function
        image: function:1
        ports: [{containerPort: 8000}]
        readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
        resources: {limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: function}
spec: {selector: {app: function}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: farm
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: busybox:1, command: [sleep, "1000000"]}]
"#;

const UNKNOWN: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: other}
handler: other
---
apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec:
  nodeName: MACHINE
  runtimeClassName: other
  containers: [{name: main, image: hello:1}]
"#;

fn field(node: &Node, of: &[&str], path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    node.kubectl(&[&["get"], of, &["-o", &output]].concat()).unwrap()
}

fn call(node: &Node, path: &str) -> String {
    let url = format!("http://function.default.svc.cluster.local/{path}");
    let output = node.kubectl_with(&["exec", "client", "--", "wget", "-q", "-O", "-", &url], "").unwrap();
    [output.stdout, output.stderr].concat().iter().map(|b| char::from(*b)).collect()
}

#[test]
fn a_module_runs_once_and_a_function_answers() {
    a_module_runs_once_and_a_function_answers_with(1);
}

#[test]
fn a_module_runs_once_and_a_function_answers_on_three_machines() {
    a_module_runs_once_and_a_function_answers_with(3);
}

fn a_module_runs_once_and_a_function_answers_with(machines: usize) {
    let mut stage = Stage::new("wasm").unwrap();
    let (mut node, mut agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    let machine = agents.last().unwrap_or(&node).setup.clone();
    let handlers = field(&node, &["node", &machine.name], ".status.runtimeHandlers[*].name");
    assert!(
        handlers.split(' ').any(|name| name == "wasm"),
        "the program under test is built with the feature: {handlers}"
    );
    let images = stage.directory().join("images");
    for (name, bytes) in
        [("hello", guests::module(guests::HELLO)), ("function", guests::component("function", guests::FUNCTION))]
    {
        webassembly(&images.join(name), &format!("docker.io/library/{name}:1"), &bytes).unwrap();
        machine.load(&images.join(name)).unwrap();
    }
    node.apply(&SHOP.replace("MACHINE", &machine.name)).unwrap();
    node.kubectl(&["wait", "--for=condition=complete", "job/once", "--timeout=60s"]).unwrap();
    let said = node.kubectl(&["logs", "job/once"]).unwrap();
    assert!(said.contains("/module.wasm\0one\0two words\0"), "{said:?}");
    assert!(said.contains("GREETING=good day\0") && said.contains("KUBERNETES_SERVICE_HOST="), "{said:?}");

    // Called by a container of another handler, through the Service; each request is in an instance of its own.
    node.kubectl(&["rollout", "status", "deploy/function", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).unwrap();
    for _ in 0..5 {
        assert_eq!(call(&node, ""), "hello 1\n");
    }
    assert!(call(&node, "trap").contains("500"), "a request that fails is one request");
    assert_eq!(call(&node, ""), "hello 1\n");
    let log = node.kubectl(&["logs", "-l", "app=function"]).unwrap();
    assert!(log.contains("wasm: cold start 1: ") && log.contains("unreachable"), "{log}");

    // There is nothing to run a command in, and it is said.
    let refused = node.kubectl_with(&["exec", "deploy/function", "--", "ls"], "").unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("exec is not supported by the runtime handler \"wasm\""), "{refused}");

    // A runtime that nobody has is refused as ever, with the names of those that there are.
    node.apply(&UNKNOWN.replace("MACHINE", &machine.name)).unwrap();
    until("the event of an unknown handler", LIMIT, || {
        let events = node.kubectl(&["get", "events", "--field-selector=involvedObject.name=unknown"]).unwrap();
        match events.contains("no runtime for \"other\" is configured") && events.contains("wasm") {
            true => Ok(()),
            false => Err(events),
        }
    })
    .unwrap();
    node.kubectl(&["delete", "pod", "unknown", "--timeout=60s"]).unwrap();

    // The machine's daemon is killed and comes back: its functions have answered all the while.
    let uids = |node: &Node| field(node, &["pods", "-l", "app=function"], ".items[*].metadata.uid");
    let before = uids(&node);
    match agents.pop() {
        Some(agent) => agents.push(agent.kill().join(None).unwrap()),
        None => node = node.kill().start().unwrap(),
    }
    until("the function answers", LIMIT, || match call(&node, "").as_str() {
        "hello 1\n" => Ok(()),
        other => Err(other.to_owned()),
    })
    .unwrap();
    assert_eq!(uids(&node), before);
    let restarts = field(&node, &["pods", "-l", "app=function"], ".items[*].status.containerStatuses[0].restartCount");
    let ends = || field(&node, &["pods", "-l", "app=function"], ".items[*].status.containerStatuses[0].lastState");
    assert_eq!(restarts, "0 0", "{}", ends());
    node.kubectl(&["delete", "deploy/function", "job/once", "pod/client", "--timeout=60s"]).unwrap();
}
