//! Two owners and a price: the guide's policies, as they stand there, on two nodes; what is agreed is proven and ended.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::market::solver;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// The manifest of a kind in the guide.
fn from_guide(kind: &str) -> String {
    let text = std::fs::read_to_string(fluidos_e2e::root().join("docs/guides/buy-and-sell.md")).unwrap();
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(&format!("kind: {kind}\n")));
    block.unwrap_or_else(|| panic!("the guide has no {kind}")).to_owned()
}

fn ends(node: &Node, solver: &str, wanted: &str) -> String {
    until(&format!("Solver {solver} is {wanted}"), LIMIT, || {
        let solver = node.get(&["solver", solver, "-n", "fluidos"]).map_err(|e| e.to_string())?;
        let phase = &solver["status"]["solverPhase"];
        match phase["phase"] == wanted {
            true => Ok(phase["message"].as_str().unwrap_or_default().to_owned()),
            false => Err(phase.to_string()),
        }
    })
    .unwrap()
}

/// What the program prints, on both outputs, and whether it succeeded.
fn told(setup: &Setup, arguments: &[&str]) -> (bool, String) {
    let output = setup.fluidos(arguments).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn contracts(node: &Node) -> Vec<Value> {
    node.get(&["contracts", "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone()
}

#[test]
fn a_price_is_asked_refused_paid_proven_and_ended() {
    let mut stage = Stage::new("cost").unwrap();
    let offer = ["--no-agent", "--domain", "grid.example", "--offer", "cpu=2,memory=4Gi,pods=10"];
    let grid = stage.start("grid", &offer).unwrap();
    let farm = stage.start("farm", &["--no-agent", "--domain", "farm.example", "--trust", "lan"]).unwrap();
    // The guide denies a buyer whose key it does not spell out; here it is one that is nobody's.
    let nobody = "did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX";
    grid.apply(&from_guide("SharingPolicy").replace("did:key:z6Mk…", nobody)).unwrap();
    until("the price is published", LIMIT, || {
        let (_, flavors) = told(&grid.setup, &["flavors"]);
        if flavors.contains("0.02 EUR/hour per cpu") { Ok(()) } else { Err(flavors) }
    })
    .unwrap();

    // Who has said nothing about money buys only what is free.
    farm.apply(&solver("poor", "500m")).unwrap();
    let refused = ends(&farm, "poor", "Failed");
    assert!(refused.contains("grid") && refused.contains("there is no AcquisitionPolicy"), "{refused}");
    assert!(contracts(&grid).is_empty(), "nothing is sold to who does not pay");

    // With the guide's ceilings it buys: half a CPU at 0.02 an hour.
    farm.apply(&from_guide("AcquisitionPolicy")).unwrap();
    farm.apply(&solver("rich", "500m")).unwrap();
    ends(&farm, "rich", "Solved");
    let (_, bought) = told(&farm.setup, &["contracts", "--bought"]);
    assert!(bought.contains("0.01 EUR/hour") && bought.contains("bought") && bought.contains("grid"), "{bought}");
    let (_, sold) = told(&farm.setup, &["contracts", "--sold"]);
    assert!(sold.contains("There are no contracts"), "{sold}");

    // The proof is a file; each side has the same, and a changed price is named.
    let name = contracts(&farm)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let file = stage.directory().join("contract.json");
    let path = file.display().to_string();
    assert_eq!(told(&farm.setup, &["contracts", "export", &name, "--out", &path]), (true, String::new()));
    let (proven, shown) = told(&grid.setup, &["contracts", "verify", &path]);
    assert!(proven && shown.contains(&name) && shown.contains("2 hold"), "{shown}");
    let (_, theirs) = told(&grid.setup, &["contracts", "export", &name]);
    assert_eq!(theirs, std::fs::read_to_string(&file).unwrap());
    let changed = theirs.replacen("\"0.01\"", "\"0.001\"", 1);
    assert_ne!(changed, theirs);
    std::fs::write(&file, changed).unwrap();
    let (proven, why) = told(&grid.setup, &["contracts", "verify", &path]);
    assert!(!proven && why.contains("price") && why.contains("changed after it was signed"), "{why}");

    // The seller ends it; the buyer is told why, and both have nothing left.
    let (ended, said) = told(&grid.setup, &["contracts", "terminate", &name, "--reason", "the rack moves"]);
    assert!(ended, "{said}");
    until("no contract is left at either", LIMIT, || match (contracts(&farm).len(), contracts(&grid).len()) {
        (0, 0) => Ok(()),
        left => Err(format!("at farm and grid: {left:?}")),
    })
    .unwrap();
    let events = farm.kubectl(&["get", "events", "-n", "fluidos"]).unwrap();
    assert!(events.contains("ReleasedByPeer") && events.contains("the rack moves"), "{events}");

    // Who ended it before its time is rated for it, and the guide's policy buys of nobody below its minimum.
    until("the seller is rated for what it broke", LIMIT, || {
        let ratings = farm.get(&["ratings", "-n", "fluidos"]).map_err(|e| e.to_string())?;
        match ratings["items"][0]["status"]["value"].as_u64() {
            Some(0..40) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    farm.apply(&solver("again", "500m")).unwrap();
    let refused = ends(&farm, "again", "Failed");
    assert!(refused.contains("rating") && refused.contains("needed at least 40"), "{refused}");
    farm.apply(&from_guide("AcquisitionPolicy").replace("  minimumRating: 40\n", "")).unwrap();

    // And everything with a peer at once.
    farm.apply(&solver("forgiven", "500m")).unwrap();
    ends(&farm, "forgiven", "Solved");
    let (ended, said) = told(&farm.setup, &["unpeer", "grid"]);
    assert!(ended && said.contains("1 contracts with grid are over"), "{said}");
    until("no contract is left at grid", LIMIT, || {
        let left = contracts(&grid).len();
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .unwrap();
}
