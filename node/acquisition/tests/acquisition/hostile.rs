//! Buyers that race, forge and replay; sellers that die or lose their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fluidos_acquisition::exporter::Exporter;
use fluidos_acquisition::importer;
use fluidos_identity::{NodeId, NodeKey, Signed};
use fluidos_model::kinds::{Configuration, Contract, Ledger};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use fluidos_rear::{ClientError, Refusal, RefusalCode, Seller};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use crate::support;
use crate::support::{Node, until};

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

fn terms(transaction: &rear::Transaction) -> Signed<rear::ContractTerms> {
    Signed::open(transaction.terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap()
}

fn purchase(terms: &Signed<rear::ContractTerms>) -> rear::PurchaseRequest {
    rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> RefusalCode {
    match answer {
        Err(ClientError::Refused { refusal, .. }) => refusal.code,
        other => panic!("needed a refusal, observed {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_buyers_at_once_are_never_sold_more_than_there_is() {
    let seller = Node::start(1, "grid", Some(4000)).await;
    let ledgers = seller.api::<Ledger>();
    let (most, versions) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (seen_most, seen_versions) = (most.clone(), versions.clone());
    let watching = tokio::spawn(async move {
        let mut versions = std::pin::pin!(watcher(ledgers, watcher::Config::default()).applied_objects());
        while let Some(Ok(ledger)) = versions.next().await {
            let pool = ledger.spec.pool().unwrap();
            let sum: u64 = pool.commitments.iter().map(|known| known.amounts.cpu_milli).sum();
            seen_most.fetch_max(u32::try_from(sum).unwrap(), Ordering::Relaxed);
            seen_versions.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut buyers = Vec::new();
    for seed in 2..5 {
        let mut buyer = Node::start(seed, &format!("farm-{seed}"), None).await;
        buyer.know(&seller).await;
        buyer.fabric();
        buyers.push(buyer);
    }
    for buyer in &buyers {
        for number in 0..3 {
            buyer.solver(&format!("s{number}"), "1", &[]).await;
        }
    }
    let (mut solved, mut failed) = (0, Vec::new());
    for buyer in &buyers {
        for number in 0..3 {
            let name = format!("s{number}");
            let (phase, message) = until("the Solver ends", async || {
                let solver = buyer.api::<fluidos_model::kinds::Solver>().get(&name).await.unwrap();
                let status = solver.status.unwrap_or_default().solver_phase;
                if status.phase.is_final() {
                    Ok((status.phase.as_str(), status.message))
                } else {
                    Err(format!("{status:?}"))
                }
            })
            .await;
            if phase == "Solved" { solved += 1 } else { failed.push(message) }
        }
    }
    assert_eq!((solved, failed.len()), (4, 5), "4 CPUs are four contracts: {failed:?}");
    assert!(
        failed.iter().all(|message| message.contains("grid: reserve: cpu: ") && message.contains("free, needed 1")),
        "{failed:?}"
    );
    assert_eq!(most.load(Ordering::Relaxed), 4000, "in no version of the ledger more than there is");
    // As it was opened, with holds, with sales: those that come together are written together.
    assert!(versions.load(Ordering::Relaxed) >= 3, "holds and sales were seen");
    assert_eq!(seller.list::<Contract>().await.len(), 4);
    watching.abort();
    for buyer in &buyers {
        for number in 0..3 {
            buyer.delete_solver(&format!("s{number}")).await;
        }
    }
    for buyer in &buyers {
        buyer.empty().await;
    }
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_seller_keeps_its_word_and_a_hold_ends_by_itself() {
    let mut seller = Node::without_rooms(1, "grid", Some(2000)).await;
    seller.options.hold = Duration::from_secs(3);
    seller.open(|exporter| exporter).await;
    let buyer = NodeKey::from_seed([9; 32]).unwrap();
    let held = seller.rear(&buyer).reserve(&request(&seller, "t1", 1500)).await.unwrap();
    seller.kill().await;
    seller.open(|exporter| exporter).await;
    let again = seller.rear(&buyer).reserve(&request(&seller, "t1", 1500)).await.unwrap();
    assert_eq!(held.terms, again.terms, "the same bytes after the kill");
    let mut signed = terms(&held);
    signed.sign(&buyer).unwrap();
    let contract = seller.rear(&buyer).purchase("t1", &purchase(&signed)).await.unwrap();
    rear::check_contract(contract.signed_terms.as_ref().unwrap(), &signed).unwrap();
    let asked_again = seller.rear(&buyer).purchase("t1", &purchase(&signed)).await.unwrap();
    assert_eq!(asked_again.signed_terms, contract.signed_terms, "asked again it is the same contract");
    assert_eq!(seller.list::<Contract>().await.len(), 1);

    let held = seller.rear(&buyer).reserve(&request(&seller, "t2", 500)).await.unwrap();
    assert_eq!(refused(seller.rear(&buyer).reserve(&request(&seller, "t3", 500)).await), RefusalCode::Conflict);
    seller.kill().await;
    seller.open(|exporter| exporter).await;
    until("the hold is over", async || {
        let left = seller.ledger().await.commitments;
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let mut signed = terms(&held);
    signed.sign(&buyer).unwrap();
    assert_eq!(refused(seller.rear(&buyer).purchase("t2", &purchase(&signed)).await), RefusalCode::Expired);
    seller.rear(&buyer).reserve(&request(&seller, "t3", 500)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_replayed_and_foreign_purchases_are_refused() {
    let seller = Node::start(1, "grid", Some(2000)).await;
    let (buyer, thief) = (NodeKey::from_seed([8; 32]).unwrap(), NodeKey::from_seed([9; 32]).unwrap());
    let held = seller.rear(&buyer).reserve(&request(&seller, "t1", 1000)).await.unwrap();
    let mut signed = terms(&held);
    // Another buyer, with its own signature or with that of the first.
    let mut stolen = signed.clone();
    stolen.sign(&thief).unwrap();
    assert_eq!(refused(seller.rear(&thief).purchase("t1", &purchase(&stolen)).await), RefusalCode::Forbidden);
    signed.sign(&buyer).unwrap();
    assert_eq!(refused(seller.rear(&thief).purchase("t1", &purchase(&signed)).await), RefusalCode::Forbidden);
    let taken = refused(seller.rear(&thief).reserve(&request(&seller, "t1", 1000)).await);
    assert_eq!(taken, RefusalCode::Conflict, "a transaction is its buyer's");
    // It gives back what is not its own: nothing happens, and it learns nothing.
    seller.rear(&thief).cancel("t1").await.unwrap();
    seller.rear(&thief).cancel("t-unknown").await.unwrap();
    assert!(seller.ledger().await.commitments[0].is_held());
    // The thief writes itself in as the buyer of what the other holds.
    let mut own = signed.value().clone();
    own.buyer = thief.id();
    let mut own = own.into_signed().unwrap();
    own.sign(&thief).unwrap();
    assert_eq!(refused(seller.rear(&thief).purchase("t1", &purchase(&own)).await), RefusalCode::Expired);
    // More than was held, signed rightly; and a signature over other bytes.
    let mut more = signed.value().clone();
    more.configuration["cpu"] = "2".into();
    let mut more = more.into_signed().unwrap();
    let mut forged = purchase(&more);
    forged.signed_terms.as_mut().unwrap().signatures = signed.envelope().signatures;
    assert_eq!(refused(seller.rear(&buyer).purchase("t1", &forged).await), RefusalCode::Malformed);
    more.sign(&buyer).unwrap();
    assert_eq!(refused(seller.rear(&buyer).purchase("t1", &purchase(&more)).await), RefusalCode::Conflict);
    assert!(seller.list::<Contract>().await.is_empty());
    assert!(seller.ledger().await.commitments[0].is_held());

    let contract = seller.rear(&buyer).purchase("t1", &purchase(&signed)).await.unwrap();
    assert_eq!(
        refused(seller.rear(&buyer).cancel("t1").await),
        RefusalCode::Conflict,
        "what is sold is not given back"
    );
    let both = rear::check_contract(contract.signed_terms.as_ref().unwrap(), &signed).unwrap();
    let mut release = rear::ReleaseTerms::of(&both, "no", Timestamp::now(), None).unwrap();
    release.sign(&thief).unwrap();
    assert_eq!(refused(seller.rear(&thief).release(&release).await), RefusalCode::Forbidden);
    assert_eq!(seller.list::<Contract>().await.len(), 1);
    let mut release = rear::ReleaseTerms::of(&both, "done", Timestamp::now(), None).unwrap();
    release.sign(&buyer).unwrap();
    seller.rear(&buyer).release(&release).await.unwrap();
    seller.rear(&buyer).release(&release).await.unwrap();
    seller.empty().await;
    assert_eq!(refused(seller.rear(&buyer).purchase("t1", &purchase(&signed)).await), RefusalCode::Expired);
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_one_ledger_do_not_promise_the_same_twice() {
    let seller = Node::without_rooms(1, "grid", Some(4000)).await;
    let replicas: Vec<_> =
        (0..2).map(|_| Arc::new(Exporter::new(seller.client.clone(), seller.options.clone()))).collect();
    replicas[0].open().await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..16u8 {
        let (exporter, buyer) =
            (replicas[usize::from(number % 2)].clone(), NodeKey::from_seed([100 + number; 32]).unwrap());
        let request = request(&seller, &format!("t{number}"), 1000);
        asking.spawn(async move { exporter.reserve(request, buyer.id()).await });
    }
    let answers = asking.join_all().await;
    let held = answers.iter().filter(|answer| answer.is_ok()).count();
    let reasons: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(held, 4, "{reasons:?}");
    assert!(reasons.iter().all(|refusal| refusal.code == RefusalCode::Conflict), "{reasons:?}");
    let pool = seller.ledger().await;
    assert_eq!(pool.commitments.iter().map(|known| known.amounts.cpu_milli).sum::<u64>(), 4000);
    assert_eq!(pool.commitments.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_was_never_written_is_given_up_and_capacity_may_be_lowered() {
    let mut seller = Node::start(1, "grid", Some(2000)).await;
    let buyer = NodeKey::from_seed([9; 32]).unwrap();
    let held = seller.rear(&buyer).reserve(&request(&seller, "kept", 500)).await.unwrap();
    let mut signed = terms(&held);
    signed.sign(&buyer).unwrap();
    seller.rear(&buyer).purchase("kept", &purchase(&signed)).await.unwrap();
    seller.kill().await;
    // Killed between the two writes, three minutes ago.
    let ledgers = seller.api::<Ledger>();
    let mut ledger = ledgers.get("pool").await.unwrap();
    let mut lost = ledger.spec.commitments[0].clone();
    let until = Timestamp::now() + jiff::SignedDuration::from_secs(365 * 24 * 3600 - 180);
    (lost.transaction_id, lost.contract, lost.until) =
        ("lost".into(), Some("contract-lost".into()), Some(until.to_string()));
    let hold_until = Timestamp::now() - jiff::SignedDuration::from_secs(120);
    lost.agreed.as_mut().unwrap().hold_until = hold_until.to_string();
    ledger.spec.commitments.push(lost);
    ledgers.replace("pool", &Default::default(), &ledger).await.unwrap();
    seller.options.offer = Some(support::cpu(100));
    seller.open(|exporter| exporter).await;
    until_ledger(&seller, &["kept"]).await;
    let pool = seller.ledger().await;
    assert_eq!(pool.capacity.cpu_milli, 100, "the owner's word counts from now on");
    assert_eq!(refused(seller.rear(&buyer).reserve(&request(&seller, "t2", 50)).await), RefusalCode::Conflict);
    // The other way round: a contract for which nothing is promised goes.
    seller.kill().await;
    let mut ledger = ledgers.get("pool").await.unwrap();
    ledger.spec.commitments.clear();
    ledgers.replace("pool", &Default::default(), &ledger).await.unwrap();
    assert_eq!(seller.list::<Contract>().await.len(), 1);
    seller.open(|exporter| exporter).await;
    seller.empty().await;
}

async fn until_ledger(seller: &Node, transactions: &[&str]) {
    until("the ledger has its promises", async || {
        let left: Vec<String> =
            seller.ledger().await.commitments.into_iter().map(|known| known.transaction.clone()).collect();
        if left == transactions { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// A seller between the wire and the exporter.
struct Between {
    exporter: Arc<Exporter>,
    /// Sells, and never says so.
    mute: bool,
    /// Nothing is answered to a reservation while this is set; what was asked is done.
    stuck: Arc<AtomicBool>,
    purchases: Arc<AtomicU32>,
}

#[async_trait]
impl Seller for Between {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        self.exporter.list_flavors(selector, peer).await
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        let held = self.exporter.reserve(request, buyer).await;
        while self.stuck.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        held
    }

    async fn purchase(
        &self,
        transaction: &str,
        request: rear::PurchaseRequest,
        terms: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        self.purchases.fetch_add(1, Ordering::Relaxed);
        let sold = self.exporter.purchase(transaction, request, terms, buyer).await?;
        if self.mute { Err(Refusal::new(RefusalCode::Unavailable, "the answer is lost")) } else { Ok(sold) }
    }

    async fn release(&self, id: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.exporter.release(id, release, party).await
    }
}

async fn between(name: &str, seed: u8, mute: bool, stuck: bool) -> (Node, Arc<AtomicBool>, Arc<AtomicU32>) {
    let (stuck, purchases) = (Arc::new(AtomicBool::new(stuck)), Arc::new(AtomicU32::new(0)));
    let mut seller = Node::without_rooms(seed, name, Some(2000)).await;
    let (is_stuck, counted) = (stuck.clone(), purchases.clone());
    seller.open(|exporter| Arc::new(Between { exporter, mute, stuck: is_stuck, purchases: counted })).await;
    (seller, stuck, purchases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_whose_answer_is_lost_is_taken_back_and_the_next_seller_asked() {
    // Named so that it is asked first.
    let (mute, _, purchases) = between("a-mute", 2, true, false).await;
    let (buyer, other) = (Node::start(1, "farm", None).await, Node::start(3, "b-grid", Some(2000)).await);
    buyer.know(&mute).await;
    buyer.know(&other).await;
    buyer.solver_with("shop", "1", &[], json!({"reserveAndBuy": true})).await;
    buyer.solver_is("shop", "Solved").await;
    assert_eq!(purchases.load(Ordering::Relaxed), 3, "it was asked three times, and sold");
    mute.empty().await;
    let contracts = buyer.list::<Contract>().await;
    let sellers: Vec<_> = contracts.iter().map(|contract| contract.spec.seller.domain.as_str()).collect();
    assert_eq!(sellers, ["b-grid.example"]);
    assert_eq!(other.ledger().await.commitments.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_that_was_killed_goes_on_with_what_it_held() {
    let (seller, stuck, purchases) = between("grid", 2, false, true).await;
    let mut buyer = Node::start(1, "farm", None).await;
    buyer.know(&seller).await;
    // All of it: a second hold would not fit.
    buyer.solver_with("shop", "2", &[], json!({"reserveAndBuy": true})).await;
    until("it is held", async || match seller.ledger().await.commitments.as_slice() {
        [one] => Ok(one.transaction.clone()),
        other => Err(format!("{other:?}")),
    })
    .await;
    buyer.kill().await;
    stuck.store(false, Ordering::Relaxed);
    assert_eq!(purchases.load(Ordering::Relaxed), 0);
    buyer.rooms.spawn(importer::run(buyer.client.clone(), buyer.options.clone()));
    buyer.solver_is("shop", "Solved").await;
    assert_eq!(seller.list::<Contract>().await.len(), 1);
    assert_eq!(buyer.list::<Contract>().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_seller_may_be_silent_for_a_moment() {
    let (seller, stuck, _) = between("grid", 2, false, true).await;
    let buyer = Node::start(1, "farm", None).await;
    buyer.know(&seller).await;
    buyer.solver_with("shop", "500m", &[], json!({"reserveAndBuy": true})).await;
    until("it says for whom it waits", async || {
        let solver = buyer.api::<fluidos_model::kinds::Solver>().get("shop").await.unwrap();
        let status = solver.status.unwrap_or_default().solver_phase;
        let waits = status.message.contains("grid") && status.message.contains("no answer within 5 s");
        if waits && !status.phase.is_final() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert!(buyer.list::<Contract>().await.is_empty());
    stuck.store(false, Ordering::Relaxed);
    buyer.solver_is("shop", "Solved").await;
    assert_eq!(seller.list::<Contract>().await.len(), 1);
    // What the lost answers were about is held, and ends by itself; it was bought once.
    let sold = seller.ledger().await.commitments.iter().filter(|known| !known.is_held()).count();
    assert_eq!(sold, 1);
}
