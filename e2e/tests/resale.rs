//! A pod of an owner runs at a provider whom only a reseller knows: farm and grid have no way to each other but by shop.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::market::{PAYS, SELLS, SELLS_ON, solver};
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A page at the provider, and at home what it calls and who calls it.
const APP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: home}
spec: {selector: {app: home}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data:
  index.html: "from far away\n"
  nginx.conf: |
    error_log stderr;
    pid /tmp/nginx.pid;
    events {}
    http {
      access_log /dev/stdout;
      server {
        listen 8080;
        root /site;
        location /home { proxy_pass http://home.default.svc.cluster.local/; proxy_connect_timeout 2s; proxy_read_timeout 5s; proxy_ignore_client_abort on; }
      }
    }
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {word: not-for-everybody}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeSelector: {kubernetes.io/hostname: shop}
  terminationGracePeriodSeconds: 1
  containers:
  - name: nginx
    image: nginx:1
    command: [nginx, -c, /site/nginx.conf, -g, "daemon off;"]
    ports: [{name: http, containerPort: 8080}]
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: key, key: word}}}]
    readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
    resources: {requests: {cpu: 100m, memory: 32Mi}}
    volumeMounts: [{name: site, mountPath: /site}]
  volumes: [{name: site, configMap: {name: page}}]
