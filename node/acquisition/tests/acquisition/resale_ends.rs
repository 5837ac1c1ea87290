//! What is sold on under a notice, and what is paid for it at the same time as for oneself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fluidos_acquisition::exporter::Exporter;
use fluidos_identity::{NodeId, NodeKey, Signed};
use fluidos_model::kinds::{AcquisitionPolicy, Configuration, Contract, SharingPolicy, Solver, names};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use fluidos_rear::{Refusal, Seller};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

async fn policies(node: &Node, sharing: Option<Value>, per_hour: Option<&str>) {
    if let Some(spec) = sharing {
        let kind = json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec});
        node.create::<SharingPolicy>(kind).await;
    }
    if let Some(per_hour) = per_hour {
        node.create::<AcquisitionPolicy>(json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
            "spec": {"ceilings": [{"currency": "EUR", "perHour": per_hour}], "accepts": {"resold": true}},
        }))
        .await;
    }
}

fn price(amount: &str) -> Value {
    json!({"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"})
}

/// When the one contract of a node ends by a notice; `None` is that nobody has given one.
async fn notice(node: &Node, seller: &Node) -> Option<Timestamp> {
    let peer = seller.key.id().tag();
    let of_peer = |contract: &Contract| {
        contract.metadata.labels.as_ref().and_then(|all| all.get(names::LABEL_PEER)) == Some(&peer)
    };
    let contract = node.list::<Contract>().await.into_iter().find(of_peer)?;
    contract.status?.ends?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_goes_through_the_reseller_both_ways() {
    let mut farm = Node::start(1, "farm", None).await;
    let broker = Node::start(2, "broker", None).await;
    let grid = Node::start(3, "grid", Some(4000)).await;
    farm.fabric();
    farm.know(&broker).await;
    broker.know(&grid).await;
    policies(&grid, Some(json!({"price": price("0.02"), "conditions": {"noticeSeconds": 3}})), None).await;
    policies(&broker, Some(json!({"price": price("0.05"), "reselling": {"margin": "10%"}})), Some("1")).await;
    policies(&farm, None, Some("1")).await;
    for (by, other) in [(&grid, &farm), (&farm, &grid)] {
        farm.solver("shop", "2", &[]).await;
        farm.solver_is("shop", "Solved").await;
        let name = by.list::<Contract>().await.remove(0).metadata.name.unwrap();
        let patch =
            Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_END_REASON: "the harvest is over"}}}));
        by.api::<Contract>().patch(&name, &PatchParams::default(), &patch).await.unwrap();
        until(&format!("{} has the notice of {}", other.name, by.name), async || {
            notice(other, &broker).await.map(drop).ok_or_else(|| "no notice".to_owned())
        })
        .await;
        assert_eq!(broker.list::<Contract>().await.len(), 2, "until then both go on");
        farm.solver_is("shop", "Failed").await;
        farm.delete_solver("shop").await;
        for node in [&farm, &broker, &grid] {
            node.empty().await;
        }
    }
    let events = farm.list::<k8s_openapi::api::core::v1::Event>().await;
    let told: Vec<String> = events.into_iter().filter_map(|event| event.message).collect();
    assert!(told.iter().any(|told| told.contains("what it is served with ends at")), "{told:?}");
    assert!(!told.iter().any(|told| told.contains("needed a notice")), "it was given in time: {told:?}");
    until("no Solver is left", async || {
        let left = broker.list::<Solver>().await.len();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}

/// Sells as slowly as a seller far away.
struct Slow(Arc<Exporter>);

#[async_trait]
impl Seller for Slow {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        self.0.list_flavors(selector, peer).await
    }

    async fn request(&self, request: rear::ResourceRequest, buyer: NodeId) -> Result<rear::ResourceAnswer, Refusal> {
        self.0.request(request, buyer).await
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        self.0.reserve(request, buyer).await
    }

    async fn purchase(
        &self,
        transaction: &str,
        request: rear::PurchaseRequest,
        terms: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.0.purchase(transaction, request, terms, buyer).await
    }

    async fn cancel(&self, transaction: &str, buyer: NodeId) -> Result<(), Refusal> {
        self.0.cancel(transaction, buyer).await
    }

    async fn release(&self, id: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.0.release(id, release, party).await
    }
}

