//! Nodes of several owners on one LAN: they find each other, and nobody is told where.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

/// Name, link state, trust, source of each peer.
fn peers(node: &Node) -> Vec<[String; 4]> {
    let list = node.get(&["knownclusters", "-n", "fluidos"]).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("?").to_owned();
    let mut peers: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            [
                text(&p["spec"]["name"]),
                text(&p["status"]["link"]["state"]),
                text(&p["spec"]["trust"]),
                text(&p["spec"]["source"]),
            ]
        })
        .collect();
    peers.sort();
    peers
}

fn expect_peers(node: &Node, expected: &[[&str; 4]]) {
    let name = &node.setup.name;
    until(&format!("the peers of {name}"), Duration::from_secs(30), || {
        let seen = peers(node);
        if seen.iter().map(|p| p.each_ref().map(String::as_str)).eq(expected.iter().copied()) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .unwrap();
}

#[test]
fn three_owners_find_each_other_by_multicast() {
    let mut stage = Stage::new("find").unwrap();
    let farm = stage.start("farm", &["--domain", "farm.example", "--no-agent", "--trust", "lan"]).unwrap();
    let grid = stage.start("grid", &["--domain", "grid.example", "--no-agent"]).unwrap();
    let cloud = stage.start("cloud", &["--domain", "cloud.example", "--no-agent"]).unwrap();
    expect_peers(&farm, &[["cloud", "Up", "Trusted", "Multicast"], ["grid", "Up", "Trusted", "Multicast"]]);
    expect_peers(&grid, &[["cloud", "Up", "Untrusted", "Multicast"], ["farm", "Up", "Untrusted", "Multicast"]]);
    let table = farm.setup.fluidos(&["peers"]).unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let grid_row =
        table.lines().find(|l| l.starts_with("grid ")).unwrap_or_else(|| panic!("no line of grid:\n{table}"));
    assert!(
        grid_row.contains("grid.example") && grid_row.contains(" up ") && grid_row.contains("192.168.77.2:7300"),
        "{table}"
    );
    let names = farm.setup.fluidos(&["peer", "-o", "name"]).unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert_eq!(names.lines().count(), 2, "one line for each of two peers: {names}");
    // One dies without a word: the others notice.
    cloud.kill();
    expect_peers(&farm, &[["cloud", "Down", "Trusted", "Multicast"], ["grid", "Up", "Trusted", "Multicast"]]);
}

#[test]
fn a_peer_that_is_named_is_called_until_it_answers_and_both_know_each_other() {
    let mut stage = Stage::new("name").unwrap();
    let grid = stage.setup("grid", &["--no-mdns", "--no-agent"]).unwrap();
    let address = format!("{}:7300", grid.machine.as_ref().unwrap().address);
    let farm = stage.start("farm", &["--no-mdns", "--no-agent", "--peer", &address]).unwrap();
    until("it says why there is none", Duration::from_secs(20), || {
        let alone = farm.setup.fluidos(&["peers"]).map_err(|e| e.to_string())?;
        let told = String::from_utf8_lossy(&alone.stderr).into_owned();
        if alone.stdout.is_empty() && told.contains("Multicast DNS is off (--no-mdns)") { Ok(()) } else { Err(told) }
    })
    .unwrap();
    let grid = grid.start().unwrap();
    expect_peers(&farm, &[["grid", "Up", "Trusted", "Static"]]);
    expect_peers(&grid, &[["farm", "Up", "Untrusted", "Inbound"]]);
    let setup = grid.terminate().unwrap();
    expect_peers(&farm, &[["grid", "Down", "Trusted", "Static"]]);
    let _grid = setup.start().unwrap();
    expect_peers(&farm, &[["grid", "Up", "Trusted", "Static"]]);
}
