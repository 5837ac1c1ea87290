//! Several machines of one owner are one node: they join by a string, run its pods, and outlive its server.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD as BASE64, BASE64_URL_SAFE_NO_PAD as BASE64URL};
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup, agent_binary, binary};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// A machine is given up 40 s after its last word.
const GIVEN_UP: Duration = Duration::from_secs(120);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - name: c
        image: busybox:1
        imagePullPolicy: Never
        command: [sh, -c, "mkdir /site && echo $NODE > /site/index.html && echo here is $NODE && exec httpd -f -v -p 8080 -h /site"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: east
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1", imagePullPolicy: Never, command: [sleep, "36000"]}]
"#;

fn invite(node: &Node, more: &[&str]) -> Result<String, String> {
    let output = node.setup.fluidos(&[&["invite", "--agent"], more].concat()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout).trim_end().to_owned()) } else { Err(text(output.stderr)) }
}

/// An invitation with something else in it.
fn altered(invitation: &str, field: &str, value: &str) -> String {
    let (prefix, rest) = invitation.split_once('.').unwrap();
    let mut all: Value = serde_json::from_slice(&BASE64URL.decode(rest).unwrap()).unwrap();
    all[field] = value.into();
    format!("{prefix}.{}", BASE64URL.encode(all.to_string()))
}

/// What a machine says that cannot join.
fn refused(setup: &Setup, invitation: &str, name: &str) -> String {
    let output = setup.fluidos(&["join", invitation, "--name", name]).unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains(&invitation[20..60]), "the invitation is told: {told}");
    told
}

/// Each running pod of the Deployment: name, node, address, restarts.
fn pods(node: &Node) -> Vec<[String; 4]> {
    let all = node.get(&["pods", "-l", "app=web"]).unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let running = all["items"].as_array().unwrap().iter().filter(|pod| {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        pod["metadata"]["deletionTimestamp"].is_null()
            && pod["status"]["conditions"].as_array().into_iter().flatten().any(ready)
    });
    let row = |pod: &Value| {
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        [&pod["metadata"]["name"], &pod["spec"]["nodeName"], &pod["status"]["podIP"], restarts].map(text)
    };
    running.map(row).collect()
}

fn nodes_of(pods: &[[String; 4]]) -> BTreeSet<&str> {
    pods.iter().map(|pod| pod[1].as_str()).collect()
}

/// The processes of this program in the containers of a machine.
fn pids(setup: &Setup, program: &str) -> BTreeSet<u32> {
    let mut all = setup.machine.as_ref().unwrap().processes().unwrap();
    all.retain(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(program))
    });
    all
}