/// Has two CPUs quoted and held at a reseller, and signs the terms.
async fn held(client: &rear::Client, broker: &Node, buyer: &NodeKey, id: &str) -> Signed<rear::ContractTerms> {
    let path = || Some(rear::Path::default().signed(buyer, broker.key.id(), Timestamp::now()).unwrap());
    let range =
        |name: &str, min: &str| rear::SelectorFilter::Range { name: name.into(), min: Some(min.into()), max: None };
    let request = rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: vec![range("cpu", "2"), range("memory", "64Mi"), range("pods", "1")],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path: path(),
    };
    let offered = client.request(&request).await.unwrap().unwrap().offers.pop().unwrap();
    let amounts = Amounts { cpu_milli: 2000, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
    let data = Configuration::k8slice(&amounts).unwrap().data;
    let reserve = rear::ReserveRequest {
        flavor_id: offered.flavor.id,
        buyer: rear::Party { node_id: "b".into(), ..rear::Party::default() },
        configuration: Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data }),
        transaction_id: Some(id.into()),
        term_seconds: None,
        path: path(),
    };
    let held = client.reserve(&reserve).await.unwrap();
    let mut terms = rear::check_offer(held.terms.as_ref().unwrap(), &reserve, id, buyer.id(), broker.key.id()).unwrap();
    terms.sign(buyer).unwrap();
    terms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_would_take_the_last_of_a_ceiling_one_is_refused() {
    let mut broker = Node::start(2, "broker", None).await;
    let mut grid = Node::without_rooms(3, "grid", Some(8000)).await;
    grid.open(|exporter| Arc::new(Slow(exporter))).await;
    broker.fabric();
    broker.know(&grid).await;
    policies(&grid, Some(json!({"price": price("0.02")})), None).await;
    // Two CPUs cost 0.04: there is room for one such contract, whoever it is for.
    policies(&broker, Some(json!({"price": price("0.05"), "reselling": {"margin": "10%"}})), Some("0.06")).await;
    let buyer = NodeKey::from_seed([9; 32]).unwrap();
    let client = broker.rear(&buyer);
    for own_first in [true, false] {
        let terms = held(&client, &broker, &buyer, &format!("t-{own_first}")).await;
        let request = rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() };
        let (own, on) = (
            Duration::from_millis(if own_first { 0 } else { 350 }),
            Duration::from_millis(if own_first { 350 } else { 0 }),
        );
        let buys = async {
            tokio::time::sleep(own).await;
            broker.solver("own", "2", &[]).await;
            until("the own Solver ends", async || {
                let status = broker.api::<Solver>().get("own").await.unwrap().status.unwrap_or_default().solver_phase;
                if status.phase.is_final() { Ok(status) } else { Err(format!("{status:?}")) }
            })
            .await
        };
        let sells = async {
            tokio::time::sleep(on).await;
            client.purchase(&format!("t-{own_first}"), &request).await
        };
        let (own, on) = tokio::join!(buys, sells);
        let bought = broker.list::<Contract>().await;
        let peer = grid.key.id().tag();
        let paid =
            bought.iter().filter(|known| known.metadata.labels.as_ref().unwrap()[names::LABEL_PEER] == peer).count();
        assert_eq!(paid, 1, "own first {own_first}: {own:?}, {on:?}");
        if own_first {
            assert_eq!(own.phase.as_str(), "Solved", "{own:?}");
            let rear::ClientError::Refused { refusal, .. } = on.unwrap_err() else { panic!("no refusal") };
            assert!(refusal.detail.contains("may not be paid"), "{refusal}");
        } else {
            assert!(own.message.contains("ceiling: "), "{own:?}");
            let both = on.unwrap().signed_terms.unwrap();
            let both = rear::check_contract(&both, &terms).unwrap();
            let mut release = rear::ReleaseTerms::of(&both, "done", Timestamp::now(), None).unwrap();
            release.sign(&buyer).unwrap();
            client.release(&release).await.unwrap();
        }
        broker.delete_solver("own").await;
        for node in [&broker, &grid] {
            node.empty().await;
        }
        // So long the ceiling counts nothing, and what others said is remembered.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}
