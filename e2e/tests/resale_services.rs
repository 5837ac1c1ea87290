//! A redis of somebody whom only a reseller knows is used by its buyer: its password and its packets come by the reseller.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::market::{PAYS, SELLS, SELLS_ON, cache, visitor};
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn list(node: &Node, arguments: &[&str]) -> Vec<Value> {
    node.get(arguments).unwrap()["items"].as_array().unwrap().clone()
}

fn logs(node: &Node) -> String {
    node.kubectl(&["logs", "client", "-n", "home", "--tail=5"]).unwrap_or_else(|error| error.to_string())
}

/// The last number that was counted.
fn visits(node: &Node) -> u32 {
    logs(node).lines().filter_map(|line| line.strip_prefix("visits: ")?.trim().parse().ok()).next_back().unwrap_or(0)
}

/// Waits until it is counted on.
fn counts(node: &Node) {
    let before = visits(node);
    until("it is counted on", LIMIT, || {
        let now = visits(node);
        if now > before + 1 { Ok(()) } else { Err(format!("{before} {}", logs(node))) }
    })
    .unwrap();
}

/// All objects that somebody may read without asking for Secrets, and the node's log.
fn readable(node: &Node) -> String {
    let kinds = "contracts,reservations,transactions,allocations,peeringcandidates,solvers,ledgers,events,services,\
                 endpointslices,configmaps,namespaces";
    let objects = node.kubectl(&["get", kinds, "-A", "-o", "json"]).unwrap();
    objects + &std::fs::read_to_string(node.setup.directory.with_extension("log")).unwrap()
}

#[test]
fn a_service_is_used_whose_provider_only_the_reseller_knows() {
    let mut stage = Stage::new("resv").unwrap();
    let grid = stage.start("grid", &["--domain", "grid.example", "--offer", "cpu=1,memory=1Gi,pods=5"]).unwrap();
    // It runs nothing itself, and sells no service of its own.
    let small = ["--no-agent", "--domain", "shop.example", "--offer", "cpu=100m,memory=1Gi,pods=5", "--trust", "lan"];
    let shop = stage.start("shop", &small).unwrap();
    let farm = stage.setup("farm", &["--domain", "farm.example", "--trust", "lan"]).unwrap();
    // They hear nothing of each other: both know shop alone.
    for setup in [&grid.setup, &farm] {
        setup.machine.as_ref().unwrap().isolate().unwrap();
    }
    let farm = farm.start().unwrap();
    grid.setup.load(&Image::Redis.layout().unwrap()).unwrap();
    farm.setup.load(&Image::RedisClient.layout().unwrap()).unwrap();
    let example = std::fs::read_to_string(fluidos_e2e::root().join("examples/cache.yaml")).unwrap();
    for (node, manifest) in [(&grid, SELLS), (&grid, &example), (&shop, SELLS_ON), (&shop, PAYS), (&farm, PAYS)] {
        node.apply(manifest).unwrap();
    }
    until("the blueprint is sold", LIMIT, || {
        let status = grid.get(&["serviceblueprint", "cache", "-n", "fluidos"]).unwrap()["status"].clone();
        if status["accepted"] == true { Ok(()) } else { Err(status.to_string()) }
    })
    .unwrap();

    farm.apply(&cache("home")).unwrap();
    until("it is bought and can be used", LIMIT, || {
        let status = farm.get(&["solver", "cache", "-n", "fluidos"]).unwrap()["status"].clone();
        let at_shop = || {
            list(&shop, &["allocations", "-n", "fluidos"]).iter().map(|it| it["status"].to_string()).collect::<String>()
        };
        if status["solverPhase"]["phase"] == "Solved" { Ok(()) } else { Err(format!("{status} {}", at_shop())) }
    })
    .unwrap();
    farm.apply(&visitor("home", ":")).unwrap();
    until("a pod of the buyer uses it", LIMIT, || if visits(&farm) >= 3 { Ok(()) } else { Err(logs(&farm)) }).unwrap();
    let known = farm.get(&["knownclusters", "-n", "fluidos"]).unwrap();
    assert_eq!(known["items"].as_array().unwrap().len(), 1, "farm knows shop alone: {known}");

    // The password stands in Secrets of who runs it and who uses it; at the reseller it stands nowhere.
    let template = "go-template={{.data.password | base64decode}}";
    let password = farm.kubectl(&["get", "secret", "cache", "-n", "home", "-o", template]).unwrap().trim().to_owned();
    assert_eq!(password.len(), 32);
    for node in [&grid, &shop, &farm] {
        assert!(!readable(node).contains(&password), "{}: the password stands in Secrets only", node.setup.name);
    }
    assert!(list(&shop, &["secrets", "-A", "-l", "fluidos.eu/service-access"]).is_empty());
    // Where it runs is not told to who uses it.
    let pods = list(&grid, &["pods", "-A", "-l", "fluidos.eu/service"]);
    let address = pods[0]["status"]["podIP"].as_str().unwrap().to_owned();
    let slices = list(&farm, &["endpointslices", "-n", "home"]);
    let told = slices[0]["endpoints"][0]["addresses"][0].as_str().unwrap().to_owned();
    assert_ne!(told, address);
    assert!(!readable(&farm).contains(&address), "{address}");

    // The reseller's process ends and comes back: the client goes on.
    let shop = shop.kill().start().unwrap();
    counts(&farm);
    let slices = list(&farm, &["endpointslices", "-n", "home"]);
    assert_eq!(slices[0]["endpoints"][0]["addresses"][0], *told, "under the same address");

    // The pod of the service dies: another takes its place, and counts from the beginning.
    let (name, home) = (&pods[0]["metadata"]["name"], &pods[0]["metadata"]["namespace"]);
    let (name, home) = (name.as_str().unwrap(), home.as_str().unwrap());
    let before = visits(&farm);
    grid.kubectl(&["delete", "pod", name, "-n", home, "--timeout=30s"]).unwrap();
    until("the client is led to the new pod", LIMIT, || {
        let now = visits(&farm);
        if (1..before).contains(&now) { Ok(()) } else { Err(logs(&farm)) }
    })
    .unwrap();

    farm.kubectl(&["delete", "solver", "cache", "-n", "fluidos", "--timeout=30s"]).unwrap();
    until("nothing of it is left", LIMIT, || {
        let mut left: Vec<Value> = Vec::new();
        left.extend(list(&grid, &["namespaces", "-l", "fluidos.eu/service"]));
        left.extend(list(&farm, &["secrets,services,endpointslices", "-n", "home"]));
        left.extend(list(&shop, &["endpointslices", "-A", "-l", "fluidos.eu/service-passed"]));
        left.extend(list(&shop, &["contracts,solvers", "-n", "fluidos"]));
        left.extend(list(&grid, &["contracts", "-n", "fluidos"]));
        match left.first() {
            None => Ok(()),
            Some(one) => Err(one["metadata"].to_string()),
        }
    })
    .unwrap();
}
