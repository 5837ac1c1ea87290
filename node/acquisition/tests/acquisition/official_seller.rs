//! A Solver buys from an official FLUIDOS node: a server made of their own messages, over plain HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluidos_model::kinds::{Allocation, Contract, KnownCluster, PeeringCandidate, Solver, Transaction};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support;
use crate::support::fuse::{Fuse, fused};
use crate::support::{Node, until};

const KUBECONFIG: &str = "c2VjcmV0LWt1YmVjb25maWc=";
const TRANSACTION: &str = "2738c980a0f4a5ab0d5c6a7c24ac5b90-1716800000000000000";
const CONTRACT: &str = "contract-fluidos-eu-k8slice-ab12-7f3e";

/// An official seller: it answers as theirs do, oddities and all.
#[derive(Clone, Default)]
struct Official {
    /// What it was sent: method, path, body.
    seen: Arc<Mutex<Vec<(String, String, Value)>>>,
    /// What is other than usual.
    odd: Odd,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Odd {
    #[default]
    Nothing,
    /// It has sold, and its answer is lost; again it knows nothing of the transaction.
    Lost,
    /// It sells half of what it has held.
    Half,
    /// Its price.
    Dear,
    /// Asked again it sells the same, as the plain listener of this project does; each hold is another.
    Again,
}

impl Official {
    async fn open(odd: Odd) -> (Self, SocketAddr) {
        let (official, listener) = (Self { odd, ..Self::default() }, TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (address, server) = (listener.local_addr().unwrap(), official.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        (official, address)
    }

    async fn serve(self, mut stream: TcpStream) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let length = head
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (status, answer) = self.answer(&method, &path, &body);
            self.seen.lock().unwrap().push((method, path, body));
            let Some(answer) = answer else { return };
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    }

    /// The status line and the body; without one it hangs up.
    fn answer(&self, method: &str, path: &str, body: &Value) -> (&'static str, Option<String>) {
        let purchase = format!("/api/v2/transactions/{TRANSACTION}/purchase");
        if self.odd == Odd::Again {
            return self.answer_again(method, path, body);
        }
        match (method, path) {
            ("GET", "/api/v2/flavors/k8slice") => ("200 OK", Some(json!([self.flavor()]).to_string())),
            ("POST", "/api/v2/reservations") => {
                if body["buyerID"]["additionalInformation"]["liqoID"].as_str().is_none_or(str::is_empty) {
                    return ("400 Bad Request", Some("Liqo ID not found".into()));
                }
                ("200 OK", Some(json!({
                    "transactionID": TRANSACTION, "flavorID": body["flavorID"], "configuration": body["configuration"],
                    "buyer": body["buyerID"], "clusterID": body["buyerID"]["additionalInformation"]["liqoID"],
                    "expirationTime": (jiff::Timestamp::now() + Duration::from_secs(3600)).to_string(),
                }).to_string()))
            }
            ("POST", path) if path == purchase => {
                let before = self.seen.lock().unwrap().iter().filter(|(_, seen, _)| *seen == purchase).count();
                match (self.odd, before) {
                    (Odd::Lost, 0) => ("", None),
                    // The transaction is deleted before the contract is made.
                    (_, 1..) => ("500 Internal Server Error", Some("Error getting the Transaction".into())),
                    _ => ("200 OK", Some(self.contract().to_string())),
                }
            }
            _ => ("404 Not Found", Some("404 page not found".into())),
        }
    }

    /// Each hold has a number of its own, and so has what is sold of it.
    fn answer_again(&self, method: &str, path: &str, body: &Value) -> (&'static str, Option<String>) {
        let usual = Self { odd: Odd::Nothing, seen: self.seen.clone() };
        if let Some(number) =
            path.strip_prefix("/api/v2/transactions/flt-").and_then(|rest| rest.strip_suffix("/purchase"))
        {
            let mut contract = usual.contract();
            contract["transactionID"] = json!(format!("flt-{number}"));
            contract["contractID"] = json!(format!("contract-flt-{number}"));
            return ("200 OK", Some(contract.to_string()));
        }
        let (status, answer) = usual.answer(method, path, body);
        let number = self.seen("/reservations").len();
        (status, answer.map(|answer| answer.replace(TRANSACTION, &format!("flt-{number}"))))
    }

    fn flavor(&self) -> Value {
        let price = if self.odd == Odd::Dear { ["5", "EUR", "hour"] } else { ["", "", ""] };
        json!({
            "flavorID": "fluidos.eu-k8slice-ab12", "providerID": "ekvjnuvsel",
            "type": {"name": "k8slice", "data": {
                "charateristics": {"architecture": "amd64", "cpu": "3947481697n", "memory": "3735836Ki", "pods": "110",
                                   "gpu": {"model": "", "cores": "0", "memory": "0"}, "storage": "0"},
                "properties": {},
                "policies": {"partitionability": {"cpuMin": "0", "memoryMin": "0", "podsMin": "0", "cpuStep": "1",
                                                  "memoryStep": "100Mi", "podsStep": "0"}}}},
            "networkPropertyType": "networkProperty", "timestamp": "0001-01-01T00:00:00Z",
            "location": {"latitude": "10", "longitude": "58", "altitude": "Italy", "city": "Turin", "additionalNotes": "None"},
            "price": {"amount": price[0], "currency": price[1], "period": price[2]},
            "owner": {"ID": "ekvjnuvsel", "IP": "172.18.0.7:30001", "domain": "fluidos.eu",
                      "additionalInformation": {"liqoID": "fluidos-provider-1", "kubeconfig": KUBECONFIG}},
            "availability": true,
        })
    }

    fn contract(&self) -> Value {
        let seen = self.seen.lock().unwrap();
        let reserved = &seen.iter().rfind(|(_, path, _)| path == "/api/v2/reservations").unwrap().2;
        let mut configuration = reserved["configuration"].clone();
        if self.odd == Odd::Half {
            configuration["data"]["cpu"] = json!("500m");
        }
        json!({
            "contractID": CONTRACT, "transactionID": TRANSACTION, "flavor": self.flavor(), "buyerID": reserved["buyerID"],
            "buyerClusterID": "fluidos-consumer-1",
            "seller": {"ID": "ekvjnuvsel", "IP": "172.18.0.7:30001", "domain": "fluidos.eu"},
            "peeringTargetCredentials": {"clusterID": "fluidos-provider-1", "kubeconfig": KUBECONFIG},
            "expirationTime": (jiff::Timestamp::now() + Duration::from_secs(31_536_000)).to_string(),
            "extraInformation": {}, "configuration": configuration, "networkAuthorizations": "none",
        })
    }

    fn paths(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(_, seen, _)| seen.contains(path)).map(|(_, path, _)| path.clone()).collect()
    }