---
apiVersion: v1
kind: Pod
metadata: {name: home, labels: {app: home}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: home
    image: busybox:1
    command: [sh, -c, "echo from home > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
"#;

fn contracts(node: &Node) -> Vec<Value> {
    node.get(&["contracts", "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone()
}

/// Buys by hand from the only one that sells here, and waits for the virtual node.
fn buy(buyer: &Node, seller: &str) -> String {
    buyer.apply(&solver(seller, "500m").replace("establishPeering: false", "establishPeering: true")).unwrap();
    until(&format!("{} has bought", buyer.setup.name), LIMIT, || {
        let solver = buyer.get(&["solver", seller, "-n", "fluidos"]).unwrap();
        let bought = contracts(buyer);
        match bought.first() {
            Some(contract) => Ok(contract["metadata"]["name"].as_str().unwrap().to_owned()),
            None => Err(solver["status"].to_string()),
        }
    })
    .unwrap()
}

fn ready(node: &Node, name: &str, wanted: &str) {
    until(&format!("{name} is Ready={wanted} at {}", node.setup.name), LIMIT, || {
        let found = node.get(&["node", name]).map_err(|e| e.to_string())?;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").cloned().unwrap_or(Value::Null);
        if ready["status"] == wanted { Ok(()) } else { Err(ready.to_string()) }
    })
    .unwrap();
}

fn twins(node: &Node) -> Vec<Value> {
    let twins = node.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"]).unwrap();
    twins["items"].as_array().unwrap().clone()
}

/// What a command in a pod prints, on both outputs, until it is what is waited for.
fn says(node: &Node, pod: &str, command: &str, wanted: &str) {
    until(&format!("{command} in {pod}"), LIMIT, || {
        let output = node.kubectl_with(&["exec", pod, "--", "sh", "-c", command], "").map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if text.contains(wanted) { Ok(()) } else { Err(text) }
    })
    .unwrap();
}

/// Fetches a page with nc: the wget of a static busybox cannot look anything up.
fn fetch(address: &str, port: u16, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}")
}

/// That of a Service, by its address. nginx at the provider looks names up.
fn get(node: &Node, service: &str, path: &str) -> String {
    let address = node.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    fetch(&address, 80, path)
}

#[test]
fn a_pod_runs_at_a_provider_whom_only_the_reseller_knows() {
    let mut stage = Stage::new("sell").unwrap();
    let grid = stage.start("grid", &["--offer", "cpu=1,memory=1Gi,pods=5"]).unwrap();
    // It runs nothing itself, and has too little to sell.
    let small = ["--no-agent", "--offer", "cpu=100m,memory=1Gi,pods=5", "--trust", "lan"];
    let shop = stage.start("shop", &small).unwrap();
    let farm = stage.setup("farm", &["--trust", "lan"]).unwrap();
    for setup in [&grid.setup, &farm] {
        setup.machine.as_ref().unwrap().isolate().unwrap();
    }
    let farm = farm.start().unwrap();
    for image in [Image::Nginx, Image::Busybox] {
        farm.setup.load(&image.layout().unwrap()).unwrap();
    }
    for (node, policy) in [(&grid, SELLS), (&shop, SELLS_ON), (&shop, PAYS), (&farm, PAYS)] {
        node.apply(policy).unwrap();
    }
    let sold = buy(&farm, "shop");
    let known = farm.get(&["knownclusters", "-n", "fluidos"]).unwrap();
    assert_eq!(known["items"].as_array().unwrap().len(), 1, "farm knows shop alone: {known}");
    let at_shop = contracts(&shop);
    let served = at_shop.iter().find(|contract| contract["metadata"]["name"] == *sold).unwrap();
    let bought = served["spec"]["servedBy"].as_str().unwrap().to_owned();
    assert!(contracts(&grid).iter().any(|contract| contract["metadata"]["name"] == *bought));
    let taints = shop.get(&["node", "grid"]).unwrap()["spec"]["taints"].to_string();
    assert!(taints.contains("fluidos.eu/resale"), "{taints}");
    ready(&farm, "shop", "True");

    farm.apply(APP).unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/home", "--timeout=60s"]).unwrap();
    assert_eq!(farm.kubectl(&["get", "pod", "web", "-o", "jsonpath={.spec.nodeName}"]).unwrap(), "shop");
    let (at_shop, at_grid) = (twins(&shop), twins(&grid));
    assert_eq!((at_shop.len(), at_grid.len()), (1, 1));
    assert_eq!(at_shop[0]["spec"]["nodeName"], "grid");
    assert_eq!(at_grid[0]["spec"]["nodeName"], "grid", "a container of the provider's own machine");
    let container = at_grid[0]["status"]["containerStatuses"][0]["containerID"].clone();
    assert!(!at_grid[0].to_string().contains(&sold), "the provider is not told of the other contract");

    // There and back, by name: over the reseller, whom neither end reaches.
    says(&farm, "home", &get(&farm, "web", "/"), "from far away");
    says(&farm, "web", &get(&farm, "home", "/"), "from home");
    says(&farm, "home", &get(&farm, "web", "/home"), "from home");
    says(&farm, "web", "echo $WORD", "not-for-everybody");
    let address = farm.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]).unwrap();
    says(&farm, "home", &fetch(&address, 8080, "/"), "from far away");
    let shop_machine = shop.setup.machine.as_ref().unwrap().address;
    let own = at_grid[0]["status"]["hostIP"].as_str().unwrap().to_owned();
    for forbidden in [format!("{shop_machine} 7300"), format!("{shop_machine} 6443"), format!("{own} 7300")] {
        let command = format!("nc -w 2 {forbidden} </dev/null");
        let reached = farm.kubectl_with(&["exec", "web", "--", "sh", "-c", &command], "").unwrap();
        assert!(!reached.status.success(), "a guest reaches {forbidden}");
    }

    let exposure = farm.setup.fluidos(&["exposure", "shop"]).unwrap();
    let exposure = String::from_utf8_lossy(&exposure.stdout).into_owned();
    assert!(exposure.contains("passed on") && exposure.contains(&address), "{exposure}");

    // Logs as they come, a port, a terminal's way.
    let mut following = farm.setup.kubectl_command(&["logs", "-f", "web", "--tail=0"]);
    let mut following = following.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(following.stdout.take().unwrap());
    says(&farm, "home", &get(&farm, "web", "/index.html"), "from far away");
    let line = std::io::BufRead::lines(lines).next().unwrap().unwrap();
    assert!(line.contains("GET /index.html"), "{line}");
    following.kill().unwrap();
    following.wait().unwrap();
    let forward = farm.forward("pod/web", 8080).unwrap();
    assert!(farm.fetch(&forward.address).unwrap().contains("from far away"), "{}", forward.complaints());
    drop(forward);

    // The reseller's process ends and comes back: the same container goes on, and is reached again.
    let shop = shop.kill().start().unwrap();
    ready(&farm, "shop", "True");
    says(&farm, "home", &get(&farm, "web", "/"), "from far away");
    says(&farm, "web", &get(&farm, "home", "/"), "from home");
    assert_eq!(twins(&grid)[0]["status"]["containerStatuses"][0]["containerID"], container);

    // The provider's cable is pulled: its owner's node is not ready. Back again it is, with the same container.
    grid.setup.machine.as_ref().unwrap().plug(false).unwrap();
    ready(&farm, "shop", "False");
    grid.setup.machine.as_ref().unwrap().plug(true).unwrap();
    ready(&farm, "shop", "True");
    says(&farm, "home", &get(&farm, "web", "/"), "from far away");
    assert_eq!(twins(&grid)[0]["status"]["containerStatuses"][0]["containerID"], container);

    farm.kubectl(&["delete", "pod", "web", "--timeout=60s"]).unwrap();
    assert!(twins(&shop).is_empty() && twins(&grid).is_empty(), "what is gone at home is gone everywhere");

    // One more, and the contract ends: nothing is left at either.
    farm.apply(APP).unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).unwrap();
    farm.kubectl(&["delete", "solver", "shop", "-n", "fluidos", "--timeout=60s"]).unwrap();
    until("nothing of farm's is left", LIMIT, || {
        match [&shop, &grid].map(|node| (twins(node).len(), contracts(node).len())) {
            [(0, 0), (0, 0)] => Ok(()),
            left => Err(format!("twins and contracts at shop and grid: {left:?}")),
        }
    })
    .unwrap();
}
