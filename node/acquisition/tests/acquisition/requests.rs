//! What a purchase asks of the seller's API: each request is a part of what it costs, and each write is waited for.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::{Arc, Mutex};

use expect_test::expect;
use fluidos_acquisition::exporter::Exporter;
use fluidos_identity::{NodeKey, Signed};
use fluidos_model::kinds::{Configuration, Contract, Ledger, names};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use fluidos_rear::Seller;
use kube::Client;
use substrate_client::{Access, Caches};

use crate::support::{Node, until};

type Asked = Arc<Mutex<Vec<String>>>;

/// A client that writes down what is asked of it.
fn heard(client: &Client, asked: &Asked) -> Client {
    let (client, asked) = (client.clone(), asked.clone());
    substrate_client::in_process(tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let path = request.uri().path();
        let path = path.split_once("/namespaces/fluidos/").map_or(path, |(_, path)| path);
        asked.lock().unwrap().push(format!("{} {path}", request.method()));
        let client = client.clone();
        async move { client.send(request).await }
    }))
}

fn take(asked: &Asked, contract: &str) -> String {
    let mut asked = std::mem::take(&mut *asked.lock().unwrap());
    // Some are made together.
    asked.sort();
    asked.iter().map(|one| format!("{one}\n")).collect::<String>().replace(contract, "CONTRACT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_asks_the_api_for_what_it_writes_and_nothing_else() {
    let node = Node::without_rooms(2, "grid", Some(4000)).await;
    let asked = Asked::default();
    // What all rooms of a process read is asked for once, whoever buys.
    let caches = Caches::new(node.client.clone());
    let access = Access { client: heard(&node.client, &asked), caches: caches.clone() };
    let seller = Exporter::new(access, node.options.clone());
    seller.open().await.unwrap();
    let ledgers = caches.namespaced::<Ledger>(names::NAMESPACE);
    let opened = async || ledgers.get(names::NAMESPACE, names::LEDGER).ok_or_else(|| "not seen yet".to_owned());
    until("the copies have the Ledger", opened).await;
    let buyer = NodeKey::from_seed([7; 32]).unwrap();
    asked.lock().unwrap().clear();

    let amounts = Amounts { cpu_milli: 100, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
    let data = Configuration::k8slice(&amounts).unwrap().data;
    let request = rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: Vec::new(),
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path: None,
    };
    assert_eq!(seller.request(request, buyer.id()).await.unwrap().offers.len(), 1);
    assert_eq!(take(&asked, "-"), "", "the copies answer");

    let reserve = rear::ReserveRequest {
        flavor_id: node.flavor_name(),
        buyer: rear::Party { node_id: buyer.id().tag(), ..rear::Party::default() },
        configuration: Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data }),
        transaction_id: Some("t".into()),
        term_seconds: None,
        path: None,
    };
    let held = seller.reserve(reserve, buyer.id()).await.unwrap();
    expect![[r#"
        PUT ledgers/pool
    "#]]
    .assert_eq(&take(&asked, "-"));

    let mut terms: Signed<rear::ContractTerms> = Signed::open(&held.terms.unwrap(), rear::CONTRACT_PURPOSE).unwrap();
    terms.sign(&buyer).unwrap();
    let bought = rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() };
    let contract = seller.purchase("t", bought, terms, buyer.id()).await.unwrap();
    expect![[r#"
        PATCH contracts/CONTRACT/status
        POST allocations
        POST contracts
        PUT ledgers/pool
    "#]]
    .assert_eq(&take(&asked, &contract.id));
    assert_eq!(node.list::<Contract>().await.len(), 1);
}
