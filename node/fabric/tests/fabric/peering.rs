//! What a peering is: one way, on a link that others share, there while its Allocation is, and nothing before its contract.

use std::sync::Arc;

use fluidos_identity::NodeId;
use fluidos_link::LinkStream;
use fluidos_model::kinds::{Allocation, Contract};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::*;

const BACK: &str = "contract-farm-1";

/// `farm` and `grid` have machines, and each buys from the other.
struct Both {
    farm: Side,
    grid: Side,
    _machines: [Arc<Machine>; 2],
}

impl Both {
    async fn ready() -> Self {
        let (mut farm, mut grid) = (Side::start("farm", 1).await, Side::start("grid", 2).await);
        let _machines = [farm.start_machine(), grid.start_machine()];
        // Each calls the other, as two nodes do that have found each other.
        farm.links.dial(grid.address, Some(grid.links.id()));
        grid.links.dial(farm.address, Some(farm.links.id()));
        let both = Self { farm, grid, _machines };
        let session = || async { both.sessions() };
        until("a link", session, |sessions| sessions.iter().all(Option::is_some)).await;
        let there = contract(CONTRACT, both.farm.links.id(), both.grid.links.id(), "1500m", "1Gi", "5");
        let mut back = contract(BACK, both.grid.links.id(), both.farm.links.id(), "1", "512Mi", "3");
        for (party, name) in [("seller", "farm"), ("buyer", "grid")] {
            back["spec"][party]["nodeID"] = name.into();
            back["spec"][party]["additionalInformation"]["name"] = name.into();
        }
        for (name, terms) in [(CONTRACT, &there), (BACK, &back)] {
            for side in [&both.farm, &both.grid] {
                side.contract(terms).await;
                side.create::<Allocation>(allocation(name)).await;
            }
        }
        both
    }

    /// Which session each has with the other: a number that no two sessions of a node share.
    fn sessions(&self) -> [Option<u64>; 2] {
        let of = |from: &Side, to: &Side| from.links.get(&to.links.id()).map(|session| session.peer().session);
        [of(&self.farm, &self.grid), of(&self.grid, &self.farm)]
    }
}

async fn node_is(side: &Side, name: &str, ready: &str) {
    let nodes = side.nodes();
    let seen = || async { nodes.get_opt(name).await.unwrap() };
    let is = |node: &Option<Node>| node.as_ref().is_some_and(|node| condition(node, "Ready") == ready);
    until(&format!("node {name} of {} Ready={ready}", side.name), seen, is).await;
}

async fn no_node(side: &Side, name: &str) {
    let nodes = side.nodes();
    let what = format!("node {name} of {} gone", side.name);
    until(&what, || async { nodes.get_opt(name).await.unwrap().map(|node| node.name_any()) }, Option::is_none).await;
}

async fn runs(side: &Side, name: &str) {
    let pods = side.pods("shop");
    let seen = || async { pods.get_opt(name).await.unwrap() };
    let what = format!("pod {name} of {} runs", side.name);
    until(&what, seen, |pod| pod.as_ref().is_some_and(|pod| phase(pod) == "Running")).await;
}

/// Pods of others that run here, by name.
async fn guests(client: &Client) -> Vec<String> {
    let labelled = ListParams::default().labels("reservation.fluidos.eu/contract");
    let pods = Api::<Pod>::all(client.clone()).list(&labelled).await.unwrap().items;
    pods.iter().map(ResourceExt::name_any).collect()
}

async fn no_guests(side: &Side) {
    until(&format!("nothing runs at {}", side.name), || guests(&side.client), Vec::is_empty).await;
}

