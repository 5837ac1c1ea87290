//! The README's way for two machines: copy the tar, `up`, `up --peer`, `kubectl apply`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

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

/// What `cargo xtask dist` packed; `cargo xtask test` packs it first.
fn tar() -> PathBuf {
    let dist = fluidos_e2e::root().join("target/dist");
    let found = std::fs::read_dir(&dist)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.to_string_lossy().ends_with(".tar.gz"));
    found.unwrap_or_else(|| panic!("{} has no tar; run: cargo xtask dist --debug", dist.display()))
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
    assert_eq!(node, "grid");
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
    assert_eq!(twin["spec"]["automountServiceAccountToken"], false);
    assert_eq!(twin["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"], false);
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
    farm.kubectl(&["delete", "deploy", "hello", "--timeout=60s"]).unwrap();
    until("the virtual node is gone", Duration::from_secs(60), || {
        let nodes = farm.kubectl(&["get", "nodes", "-o", "name"]).map_err(|e| e.to_string())?;
        if nodes.trim() == "node/farm" { Ok(()) } else { Err(nodes) }
    })
    .unwrap();
}
