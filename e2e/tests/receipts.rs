//! A pod runs at a peer at a price: both hold the same receipt and the same invoice, and it is paid.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A cent a second.
const POLICIES: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: SharingPolicy
metadata: {name: standard, namespace: fluidos}
spec:
  price: {amount: "36", currency: EUR, period: hour}
"#;

const CEILINGS: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: AcquisitionPolicy
metadata: {name: default, namespace: fluidos}
spec:
  ceilings:
  - {currency: EUR, perHour: "100", perMonth: "100000"}
"#;

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
        command: [sh, -c, "dd if=/dev/zero of=/tmp/index.html bs=1024 count=2000; httpd -p 8080 -h /tmp; while :; do :; done"]
        resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}
"#;

/// What the program prints, on both outputs, and whether it succeeded.
fn told(setup: &Setup, arguments: &[&str]) -> (bool, String) {
    let output = setup.fluidos(arguments).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn receipts(node: &Node) -> Vec<Value> {
    let mut items = node.get(&["receipts", "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone();
    items.sort_by_key(|item| item["spec"]["number"].as_u64());
    items
}

#[test]
fn what_a_pod_used_is_signed_by_both_invoiced_and_paid() {
    let mut stage = Stage::new("rcpt").unwrap();
    let offer = ["--domain", "grid.example", "--location", "city=Milan", "--offer", "cpu=1,memory=1Gi,pods=5"];
    let grid = stage.start("grid", &offer).unwrap();
    let farm = stage.start("farm", &["--domain", "farm.example", "--trust", "lan"]).unwrap();
    farm.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    grid.apply(POLICIES).unwrap();
    farm.apply(CEILINGS).unwrap();
    until("the price is published", LIMIT, || {
        let (_, flavors) = told(&grid.setup, &["flavors"]);
        if flavors.contains("36 EUR/hour") { Ok(()) } else { Err(flavors) }
    })
    .unwrap();
    farm.apply(APP).unwrap();
    farm.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"]).unwrap();
    let address = farm.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].status.podIP}"]).unwrap();
    until("the pod answers over the link", LIMIT, || {
        farm.fetch(&format!("{address}:8080")).map(|_| ()).map_err(|e| e.to_string())
    })
    .unwrap();
    let contract = farm.get(&["contracts", "-n", "fluidos"]).unwrap()["items"][0]["metadata"]["name"].clone();
    let contract = contract.as_str().unwrap();
    // The pod runs for a while; what it costs grows meanwhile.
    std::thread::sleep(Duration::from_secs(20));
    let (_, list) = told(&farm.setup, &["contracts"]);
    assert!(list.contains("USED") && list.contains("OWED") && list.contains("0h00m"), "{list}");
    farm.kubectl(&["delete", "deploy", "hello"]).unwrap();
    for node in [&farm, &grid] {
        until("the account is settled", LIMIT, || {
            let account = node.get(&["account", contract, "-n", "fluidos"]).map_err(|e| e.to_string())?;
            if account["status"]["phase"] == "Settled" { Ok(()) } else { Err(account["status"].to_string()) }
        })
        .unwrap();
    }

    // Both hold the same receipts; each line says who measured what.
    let (ours, theirs) = (receipts(&farm), receipts(&grid));
    let specs = |items: &[Value]| items.iter().map(|item| item["spec"].clone()).collect::<Vec<_>>();
    assert_eq!(specs(&ours), specs(&theirs));
    let last = ours.last().unwrap()["metadata"]["name"].as_str().unwrap();
    let file = stage.directory().join("receipt.json");
    let path = file.display().to_string();
    assert_eq!(told(&farm.setup, &["receipts", "export", last, "--out", &path]), (true, String::new()));
    let (proven, shown) = told(&grid.setup, &["receipts", "verify", &path]);
    assert!(proven && shown.contains("2 hold") && shown.contains("Agreed"), "{shown}");
    let text = std::fs::read_to_string(&file).unwrap();
    let receipt: Value = serde_json::from_str(&text).unwrap();
    let sum = |item: &str, by: &str| -> u64 {
        let of = |spec: &Value| {
            let read = told(&farm.setup, &["receipts", "export", spec["metadata"]["name"].as_str().unwrap()]).1;
            let read: Value = serde_json::from_str(&read).unwrap();
            let lines = read["receipt"]["lines"].as_array().unwrap().clone();
            lines.iter().find(|line| line["line"] == item).and_then(|line| line[by].as_u64()).unwrap_or(0)
        };
        ours.iter().map(of).sum()
    };
    for by in ["buyer", "seller"] {
        assert!(sum("reserved", by) >= 20, "reserved by {by}: {receipt}");
        assert!(sum("pods", by) >= 18, "pods by {by}: {receipt}");
        // Two mebibytes of a page.
        assert!(sum("bytes-to-buyer", by) >= 2_000_000, "bytes by {by}: {receipt}");
    }
    // A loop that never rests, within a tenth of a CPU.
    let cpu = sum("cpu", "seller");
    assert!((1..=10).contains(&cpu), "cpu {cpu}: {receipt}");
    assert_eq!(sum("cpu", "buyer"), 0, "the buyer cannot see it");
    let changed = text.replacen("\"state\": \"agreed\"", "\"state\": \"disputed\"", 1);
    assert_ne!(changed, text);
    std::fs::write(&file, changed).unwrap();
    let (proven, why) = told(&grid.setup, &["receipts", "verify", &path]);
    assert!(!proven && why.contains("changed after it was signed") && why.contains("state"), "{why}");

    // Both compute the same invoice, and it is paid.
    let list: Value = farm.get(&["invoices", "-n", "fluidos"]).unwrap();
    let invoice = list["items"].as_array().unwrap().last().unwrap();
    let (month, number) =
        (invoice["spec"]["month"].as_str().unwrap(), invoice["spec"]["document"]["number"].as_str().unwrap());
    let printed = |setup: &Setup| told(setup, &["invoice", contract, "--month", month, "-o", "json"]);
    assert_eq!(printed(&farm.setup), printed(&grid.setup));
    let (done, csv) = told(&farm.setup, &["invoice", contract, "--month", month, "-o", "csv"]);
    assert!(done && csv.starts_with("MONTH,ITEM,QUANTITY,AMOUNT,NUMBER") && csv.contains("reserved"), "{csv}");
    let (done, said) = told(&grid.setup, &["invoice", "paid", number]);
    assert!(done, "{said}");
    until("the buyer hears that it is paid", LIMIT, || {
        let (_, list) = told(&farm.setup, &["invoice"]);
        if list.contains("Acknowledged") { Ok(()) } else { Err(list) }
    })
    .unwrap();
    eprintln!("{}", told(&farm.setup, &["receipts", "-o", "wide"]).1);
    eprintln!("{}", told(&farm.setup, &["invoice", contract, "--month", month]).1);
}