/// Asks until each of these nodes has answered.
fn answered_by(what: &str, expected: &[&str], ask: impl Fn() -> anyhow::Result<String>) {
    let mut seen = BTreeSet::new();
    until(what, LIMIT, || {
        seen.insert(ask().map_err(|error| format!("{error:#}; so far {seen:?}"))?.trim().to_owned());
        if expected.iter().all(|one| seen.contains(*one)) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .unwrap();
    assert!(seen.iter().all(|one| expected.contains(&one.as_str())), "{what}: {seen:?}");
}

fn ready(node: &Node, name: &str, expected: &str) {
    until(&format!("{name} is Ready={expected}"), GIVEN_UP, || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let seen = node.kubectl(&["get", "node", name, "-o", path]).map_err(|error| error.to_string())?;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .unwrap();
}

#[test]
fn machines_join_and_are_one_node() {
    let mut stage = Stage::new("agnt").unwrap();
    let farm = stage.start("farm", &["--no-mdns", "--api", "0.0.0.0:6443"]).unwrap();
    let invitation = invite(&farm, &[]).unwrap();
    assert!(invitation.starts_with("fluidos-agent-1.") && invitation.lines().count() == 1);
    let east = stage.setup("east", &[]).unwrap();
    // A smaller machine has the smaller program.
    stage.play(&agent_binary());
    let west = stage.setup("west", &[]).unwrap();
    stage.play(&binary());
    let east = east.join(Some(&invitation)).unwrap();
    let west = west.join(Some(&invitation)).unwrap();
    for setup in [&farm.setup, &east.setup, &west.setup] {
        setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    }
    who_cannot_join(&mut stage, &farm, &invitation);
    farm.apply(WEB).unwrap();
    let all = ["east", "farm", "west"];
    until("a pod on each machine", LIMIT, || {
        let pods = pods(&farm);
        if nodes_of(&pods).into_iter().eq(all) { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).unwrap();

    // From a pod on an agent, by its machine's own DNS and Services; and from outside, at any machine.
    let from_client = |what: &str| farm.kubectl(&["exec", "client", "--", "wget", "-q", "-O", "-", what]);
    answered_by("the Service from a pod", &all, || from_client("http://web.default.svc.cluster.local"));
    for machine in [&east.setup, &west.setup, &farm.setup].map(|setup| setup.machine.as_ref().unwrap().address) {
        answered_by("a node port", &all, || farm.fetch(&format!("{machine}:30080")));
    }
    let east_address = east.setup.machine.as_ref().unwrap().address;
    for _ in 0..6 {
        assert_eq!(
            farm.fetch(&format!("{east_address}:30081")).unwrap().trim(),
            "east",
            "what is Local stays on its machine"
        );
    }
    farm.kubectl(&["exec", "client", "--", "sh", "-c", "echo | nc kubernetes.default 443"]).unwrap();
    // A pod is known to another machine by its own address.
    let of = |pods: &[[String; 4]], node: &str| pods.iter().find(|pod| pod[1] == node).unwrap().clone();
    let [west_pod, _, west_address, _] = of(&pods(&farm), "west");
    from_client(&format!("http://{west_address}:8080")).unwrap();
    let client = farm.kubectl(&["get", "pod", "client", "-o", "jsonpath={.status.podIP}"]).unwrap();
    until("the log tells who asked", LIMIT, || {
        let log = farm.kubectl(&["logs", &west_pod]).map_err(|error| error.to_string())?;
        if log.starts_with("here is west\n") && log.contains(&client) { Ok(()) } else { Err(log) }
    })
    .unwrap();
    let forward = farm.forward(&format!("pod/{west_pod}"), 8080).unwrap();
    assert_eq!(farm.fetch(&forward.address).unwrap().trim(), "west", "{}", forward.complaints());
    drop(forward);
    let output = farm.kubectl_with(&["exec", "-i", &west_pod, "--", "sh", "-c", "cat; exit 7"], "through").unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"through"[..], Some(7)));
    let summary = farm.kubectl(&["get", "--raw", "/api/v1/nodes/west/proxy/stats/summary"]).unwrap();
    assert!(summary.contains(&west_pod), "{summary}");

    let (farm, east) = the_server_is_away(farm, east, &west, &west_address);
    a_machine_is_lost(&farm, &west, &west_pod);
    leave(&farm, east, &invitation, &stage.setup("late", &[]).unwrap());
}

fn who_cannot_join(stage: &mut Stage, farm: &Node, invitation: &str) {
    let late = stage.setup("none", &[]).unwrap();
    let told = refused(&late, invitation, "east");
    assert!(told.contains("there is a node \"east\" already") && told.contains("kubectl delete node east"), "{told}");
    let told = refused(&late, &altered(invitation, "expires", "2026-01-01T00:00:00Z"), "late");
    assert!(told.contains("was good until 2026-01-01T00:00:00Z"), "{told}");
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let told = refused(&late, &altered(invitation, "authority", &other.pem()), "late");
    assert!(told.contains("does not prove to be the API of the invitation"), "{told}");
    let told = refused(&late, &altered(invitation, "token", "x.y.z"), "late");
    assert!(told.contains("does not take the invitation (any more)"), "{told}");
    let told = refused(&late, &altered(invitation, "server", "https://192.168.77.1:1"), "late");
    assert!(told.contains("cannot be reached"), "{told}");
    assert_eq!(farm.kubectl(&["get", "nodes", "-o", "name"]).unwrap().lines().count(), 3, "nobody has joined by that");
}

/// The server is killed, an agent with it and started again meanwhile: containers run on, and everything goes on.
fn the_server_is_away(farm: Node, east: Node, west: &Node, west_pod: &str) -> (Node, Node) {
    let before = [&east.setup, &west.setup].map(|setup| pids(setup, "httpd"));
    assert!(before.iter().all(|pids| pids.len() == 1), "{before:?}");
    let farm = farm.kill();
    let east = east.kill();
    let fetched = west.fetch(&format!("{west_pod}:8080")).unwrap();
    assert_eq!(fetched.trim(), "west");
    almost_over(&farm, &east);
    let again = {
        let east = east.clone();
        std::thread::spawn(move || east.join(None))
    };
    // It goes on with what it knows before there is anybody to ask.
    until("the agent says that the server is away", LIMIT, || {
        let log = std::fs::read_to_string(east.directory.with_extension("log")).unwrap();
        if log.contains("is away") { Ok(()) } else { Err(log) }
    })
    .unwrap();
    assert_eq!([&east, &west.setup].map(|setup| pids(setup, "httpd")), before);
    let farm = farm.start().unwrap();
    let east = again.join().unwrap().unwrap();
    for name in ["east", "west"] {
        ready(&farm, name, "True");
    }
    answered_by("the Service again", &["east", "farm", "west"], || {
        farm.kubectl(&["exec", "client", "--", "wget", "-q", "-O", "-", "http://web"])
    });
    assert_eq!([&east.setup, &west.setup].map(|setup| pids(setup, "httpd")), before, "none was restarted");
    until("its certificate is renewed", LIMIT, || {
        let all = farm.get(&["csr"]).map_err(|error| error.to_string())?;
        let own =
            |csr: &&Value| csr["spec"]["username"] == "system:node:east" && csr["status"]["certificate"].is_string();
        let renewed = all["items"].as_array().unwrap().iter().find(own).cloned().ok_or("none")?;
        let pem = std::fs::read_to_string(east.setup.directory.join("agent/client.pem"))
            .map_err(|error| error.to_string())?;
        let issued = BASE64.decode(renewed["status"]["certificate"].as_str().unwrap()).unwrap();
        if pem.as_bytes().starts_with(&issued) { Ok(()) } else { Err("it is not used".into()) }
    })
    .unwrap();
    farm.kubectl(&["logs", "client"]).unwrap();
    assert!(pods(&farm).iter().all(|pod| pod[3] == "0"), "{:?}", pods(&farm));
    (farm, east)
}

/// Gives an agent a certificate that is good for two more days of a year.
fn almost_over(farm: &Setup, agent: &Setup) {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "kubernetes");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name = name;
    let key = std::fs::read_to_string(farm.directory.join("pki/ca.key")).unwrap();
    let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::from_pem(&key).unwrap());
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{}", agent.name));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let day = |ahead: i32| {
        let at = jiff::Zoned::now().date().saturating_add(jiff::Span::new().days(ahead));
        rcgen::date_time_ymd(at.year().into(), at.month() as u8, at.day() as u8)
    };
    (params.not_before, params.not_after) = (day(-363), day(2));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    std::fs::write(agent.directory.join("agent/client.pem"), format!("{certificate}\n{}", key.serialize_pem()))
        .unwrap();
}

