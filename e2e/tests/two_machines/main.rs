//! The README's way for two machines: copy the tar, `up`, `up --peer`, `kubectl apply`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod plugin;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::terminal::Terminal;
use fluidos_e2e::wait::until;

use self::plugin::Plugin;

const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
  annotations: {fluidos-intent-location: Milan}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: busybox:1
        command: [sh, -c, "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
        resources: {requests: {cpu: 100m, memory: 32Mi}}
"#;

/// A pod of farm's own, which may not leave.
const LOCAL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: local}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: local
    image: busybox:1
    command: [sh, -c, "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
"#;

/// What `cargo xtask dist` packed; `cargo xtask test` packs it first.
fn tar() -> PathBuf {
    let dist = fluidos_e2e::root().join("target/dist");
    let found = std::fs::read_dir(&dist)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.to_string_lossy().ends_with(".tar.gz"));
    found.unwrap_or_else(|| {
        panic!("{} has no tar; run: cargo xtask dist --program target/debug/fluidos", dist.display())
    })
}

#[test]
fn from_the_tar_to_a_pod_at_the_neighbour() {
    let mut stage = Stage::new("two").unwrap();
    let unpacked = |name: &str| {
        let to = stage.directory().join(format!("copy-{name}"));
        std::fs::create_dir_all(&to).unwrap();
        run("tar", &["-xzf", &tar().display().to_string(), "--strip-components=1", "-C", &to.display().to_string()])
            .unwrap();
        for file in ["fluidos.service", "completions/fluidos.bash", "shop.yaml", "LICENSE"] {
            assert!(to.join(file).exists(), "{file} is not in the tar");
        }
        to.join("fluidos")
    };
    let (at_grid, at_farm) = (unpacked("grid"), unpacked("farm"));
    let begun = Instant::now();
    let mut grid = stage
        .setup(
            "grid",
            &[
                "--no-mdns",
                "--domain",
                "grid.example",
                "--location",
                "city=Milan",
                "--offer",
                "cpu=1,memory=1Gi,pods=5",
            ],
        )
        .unwrap();
    grid.program = at_grid;
    let address = format!("{}:7300", grid.machine.as_ref().unwrap().address);
    let mut farm = stage.setup("farm", &["--no-mdns", "--domain", "farm.example", "--peer", &address]).unwrap();
    farm.program = at_farm;
    let grid = grid.start().unwrap();
    let farm = farm.start().unwrap();
    farm.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    farm.apply(APP).unwrap();
    farm.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"]).unwrap();
    eprintln!("from `up` to a pod at the neighbour: {:.1} s", begun.elapsed().as_secs_f64());
    let node = farm.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}"]).unwrap();
    assert_eq!(node, "grid", "only grid is in Milan");
    // The node has exactly what the contract says.
    let bought =
        farm.get(&["contracts", "-n", "fluidos"]).unwrap()["items"][0]["spec"]["configuration"]["data"].clone();
    let allocatable = farm.get(&["node", "grid"]).unwrap()["status"]["allocatable"].clone();
    for resource in ["cpu", "memory", "pods"] {
        assert_eq!(allocatable[resource], bought[resource], "{resource}");
    }
    // Seen from the provider: a confined twin, and nothing of its own is reached from it.
    let twins = grid.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"]).unwrap();
    let twin = &twins["items"][0];
    assert_eq!(twin["spec"]["automountServiceAccountToken"], false, "a twin gets no token of its provider: {twin}");
    let escalation = &twin["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"];
    assert_eq!(escalation, false, "what a twin leaves unset, its provider sets: {twin}");
    let enter = |command: &str| farm.kubectl_with(&["exec", "deploy/hello", "--", "sh", "-c", command], "").unwrap();
    let lan = grid.setup.machine.as_ref().unwrap().address;
    for forbidden in [format!("{lan} 7300"), format!("{lan} 6443"), "100.100.100.100 80".to_owned()] {
        let reached = enter(&format!("nc -w 2 {forbidden} </dev/null"));
        assert!(!reached.status.success(), "a guest reaches {forbidden} of its provider");
    }
    let why = farm.setup.fluidos(&["why", "deploy/hello"]).unwrap();
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        why.contains("is on grid") && why.contains("satisfies every intent") && why.contains("that node is contract"),
        "{why}"
    );
    farm.apply(LOCAL).unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/local", "--timeout=60s"]).unwrap();
    let twin = farm.kubectl(&["get", "pods", "-l", "app=hello", "-o", "name"]).unwrap();
    for pod in [twin.trim(), "pod/local"] {
        a_person_works_in(&farm, pod);
        a_port_is_forwarded(&farm, pod);
    }
    let plugin = Plugin::new(&farm, &stage.directory().join("plugins"));
    plugin.lists_what_there_is();
    plugin.says_why();
    plugin.needs_no_kubeconfig();
    plugin.leaves_the_machine_alone();
    farm.kubectl(&["delete", "deploy/hello", "pod/local", "--timeout=60s"]).unwrap();
    until("the virtual node is gone", Duration::from_secs(60), || {
        let nodes = farm.kubectl(&["get", "nodes", "-o", "name"]).map_err(|e| e.to_string())?;
        if nodes.trim() == "node/farm" { Ok(()) } else { Err(nodes) }
    })
    .unwrap();
}

