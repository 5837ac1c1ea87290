//! What is no CPU and no memory: a seller's machine has two devices, and a pod that asks for one runs there.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const DEVICE: &str = "example.com/fpga";

fn app(name: &str, devices: u32, intent: (&str, &str)) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {{fluidos-intent-{}: "{}"}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sleep, "3600"]
    resources: {{limits: {{cpu: 100m, memory: 32Mi, {DEVICE}: "{devices}"}}}}
"#,
        intent.0, intent.1
    )
}

/// How many devices the seller's flavor says that it has.
fn offered(node: &Node) -> Result<String, String> {
    let flavors = node.get(&["flavors", "-n", "fluidos"]).map_err(|e| e.to_string())?;
    let said = &flavors["items"][0]["spec"]["flavorType"]["typeData"]["characteristics"];
    if said["cpu"].is_null() { Err(flavors.to_string()) } else { Ok(said["extendedResources"][DEVICE].to_string()) }
}

fn phase(node: &Node, pod: &str) -> Result<Value, String> {
    node.get(&["pod", pod]).map(|pod| pod["status"].clone()).map_err(|e| e.to_string())
}

#[test]
fn a_pod_that_asks_for_a_device_runs_where_one_is_sold_and_no_more_are_sold_than_there_are() {
    let mut stage = Stage::new("devs").unwrap();
    let offer = format!("cpu=1,memory=1Gi,pods=5,{DEVICE}=2");
    let grid =
        stage.start("grid", &["--domain", "grid.example", "--location", "city=Milan", "--offer", &offer]).unwrap();
    let farm = stage.start("farm", &["--domain", "farm.example", "--trust", "lan"]).unwrap();
    farm.setup.load(&Image::Busybox.layout().unwrap()).unwrap();

    // The owner's word is not enough: no machine has one.
    let is = |expected: &str| {
        let expected = expected.to_owned();
        move |node: &Node| offered(node).and_then(|n| if n == expected { Ok(()) } else { Err(n) })
    };
    until("nothing that is not there is offered", LIMIT, || is("null")(&grid)).unwrap();
    let patch = format!(r#"{{"status":{{"capacity":{{"{DEVICE}":"3"}}}}}}"#);
    let machine = grid.get(&["nodes"]).unwrap()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    grid.kubectl(&["patch", "node", &machine, "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
    until("what the machine has is offered, as far as the owner sells it", LIMIT, || is(r#""2""#)(&grid)).unwrap();

    // What is special about it, its owner says in the flavor.
    let special = r#"{"spec":{"flavorType":{"typeData":{"properties":{"additionalProperties":
        {"TEE":"sev-snp","additional-hardware":["tpm"]}}}}}}"#;
    let flavor = grid.get(&["flavors", "-n", "fluidos"]).unwrap()["items"][0]["metadata"]["name"].clone();
    grid.kubectl(&["patch", "flavor", flavor.as_str().unwrap(), "-n", "fluidos", "--type=merge", "-p", special])
        .unwrap();

    farm.apply(&app("one", 1, ("hardware", "TPM"))).unwrap();
    until("the pod runs at the peer", LIMIT, || {
        let status = phase(&farm, "one")?;
        if status["phase"] == "Running" { Ok(()) } else { Err(status.to_string()) }
    })
    .unwrap();
    let nodes = farm.get(&["nodes", "-l", "fluidos.eu/virtual-node=true"]).unwrap();
    assert_eq!(nodes["items"][0]["status"]["allocatable"][DEVICE], "1", "{nodes:#}");
    let said = nodes["items"][0]["metadata"]["annotations"]["fluidos.eu/features"].as_str().unwrap_or_default();
    assert_eq!(said, r#"{"tee":"sev-snp","hardware":["tpm"]}"#, "{nodes:#}");
    let twins = grid.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"]).unwrap();
    let limits = &twins["items"][0]["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits[DEVICE], "1", "{twins:#}");
    until("one less is offered", LIMIT, || is(r#""1""#)(&grid)).unwrap();
    let shown = String::from_utf8(grid.setup.fluidos(&["flavors"]).unwrap().stdout).unwrap();
    assert!(shown.contains("DEVICES") && shown.contains("example.com/fpga 1"), "{shown}");
    let contracts = String::from_utf8(farm.setup.fluidos(&["contracts"]).unwrap().stdout).unwrap();
    assert!(contracts.contains("example.com/fpga 1"), "{contracts}");

    // Two are not left.
    farm.apply(&app("two", 2, ("location", "Milan"))).unwrap();
    until("it waits, and says for what", LIMIT, || {
        let status = phase(&farm, "two")?.to_string();
        let says = status.contains("example.com/fpga: 1 offered, needed at least 2");
        if says { Ok(()) } else { Err(status) }
    })
    .unwrap();
    // The owner's own pod takes one of three: still one can be sold. Another takes the last.
    grid.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    grid.apply(&app("own", 2, ("location", "Milan"))).unwrap();
    until("what the owner uses is not offered", LIMIT, || is("null")(&grid)).unwrap();
}
