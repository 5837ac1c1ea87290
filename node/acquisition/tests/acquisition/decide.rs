//! The exporter asks before it lists, holds and sells: once each, with what the peer has already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fluidos_acquisition::exporter::{Act, Ask};
use fluidos_identity::{NodeKey, Signed};
use fluidos_model::kinds::Configuration;
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use fluidos_rear::{ClientError, Refusal, RefusalCode};
use jiff::Timestamp;

use crate::support::Node;

fn request(seller: &Node, transaction: &str, cpu_milli: u64) -> rear::ReserveRequest {
    let amounts = Amounts { cpu_milli, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
    let data = Configuration::k8slice(&amounts).unwrap().data;
    rear::ReserveRequest {
        flavor_id: seller.flavor_name(),
        buyer: rear::Party { node_id: "b".into(), liqo_id: Some("b".into()), ..rear::Party::default() },
        configuration: Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data }),
        transaction_id: Some(transaction.into()),
        term_seconds: None,
        path: None,
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Refusal {
    match answer {
        Err(ClientError::Refused { refusal, .. }) => refusal,
        other => panic!("needed a refusal, observed {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_listed_held_or_sold_that_is_not_permitted() {
    let mut seller = Node::without_rooms(1, "grid", Some(4000)).await;
    let (buyer, other) = (NodeKey::from_seed([8; 32]).unwrap(), NodeKey::from_seed([9; 32]).unwrap());
    let (asked, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (seen, shut, friend) = (asked.clone(), closed.clone(), buyer.id());
    seller.options.decide = Some(Arc::new(move |ask: &Ask<'_>| {
        let now = Timestamp::now();
        let others = |pool: &&fluidos_model::market::Pool| {
            let known = pool.commitments.iter().filter(|known| {
                Some(&known.buyer) == ask.peer.map(|p| p.to_string()).as_ref()
                    && Some(known.transaction.as_str()) != ask.transaction
                    && !known.is_over(now)
            });
            known.map(|known| known.amounts.cpu_milli).sum::<u64>()
        };
        let cpu = ask.amounts.as_ref().map_or(0, |amounts| amounts.cpu_milli);
        seen.lock().unwrap().push((ask.act, cpu, ask.pool.as_ref().map_or(0, others)));
        if ask.peer != Some(friend) {
            return Err("policy friends forbids it".into());
        }
        if ask.act == Act::Buy && shut.load(Ordering::Relaxed) {
            Err("policy night forbids Buy".into())
        } else {
            Ok(())
        }
    }));
    seller.open(|exporter| exporter).await;

    let everything = rear::Selector::default();
    let refusal = refused(seller.rear(&other).list_flavors(&everything).await);
    assert!(
        refusal.code == RefusalCode::Forbidden && refusal.detail.starts_with("policy friends forbids it"),
        "{refusal}"
    );
    assert_eq!(seller.rear(&buyer).list_flavors(&everything).await.unwrap().len(), 1);
    assert_eq!(refused(seller.rear(&other).reserve(&request(&seller, "t0", 1000)).await).code, RefusalCode::Forbidden);
    assert!(seller.ledger().await.commitments.is_empty(), "nothing is held for who may not");

    seller.rear(&buyer).reserve(&request(&seller, "t1", 1000)).await.unwrap();
    let held = seller.rear(&buyer).reserve(&request(&seller, "t2", 500)).await.unwrap();
    seller.rear(&buyer).reserve(&request(&seller, "t2", 500)).await.unwrap();
    let mut terms = Signed::<rear::ContractTerms>::open(held.terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap();
    terms.sign(&buyer).unwrap();
    let purchase = rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() };
    closed.store(true, Ordering::Relaxed);
    let refusal = refused(seller.rear(&buyer).purchase("t2", &purchase).await);
    assert!(
        refusal.code == RefusalCode::Forbidden && refusal.detail.starts_with("policy night forbids Buy"),
        "{refusal}"
    );
    closed.store(false, Ordering::Relaxed);
    let sold = seller.rear(&buyer).purchase("t2", &purchase).await.unwrap();
    closed.store(true, Ordering::Relaxed);
    let again = seller.rear(&buyer).purchase("t2", &purchase).await.unwrap();
    assert_eq!(sold.signed_terms, again.signed_terms, "what was sold is not asked about again");
    use Act::*;
    let expected = [
        (List, 0, 0),
        (List, 0, 0),
        (Reserve, 1000, 0),
        (Reserve, 1000, 0),
        (Reserve, 500, 1000),
        (Buy, 500, 1000),
        (Buy, 500, 1000),
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_that_has_handed_its_key_over_is_whom_a_policy_names() {
    use fluidos_identity::{Speakers, Standing};
    use fluidos_model::kinds::SharingPolicy;
    let mut seller = Node::without_rooms(1, "grid", Some(4000)).await;
    let [old, new, barred, barred_now, other] = [8, 9, 10, 11, 12].map(|seed| NodeKey::from_seed([seed; 32]).unwrap());
    let speakers = Speakers::default();
    seller.options.speakers = speakers.clone();
    seller.open(|exporter| exporter).await;
    let policy = serde_json::json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy",
        "metadata": {"name": "friends", "namespace": "fluidos"},
        "spec": {"price": {"amount": "0", "currency": "EUR", "period": "hour"}, "buyers": {"allow": [old.id().to_string(), barred_now.id().to_string()], "deny": [barred.id().to_string()]}},
    });
    let policy: SharingPolicy = serde_json::from_value(policy).unwrap();
    kube::Api::namespaced(seller.client.clone(), "fluidos").create(&Default::default(), &policy).await.unwrap();
    let listed = async |buyer: &NodeKey| {
        seller.rear(buyer).list_flavors(&rear::Selector::default()).await.map_or(0, |flavors| flavors.len())
    };
    assert_eq!((listed(&old).await, listed(&new).await, listed(&barred_now).await), (1, 0, 1));
    let standings = [(&old, &new), (&barred, &barred_now)].map(|(a, b)| (a.id(), Standing::Current(b.id())));
    speakers.set(standings.into(), Default::default());
    assert_eq!((listed(&new).await, listed(&barred_now).await, listed(&other).await), (1, 0, 0));
}
