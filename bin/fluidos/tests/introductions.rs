//! Nodes that run show each other who they are, and what follows: real processes on loopback, no root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod stage;

use std::path::Path;
use std::time::{Duration, Instant};

use fluidos_model::kinds::{AccessPolicy, AccessPolicySpec, Acquaintance, Contract, KnownCluster, Solver, names};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::json;
use tempfile::TempDir;

use self::stage::fluidos;
use self::stage::node::Node;

/// What is promised while nodes are connected.
const STATED: Duration = Duration::from_secs(60);

/// Waits until `look` gives something; a time-out tells what was seen last.
async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(start.elapsed() < limit, "{what}: not within {limit:?}; last seen: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An owner's key, and its DID.
fn owner(home: &Path) -> String {
    fluidos(home, &["identity", "new", "--out", "owner.key"]).unwrap().trim().to_owned()
}

/// The owner vouches for a node, which shows it from now on.
fn vouch(home: &Path, node: &Node) -> String {
    let issue = ["credential", "issue", "--key", "owner.key", "--subject", &node.did, "--type", "NodeOwnership"];
    let status = ["--status", "revoked.jwt", "--status-url", "https://farm.example/revoked.jwt"];
    let out = ["--claim", "domain=farm.example", "--out", "owner.jwt"];
    fluidos(home, &[&issue[..], &status, &out].concat()).unwrap();
    fluidos(home, &["credential", "add", "revoked.jwt", "--data-dir", node.data()]).unwrap();
    fluidos(home, &["credential", "add", "owner.jwt", "--data-dir", node.data()]).unwrap().trim().to_owned()
}

async fn linked(at: &Node, peer: &Node) {
    until(&format!("{} has a link to {}", at.name, peer.name), STATED, async || {
        let table = at.ask(&["peers", "-o", "wide"])?;
        let up = table.lines().any(|line| line.contains(&peer.did) && line.contains("   up   "));
        if up { Ok(()) } else { Err(table) }
    })
    .await;
}

const FARM_ONLY: &str = r#"
@id("farm-only") @reason("only nodes whose owner proves farm.example")
forbid (principal, action in [Action::"Reserve", Action::"Buy"], resource)
unless { principal.domainProven && principal.domain == "farm.example" };
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_of_a_proven_domain_decides_otherwise_once_the_credential_is_shown() {
    let home = TempDir::with_prefix("flt-introductions-").unwrap();
    let home = home.path();
    let owner = owner(home);
    let (offer, issuer) = (["--offer", "cpu=2,memory=2Gi,pods=20"], format!("{owner}=farm.example"));
    let grid = Node::start(home, "grid", "grid", &[&offer[..], &["--trust-issuer", &issuer]].concat());
    let farm = Node::start(home, "farm", "farm", &["--domain", "farm.example", "--peer", &grid.rear]);
    let policies = Api::<AccessPolicy>::namespaced(grid.client().await, names::NAMESPACE);
    let policy = AccessPolicy::new("farm-only", AccessPolicySpec { cedar: FARM_ONLY.into() });
    policies.create(&Default::default(), &policy).await.unwrap();
    linked(&grid, &farm).await;
    until("something is sold", STATED, async || {
        grid.ask(&["flavors", "-o", "name"]).and_then(|t| if t.is_empty() { Err(t) } else { Ok(()) })
    })
    .await;
    let may = || {
        grid.ask(&[
            "policy",
            "test",
            "--peer",
            &farm.did,
            "--action",
            "Buy",
            "--amounts",
            "cpu=500m,memory=64Mi,pods=1",
        ])
    };
    let refused = may().unwrap_err();
    assert!(refused.contains("only nodes whose owner proves farm.example"), "{refused}");
    assert!(refused.contains("domain: farm.example (claimed)") && refused.contains("owner: ?"), "{refused}");

    let name = vouch(home, &farm);
    let told = until("grid lets farm buy", STATED, async || may()).await;
    assert!(told.contains("domain: farm.example (proven)") && told.contains(&format!("owner: {owner}")), "{told}");
    assert!(told.contains("credentials: NodeOwnership"), "{told}");
    let peers = grid.ask(&["peers", "-o", "wide"]).unwrap();
    assert!(peers.contains(&format!("farm.example {owner}")) && peers.contains("=amd64:claimed"), "{peers}");
    // Whom farm has not been told to believe proves nothing there.
    let peers = farm.ask(&["peers", "-o", "wide"]).unwrap();
    assert!(!peers.contains(&owner), "{peers}");

    // It is revoked by its issuer, and farm shows the newer list: the old list of anybody counts no more.
    fluidos(home, &["credential", "revoke", "owner.jwt", "--key", "owner.key", "--status", "revoked.jwt"]).unwrap();
    fluidos(home, &["credential", "add", "revoked.jwt", "--data-dir", farm.data()]).unwrap();
    until("grid refuses farm", STATED, async || may().err().ok_or("it may".to_owned())).await;
    let listed = fluidos(home, &["credential", "ls", "--data-dir", farm.data()]).unwrap();
    assert!(listed.contains(&name) && listed.contains("status list https://farm.example/revoked.jwt"), "{listed}");
    fluidos(home, &["credential", "rm", &name, "--data-dir", farm.data()]).unwrap();
    assert!(!fluidos(home, &["credential", "ls", "--data-dir", farm.data()]).unwrap().contains(&name));
}

fn solver() -> Solver {
    let spec = json!({
        "selector": {"flavorType": "K8Slice", "filters": {
            "cpuFilter": {"name": "Range", "data": {"min": "500m"}},
            "memoryFilter": {"name": "Range", "data": {"min": "256Mi"}},
            "podsFilter": {"name": "Range", "data": {"min": 3}},
        }},
        "intentID": "by-hand", "findCandidate": true, "reserveAndBuy": true, "establishPeering": false,
    });
    Solver::new("first", serde_json::from_value(spec).unwrap())
}

async fn contracts(node: &Node, needed: usize) -> Vec<Contract> {
    until(&format!("{} has {needed} contracts", node.name), STATED, async || {
        let live: Vec<Contract> = node.list::<Contract>().await;
        let live: Vec<Contract> = live.into_iter().filter(|c| c.metadata.deletion_timestamp.is_none()).collect();
        if live.len() == needed { Ok(live) } else { Err(format!("{live:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_goes_on_under_another_key_and_ends_with_a_key_that_is_revoked() {
    let home = TempDir::with_prefix("flt-introductions-").unwrap();
    let home = home.path();
    let owner = owner(home);
    let grid = Node::start(home, "grid", "grid", &["--offer", "cpu=2,memory=2Gi,pods=20", "--trust-issuer", &owner]);
    let farm = Node::start(home, "farm", "farm", &["--peer", &grid.rear]);
    vouch(home, &farm);
    linked(&grid, &farm).await;
    Api::<Solver>::namespaced(farm.client().await, names::NAMESPACE)
        .create(&Default::default(), &solver())
        .await
        .unwrap();
    contracts(&farm, 1).await;
    let sold = contracts(&grid, 1).await.remove(0);
    // Grid remembers farm from now on, and whose it is.
    until("grid knows who farm is", STATED, async || {
        let known = grid.list::<Acquaintance>().await;
        let vouched = known.iter().any(|a| a.spec.did == farm.did && a.spec.vouches.iter().any(|v| v.owner == owner));
        if vouched { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;

    // Another key: the contract goes on, and the old entry makes place for the new one.
    let old = farm.did.clone();
    drop(farm);
    fluidos(home, &["identity", "rotate", "--data-dir", home.join("farm").to_str().unwrap()]).unwrap();
    let farm = Node::start(home, "farm", "farm", &["--peer", &grid.rear]);
    assert_ne!(farm.did, old);
    linked(&grid, &farm).await;
    until("grid knows farm again", STATED, async || {
        let known = grid.list::<KnownCluster>().await;
        let seen: Vec<_> = known
            .iter()
            .map(|k| {
                let identity = k.status.as_ref().and_then(|status| status.identity.clone()).unwrap_or_default();
                (k.spec.did.clone().unwrap_or_default(), identity.origin)
            })
            .collect();
        if seen == [(farm.did.clone(), Some(old.clone()))] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    // Longer than any of both sides looks again: nobody has ended it.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(contracts(&grid, 1).await[0].spec.signed_terms, sold.spec.signed_terms);
    contracts(&farm, 1).await;

    // The owner revokes the new key, from a machine that is no node: to grid directly.
    let revoke =
        ["identity", "revoke", &farm.did, "--key", "owner.key", "--reason", "machine stolen", "--out", "r.json"];
    fluidos(home, &revoke).unwrap();
    fluidos(home, &["identity", "tell", "r.json", "--to", &grid.rear]).unwrap();
    let start = Instant::now();
    contracts(&grid, 0).await;
    until("grid's link to farm ends and stays so", STATED, async || {
        let table = grid.ask(&["peers", "-o", "wide"])?;
        let seen = table.lines().find(|line| line.contains(&farm.did)).unwrap_or_default().to_owned();
        if seen.contains("   down   ") && seen.contains("machine stolen") { Ok(()) } else { Err(seen) }
    })
    .await;
    assert!(start.elapsed() < STATED, "{:?}", start.elapsed());
    let told = grid.ask(&["policy", "test", "--peer", &farm.did, "--action", "Receive"]).unwrap_err();
    assert!(told.contains("its key counts no more"), "{told}");
    // It is remembered over a restart: by the store, not by the process.
    let address = grid.rear.clone();
    drop(grid);
    let grid = Node::start(home, "grid", "grid", &["--rear", &address]);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let table = grid.ask(&["peers", "-o", "wide"]).unwrap();
    assert!(!table.contains("   up   "), "{table}");
    drop(farm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_with_the_same_key_is_refused_and_both_owners_are_told() {
    let home = TempDir::with_prefix("flt-introductions-").unwrap();
    let home = home.path();
    let grid = Node::start(home, "grid", "grid", &[]);
    let farm = Node::start(home, "farm", "farm", &["--peer", &grid.rear]);
    linked(&grid, &farm).await;
    std::fs::create_dir_all(home.join("copy/identity")).unwrap();
    for directory in ["copy", "copy/identity"] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(home.join(directory), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    std::fs::copy(home.join("farm/identity/node.key"), home.join("copy/identity/node.key")).unwrap();
    let copy = Node::start(home, "copy", "farm", &["--peer", &grid.rear]);
    assert_eq!(copy.did, farm.did);
    let tells = async |node: &Node, needed: &str| {
        until(&format!("the owner of {} is told", node.directory.display()), STATED, async || {
            let told = node.ask(&["check"]).err().unwrap_or_default();
            if told.contains(needed) { Ok(()) } else { Err(told) }
        })
        .await;
    };
    tells(&grid, "two processes run with the key did:key:").await;
    tells(&farm, "another process runs with this node's key").await;
    tells(&copy, "another process runs with this node's key").await;
    linked(&grid, &farm).await;
    let peers = copy.ask(&["peers"]).unwrap_or_default();
    assert!(!peers.contains("   up   "), "{peers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_asks_for_evidence_is_met_once_a_certifier_has_said_so() {
    let home = TempDir::with_prefix("flt-introductions-").unwrap();
    let home = home.path();
    let certifier = fluidos(home, &["identity", "new", "--out", "certifier.key"]).unwrap().trim().to_owned();
    let offer = ["--offer", "cpu=2,memory=2Gi,pods=20", "--location", "city=Milan,country=Italy"];
    let grid = Node::start(home, "grid", "grid", &offer);
    let farm =
        Node::start(home, "farm", "farm", &["--peer", &grid.rear, "--trust-issuer", &format!("certifier:{certifier}")]);
    linked(&farm, &grid).await;
    until("something is sold", STATED, async || {
        grid.ask(&["flavors", "-o", "name"]).and_then(|t| if t.is_empty() { Err(t) } else { Ok(()) })
    })
    .await;
    let intents = json!({"fluidos-intent-location": "Italy", "fluidos.eu/intent-evidence": "location=audited"});
    let spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]});
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "shop", "annotations": intents}, "spec": spec})).unwrap();
    Api::<Pod>::namespaced(farm.client().await, "default").create(&Default::default(), &pod).await.unwrap();
    until("it is said why it waits", STATED, async || {
        let why = farm.ask(&["why", "shop"])?;
        let needed = "location: Milan, Italy (claimed), needed Italy (audited)";
        if why.contains(needed) { Ok(()) } else { Err(why) }
    })
    .await;
    assert!(farm.list::<Contract>().await.is_empty());

    let issue = ["credential", "issue", "--key", "certifier.key", "--subject", &grid.did, "--type", "Feature"];
    fluidos(home, &[&issue[..], &["--claim", "country=Italy", "--out", "place.jwt"]].concat()).unwrap();
    fluidos(home, &["credential", "add", "place.jwt", "--data-dir", grid.data()]).unwrap();
    until("farm has seen it", STATED, async || {
        let table = farm.ask(&["peers", "-o", "wide"])?;
        if table.contains("country=Italy:audited") { Ok(()) } else { Err(table) }
    })
    .await;
    contracts(&farm, 1).await;
}
