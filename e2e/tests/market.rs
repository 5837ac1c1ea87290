//! Two owners: what is bought, signed, refused and given back.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::market::solver;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn list(node: &Node, plural: &str) -> Vec<Value> {
    node.get(&[plural, "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone()
}

fn phase(node: &Node, name: &str, wanted: &str) -> String {
    until(&format!("Solver {name} is {wanted}"), LIMIT, || {
        let solver = node.get(&["solver", name, "-n", "fluidos"]).map_err(|e| e.to_string())?;
        let phase = &solver["status"]["solverPhase"];
        if phase["phase"] == wanted {
            Ok(phase["message"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(phase.to_string())
        }
    })
    .unwrap()
}

#[test]
fn a_solver_becomes_a_contract_that_both_have_signed_and_goes_again() {
    let mut stage = Stage::new("buy").unwrap();
    let grid = stage
        .start(
            "grid",
            &[
                "--no-agent",
                "--domain",
                "grid.example",
                "--offer",
                "cpu=2,memory=1Gi,pods=10",
                "--location",
                "city=Milan",
            ],
        )
        .unwrap();
    let farm = stage.start("farm", &["--no-agent", "--domain", "farm.example", "--trust", "lan"]).unwrap();
    until("the offer is published", LIMIT, || {
        if list(&grid, "flavors").len() == 1 { Ok(()) } else { Err("no flavor".into()) }
    })
    .unwrap();
    let flavors = grid.setup.fluidos(&["flavors"]).unwrap();
    assert!(String::from_utf8_lossy(&flavors.stdout).contains("Milan"), "{flavors:?}");

    farm.apply(&solver("first", "500m")).unwrap();
    phase(&farm, "first", "Solved");
    let (ours, theirs) = (list(&farm, "contracts"), list(&grid, "contracts"));
    assert_eq!((ours.len(), theirs.len()), (1, 1), "contracts at farm and at grid: {ours:?} {theirs:?}");
    assert_eq!(ours[0]["spec"]["signedTerms"], theirs[0]["spec"]["signedTerms"], "both keep the same signed bytes");
    let signatures = &ours[0]["spec"]["signedTerms"]["signatures"];
    assert_eq!(signatures.as_array().map_or(0, Vec::len), 2, "buyer and seller have signed: {signatures}");
    let bought = &ours[0]["spec"]["configuration"]["data"];
    let amounts = (bought["cpu"].as_str(), bought["memory"].as_str());
    assert_eq!(amounts, (Some("500m"), Some("256Mi")), "the contract sells what the Solver asked for: {bought}");
    assert!(!ours[0].to_string().contains("kubeconfig\":\""), "no credential is in it");
    let table = farm.setup.fluidos(&["contracts"]).unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("bought") && table.contains("grid (grid.example)") && table.contains("500m"), "{table}");

    // What is left is not enough, and the refusal says whose, of what, how much.
    farm.apply(&solver("second", "1700m")).unwrap();
    let message = phase(&farm, "second", "Failed");
    assert!(message.contains("grid") && message.contains("1700m") && message.contains("1500m"), "{message}");

    // The seller dies and comes back: the contract is known and the ledger holds it.
    let grid = grid.kill().start().unwrap();
    let known = list(&grid, "contracts");
    assert_eq!(known.len(), 1, "contracts that the seller still knows: {known:?}");
    let held = &list(&grid, "ledgers")[0]["spec"]["commitments"];
    assert_eq!(held.as_array().map_or(0, Vec::len), 1, "its ledger holds that one: {held}");

    farm.kubectl(&["delete", "solver", "first", "second", "-n", "fluidos", "--timeout=30s"]).unwrap();
    for node in [&farm, &grid] {
        until("the contract is gone on both sides", LIMIT, || {
            let left = list(node, "contracts");
            if left.is_empty() { Ok(()) } else { Err(format!("{}: {}", node.setup.name, left[0]["metadata"])) }
        })
        .unwrap();
    }
    let sold = &list(&grid, "ledgers")[0]["spec"]["commitments"];
    assert!(sold.as_array().is_none_or(Vec::is_empty), "{sold}");
}

#[test]
fn who_is_not_trusted_is_not_asked_and_who_offers_nothing_sells_nothing() {
    let mut stage = Stage::new("none").unwrap();
    let grid = stage.start("grid", &["--no-agent"]).unwrap();
    let cloud = stage.start("cld", &["--no-agent", "--offer", "cpu=2,memory=1Gi,pods=10"]).unwrap();
    // Farm trusts whom it named, and it has named grid, which offers nothing.
    let address = format!("{}:7300", grid.setup.machine.as_ref().unwrap().address);
    let farm = stage.start("farm", &["--no-agent", "--peer", &address]).unwrap();
    until("farm knows both", LIMIT, || {
        let up = list(&farm, "knownclusters").iter().filter(|k| k["status"]["link"]["state"] == "Up").count();
        if up == 2 { Ok(()) } else { Err(format!("{up} links")) }
    })
    .unwrap();
    let offered = list(&grid, "flavors");
    assert!(offered.is_empty(), "grid was started without --offer and sells {offered:?}");
    farm.apply(&solver("first", "500m")).unwrap();
    phase(&farm, "first", "Failed");
    for node in [&farm, &cloud] {
        let contracts = list(node, "contracts");
        assert!(contracts.is_empty(), "{} has signed {contracts:?}", node.setup.name);
    }
}

#[test]
fn packages_of_a_peer_are_listed_and_bought_by_name() {
    let mut stage = Stage::new("plan").unwrap();
    let grid = stage.start("grid", &["--no-agent", "--offer", "cpu=2,memory=2Gi,pods=20"]).unwrap();
    let farm = stage.start("farm", &["--no-agent", "--trust", "lan"]).unwrap();
    grid.apply(
        r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Offer
metadata: {name: web, namespace: fluidos}
spec:
  description: small machines for web sites
  plans:
  - {name: small, resources: {cpu: "1", memory: 1Gi, pods: 10}}
  - {name: large, resources: {cpu: "4", memory: 4Gi, pods: 40}, price: {amount: "9", currency: EUR, period: month}}
"#,
    )
    .unwrap();
    let told = |node: &Node, arguments: &[&str]| {
        let output = node.setup.fluidos(arguments).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let row = |table: &str, plan: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(plan)).unwrap_or_default();
        line.split("   ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    until("the packages are accepted", LIMIT, || {
        let table = told(&grid, &["offers"]);
        if row(&table, "small").get(7).is_some_and(|state| state == "accepted") { Ok(()) } else { Err(table) }
    })
    .unwrap();
    until("a peer lists them", LIMIT, || {
        let table = told(&farm, &["offers", "grid"]);
        let (small, large) = (row(&table, "small"), row(&table, "large"));
        let needed = small == ["web", "small", "1", "1Gi", "10", "none", "0", "true"]
            && large == ["web", "large", "4", "4Gi", "40", "none", "9 EUR/month", "false"];
        if needed { Ok(()) } else { Err(table) }
    })
    .unwrap();
    assert_eq!(told(&farm, &["offers", "grid", "-o", "name"]), "offers/web\n");
    let listed: Value = serde_json::from_str(&told(&farm, &["offers", "grid", "-o", "json"])).unwrap();
    assert_eq!(listed[0]["plans"][0]["available"], true, "{listed}");
    assert!(told(&farm, &["offers", "mill"]).contains("no peer is called \"mill\""));

    let by_name = solver("plan", "1").replace(
        r#"cpuFilter: {name: Range, data: {min: "1"}}"#,
        "planFilter: {name: Match, data: {value: web/small}}",
    );
    farm.apply(
        &by_name
            .replace("memoryFilter: {name: Range, data: {min: 256Mi}}", "")
            .replace("podsFilter: {name: Range, data: {min: 3}}", ""),
    )
    .unwrap();
    phase(&farm, "plan", "Solved");
    let bought = list(&farm, "contracts").remove(0)["spec"]["configuration"]["data"].clone();
    assert_eq!((bought["cpu"].as_str(), bought["pods"].as_str()), (Some("1"), Some("10")), "{bought}");
}
