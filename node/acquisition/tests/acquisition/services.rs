//! A service is bought with its configuration: checked by the seller, bound into what both sign by its digest. Real nodes, REAR over TLS.

use fluidos_identity::Signed;
use fluidos_model::kinds::{Contract, PeeringCandidate, names};
use fluidos_rear as rear;
use fluidos_rear::{ClientError, RefusalCode};
use serde_json::json;

use crate::support::Node;
use crate::support::service::{sells, solver};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_buys_a_service_with_its_configuration() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(1000)).await);
    buyer.know(&seller).await;
    let flavor = sells(&seller).await;
    solver(&buyer, "cache", "redis", json!({"memory": "32mb"})).await;
    buyer.solver_is("cache", "Solved").await;
    let (bought, sold) = (buyer.list::<Contract>().await.remove(0), seller.list::<Contract>().await.remove(0));
    for contract in [&bought, &sold] {
        let configured = contract.spec.configuration.as_ref().unwrap().service().unwrap().configuration_data;
        assert_eq!(configured, json!({"memory": "32mb"}));
        assert_eq!(contract.spec.flavor.metadata.name, flavor);
    }
    assert_eq!(bought.spec.signed_terms, sold.spec.signed_terms);
    assert_eq!(bought.metadata.annotations.as_ref().unwrap()[names::ANNOTATION_SERVICE_NAME], "cache");
    let terms = sold.spec.signed_terms.unwrap();
    let envelope = rear::Envelope { purpose: terms.purpose, payload: terms.payload, signatures: terms.signatures };
    let signed = Signed::<rear::ContractTerms>::open(&envelope, rear::CONTRACT_PURPOSE).unwrap();
    let digest = rear::configuration_digest(&json!({"configurationData": {"memory": "32mb"}})).unwrap();
    let size = json!({"cpu": "250m", "memory": "64Mi", "pods": "1"});
    let needed = json!({"hostingPolicy": "Provider", "configurationDigest": digest, "size": size});
    assert_eq!(signed.value().configuration, needed);
    assert_eq!(signed.value().flavor_type, "service");
    let promised = seller.ledger().await.commitments.remove(0);
    assert_eq!(promised.amounts.to_string(), "cpu 250m, memory 64Mi, pods 1", "an instance takes its size of the pool");
    assert_eq!(buyer.list::<PeeringCandidate>().await.len(), 1, "the slice is no candidate");

    solver(&buyer, "wrong", "redis", json!({"memory": "32mb; FLUSHALL"})).await;
    let message = buyer.solver_is("wrong", "Failed").await;
    assert!(message.contains("reserve: configurationData.memory: "), "{message}");
    solver(&buyer, "other", "mysql", json!({"memory": "32mb"})).await;
    let message = buyer.solver_is("other", "Failed").await;
    assert!(message.contains("tags: redis offered, needed mysql"), "{message}");
    buyer.delete_solver("cache").await;
    buyer.delete_solver("wrong").await;
    buyer.delete_solver("other").await;
    buyer.empty().await;
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bought_is_what_was_configured_when_it_was_held() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(1000)).await);
    let flavor = sells(&seller).await;
    let client = seller.rear(&buyer.key);
    let configuration = |memory: &str| {
        let data = json!({"configurationData": {"memory": memory}});
        Some(rear::Configuration { flavor_type: rear::FlavorType::Service, data })
    };
    let reserve = |id: &str, configuration| rear::ReserveRequest {
        flavor_id: flavor.clone(),
        buyer: rear::Party { node_id: "b".into(), ..rear::Party::default() },
        configuration,
        transaction_id: Some(id.into()),
        term_seconds: None,
        path: None,
    };
    let refused = async |answer: Result<rear::Transaction, ClientError>| match answer.unwrap_err() {
        ClientError::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    };
    let asked = reserve("t", configuration("32mb"));
    let held = client.reserve(&asked).await.unwrap();
    assert_eq!(client.reserve(&asked).await.unwrap().terms, held.terms, "again is the same hold");
    let refusal = refused(client.reserve(&reserve("t", configuration("64mb"))).await).await;
    assert_eq!(refusal.code, RefusalCode::Conflict, "another configuration is not: {refusal}");
    let refusal = refused(client.reserve(&reserve("u", None)).await).await;
    assert!(refusal.detail.contains("memory"), "{refusal}");
    let consumer = rear::Configuration {
        flavor_type: rear::FlavorType::Service,
        data: json!({"hostingPolicy": "Consumer", "configurationData": {"memory": "32mb"}}),
    };
    let refusal = refused(client.reserve(&reserve("v", Some(consumer))).await).await;
    assert!(refusal.detail.contains("hostingPolicy is Consumer, needed Provider"), "{refusal}");

    let terms = held.terms.as_ref().unwrap();
    let mut signed = rear::check_offer(terms, &asked, "t", buyer.key.id(), seller.key.id()).unwrap();
    let other = reserve("t", configuration("64mb"));
    assert!(
        rear::check_offer(terms, &other, "t", buyer.key.id(), seller.key.id()).is_err(),
        "a buyer sees another digest"
    );
    signed.sign(&buyer.key).unwrap();
    for wrong in [configuration("64mb"), None] {
        let purchase =
            rear::PurchaseRequest { signed_terms: Some(signed.envelope()), configuration: wrong, ..Default::default() };
        let error = client.purchase("t", &purchase).await.unwrap_err().to_string();
        assert!(error.contains("the configuration has the digest"), "{error}");
    }
    assert!(seller.list::<Contract>().await.is_empty());
    let configuration = configuration("32mb");
    let purchase = rear::PurchaseRequest { signed_terms: Some(signed.envelope()), configuration, ..Default::default() };
    let contract = client.purchase("t", &purchase).await.unwrap();
    assert_eq!(client.purchase("t", &purchase).await.unwrap().id, contract.id);
    let services = rear::Selector { flavor_type: Some(rear::FlavorType::Service), filters: Vec::new() };
    let listed = client.list_flavors(&services).await.unwrap();
    assert_eq!(listed.iter().map(|flavor| flavor.id.as_str()).collect::<Vec<_>>(), [flavor.as_str()]);
}
