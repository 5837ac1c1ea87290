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
