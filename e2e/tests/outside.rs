//! A node's Services and ports for callers who are no pods: another machine on the LAN, with kubectl's view of it beside. The node is one
//! machine or three; what stands on one of them stands on the last.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

/// A web server that says its name, behind a balancer; one that has a port of the machine; one that is only to be had where it is.
const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
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
      - {name: web, image: "busybox:1", command: [sh, -c, "mkdir /s; echo web > /s/index.html; exec httpd -f -p 8080 -h /s"]}
---
apiVersion: v1
kind: Pod
metadata: {name: door}
spec:
  nodeName: LAST
  terminationGracePeriodSeconds: 1
  containers:
  - name: door
    image: busybox:1
    command: [sh, -c, "mkdir /s; echo door > /s/index.html; exec httpd -f -p 8080 -h /s"]
    ports: [{containerPort: 8080, hostPort: 8088}]
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: near}
  ports: [{name: http, port: 81, targetPort: 8080, nodePort: 30081}]
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: near}}
spec:
  nodeName: LAST
  terminationGracePeriodSeconds: 1
  containers:
  - {name: near, image: "busybox:1", command: [sh, -c, "mkdir /s; echo near > /s/index.html; exec httpd -f -v -p 8080 -h /s"]}
"#;

/// What the machine of `from` gets from an address, and the head of the answer.
fn ask(from: &Setup, address: &str) -> Result<(String, String), String> {
    let mut curl = from.command(Path::new("curl"));
    let output = curl.args(["-sS", "-i", "--max-time", "3", &format!("http://{address}/")]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (head, body) =
        text(&output.stdout).split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned())).unzip();
    match (output.status.success(), head, body) {
        (true, Some(head), Some(body)) => Ok((head, body)),
        _ => Err(text(&output.stderr)),
    }
}

fn external(node: &Node, service: &str) -> String {
    let row = node.kubectl(&["get", "service", service, "--no-headers"]).unwrap();
    row.split_whitespace().nth(3).unwrap().to_owned()
}

/// Waits until a Service has these addresses.
fn has(node: &Node, service: &str, addresses: &str) {
    until(&format!("{service} at {addresses}"), LIMIT, || match external(node, service) {
        found if found == addresses => Ok(()),
        other => Err(other),
    })
    .unwrap();
}

fn says(from: &Setup, at: &str, wanted: &str) {
    until(&format!("{at} says {wanted:?}"), LIMIT, || match ask(from, at) {
        Ok((_, text)) if text == wanted => Ok(()),
        other => Err(format!("{at}: {other:?}")),
    })
    .unwrap();
}

#[test]
fn a_balancer_and_a_port_of_the_machine() {
    a_balancer_and_a_port_of_the_machine_with(1);
}

#[test]
fn a_balancer_and_a_port_of_the_machine_on_three_machines() {
    a_balancer_and_a_port_of_the_machine_with(3);
}

fn a_balancer_and_a_port_of_the_machine_with(machines: usize) {
    let mut stage = Stage::new("outs").unwrap();
    let (node, agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    let caller = stage.setup("caller", &[]).unwrap();
    let all: Vec<&Setup> = std::iter::once(&node).chain(&agents).map(|machine| &machine.setup).collect();
    let addresses: Vec<String> = all.iter().map(|setup| setup.machine.as_ref().unwrap().address.to_string()).collect();
    let (last, address) = (&all.last().unwrap().name, addresses.last().unwrap());
    node.apply(&SHOP.replace("LAST", last)).unwrap();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/door", "pod/near", "--timeout=60s"]).unwrap();
    // Two pods answer at each machine, by the address of the balancer and by the port that every machine has.
    has(&node, "web", &addresses.join(","));
    let port = node.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]).unwrap();
    for at in &addresses {
        says(&caller, at, "web\n");
        says(&caller, &format!("{at}:{port}"), "web\n");
    }
    // A port of the machine is one of its pod's machine alone.
    says(&caller, &format!("{address}:8088"), "door\n");
    for at in addresses.iter().filter(|at| *at != address) {
        let told = ask(&caller, &format!("{at}:8088"));
        assert!(told.as_ref().is_err_and(|error| error.contains("Failed to connect")), "{at}: {told:?}");
    }
    what_is_near(&node, &caller, &addresses);

    // Who comes later finds the port taken, and is told so.
    node.kubectl(&["create", "service", "loadbalancer", "late", "--tcp=80:8080"]).unwrap();
    until("an event", LIMIT, || {
        let described = node.kubectl(&["describe", "service", "late"]).unwrap();
        let why = format!("Error syncing load balancer: port 80/TCP of {address} is used by default/web");
        if described.contains(&why) { Ok(()) } else { Err(described) }
    })
    .unwrap();
    assert_eq!(external(&node, "late"), "<pending>");
    node.kubectl(&["delete", "service", "web"]).unwrap();
    has(&node, "late", &addresses.join(","));
    node.kubectl(&["delete", "pod", "door", "--timeout=60s"]).unwrap();
    assert!(ask(&caller, &format!("{address}:8088")).is_err(), "with the pod goes its port");

    // A pod's name by its address, and one of a Service from within.
    let path = "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}";
    let pod = node.kubectl(&["get", "pods", "-l", "app=web", "-o", path]).unwrap();
    let (name, ip) = pod.split_once(' ').unwrap();
    let asked = format!("{}.default.pod.cluster.local", ip.replace('.', "-"));
    let found = node.kubectl(&["exec", name, "--", "nslookup", &asked]).unwrap();
    assert!(found.contains(&format!("Address: {ip}")) || found.contains(&format!("Address 1: {ip}")), "{found}");
}

