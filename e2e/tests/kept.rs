//! What is sold is kept: an owner's own pod does not take what a buyer has paid for and does not use yet.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::market::solver;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn pod(name: &str, annotations: &str, cpu_milli: u64) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sleep, "3600"]
    resources: {{requests: {{cpu: {cpu_milli}m, memory: 16Mi}}}}
"#
    )
}

fn status(node: &Node, pod: &str) -> Result<Value, String> {
    node.get(&["pod", pod]).map(|pod| pod["status"].clone()).map_err(|e| e.to_string())
}

fn runs(node: &Node, pod: &str) {
    until(&format!("{pod} runs"), LIMIT, || {
        let status = status(node, pod)?;
        if status["phase"] == "Running" { Ok(()) } else { Err(status.to_string()) }
    })
    .unwrap();
}

#[test]
fn an_own_pod_waits_for_what_is_sold_and_not_used_until_the_contract_ends() {
    let mut stage = Stage::new("kept").unwrap();
    let offer = ["--domain", "grid.example", "--location", "city=Milan", "--offer", "cpu=1,memory=256Mi,pods=5"];
    let grid = stage.start("grid", &offer).unwrap();
    let farm = stage.start("farm", &["--no-agent", "--domain", "farm.example", "--trust", "lan"]).unwrap();
    grid.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    until("the offer is published", LIMIT, || {
        let flavors = grid.get(&["flavors", "-n", "fluidos"]).map_err(|e| e.to_string())?;
        if flavors["items"].as_array().is_some_and(|all| !all.is_empty()) { Ok(()) } else { Err("none".into()) }
    })
    .unwrap();
    farm.apply(&solver("kept", "1").replace("establishPeering: false", "establishPeering: true")).unwrap();
    until("it is bought", LIMIT, || {
        let phase = farm.get(&["solver", "kept", "-n", "fluidos"]).map_err(|e| e.to_string())?["status"].clone();
        if phase["solverPhase"]["phase"] == "Solved" { Ok(()) } else { Err(phase.to_string()) }
    })
    .unwrap();
    let contract = grid.get(&["contracts", "-n", "fluidos"]).unwrap()["items"][0]["metadata"]["name"].clone();
    let contract = contract.as_str().unwrap().to_owned();

    // Half a CPU more than is free beside what is sold: it would fit if nothing were kept.
    let machine = grid.get(&["nodes"]).unwrap()["items"][0]["status"]["allocatable"]["cpu"].clone();
    let all: u64 = machine.as_str().unwrap().parse::<u64>().unwrap() * 1000;
    grid.apply(&pod("own", "", all - 500)).unwrap();
    let needed = format!("needed {}m, 1 kept for 1 guarantee(s): {contract}", all - 500);
    until("it waits, and says for whom what is kept", LIMIT, || {
        let status = status(&grid, "own")?.to_string();
        if status.contains(&needed) { Ok(()) } else { Err(status) }
    })
    .unwrap();
    // What may leave is not sent where it would wait; there is nobody to buy from.
    grid.apply(&pod("leaves", r#"fluidos-intent-location: "Milan""#, all - 500)).unwrap();
    let needed = "that is kept for 1 contract(s) or hold(s) of buyers";
    until("it waits at the gate", LIMIT, || {
        let status = status(&grid, "leaves")?.to_string();
        if status.contains(needed) { Ok(()) } else { Err(status) }
    })
    .unwrap();
    grid.kubectl(&["delete", "pod", "leaves"]).unwrap();

    farm.apply(&pod("guest", r#"fluidos-intent-location: "Milan""#, 1000)).unwrap();
    // Without machines of its own the buyer has no image to give; that it has its place is what is asked here.
    until("all that was bought is there for who bought it", LIMIT, || {
        let twins = grid.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"]).map_err(|e| e.to_string())?;
        let twin = &twins["items"][0];
        if twin["spec"]["nodeName"].is_string() { Ok(()) } else { Err(twins.to_string()) }
    })
    .unwrap();
    assert_eq!(status(&grid, "own").unwrap()["phase"], "Pending");
    farm.kubectl(&["delete", "pod", "guest"]).unwrap();
    grid.setup.fluidos(&["contracts", "terminate", &contract, "--reason", "enough"]).unwrap();
    runs(&grid, "own");
}
