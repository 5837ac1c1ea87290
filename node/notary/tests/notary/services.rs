//! Services that were sold come back after the loss of a disk: as large as was signed, as was configured, by the blueprint that was signed.

use fluidos_model::kinds::{Allocation, Contract, LogState, names};
use fluidos_model::market::{AgreedService, CommitmentState, Ended};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{Node, agreed, deal, until, wire};

fn configured() -> Value {
    json!({"configurationData": {"memory": "32mb"}})
}

/// A contract of a cache that both have signed, as either would tell it; `size` is what they have signed of that.
fn cache(buyer: &Node, seller: &Node, number: u32, size: Option<Value>) -> rear::Contract {
    let digest = rear::configuration_digest(&configured()).unwrap();
    let name = format!("contract-{number}");
    let terms = rear::ContractTerms {
        flavor_id: names::service_flavor(&seller.options.identity.domain, &seller.key.id().tag(), "cache"),
        flavor_type: "service".into(),
        configuration: rear::ServiceTerms::new(&digest, size).into(),
        ..signed_by_nobody(&agreed(buyer, seller, number, SignedDuration::ZERO))
    };
    let mut signed = terms.into_signed().unwrap();
    signed.sign(&buyer.key).unwrap();
    signed.sign(&seller.key).unwrap();
    let mut contract = wire(buyer, seller, &name, signed.envelope());
    contract.flavor.flavor_type = rear::FlavorType::Service;
    contract.flavor.data = json!({"name": "cache", "description": "", "category": "database", "tags": [],
        "hostingPolicies": ["Provider"], "configurationTemplate": {"type": "object"}, "policies": {}, "blueprint": "cache"});
    contract.configuration = Some(rear::Configuration { flavor_type: rear::FlavorType::Service, data: configured() });
    contract
}

fn signed_by_nobody(contract: &rear::Contract) -> rear::ContractTerms {
    let envelope = contract.signed_terms.as_ref().unwrap();
    let signed = fluidos_identity::Signed::<rear::ContractTerms>::open(envelope, rear::CONTRACT_PURPOSE).unwrap();
    signed.value().clone()
}

fn small() -> Option<Value> {
    Some(json!({"cpu": "250m", "memory": "64Mi", "pods": "1"}))
}

async fn take_back(node: &Node, contract: &rear::Contract) -> Result<(), String> {
    let taken = fluidos_acquisition::restore::take_back(
        &node.client,
        &node.options,
        (contract, None),
        Ended::No,
        Timestamp::now(),
    );
    taken.await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_comes_back_at_its_seller() {
    let (buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    deal(&buyer, &seller, 1, SignedDuration::ZERO).await;
    let mut bought = cache(&buyer, &seller, 2, small());
    take_back(&seller, &bought).await.unwrap();
    // Its buyer would like another service for the same price.
    bought.flavor.data["blueprint"] = "palace".into();
    take_back(&buyer, &bought).await.unwrap();
    let log = seller.log_is(LogState::Complete, 2).await;
    seller.is_witnessed(&buyer, 2).await;

    seller.lose_objects().await;
    seller.lose_log();
    seller.know(&buyer).await;
    seller.open().await;
    let after = seller.log_is(LogState::Complete, 2).await;
    assert_eq!((after.root, after.missing), (log.root, 0));
    let back = seller.api::<Contract>().get("contract-2").await.unwrap();
    let configuration = back.spec.configuration.as_ref().unwrap().service().unwrap();
    assert_eq!(configuration.configuration_data, json!({"memory": "32mb"}));
    assert_eq!(back.spec.flavor.spec.service().unwrap().blueprint, "cache", "as was signed, not as its buyer says");
    let pool = seller.ledger().await;
    let promised = pool.commitments.iter().find(|known| known.transaction == "transaction-2").unwrap();
    assert_eq!(promised.amounts.to_string(), "cpu 250m, memory 64Mi, pods 1");
    assert!(matches!(&promised.state, CommitmentState::Committed { contract, .. } if contract == "contract-2"));
    let digest = rear::configuration_digest(&configured()).unwrap();
    assert_eq!(promised.agreed.as_ref().unwrap().service, Some(AgreedService { digest, sized: true }));
    assert_eq!(pool.free(Timestamp::now()).cpu_milli, 350, "400m of a slice and 250m of a service are sold");
    assert_eq!(seller.list::<Allocation>().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_comes_back_at_its_buyer() {
    let (mut buyer, seller) = (Node::start(1).await, Node::start(2).await);
    let bought = cache(&buyer, &seller, 2, small());
    take_back(&seller, &bought).await.unwrap();
    take_back(&buyer, &bought).await.unwrap();
    let log = buyer.log_is(LogState::Complete, 1).await;
    buyer.is_witnessed(&seller, 1).await;
    buyer.lose_objects().await;
    buyer.lose_log();
    buyer.know(&seller).await;
    buyer.open().await;
    let after = buyer.log_is(LogState::Complete, 1).await;
    assert_eq!((after.root, after.missing), (log.root, 0));
    assert_eq!(buyer.names::<Contract>().await, ["contract-2"]);
    let back = buyer.api::<Contract>().get("contract-2").await.unwrap();
    assert_eq!(back.spec.configuration.unwrap().service().unwrap().configuration_data, json!({"memory": "32mb"}));
    until("its access may be asked for", async || {
        let allocations = buyer.names::<Allocation>().await;
        if allocations.len() == 1 { Ok(()) } else { Err(format!("{allocations:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_back_that_was_not_signed() {
    let (buyer, seller) = (Node::start(1).await, Node::start(2).await);
    let refused = async |contract: &rear::Contract| take_back(&seller, contract).await.unwrap_err();
    let mut other = cache(&buyer, &seller, 1, small());
    other.configuration.as_mut().unwrap().data = json!({"configurationData": {"memory": "64mb"}});
    assert!(refused(&other).await.contains("the configuration has the digest"), "{}", refused(&other).await);
    other.configuration = None;
    assert!(refused(&other).await.contains("the configuration has the digest"));
    let old = refused(&cache(&buyer, &seller, 2, None)).await;
    assert!(old.contains("do not say how large the service is"), "{old}");
    // It stays valid: what its seller has of it is not lost.
    take_back(&buyer, &cache(&buyer, &seller, 2, None)).await.unwrap();
    for size in [json!({"cpu": "much"}), json!({"cpu": "0.25", "memory": "64Mi", "pods": "1"}), json!(7)] {
        let wrong = refused(&cache(&buyer, &seller, 3, Some(size))).await;
        assert!(wrong.contains("size is "), "{wrong}");
    }
    assert!(seller.names::<Contract>().await.is_empty() && seller.ledger().await.commitments.is_empty());
}
