//! A node whose pods and Services have addresses of both families: what kubectl shows, who reaches whom, names, ports of the machine, a
//! policy, and a restart of the node while pods run. On one machine, and on three: who answers on one agent, who asks on another.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::{Stage, together};
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);
/// What the LAN's machines have beside their addresses of IPv4 (RFC 3849).
const MACHINES: [&str; 3] = ["2001:db8:77::1", "2001:db8:77::11", "2001:db8:77::12"];
const CALLER: &str = "2001:db8:77::2";

/// A server that says who calls, a Service of both families, and one who asks.
const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec: {clusterIP: None, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: old}
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
      nodeSelector: {kubernetes.io/hostname: WEB}
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:1
        env: [{name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]
        command: [sh, -c, "mkdir /s; echo web > /s/index.html; echo $IPS > /s/ips; exec httpd -f -p '[::]:8080' -h /s"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeSelector: {kubernetes.io/hostname: CLIENT}
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1", command: [sleep, "100000"]}]
"#;

/// Nobody but those with a label that the client has not.
const FRIENDS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {friend: "yes"}}}]}]
"#;

fn give(setup: &Setup, address: &str) {
    let device = setup.command(Path::new("ip")).args(["-o", "-4", "addr", "show", "scope", "global"]).output().unwrap();
    let text = String::from_utf8_lossy(&device.stdout).into_owned();
    let device = text.split_whitespace().nth(1).unwrap().to_owned();
    for arguments in [
        vec!["addr", "add", &format!("{address}/64"), "dev", &device, "nodad"],
        // Somewhere to go: a machine's address of IPv6 is the one that the way to anywhere begins with.
        vec!["-6", "route", "add", "default", "dev", &device],
    ] {
        let done = setup.command(Path::new("ip")).args(&arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

fn shown(node: &Node, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    node.kubectl(&[&["get"], what, &["-o", &path]].concat()).unwrap()
}

/// What the client gets from an address: a page, or why not.
fn asks(node: &Node, address: &str) -> Result<String, String> {
    let url = format!("http://{address}");
    let told = node.kubectl(&["exec", "client", "--", "timeout", "2", "wget", "-q", "-O", "-", &url]);
    told.map_err(|error| error.to_string())
}

fn curl(from: &Setup, address: &str) -> Result<String, String> {
    let mut curl = from.command(Path::new("curl"));
    let output = curl.args(["-sS", "--globoff", "--max-time", "3", &format!("http://{address}/")]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// All pods of the Deployment: name, uid and both addresses, in order.
fn pods(node: &Node) -> Vec<String> {
    let path = r#"{range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIPs[*].ip}{"\n"}{end}"#;
    let mut all: Vec<String> = shown(node, &["pods", "-l", "app=web"], path).lines().map(str::to_owned).collect();
    all.sort();
    all
}

/// That each address answers the client, or that none does.
fn reached(node: &Node, when: &str, addresses: &[String], open: bool) {
    for address in addresses {
        until(&format!("{when}: {address} open: {open}"), LIMIT, || match asks(node, address) {
            Ok(text) if open && text == "web\n" => Ok(()),
            Err(_) if !open => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }
}

#[test]
fn pods_and_services_have_both_families() {
    both_families("dual", 1);
}

#[test]
fn pods_and_services_have_both_families_on_three_machines() {
    both_families("dua3", 3);
}

/// A Node has a range of each, and says both of its addresses; the first is that of IPv4, as ever.
fn is_dual(node: &Node, name: &str, addresses: &[String; 2]) {
    let ranges = until("a Node with two ranges", LIMIT, || {
        let told = shown(node, &["node", name], "{.spec.podCIDR} {.spec.podCIDRs[*]}");
        let all: Vec<String> = told.split(' ').map(str::to_owned).collect();
        if all.len() == 3 { Ok(all) } else { Err(told) }
    })
    .unwrap();
    assert_eq!(ranges[0], ranges[1]);
    assert!(ranges[2].starts_with("fd") && ranges[2].ends_with("/80"), "{ranges:?}");
    let internal = shown(node, &["node", name], r#"{.status.addresses[?(@.type=="InternalIP")].address}"#);
    assert_eq!(internal, addresses.join(" "));
}

fn both_families(stage: &str, machines: usize) {
    let mut stage = Stage::new(stage).unwrap();
    let setups = stage.setups(machines, &[]).unwrap();
    let caller = stage.setup("caller", &[]).unwrap();
    let lan: Vec<[String; 2]> = setups
        .iter()
        .zip(MACHINES)
        .map(|(setup, v6)| {
            give(setup, v6);
            [setup.machine.as_ref().unwrap().address.to_string(), v6.to_owned()]
        })
        .collect();
    give(&caller, CALLER);
    let (node, mut agents) = together(&setups).unwrap();
    for (setup, addresses) in setups.iter().zip(&lan) {
        setup.load(&Image::Busybox.layout().unwrap()).unwrap();
        is_dual(&node, &setup.name, addresses);
    }
    let (web, client) = (&setups[machines / 2].name, &setups[machines - 1].name);

    node.apply(&SHOP.replace("WEB", web).replace("CLIENT", client)).unwrap();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).unwrap();
    let before = pods(&node);
    let v6_of_pods: Vec<String> = before.iter().map(|pod| pod.split(' ').nth(3).unwrap().to_owned()).collect();
    assert_eq!(shown(&node, &["service", "old"], "{.spec.ipFamilyPolicy} {.spec.ipFamilies[*]}"), "SingleStack IPv4");
    let addresses = shown(&node, &["service", "web"], "{.spec.clusterIPs[*]}");
    let (v4, v6) = addresses.split_once(' ').unwrap();
    assert!(v6.starts_with("fd"), "{addresses}");
    let slices = shown(&node, &["endpointslices", "-l", "kubernetes.io/service-name=web"], "{.items[*].addressType}");
    let mut families: Vec<&str> = slices.split(' ').collect();
    families.sort_unstable();
    assert_eq!(families, ["IPv4", "IPv6"]);

    // Over both families: by the Service, by each pod, and what a pod is told of itself.
    let all: Vec<String> = [v4.to_owned(), format!("[{v6}]")]
        .into_iter()
        .chain(v6_of_pods.iter().map(|v6| format!("[{v6}]:8080")))
        .collect();
    reached(&node, "at first", &all, true);
    let told = asks(&node, &format!("[{}]:8080/ips", v6_of_pods[0]));
    let (own, hosts) = (told.unwrap(), node.kubectl(&["exec", "client", "--", "cat", "/etc/hosts"]).unwrap());
    assert_eq!(own.trim().replace(',', " "), before[0].splitn(3, ' ').nth(2).unwrap());
    assert_eq!(hosts.lines().filter(|line| line.ends_with("\tclient")).count(), 2, "{hosts}");

    // Names: of the Service, of each pod behind the headless one, and none where there is none.
    let resolve = |name: &str| {
        node.kubectl(&["exec", "client", "--", "nslookup", &format!("{name}.default.svc.cluster.local")])
            .unwrap_or_else(|error| error.to_string())
    };
    assert!(resolve("web").contains(v6), "{}", resolve("web"));
    let each = resolve("each");
    assert!(v6_of_pods.iter().all(|v6| each.contains(v6)), "{each}");
    assert!(!resolve("old").contains("fd"), "{}", resolve("old"));

    // From outside: ports of the machine, and the balancer's addresses.
    for ([v4, v6], machine) in lan.iter().zip(&setups) {
        for address in [format!("[{v6}]:30080"), format!("{v4}:30080"), format!("[{v6}]"), v4.clone()] {
            until(&format!("{address} from another machine"), LIMIT, || match curl(&caller, &address) {
                Ok(text) if text == "web\n" => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .unwrap();
        }
        assert_eq!(curl(machine, &format!("[{v6}]:30080")).unwrap(), "web\n", "from the machine itself");
    }

    // A policy holds for both, and lets both in.
    node.apply(FRIENDS).unwrap();
    reached(&node, "not a friend", &all, false);
    assert!(curl(&caller, &format!("[{}]:30080", lan[machines / 2][1])).is_err(), "nor is another machine");
    node.kubectl(&["label", "pod", "client", "friend=yes"]).unwrap();
    reached(&node, "a friend", &all, true);
    node.kubectl(&["delete", "networkpolicy/friends"]).unwrap();

    // The second family goes and comes; the first address stays.
    let patch = |policy: &str| {
        let spec = format!(r#"{{"spec": {{"ipFamilyPolicy": "{policy}"}}}}"#);
        node.kubectl(&["patch", "service", "web", "--type=merge", "-p", &spec]).unwrap();
        shown(&node, &["service", "web"], "{.spec.clusterIPs[*]}")
    };
    assert_eq!(patch("SingleStack"), v4);
    reached(&node, "given back", &[format!("[{v6}]")], false);
    reached(&node, "the other stays", &[v4.to_owned()], true);
    assert_eq!(patch("RequireDualStack").split(' ').next(), Some(v4));

    // The node begins anew while its pods run on, and they are where they were; then who has joined it.
    let setup = node.terminate().unwrap();
    let node = setup.start().unwrap();
    agents = agents.into_iter().map(|agent| agent.terminate().unwrap().join(None).unwrap()).collect();
    let services = shown(&node, &["service", "web"], "{.spec.clusterIPs[*]}");
    let all: Vec<String> = services
        .split(' ')
        .map(|address| if address.contains(':') { format!("[{address}]") } else { address.into() })
        .collect();
    assert_eq!(all.len(), 2);
    reached(&node, "after a restart", &all, true);
    assert_eq!(pods(&node), before);
    for agent in agents {
        agent.terminate().unwrap();
    }
}
