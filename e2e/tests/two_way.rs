//! Two owners buy from each other: one link carries both peerings, and each ends by itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::market::solver;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A page at the provider, and at home who calls it.
const APP: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: away}
spec:
  nodeSelector: {kubernetes.io/hostname: PROVIDER}
  terminationGracePeriodSeconds: 1
  containers:
  - name: page
    image: busybox:1
    command: [sh, -c, "echo of OWNER > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    resources: {requests: {cpu: 100m, memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: home}
spec:
  nodeSelector: {kubernetes.io/hostname: OWNER}
  terminationGracePeriodSeconds: 1
  containers:
  - name: home
    image: busybox:1
    command: [sh, -c, "exec httpd -f -p 8080 -h /tmp"]
    ports: [{containerPort: 8080}]
"#;

fn contracts(node: &Node) -> Vec<Value> {
    node.get(&["contracts", "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone()
}

/// Its own pods and those of others, by name.
fn guests(node: &Node) -> usize {
    let twins = node.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"]).unwrap();
    twins["items"].as_array().unwrap().len()
}

/// Since when each link of a node is what it is: a new one would be younger.
fn links(node: &Node) -> Vec<String> {
    let peers = node.get(&["knownclusters", "-n", "fluidos"]).unwrap()["items"].as_array().unwrap().clone();
    peers
        .iter()
        .map(|peer| format!("{} {}", peer["status"]["link"]["state"], peer["status"]["link"]["since"]))
        .collect()
}

/// What `home` reads at the address of `away`.
fn page(node: &Node) -> Result<String, String> {
    let address = node.kubectl(&["get", "pod", "away", "-o", "jsonpath={.status.podIP}"]).map_err(|e| e.to_string())?;
    let command = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 8080");
    let output = node.kubectl_with(&["exec", "home", "--", "sh", "-c", &command], "").map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn is_reached(node: &Node) {
    let wanted = format!("of {}", node.setup.name);
    until(&format!("home of {} reads {wanted}", node.setup.name), LIMIT, || {
        let page = page(node)?;
        if page.contains(&wanted) { Ok(()) } else { Err(page) }
    })
    .unwrap();
}

fn node_is_gone(node: &Node, name: &str) {
    until(&format!("{} has no node {name}", node.setup.name), LIMIT, || {
        let nodes = node.kubectl(&["get", "nodes", "-o", "name"]).map_err(|e| e.to_string())?;
        if nodes.contains(&format!("node/{name}\n")) { Err(nodes) } else { Ok(()) }
    })
    .unwrap();
}

/// What the peer reaches here from inside its guest: the rows `address` of `fluidos exposure`, each `CAN item`.
fn reached(node: &Node, peer: &str) -> Vec<String> {
    let output = node.setup.fluidos(&["exposure", peer, "-o", "json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let addresses = rows.iter().filter(|row| row["what"] == "address");
    addresses.map(|row| format!("{} {} ({})", row["can"], row["item"], row["proof"])).collect()
}

#[test]
fn two_buy_from_each_other_on_one_link_and_end_one_after_the_other() {
    let mut stage = Stage::new("both").unwrap();
    let offer = ["--trust", "lan", "--offer", "cpu=1,memory=1Gi,pods=5"];
    let (farm, grid) = (stage.start("farm", &offer).unwrap(), stage.start("grid", &offer).unwrap());
    for (buyer, seller) in [(&farm, "grid"), (&grid, "farm")] {
        buyer.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
        until(&format!("{} knows {seller}", buyer.setup.name), LIMIT, || match links(buyer) {
            links if links.len() == 1 && links[0].contains("Up") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }
    for (buyer, seller) in [(&farm, "grid"), (&grid, "farm")] {
        buyer.apply(&solver(seller, "200m").replace("establishPeering: false", "establishPeering: true")).unwrap();
        buyer.kubectl(&["wait", "--for=create", &format!("node/{seller}"), "--timeout=60s"]).unwrap();
        buyer.kubectl(&["wait", "--for=condition=Ready", &format!("node/{seller}"), "--timeout=60s"]).unwrap();
        let app = APP.replace("PROVIDER", seller).replace("OWNER", &buyer.setup.name);
        buyer.apply(&app).unwrap();
        buyer.kubectl(&["wait", "--for=condition=Ready", "pod/away", "pod/home", "--timeout=60s"]).unwrap();
    }
    assert_eq!([contracts(&farm).len(), contracts(&grid).len()], [2, 2], "each has bought one and sold one");
    assert_eq!([guests(&farm), guests(&grid)], [1, 1]);
    is_reached(&farm);
    is_reached(&grid);
    let before = [links(&farm), links(&grid)];
    assert!(
        before.iter().all(|links| links.len() == 1 && links[0].contains("Up")),
        "one link carries both: {before:?}"
    );

    // Seen from inside the guest: nothing of its host is reached from there.
    for (host, peer) in [(&farm, "grid"), (&grid, "farm")] {
        let reached = reached(host, peer);
        let is_shut = |what: &str| reached.iter().any(|row| row.starts_with("false") && row.contains(what));
        for what in
            ["API of this node", "REAR of this node", "pod default/home of this owner", "Service default/kubernetes"]
        {
            assert!(is_shut(what), "{what} is tried from inside, and is no: {reached:#?}");
        }
        assert!(
            !reached.iter().any(|row| row.starts_with("true")),
            "a guest reaches something of its host: {reached:#?}"
        );
    }

    // farm gives up what it bought; what it has sold goes on, on the same link.
    farm.kubectl(&["delete", "solver", "grid", "-n", "fluidos", "--timeout=60s"]).unwrap();
    node_is_gone(&farm, "grid");
    until("one contract is left, and one guest", LIMIT, || {
        match (contracts(&farm).len(), contracts(&grid).len(), guests(&farm), guests(&grid)) {
            (1, 1, 1, 0) => Ok(()),
            left => Err(format!("contracts at farm and grid, guests at farm and grid: {left:?}")),
        }
    })
    .unwrap();
    is_reached(&grid);
    assert_eq!([links(&farm), links(&grid)], before, "it is the same link");
    let nobody = reached(&grid, "farm");
    assert!(nobody.is_empty(), "there is no contract by which grid sells to farm: {nobody:?}");

    // Its seller ends the other.
    let name = contracts(&grid)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let ended = farm.setup.fluidos(&["contracts", "terminate", &name, "--reason", "flt: it was enough"]).unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    node_is_gone(&grid, "farm");
    until("nothing is left", LIMIT, || match (contracts(&farm).len(), contracts(&grid).len(), guests(&farm)) {
        (0, 0, 0) => Ok(()),
        left => Err(format!("contracts at farm and grid, guests at farm: {left:?}")),
    })
    .unwrap();
    assert_eq!([links(&farm), links(&grid)], before, "who has no contract any more is a peer still");
}
