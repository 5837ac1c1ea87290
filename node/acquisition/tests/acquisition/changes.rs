//! What a seller offers, as those see it who subscribe: real nodes, REAR over TLS on loopback.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fluidos_acquisition::subscriber;
use fluidos_identity::{NodeId, NodeKey, Signed};
use fluidos_model::kinds::{Flavor, PeeringCandidate, SharingPolicy, Solver, names};
use fluidos_rear as rear;
use fluidos_rear::{Change, Refusal, Seller, Subscription};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

fn policy(amount: &str, deny: &[String]) -> Value {
    json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": "standard"},
           "spec": {"price": {"amount": amount, "currency": "EUR", "period": "hour"}, "buyers": {"deny": deny}}})
}

async fn change(node: &Node, patch: Value) {
    let patch = Patch::Merge(patch);
    node.api::<SharingPolicy>().patch("standard", &PatchParams::default(), &patch).await.unwrap();
}

async fn says(node: &Node, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    node.api::<Flavor>().patch(&node.flavor_name(), &PatchParams::default(), &patch).await.unwrap();
}

/// The next change that says something, in short. Sooner than a heartbeat: it was told because it happened.
async fn told(subscription: &mut Subscription) -> String {
    let next = async {
        loop {
            match subscription.next().await.unwrap().expect("it goes on") {
                Change::Heartbeat => {}
                Change::Refresh(flavor) => {
                    let cpu = flavor.data.pointer("/characteristics/cpu").and_then(Value::as_str).unwrap_or("?");
                    return format!("refresh: cpu {cpu} at {}", flavor.price.amount);
                }
                Change::Withdraw { flavor_id } => return format!("withdraw {flavor_id}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), next).await.expect("told within 30 s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn price_amount_and_policy_are_told_to_whom_they_concern() {
    let seller = Node::start(2, "grid", Some(4000)).await;
    let (farm, mill) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([3; 32]).unwrap());
    seller.create::<SharingPolicy>(policy("0.02", &[])).await;
    let everything = rear::Selector::default();
    let subscribe = async |key| seller.rear(key).subscribe(&everything).await.unwrap().unwrap();
    let (mut of_farm, mut of_mill) = (subscribe(&farm).await, subscribe(&mill).await);
    let withdrawn = format!("withdraw {}", seller.flavor_name());
    for subscription in [&mut of_farm, &mut of_mill] {
        assert_eq!(told(subscription).await, "refresh: cpu 4000m at 0.02");
    }
    change(&seller, json!({"spec": {"price": {"amount": "0.03"}}})).await;
    for subscription in [&mut of_farm, &mut of_mill] {
        assert_eq!(told(subscription).await, "refresh: cpu 4000m at 0.03");
    }
    change(&seller, json!({"spec": {"buyers": {"deny": [mill.id().to_string()]}}})).await;
    assert_eq!(told(&mut of_mill).await, withdrawn, "a policy shuts it out");
    let held = rear::ReserveRequest {
        flavor_id: seller.flavor_name(),
        buyer: rear::Party { node_id: "f".into(), ..rear::Party::default() },
        configuration: Some(rear::Configuration {
            flavor_type: rear::FlavorType::K8Slice,
            data: json!({"cpu": "1500m", "memory": "1Gi", "pods": "1"}),
        }),
        transaction_id: Some("t".into()),
        term_seconds: None,
        path: None,
    };
    seller.rear(&farm).reserve(&held).await.unwrap();
    assert_eq!(told(&mut of_farm).await, "refresh: cpu 2500m at 0.03", "what is held is not free");
    seller.rear(&farm).cancel("t").await.unwrap();
    assert_eq!(told(&mut of_farm).await, "refresh: cpu 4000m at 0.03");
    says(&seller, json!({"availability": false})).await;
    assert_eq!(told(&mut of_farm).await, withdrawn, "it is sold out");
    says(&seller, json!({"availability": true})).await;
    assert_eq!(told(&mut of_farm).await, "refresh: cpu 4000m at 0.03");
    change(&seller, json!({"spec": {"buyers": {"deny": null}}})).await;
    assert_eq!(told(&mut of_mill).await, "refresh: cpu 4000m at 0.03", "of what it did not see it was told nothing");
}

/// A seller that tells no changes, as official ones.
struct Silent<S>(Arc<S>);

#[async_trait]
impl<S: Seller> Seller for Silent<S> {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        self.0.list_flavors(selector, peer).await
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
        self.0.purchase(transaction, request, terms, buyer).await
    }

    async fn release(&self, id: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.0.release(id, release, party).await
    }
}

async fn candidate_says(buyer: &Node, needed: &str) {
    until(&format!("the candidate says {needed}"), async || {
        let candidates = buyer.list::<PeeringCandidate>().await;
        let said = candidates.iter().map(|known| {
            let cpu = &known.spec.flavor.spec.flavor_type.type_data["characteristics"]["cpu"];
            format!("{} {}", cpu.as_str().unwrap_or("?"), known.spec.available)
        });
        let said: Vec<String> = said.collect();
        if said == [needed] { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_as_its_seller_says_while_a_solver_is_interested() {
    let (mut buyer, mut seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    let (client, options) = (buyer.client.clone(), buyer.options.clone());
    buyer.rooms.spawn(subscriber::run(client, options));
    buyer.solver_with("shop", "1", &[], json!({})).await;
    buyer.solver_is("shop", "Solved").await;
    candidate_says(&buyer, "4000m true").await;
    says(&seller, json!({"flavorType": {"typeData": {"characteristics": {"cpu": "3"}}}})).await;
    candidate_says(&buyer, "3 true").await;
    says(&seller, json!({"availability": false})).await;
    candidate_says(&buyer, "3 false").await;

    // What happened while nobody could tell it is told when the seller is back.
    seller.kill().await;
    says(&seller, json!({"availability": true, "flavorType": {"typeData": {"characteristics": {"cpu": "2"}}}})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    candidate_says(&buyer, "3 false").await;
    seller.open(|exporter| exporter).await;
    candidate_says(&buyer, "2 true").await;

    // One that tells no changes is asked for its list.
    seller.kill().await;
    says(&seller, json!({"flavorType": {"typeData": {"characteristics": {"cpu": "1"}}}})).await;
    seller.open(|exporter| Arc::new(Silent(exporter))).await;
    candidate_says(&buyer, "1 true").await;

    buyer.delete_solver("shop").await;
    buyer.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_that_waits_is_told_what_could_serve_it_and_no_other_is() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    let (client, options) = (buyer.client.clone(), buyer.options.clone());
    buyer.rooms.spawn(subscriber::run(client, options));
    for (name, cpu, workload) in [("waits", "6", true), ("too-large", "60", true), ("by-hand", "6", false)] {
        buyer.solver_with(name, cpu, &[], json!({})).await;
        if workload {
            let label = Patch::Merge(json!({"metadata": {"labels": {names::LABEL_SOLVER_FOR: name}}}));
            buyer.api::<Solver>().patch(name, &PatchParams::default(), &label).await.unwrap();
        }
        buyer.solver_is(name, "Failed").await;
    }
    let grows = async |cpu: &str| {
        says(&seller, json!({"flavorType": {"typeData": {"characteristics": {"cpu": cpu}}}})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    // What is said when a seller is first heard is no news, so it is said until it has been heard; nothing else writes this word.
    until("it is told who could serve it", async || {
        grows("4").await;
        grows("8").await;
        let solver = buyer.api::<Solver>().get("waits").await.unwrap();
        let told = solver.metadata.annotations.unwrap_or_default().remove(names::ANNOTATION_OFFERED);
        if told.as_ref().is_some_and(|told| told.ends_with(" grid")) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    for other in ["too-large", "by-hand"] {
        let solver = buyer.api::<Solver>().get(other).await.unwrap();
        let told = solver.metadata.annotations.unwrap_or_default().remove(names::ANNOTATION_OFFERED);
        assert_eq!(told, None, "{other}");
    }
}