/// A machine loses its cable: its pods come up elsewhere, and when it is back it has none of them any more.
fn a_machine_is_lost(farm: &Node, west: &Node, west_pod: &str) {
    west.setup.machine.as_ref().unwrap().plug(false).unwrap();
    ready(farm, "west", "Unknown");
    until("its pods come up elsewhere", GIVEN_UP, || {
        let pods = pods(farm);
        if pods.len() == 3 && !nodes_of(&pods).contains("west") { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .unwrap();
    until("who looks inside is told which machine is away", LIMIT, || {
        let told = farm.kubectl(&["logs", west_pod]).map_err(|error| error.to_string()).err().unwrap_or_default();
        if told.contains("node \"west\"") || told.contains("not found") { Ok(()) } else { Err(told) }
    })
    .unwrap();
    west.setup.machine.as_ref().unwrap().plug(true).unwrap();
    ready(farm, "west", "True");
    until("what was moved away is not run twice", LIMIT, || {
        let left = pids(&west.setup, "httpd");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
}

/// A machine is emptied and leaves; its invitation is taken back.
fn leave(farm: &Node, east: Node, invitation: &str, late: &Setup) {
    farm.kubectl(&["drain", "east", "--ignore-daemonsets", "--force", "--timeout=60s"]).unwrap();
    until("its pods are elsewhere", LIMIT, || {
        let pods = pods(farm);
        if pods.len() == 3 && !nodes_of(&pods).contains("east") { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .unwrap();
    let setup = east.terminate().unwrap();
    let told = refused(&setup, invitation, "east");
    assert!(told.contains("has joined https://192.168.77.1:6443 as east already"), "{told}");
    let told = setup.reset().unwrap();
    assert!(told.contains("kubectl delete node east"), "{told}");
    let machine = setup.machine.as_ref().unwrap();
    assert!(machine.instances().unwrap().is_empty() && !setup.directory.join("agent").exists());
    farm.kubectl(&["delete", "node", "east"]).unwrap();
    farm.kubectl(&["delete", "serviceaccount", "node-bootstrapper", "-n", "kube-system"]).unwrap();
    let told = refused(late, invitation, "late");
    assert!(told.contains("does not take the invitation (any more)"), "{told}");
}

#[test]
fn one_machine_without_privileges_for_the_server() {
    const NOBODY: u32 = 65534;
    let mut stage = Stage::new("agn1").unwrap();
    let mut farm = stage.setup("farm", &["--no-mdns", "--no-agent"]).unwrap();
    let program = stage.directory().join("as-nobody");
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} \"$@\"\n",
        farm.program.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(&farm.directory).unwrap();
    std::fs::set_permissions(&farm.directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(&farm.directory, Some(NOBODY), Some(NOBODY)).unwrap();
    let plain = std::mem::replace(&mut farm.program, program);
    let mut farm = farm.start().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", farm.pid())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    farm.setup.program = plain;

    let told = invite(&farm, &[]).unwrap_err();
    assert!(told.contains("listens on this machine alone") && told.contains("--api 0.0.0.0:6443"), "{told}");
    let told = invite(&farm, &["--ttl", "1m"]).unwrap_err();
    assert!(told.contains("ten minutes at least"), "{told}");
    let json = invite(&farm, &["--api-server", "https://127.0.0.1:6443", "-o", "json", "--ttl", "10m"]).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["server"], "https://127.0.0.1:6443");

    let mut agent = stage.setup("shed", &[]).unwrap();
    agent.machine.clone_from(&farm.setup.machine);
    agent.name = "farm".into();
    let agent = agent.join(json["invitation"].as_str()).unwrap();
    agent.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "hello" }, "spec": { "restartPolicy": "Never",
        "containers": [{ "name": "c", "image": "busybox:1", "imagePullPolicy": "Never", "command": ["echo", "hello"] }] } });
    farm.apply(&pod.to_string()).unwrap();
    farm.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/hello", "--timeout=60s"]).unwrap();
    assert_eq!(farm.kubectl(&["logs", "hello"]).unwrap(), "hello\n");
    let address = farm.kubectl(&["get", "node", "farm", "-o", "jsonpath={.status.addresses[0].address}"]).unwrap();
    assert_eq!(address, "192.168.77.1", "how others reach this machine, not 127.0.0.1");
    let agent = agent.terminate().unwrap();
    agent.reset().unwrap();
}