/// `kubectl exec -it` from a real terminal: there is one inside, of the same size; what is typed arrives, and is shown once.
fn a_person_works_in(farm: &Node, pod: &str) {
    let command = farm.setup.kubectl_command(&["exec", "-it", pod, "--", "sh"]);
    let mut terminal = Terminal::open(&command, 33, 101).unwrap();
    terminal.types("tty; stty size").unwrap();
    terminal.shows("/dev/pts/").unwrap();
    terminal.shows("33 101").unwrap();
    terminal.types("echo $((40+2)) in $(hostname)").unwrap();
    let name = pod.trim_start_matches("pod/");
    let screen = terminal.shows(&format!("42 in {name}")).unwrap();
    let typed = screen.matches("echo $((40+2))").count();
    assert_eq!(typed, 1, "{pod}: the terminal inside shows what is typed, once: {screen:?}");
    // The window is pulled larger; the size follows on a way of its own, so it is asked for until it is there.
    terminal.resize(50, 140).unwrap();
    terminal.types("until stty size | grep '50 140'; do usleep 20000; done; echo pulled to $((50+0))").unwrap();
    terminal.shows("pulled to 50").unwrap();
    // Ctrl-C ends what runs there, not the session.
    terminal.types("echo begun; sleep 600").unwrap();
    terminal.shows("\nbegun").unwrap();
    terminal.press("\u{3}").unwrap();
    terminal.types("echo still $((40+3))").unwrap();
    terminal.shows("still 43").unwrap();
    terminal.types("exit 7").unwrap();
    assert_eq!(terminal.ends().unwrap(), Some(7), "{pod}: the exit code of the shell inside");
}

/// `kubectl port-forward`: the program in the pod answers, to several requests one after the other.
fn a_port_is_forwarded(farm: &Node, pod: &str) {
    let forward = farm.forward(pod, 8080).unwrap();
    for request in 1..=3 {
        let page = farm.fetch(&forward.address).unwrap();
        assert_eq!(page.trim(), pod.trim_start_matches("pod/"), "request {request} through {forward:?}");
    }
    let closed = farm.forward(pod, 9).unwrap();
    let refused = farm.fetch(&closed.address);
    assert!(refused.is_err(), "{pod}: nobody listens at port 9, and there came {refused:?}");
    until("kubectl says why", Duration::from_secs(30), || {
        let said = closed.complaints();
        if said.contains("Connection refused") { Ok(()) } else { Err(format!("{pod}: {said:?}")) }
    })
    .unwrap();
}
