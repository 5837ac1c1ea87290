//! A redis is bought as a service: made for its buyer, used by a pod of its buyer over the fabric, and gone with the contract.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::market::{cache, visitor};
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn list(node: &Node, arguments: &[&str]) -> Vec<Value> {
    node.get(arguments).unwrap()["items"].as_array().unwrap().clone()
}

fn logs(node: &Node) -> String {
    node.kubectl(&["logs", "client", "-n", "shop"]).unwrap_or_else(|error| error.to_string())
}

/// Everything that is not a Secret, and the node's log.
fn readable(node: &Node) -> String {
    let kinds = "contracts,reservations,transactions,allocations,discoveries,peeringcandidates,solvers,flavors,ledgers,\
                 serviceblueprints,events,pods,deployments,replicasets,services,configmaps";
    let objects = node.kubectl(&["get", kinds, "-A", "-o", "json"]).unwrap();
    let log = std::fs::read_to_string(node.setup.directory.with_extension("log")).unwrap();
    objects + &log
}

#[test]
fn a_service_is_made_for_its_buyer_used_over_the_fabric_and_gone_with_the_contract() {
    let mut stage = Stage::new("svc").unwrap();
    let grid = stage.start("grid", &["--domain", "grid.example", "--offer", "cpu=1,memory=1Gi,pods=5"]).unwrap();
    let farm = stage.start("farm", &["--domain", "farm.example", "--trust", "lan"]).unwrap();
    grid.setup.load(&Image::Redis.layout().unwrap()).unwrap();
    farm.setup.load(&Image::RedisClient.layout().unwrap()).unwrap();
    grid.apply(&std::fs::read_to_string(fluidos_e2e::root().join("examples/cache.yaml")).unwrap()).unwrap();
    until("the blueprint is sold", LIMIT, || {
        let status = grid.get(&["serviceblueprint", "cache", "-n", "fluidos"]).unwrap()["status"].clone();
        if status["accepted"] == true { Ok(()) } else { Err(status.to_string()) }
    })
    .unwrap();

    farm.apply(&cache("shop")).unwrap();
    until("it is bought and can be used", LIMIT, || {
        let status = farm.get(&["solver", "cache", "-n", "fluidos"]).unwrap()["status"].clone();
        if status["solverPhase"]["phase"] == "Solved" { Ok(()) } else { Err(status.to_string()) }
    })
    .unwrap();
    let secret = farm.get(&["secret", "cache", "-n", "shop"]).unwrap();
    let contract =
        list(&farm, &["contracts", "-n", "fluidos"]).remove(0)["metadata"]["name"].as_str().unwrap().to_owned();
    let allocation = list(&farm, &["allocations", "-n", "fluidos"]).remove(0);
    let reference = &allocation["status"]["resourceRef"];
    assert_eq!(
        (reference["kind"].as_str(), reference["name"].as_str()),
        (Some("Secret"), Some("cache")),
        "{allocation}"
    );
    let text =
        farm.kubectl(&["get", "secret", "cache", "-n", "shop", "-o", "go-template={{.data.password | base64decode}}"]);
    let password = text.unwrap().trim().to_owned();
    assert_eq!(password.len(), 32, "its password is as long as the blueprint says: {secret}");

    farm.apply(&visitor("shop", r#"echo "stranger: $(redis-cli -h "$HOST" -p "$PORT" ping 2>&1)""#)).unwrap();
    until("a pod of the buyer uses it", LIMIT, || {
        let said = logs(&farm);
        if said.contains("visits: 3") { Ok(()) } else { Err(said) }
    })
    .unwrap();
    for node in [&grid, &farm] {
        assert!(!readable(node).contains(&password), "{}: the password stands in Secrets only", node.setup.name);
    }
    let pods = list(&grid, &["pods", "-A", "-l", "fluidos.eu/service"]);
    assert_eq!(pods.len(), 1);
    let home = pods[0]["metadata"]["namespace"].as_str().unwrap().to_owned();
    // The instance reaches nothing of its owner: not the API, not a Service.
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let try_api = "timeout 3 busybox wget -q -O - https://kubernetes.default.svc 2>&1; \
                   timeout 3 busybox nc -w 2 $KUBERNETES_SERVICE_HOST 443 </dev/null && echo reached";
    let tried = grid.kubectl(&["exec", name, "-n", &home, "--", "sh", "-c", &format!("{try_api}; true")]).unwrap();
    assert!(!tried.contains("reached"), "{tried}");

    // The pod of the service dies: another takes its place, and the client finds it.
    grid.kubectl(&["delete", "pod", name, "-n", &home, "--timeout=30s"]).unwrap();
    let before = logs(&farm).matches("visits: 1\n").count();
    until("the client is led to the new pod, which counts from the beginning", LIMIT, || {
        let said = logs(&farm);
        if said.matches("visits: 1\n").count() > before { Ok(()) } else { Err(said) }
    })
    .unwrap();

    farm.kubectl(&["delete", "solver", "cache", "-n", "fluidos", "--timeout=30s"]).unwrap();
    until("the instance is gone", LIMIT, || {
        let left = list(&grid, &["namespaces", "-l", "fluidos.eu/service"]);
        if left.is_empty() { Ok(()) } else { Err(left[0]["status"].to_string()) }
    })
    .unwrap();
    until("access is gone", LIMIT, || {
        let left = list(&farm, &["secrets,services,endpointslices", "-n", "shop"]);
        if left.is_empty() { Ok(()) } else { Err(left[0]["metadata"].to_string()) }
    })
    .unwrap();
    assert!(list(&grid, &["ledgers", "-n", "fluidos"])[0]["spec"]["commitments"].as_array().is_none_or(Vec::is_empty));
    for node in [&farm, &grid] {
        until("how long it was there is signed by both", LIMIT, || {
            let account = node.get(&["account", &contract, "-n", "fluidos"]).map_err(|error| error.to_string())?;
            let status = &account["status"];
            let served = status["servedSeconds"].as_u64().unwrap_or(0);
            if status["phase"] == "Settled" && served >= 5 { Ok(()) } else { Err(status.to_string()) }
        })
        .unwrap();
    }
    // What it has used is its seller's word, signed by both.
    let lines = list(&farm, &["receipts", "-n", "fluidos"]).into_iter().flat_map(|receipt| {
        let name = receipt["metadata"]["name"].as_str().unwrap().to_owned();
        let text = farm.setup.fluidos(&["receipts", "export", &name]).unwrap().stdout;
        serde_json::from_slice::<Value>(&text).unwrap()["receipt"]["lines"].as_array().unwrap().clone()
    });
    let lines: Vec<Value> = lines.collect();
    let used = lines.iter().filter(|line| line["line"] == "memory").filter_map(|line| line["seller"].as_u64());
    assert!(used.sum::<u64>() > 0, "{lines:?}");
    assert!(lines.iter().all(|line| line["state"] != "disputed"), "{lines:?}");
    let said = logs(&farm);
    until("the client reaches nothing any more", LIMIT, || {
        let more = logs(&farm).split_off(said.len().min(logs(&farm).len()));
        let ended = more.lines().filter(|line| line.starts_with("visits:")).count() >= 2
            && more
                .lines()
                .filter(|line| line.starts_with("visits:"))
                .all(|line| line.trim_start_matches("visits: ").parse::<u32>().is_err());
        if ended { Ok(()) } else { Err(more) }
    })
    .unwrap();
}
