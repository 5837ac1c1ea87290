//! A Solver at one node becomes a contract that both have signed, and goes again: real REAR over TLS on loopback.

use std::time::Instant;

use fluidos_model::kinds::{Allocation, Contract, Discovery, PeeringCandidate, Phase, Reservation, Solver};
use fluidos_model::market::CommitmentState;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Node, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_becomes_a_contract_of_both_and_goes_with_all_it_bought() {
    let (mut buyer, mut seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    buyer.solver("shop", "1500m", &[("fluidos-intent-location", "milan")]).await;
    until("it waits for its allocation, which nobody uses yet", async || {
        let status = buyer.api::<Solver>().get("shop").await.unwrap().status.unwrap_or_default();
        let waits = status.peering == Phase::Running && status.solver_phase.phase == Phase::Running;
        let allocations = buyer.list::<Allocation>().await.len();
        if waits && allocations == 1 { Ok(()) } else { Err(format!("{allocations} allocations, {status:?}")) }
    })
    .await;
    buyer.fabric();
    seller.fabric();
    assert_eq!(buyer.solver_is("shop", "Solved").await, "Solver has completed all the phases");

    let (bought, sold) = (buyer.list::<Contract>().await.remove(0), seller.list::<Contract>().await.remove(0));
    assert_eq!(bought.metadata.name, sold.metadata.name);
    let (ours, theirs) = (bought.spec.signed_terms.unwrap(), sold.spec.signed_terms.unwrap());
    assert_eq!(ours, theirs, "both keep the same bytes with the same signatures");
    assert_eq!(ours.signatures.len(), 2);
    let name = bought.spec.seller.additional_information.unwrap().name;
    assert_eq!((name.as_deref(), bought.spec.seller.ip), (Some("grid"), seller.address.to_string()));
    let configuration = bought.spec.configuration.unwrap().amounts().unwrap();
    assert_eq!(configuration.to_string(), "cpu 1500m, memory 64Mi, pods 1");
    let pool = seller.ledger().await;
    assert_eq!(pool.commitments.len(), 1);
    assert_eq!(pool.commitments[0].amounts, configuration);
    assert!(
        matches!(&pool.commitments[0].state, CommitmentState::Committed { contract, .. } if Some(contract) == bought.metadata.name.as_ref())
    );
    assert_eq!(seller.list::<Allocation>().await.len(), 1, "the provider has its allocation too");
    let status = buyer.list::<Reservation>().await.remove(0).status.unwrap();
    assert_eq!((status.phase.phase, status.contract.unwrap().name), (Phase::Solved, bought.metadata.name.unwrap()));
    let discovery = buyer.list::<Discovery>().await.remove(0).status.unwrap();
    assert_eq!(discovery.phase.message, "Discovery Solved: Peering Candidate found");
    assert_eq!(discovery.peering_candidate_list.items.len(), 1);

    buyer.delete_solver("shop").await;
    buyer.empty().await;
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_seller_ends_goes_at_the_buyer_and_its_solver_says_so() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    buyer.solver_with("shop", "1", &[], json!({"reserveAndBuy": true})).await;
    let message = buyer.solver_is("shop", "Solved").await;
    assert!(message.contains("is bought; no peering is asked for"), "{message}");
    let sold = seller.list::<Contract>().await.remove(0).metadata.name.unwrap();
    let why = Patch::Merge(json!({"metadata": {"annotations": {"fluidos.eu/end-reason": "the rack moves"}}}));
    seller.api::<Contract>().patch(&sold, &PatchParams::default(), &why).await.unwrap();
    seller.api::<Contract>().delete(&sold, &DeleteParams::default()).await.unwrap();
    seller.empty().await;
    let message = buyer.solver_is("shop", "Failed").await;
    assert!(message.contains("has ended"), "{message}");
    let events = buyer.list::<k8s_openapi::api::core::v1::Event>().await;
    let told = events.iter().find(|event| event.reason.as_deref() == Some("ReleasedByPeer"));
    let told = told.and_then(|event| event.message.clone()).unwrap_or_default();
    assert_eq!(told, format!("{} has ended this contract: the rack moves", seller.key.id()));
    assert!(buyer.list::<Contract>().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_waits_for_a_peer_that_is_away() {
    let (buyer, mut seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    buyer.solver_with("shop", "1", &[], json!({"reserveAndBuy": true})).await;
    buyer.solver_is("shop", "Solved").await;
    seller.kill().await;
    buyer.delete_solver("shop").await;
    until("the buyer's contract is ending", async || {
        let contracts = buyer.list::<Contract>().await;
        let ending = contracts.len() == 1 && contracts[0].metadata.deletion_timestamp.is_some();
        if ending { Ok(()) } else { Err(format!("{contracts:?}")) }
    })
    .await;
    assert_eq!(seller.ledger().await.commitments.len(), 1);
    seller.open(|exporter| exporter).await;
    buyer.empty().await;
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_offers_too_little_or_elsewhere_has_refused() {
    let (buyer, small, near) = (
        Node::start(1, "farm", None).await,
        Node::start(2, "small", Some(500)).await,
        Node::start(3, "near", Some(4000)).await,
    );
    buyer.solver("alone", "1", &[]).await;
    until("it says that there is nobody", async || {
        let status = buyer.api::<Solver>().get("alone").await.unwrap().status.unwrap_or_default().solver_phase;
        let waits = status.phase == Phase::Running && status.message.starts_with("no trusted peer is known");
        if waits { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    buyer.know(&small).await;
    let message = buyer.solver_is("alone", "Failed").await;
    assert_eq!(message, "small: list: cpu: 500m (at least 0, in steps of 1m) offered, needed at least 1");

    buyer.know(&near).await;
    let start = Instant::now();
    buyer.solver("turin", "1", &[("fluidos-intent-location", "Turin")]).await;
    let message = buyer.solver_is("turin", "Failed").await;
    assert!(message.contains("near: list: location: Milan, needed Turin"), "{message}");
    assert!(start.elapsed().as_secs() < 10);

    // What is not measured yet may be measured in a moment; what was measured decides.
    buyer.solver_with("quick", "1", &[("fluidos-intent-latency", "5ms")], json!({})).await;
    until("it is known that the latency is not", async || {
        let found = buyer.list::<Discovery>().await;
        let told = found.iter().find(|it| it.spec.solver_id == "quick").and_then(|it| it.status.clone());
        let message = told.map(|status| status.phase.message).unwrap_or_default();
        if message.contains("latency: ?, needed at most 5ms") { Ok(()) } else { Err(message) }
    })
    .await;
    buyer.measure(&near, 1200).await;
    let message = buyer.solver_is("quick", "Solved").await;
    assert!(message.starts_with("No need to reserve and buy the resources"), "{message}");
    assert_eq!(buyer.list::<PeeringCandidate>().await.len(), 1);
    assert!(near.ledger().await.commitments.is_empty(), "looking holds nothing");

    // Then it is asked to buy what it has found.
    let patch = Patch::Merge(json!({"spec": {"reserveAndBuy": true}}));
    buyer.api::<Solver>().patch("quick", &PatchParams::default(), &patch).await.unwrap();
    until("it is bought", async || match near.ledger().await.commitments.as_slice() {
        [one] if !one.is_held() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(small.list::<Contract>().await.is_empty());
    buyer.solver_with("typo", "1", &[("fluidos-intent-latncy", "5ms")], json!({})).await;
    let message = buyer.solver_is("typo", "Failed").await;
    assert!(message.contains("did you mean fluidos-intent-latency?"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_has_just_started_gets_a_moment_to_offer() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", None).await);
    buyer.know(&seller).await;
    buyer.solver_with("early", "1", &[], json!({"reserveAndBuy": true})).await;
    until("it was asked and offers nothing", async || {
        let found = buyer.list::<Discovery>().await;
        let message = found.first().and_then(|it| it.status.clone()).unwrap_or_default().phase.message;
        if message.contains("grid: list: nothing offered") { Ok(()) } else { Err(message) }
    })
    .await;
    let status = buyer.api::<Solver>().get("early").await.unwrap().status.unwrap();
    assert_eq!(status.solver_phase.phase, Phase::Running);
    let start = Instant::now();
    let message = buyer.solver_is("early", "Failed").await;
    assert_eq!(message, "grid: list: nothing offered, needed a K8Slice");
    assert!(start.elapsed().as_secs() < 10);
}
