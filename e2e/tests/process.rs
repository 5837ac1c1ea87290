//! One application of two runtimes: a server from an image and a program of the machine behind its fences, with a Service between them in
//! both directions; on the only machine of a node, and on the server's and the last of its agents.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

const CLASSES: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: oci}
handler: oci
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: process}
handler: process
"#;

/// A Deployment on a machine that serves its name, and a Service before it.
fn serving(name: &str, image: &str, machine: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeName: {machine}
      runtimeClassName: {name}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: {image}
        command: [/bin/sh, -c, "echo from {name} > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www"]
        readinessProbe: {{httpGet: {{path: /index.html, port: 8080}}, periodSeconds: 1}}
        volumeMounts: [{{name: www, mountPath: /www}}]
      volumes: [{{name: www, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

#[test]
fn an_application_of_images_and_programs_of_the_machine() {
    an_application_of_images_and_programs_of_the_machine_with(1);
}

#[test]
fn an_application_of_images_and_programs_of_the_machine_on_three_machines() {
    an_application_of_images_and_programs_of_the_machine_with(3);
}

fn an_application_of_images_and_programs_of_the_machine_with(machines: usize) {
    let mut stage = Stage::new("proc").unwrap();
    let (node, agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    let last = agents.last().unwrap_or(&node).setup.name.as_str();
    let handlers = node.kubectl(&["get", "node", last, "-o", "jsonpath={.status.runtimeHandlers[*].name}"]).unwrap();
    assert!(["oci", "process"].iter().all(|name| handlers.split(' ').any(|h| h == *name)), "{handlers:?}");
    let address = |service: &str| {
        let path = "jsonpath={.spec.clusterIP}";
        node.kubectl(&["get", "service", service, "-o", path]).unwrap()
    };
    let (image, program) = (serving("oci", "busybox:1", "farm"), serving("process", "host:/bin/busybox", last));
    for manifest in [CLASSES, &image, &program] {
        node.apply(manifest).unwrap();
    }
    for name in ["oci", "process"] {
        node.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).unwrap();
    }
    for (from, to) in [("oci", "process"), ("process", "oci")] {
        let (pods, page) = (format!("deployment/{from}"), format!("http://{}/index.html", address(to)));
        let fetch = ["exec", &pods, "--", "/bin/busybox", "wget", "-q", "-O", "-", &page];
        let told = until("the page of the other runtime", LIMIT, || node.kubectl(&fetch).map_err(|e| e.to_string()));
        assert_eq!(told.unwrap(), format!("from {to}\n"));
    }
    // Who the processes are, and that one writes nowhere else.
    let inside = |script: &str| node.kubectl(&["exec", "deployment/process", "--", "sh", "-c", script]);
    assert_eq!(inside("id -u; grep NoNewPrivs /proc/self/status").unwrap(), "65532\nNoNewPrivs:\t1\n");
    assert!(inside("echo x > /usr/x").is_err());
    // A program without its class is refused in words.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd"},
        "spec": {"nodeName": last, "containers": [{"name": "c", "image": "host:/bin/sh"}]}});
    node.apply(&pod.to_string()).unwrap();
    let why = until("the reason", LIMIT, || {
        let pod = node.get(&["pod", "odd"]).map_err(|e| e.to_string())?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        match waiting["reason"].as_str() {
            Some("InvalidImageName") => Ok(waiting["message"].as_str().unwrap_or_default().to_owned()),
            _ => Err(pod["status"].to_string()),
        }
    });
    assert!(why.as_ref().unwrap().contains("name a RuntimeClass with the handler process"), "{why:?}");
}