    fn seen(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(_, seen, _)| seen.contains(path)).map(|(_, _, body)| body.clone()).collect()
    }
}

/// A buyer that knows an official node. `permits` is what the decision point says.
async fn buyer(address: SocketAddr, permits: bool) -> Node {
    let mut farm = Node::without_rooms(1, "farm", None).await;
    farm.options.acquire = Some(Arc::new(move |asked, flavor, amounts| {
        assert_eq!((asked, flavor.name_any().as_str(), amounts.cpu_milli), (address, "fluidos.eu-k8slice-ab12", 1000));
        if permits { Ok(()) } else { Err("no policy permits Acquire".into()) }
    }));
    farm.create::<KnownCluster>(json!({
        "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": "turin"},
        "spec": {"address": address.to_string(), "plain": true},
    }))
    .await;
    farm.open(|exporter| exporter).await;
    farm
}

async fn solver(farm: &Node, name: &str) {
    farm.solver_with(name, "1", &[], json!({"reserveAndBuy": true})).await;
}

/// Nothing of this node has the kubeconfig.
async fn holds_no_credential(farm: &Node) {
    let all = json!([
        farm.list::<Contract>().await,
        farm.list::<Transaction>().await,
        farm.list::<PeeringCandidate>().await,
        farm.list::<Solver>().await,
        farm.list::<fluidos_model::kinds::Reservation>().await,
    ]);
    assert!(!all.to_string().contains(KUBECONFIG), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_buys_from_an_official_node_up_to_the_contract() {
    let (official, address) = Official::open(Odd::Nothing).await;
    let farm = buyer(address, true).await;
    solver(&farm, "shop").await;
    let message = farm.solver_is("shop", "Solved").await;
    assert_eq!(message, format!("contract {CONTRACT} is bought; no peering is asked for"));
    let contract = until("the condition stands in it", async || {
        let contract = farm.list::<Contract>().await.remove(0);
        let told = contract.status.as_ref().is_some_and(|status| !status.conditions.is_empty());
        if told { Ok(contract) } else { Err(format!("{:?}", contract.status)) }
    })
    .await;
    let (spec, status) = (&contract.spec, contract.status.clone().unwrap());
    assert_eq!((contract.name_any().as_str(), spec.transaction_id.as_str()), (CONTRACT, TRANSACTION));
    assert!(spec.signed_terms.is_none() && spec.peering_target_credentials.is_none());
    assert_eq!(spec.seller.ip, address.to_string(), "where it was bought, not where it says it is");
    assert_eq!(spec.seller.additional_information.as_ref().unwrap().liqo_id.as_deref(), Some("fluidos-provider-1"));
    assert_eq!(spec.flavor.spec.price.amount, "", "no price is stated, which is not 0");
    assert!(spec.expiration_time.is_some());
    let condition = &status.conditions[0];
    assert_eq!((condition.kind.as_str(), condition.status.as_str()), ("Peering", "False"));
    assert!(condition.message.starts_with("signed by nobody") && condition.message.contains("dropped unread"));
    assert_eq!(status.message, condition.message);
    assert!(farm.list::<Allocation>().await.is_empty(), "nothing runs under it");
    holds_no_credential(&farm).await;
    // What it was sent is in its own dialect, and has nothing of ours but who asks.
    let reserved = official.seen("/reservations").remove(0);
    assert_eq!(reserved["configuration"], json!({"type": "k8slice", "data": reserved["configuration"]["data"]}));
    for ours in ["transactionID", "path", "termSeconds"] {
        assert!(reserved.get(ours).is_none(), "{reserved}");
    }
    assert!(
        !reserved.to_string().contains("kubeconfig")
            && !official.seen("/purchase")[0].to_string().contains("kubeconfig")
    );
    assert!(official.seen("/requests").is_empty(), "it is not told what is needed");

    // Who asks for peering now is told that there is none.
    let peering = Patch::Merge(json!({"spec": {"establishPeering": true}}));
    farm.api::<Solver>().patch("shop", &PatchParams::default(), &peering).await.unwrap();
    let message = farm.solver_is("shop", "Failed").await;
    assert!(message.starts_with(&format!("contract {CONTRACT}: peering ends at the contract")), "{message}");
    farm.api::<Contract>().delete(CONTRACT, &DeleteParams::default()).await.unwrap();
    farm.delete_solver("shop").await;
    farm.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_bought_there_that_nobody_permits_or_that_is_to_run_something() {
    let (official, address) = Official::open(Odd::Nothing).await;
    let farm = buyer(address, false).await;
    solver(&farm, "shop").await;
    let message = farm.solver_is("shop", "Failed").await;
    assert!(message.starts_with("turin: acquire: no policy permits Acquire"), "{message}");
    farm.solver("web", "1", &[]).await;
    let message = until("it says why the official node is not asked", async || {
        let status = farm.api::<Solver>().get("web").await.unwrap().status.unwrap_or_default();
        let message = status.solver_phase.message;
        if message.contains("up to the contract only") { Ok(message) } else { Err(message) }
    })
    .await;
    assert!(message.starts_with("turin: list: "), "{message}");
    assert!(official.seen("/reservations").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stated_price_is_a_matter_of_the_policy() {
    let (official, address) = Official::open(Odd::Dear).await;
    let farm = buyer(address, true).await;
    solver(&farm, "shop").await;
    let message = farm.solver_is("shop", "Failed").await;
    assert!(message.starts_with("turin: buy: ") && message.contains('5'), "{message}");
    assert!(official.seen("/reservations").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_sold_is_not_bought_again() {
    for (odd, reason) in [
        (Odd::Lost, "turin: purchase: Error getting the Transaction (500); it may have sold all the same"),
        (Odd::Half, "turin: purchase: cpu 500m, memory 100Mi, pods 1, needed cpu 1"),
    ] {
        let (official, address) = Official::open(odd).await;
        let farm = buyer(address, true).await;
        solver(&farm, "shop").await;
        let message = farm.solver_is("shop", "Failed").await;
        assert!(message.starts_with(reason), "{message}");
        assert_eq!(official.seen("/reservations").len(), 1);
        assert!(farm.list::<Contract>().await.is_empty());
        holds_no_credential(&farm).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_key_is_asked_as_before_and_one_that_is_said_to_be_plain_must_have_none() {
    let (official, address) = Official::open(Odd::Nothing).await;
    let farm = buyer(address, true).await;
    let grid = support::Node::start(2, "grid", Some(4000)).await;
    let named = Patch::Merge(json!({"spec": {"did": grid.key.id().to_string(), "trust": "Trusted"}}));
    farm.api::<KnownCluster>().patch("turin", &PatchParams::default(), &named).await.unwrap();
    solver(&farm, "shop").await;
    until("nobody is asked", async || {
        let message = farm.api::<Solver>().get("shop").await.unwrap().status.unwrap_or_default().solver_phase.message;
        if message.contains("no trusted peer is known") { Ok(()) } else { Err(message) }
    })
    .await;
    assert!(official.seen("/").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_killed_at_any_moment_buys_it_once() {
    let (official, address) = Official::open(Odd::Again).await;
    let mut farm = buyer(address, true).await;
    for moment in 0.. {
        farm.kill().await;
        let fuse = Fuse::at(moment);
        farm.open_as(fused(&farm.client, &fuse), |exporter| exporter).await;
        solver(&farm, "shop").await;
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            _ = farm.solver_is("shop", "Solved") => fuse.arm(i64::MAX),
        };
        if killed {
            farm.kill().await;
            farm.open(|exporter| exporter).await;
            farm.solver_is("shop", "Solved").await;
        }
        let contracts = farm.list::<Contract>().await;
        let sold: std::collections::BTreeSet<String> = official.paths("/purchase").into_iter().collect();
        assert_eq!(
            sold.len(),
            usize::try_from(moment + 1).unwrap(),
            "killed at moment {moment}: one for each: {sold:?}"
        );
        assert_eq!(contracts.len(), 1, "killed at moment {moment}");
        assert!(!contracts[0].status.as_ref().unwrap().conditions.is_empty(), "killed at moment {moment}");
        farm.delete_solver("shop").await;
        farm.empty().await;
        if !killed {
            assert!(moment > 10, "{moment} moments");
            return;
        }
    }
}
