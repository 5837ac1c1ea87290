//! NetworkPolicies as packets: who reaches whom, on one machine and across three, and after a pod has moved to another machine.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(30);

const PLACES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: office, labels: {team: office}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 80, targetPort: http}]}
"#;

/// Of the database's pods: the shop asks them, and the boss looks after them.
const TO_DB: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: http}]
  - from: [{namespaceSelector: {matchLabels: {team: office}}, podSelector: {matchExpressions: [{key: role, operator: In, values: [boss]}]}}]
    ports: [{port: admin}]
"#;

/// Everybody but one address.
const BY_ADDRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: by-address, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{ipBlock: {cidr: 0.0.0.0/0, except: [BOSS/32]}}]
    ports: [{port: 8080}]
"#;

/// What the guest may ask for.
const OF_GUEST: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: of-guest, namespace: office}
spec:
  podSelector: {matchLabels: {role: guest}}
  policyTypes: [Egress]
  egress: [RULE]
"#;
const DB_BY_NAME: &str = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}";
const ALL_BUT_DB: &str = "{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [DB/32]}}]}";

/// Namespace, name and labels of each pod.
const PODS: [(&str, &str, &str); 4] = [
    ("shop", "db", "app: db"),
    ("shop", "web", "app: web"),
    ("office", "boss", "role: boss"),
    ("office", "guest", "role: guest"),
];

fn of(name: &str) -> (&'static str, &'static str, &'static str) {
    *PODS.iter().find(|pod| pod.1 == name).unwrap()
}

/// A pod with a server at two named ports, on a machine.
fn start(node: &Node, name: &str, machine: &str) {
    let (namespace, _, labels) = of(name);
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec:
  nodeName: {machine}
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: "busybox:1"
    command: [sh, -c, "mkdir /s && echo {name} > /s/index.html && httpd -p 9090 -h /s && exec httpd -f -p 8080 -h /s"]
    ports: [{{name: http, containerPort: 8080}}, {{name: admin, containerPort: 9090}}]
"#
    );
    node.apply(&manifest).unwrap();
}

fn all_run(node: &Node) {
    for (namespace, name, _) in PODS {
        let pod = format!("pod/{name}");
        node.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &pod, "--timeout=60s"]).unwrap();
    }
}

fn address(node: &Node, name: &str) -> String {
    node.kubectl(&["get", "pod", name, "-n", of(name).0, "-o", "jsonpath={.status.podIP}"]).unwrap()
}

/// Who reaches what now, as `FROM>WHAT`: each of the three asks the database at both its ports and by its Service, and the shop.
fn seen(node: &Node) -> Result<BTreeSet<String>, String> {
    let service = node.kubectl(&["get", "service", "db", "-n", "shop", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let (db, web) = (address(node, "db"), address(node, "web"));
    let targets = [
        ("http", format!("{db}:8080")),
        ("admin", format!("{db}:9090")),
        ("service", service),
        ("web", format!("{web}:8080")),
    ];
    let one = |(name, at): &(&str, String)| {
        format!("(timeout 1 wget -q -O /dev/null http://{at}/ 2> /dev/null && echo {name}) & ")
    };
    let script = targets.iter().map(one).collect::<String>() + "wait";
    let asks = |from: &'static str| {
        let told = node.kubectl(&["exec", "-n", of(from).0, from, "--", "sh", "-c", &script]);
        let told = told.map_err(|error| error.to_string())?;
        Ok(told.lines().map(|what| format!("{from}>{what}")).collect::<Vec<_>>())
    };
    std::thread::scope(|scope| {
        let all = ["web", "boss", "guest"].map(|from| scope.spawn(move || asks(from)));
        let all: Result<Vec<_>, String> = all.into_iter().map(|asked| asked.join().unwrap()).collect();
        Ok(all?.into_iter().flatten().collect())
    })
}

/// Waits until this is who reaches what, no more and no less.
fn reached(node: &Node, when: &str, expected: &str) {
    let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
    until(&format!("{when}: {expected:?}"), LIMIT, || match seen(node)? {
        seen if seen == expected => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .unwrap();
}

#[test]
fn policies_hold_for_packets() {
    policies_hold_for_packets_with(1);
}

#[test]
fn policies_hold_for_packets_on_three_machines() {
    policies_hold_for_packets_with(3);
}

fn policies_hold_for_packets_with(machines: usize) {
    let mut stage = Stage::new("poli").unwrap();
    let (node, agents) = stage.machines(machines, &Image::Busybox.layout().unwrap()).unwrap();
    let names: Vec<&str> = std::iter::once(&node).chain(&agents).map(|machine| machine.setup.name.as_str()).collect();
    let (first, next, last) = (names[0], names[1 % machines], names[machines - 1]);
    node.apply(PLACES).unwrap();
    for (name, machine) in [("db", first), ("web", last), ("boss", next), ("guest", last)] {
        start(&node, name, machine);
    }
    all_run(&node);
    let everything = "web>http web>admin web>service web>web boss>http boss>admin boss>service boss>web guest>http guest>admin guest>service guest>web";
    reached(&node, "without policies", everything);

    let shop = "web>http web>service web>web boss>admin boss>web";
    node.apply(TO_DB).unwrap();
    reached(&node, "by namespace, pod and named port", &format!("{shop} guest>web"));
    node.apply(&BY_ADDRESS.replace("BOSS", &address(&node, "boss"))).unwrap();
    reached(&node, "by address but one", &format!("{shop} guest>http guest>service guest>web"));
    node.apply(&OF_GUEST.replace("RULE", DB_BY_NAME)).unwrap();
    reached(&node, "what the guest asks for, by name", &format!("{shop} guest>http guest>service"));
    node.apply(&OF_GUEST.replace("RULE", &ALL_BUT_DB.replace("DB", &address(&node, "db")))).unwrap();
    reached(&node, "what the guest asks for, by address", &format!("{shop} guest>web"));

    // Who asks and who is asked move to other machines, and the same is said of them by what they are.
    node.kubectl(&["delete", "networkpolicy/by-address", "-n", "shop"]).unwrap();
    for (name, machine) in [("db", last), ("boss", first)] {
        node.kubectl(&["delete", "pod", name, "-n", of(name).0, "--timeout=60s"]).unwrap();
        start(&node, name, machine);
    }
    all_run(&node);
    node.apply(&OF_GUEST.replace("RULE", &ALL_BUT_DB.replace("DB", &address(&node, "db")))).unwrap();
    reached(&node, "after a move", &format!("{shop} guest>web"));
    node.kubectl(&["delete", "networkpolicy/of-guest", "-n", "office"]).unwrap();
    node.kubectl(&["delete", "networkpolicy/to-db", "-n", "shop"]).unwrap();
    reached(&node, "without policies again", everything);
}