/// Whether the pod is reached through the API of its owner: its log comes from the machine of the provider.
async fn is_reached(side: &Side, name: &str) {
    let log = side.pods("shop").logs(name, &LogParams::default()).await.unwrap();
    assert!(log.contains(name), "{}: {log}", side.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peerings_share_one_link_and_end_one_by_one() {
    let both = Both::ready().await;
    node_is(&both.farm, "grid", "True").await;
    node_is(&both.grid, "farm", "True").await;
    both.farm.create::<Pod>(pod("there", "grid", |_| {})).await;
    both.grid.create::<Pod>(pod("back", "farm", |_| {})).await;
    runs(&both.farm, "there").await;
    runs(&both.grid, "back").await;
    assert_eq!([guests(&both.grid.client).await, guests(&both.farm.client).await], [["there"], ["back"]]);
    is_reached(&both.farm, "there").await;
    is_reached(&both.grid, "back").await;
    let sessions = both.sessions();
    let peers = [both.farm.links.peers().len(), both.grid.links.peers().len()];
    assert_eq!(peers, [1, 1], "one link carries both");

    // One ends at both parties; the other and the link do not notice.
    for side in [&both.farm, &both.grid] {
        side.delete::<Contract>("fluidos", CONTRACT).await;
    }
    no_node(&both.farm, "grid").await;
    no_guests(&both.grid).await;
    node_is(&both.grid, "farm", "True").await;
    is_reached(&both.grid, "back").await;
    assert_eq!(guests(&both.farm.client).await, ["back"]);
    both.grid.create::<Pod>(pod("more", "farm", |_| {})).await;
    runs(&both.grid, "more").await;
    assert_eq!(both.sessions(), sessions, "it is the same link");

    for side in [&both.farm, &both.grid] {
        side.delete::<Contract>("fluidos", BACK).await;
    }
    no_node(&both.grid, "farm").await;
    no_guests(&both.farm).await;
    assert_eq!(both.sessions(), sessions, "who has no contract any more is a peer still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocation_switches_its_peering_off_and_on_under_the_contract() {
    let both = Both::ready().await;
    node_is(&both.farm, "grid", "True").await;
    node_is(&both.grid, "farm", "True").await;
    both.farm.create::<Pod>(pod("there", "grid", |_| {})).await;
    runs(&both.farm, "there").await;
    both.farm.delete::<Allocation>("fluidos", &fluidos_model::kinds::names::allocation(CONTRACT)).await;
    no_node(&both.farm, "grid").await;
    no_guests(&both.grid).await;
    let contracts = Api::<Contract>::namespaced(both.farm.client.clone(), "fluidos");
    let kept = contracts.get(CONTRACT).await.unwrap();
    assert_eq!(kept.metadata.deletion_timestamp, None, "the contract runs on");
    node_is(&both.grid, "farm", "True").await;

    both.farm.create::<Allocation>(allocation(CONTRACT)).await;
    node_is(&both.farm, "grid", "True").await;
    let _ = both.farm.pods("shop").delete("there", &DeleteParams::default()).await; // it went with its node, or not yet
    both.farm.create::<Pod>(pod("again", "grid", |_| {})).await;
    runs(&both.farm, "again").await;
    is_reached(&both.farm, "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_contract_a_peer_gets_no_stream_of_the_fabric() {
    let pair = Pair::ready().await;
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    pair.pod_is("web", "running", |pod| phase(pod) == "Running").await;
    let uid = pair.farm.pods("shop").get("web").await.unwrap().uid().unwrap();
    let eve = Side::bare("eve", 3).await;
    for side in [&pair.grid, &pair.farm] {
        eve.links.dial(side.address, Some(side.links.id()));
        let up = || async { eve.links.get(&side.links.id()).is_some() && side.links.get(&eve.links.id()).is_some() };
        until("the link", up, |up| *up).await;
    }
    // What whoever is there may ask for under the contract, asked by who has none: with the name of that one, and with none.
    let logs = json!({"follow": false, "previous": false, "timestamps": false});
    let exec = json!({"command": ["id"], "stdin": false, "stdout": true, "stderr": true, "tty": false});
    let digest = format!("sha256:{}", "0".repeat(64));
    for name in [CONTRACT, "contract-of-nobody", ""] {
        let of = |more: Value| {
            let mut header = json!({"contract": name, "uid": uid, "container": "main"});
            header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            header
        };
        let provider = [
            ("desired/1", json!({"contract": name})),
            ("logs/1", of(json!({"logs": logs}))),
            ("exec/1", of(json!({"exec": exec}))),
            ("forward/1", of(json!({"port": 80}))),
        ];
        for (kind, header) in provider {
            refuses(&eve, pair.grid.links.id(), kind, &header).await;
        }
        let consumer = [
            ("blob/1", json!({"contract": name, "uid": uid, "digest": digest})),
            ("image/1", json!({"contract": name, "uid": uid, "reference": "flt/app:1"})),
        ];
        for (kind, header) in consumer {
            refuses(&eve, pair.farm.links.id(), kind, &header).await;
        }
    }
    assert_eq!(guests(&pair.grid.client).await, ["web"], "and nothing has changed");
    let log = pair.farm.pods("shop").logs("web", &LogParams::default()).await.unwrap();
    assert!(log.contains("web"), "who has the contract is answered: {log}");
}

/// That a stream ends with a reason that is about the contract, and never with a yes or any of what was asked for.
async fn refuses(from: &Side, to: NodeId, kind: &str, header: &Value) {
    let stream: LinkStream = from.links.open(&to, kind, header).await.unwrap();
    let mut said = Vec::new();
    let mut answer = stream.take(4096);
    // A reset is an end, too.
    let _ = tokio::time::timeout(WAIT, answer.read_to_end(&mut said))
        .await
        .unwrap_or_else(|_| panic!("{kind} {header}: it stays open"));
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("contract") && !text.contains("\"yes\""), "{kind} {header}: {text:?}");
}