/// What is `Local` is to be had where its pod is and nowhere else, sees who calls, and each machine says whether it has one.
fn what_is_near(node: &Node, caller: &Setup, addresses: &[String]) {
    let (address, others) = addresses.split_last().unwrap();
    has(node, "near", address);
    says(caller, &format!("{address}:81"), "near\n");
    says(caller, &format!("{address}:30081"), "near\n");
    let (who, log) = (caller.machine.as_ref().unwrap().address.to_string(), node.kubectl(&["logs", "near"]).unwrap());
    assert!(log.contains(&who) && addresses.iter().all(|at| !log.contains(at)), "{who} has called: {log}");
    for at in others.iter().flat_map(|at| [format!("{at}:81"), format!("{at}:30081")]) {
        let told = ask(caller, &at);
        assert!(told.is_err(), "{at}: {told:?}");
    }

    let check = node.kubectl(&["get", "service", "near", "-o", "jsonpath={.spec.healthCheckNodePort}"]).unwrap();
    let healthy = |at: &str, status: &str, count: usize| {
        until(&format!("{at} is {status}"), LIMIT, || {
            let (head, body) = ask(caller, &format!("{at}:{check}"))?;
            let expected = serde_json::json!({"service": {"namespace": "default", "name": "near"}, "localEndpoints": count,
                "serviceProxyHealthy": true});
            let is_told = serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|body| body == expected)
                && head.starts_with(&format!("HTTP/1.1 {status}"))
                && head.to_lowercase().contains(&format!("x-load-balancing-endpoint-weight: {count}"));
            if is_told { Ok(()) } else { Err(format!("{head}\n\n{body}")) }
        })
        .unwrap();
    };
    healthy(address, "200 OK", 1);
    for at in others {
        healthy(at, "503 Service Unavailable", 0);
    }
    // The port is kept whatever is changed beside it, may not be another one, and is given back when it is not needed.
    let patch = |patch: &str| node.kubectl(&["patch", "service", "near", "-p", patch]);
    let policy = |policy: &str| format!(r#"{{"spec": {{"externalTrafficPolicy": "{policy}"}}}}"#);
    let kept = |wanted: &str| {
        let now = node.kubectl(&["get", "service", "near", "-o", "jsonpath={.spec.healthCheckNodePort}"]).unwrap();
        assert_eq!(now, wanted);
    };
    patch(r#"{"spec": {"healthCheckNodePort": null, "sessionAffinity": "ClientIP"}}"#).unwrap();
    kept(&check);
    let told = patch(r#"{"spec": {"healthCheckNodePort": 32100}}"#).unwrap_err().to_string();
    assert!(told.contains("spec.healthCheckNodePort: Invalid value: 32100: field is immutable"), "{told}");
    patch(&policy("Cluster")).unwrap();
    kept("");
    until("nobody answers there any more", LIMIT, || match ask(caller, &format!("{address}:{check}")) {
        Err(error) if error.contains("Failed to connect") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    patch(&policy("Local")).unwrap();
    kept(&check);
    healthy(address, "200 OK", 1);
    node.kubectl(&["delete", "pod", "near", "--timeout=60s"]).unwrap();
    healthy(address, "503 Service Unavailable", 0);
}
