//! Bought and sold at a price: two nodes in process, real REAR over TLS on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use fluidos_acquisition::exporter::Exporter;
use fluidos_identity::{NodeId, NodeKey, Signed};
use fluidos_model::kinds::{AcquisitionPolicy, Contract, SharingPolicy};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode, Seller};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

async fn sell(seller: &Node, name: &str, spec: Value) {
    let mut whole = json!({"price": {"amount": "0.02", "currency": "EUR", "period": "hour", "unit": "cpu"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "SharingPolicy");
    seller
        .create::<SharingPolicy>(json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": whole
        }))
        .await;
}

async fn allow(buyer: &Node, name: &str, ceilings: Value) {
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "AcquisitionPolicy");
    buyer
        .create::<AcquisitionPolicy>(json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {"ceilings": ceilings}
        }))
        .await;
    until("the policy is accepted", async || {
        let status = buyer.api::<AcquisitionPolicy>().get(name).await.unwrap().status;
        if status.as_ref().is_some_and(|status| status.accepted) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

fn price(contract: &Contract) -> [String; 3] {
    let terms = contract.spec.signed_terms.clone().unwrap();
    let envelope = rear::Envelope { purpose: terms.purpose, payload: terms.payload, signatures: terms.signatures };
    let signed: Signed<rear::ContractTerms> = Signed::open(&envelope, rear::CONTRACT_PURPOSE).unwrap();
    assert_eq!(signed.signers().count(), 2);
    signed.value().price.clone()
}

const BUY: fn() -> Value = || json!({"reserveAndBuy": true});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_is_signed_by_both_and_bought_within_a_ceiling_only() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sell(&seller, "standard", json!({})).await;
    buyer.solver_with("dear", "1500m", &[], BUY()).await;
    let message = buyer.solver_is("dear", "Failed").await;
    assert_eq!(message, "grid: buy: price: 0.03 EUR/hour, needed 0: there is no AcquisitionPolicy");
    assert!(seller.ledger().await.commitments.is_empty(), "what is not bought is not held");

    allow(&buyer, "household", json!([{"currency": "EUR", "perHour": "0.05"}])).await;
    buyer.solver_with("shop", "1500m", &[("fluidos.eu/namespace", "shop")], BUY()).await;
    buyer.solver_is("shop", "Solved").await;
    let (bought, sold) = (buyer.list::<Contract>().await.remove(0), seller.list::<Contract>().await.remove(0));
    assert_eq!((price(&bought), price(&sold)), (["0.03", "EUR", "hour"].map(Into::into), price(&bought)));
    for contract in [&bought, &sold] {
        let shown = &contract.spec.flavor.spec.price;
        assert_eq!(
            (shown.amount.as_str(), shown.unit.as_str()),
            ("0.03", ""),
            "the object shows the price of the contract"
        );
    }

    // At the ceiling the next one is told the rule; what was bought goes on.
    buyer.solver_with("more", "1500m", &[], BUY()).await;
    let message = buyer.solver_is("more", "Failed").await;
    let rule = "ceiling: 0.06 EUR an hour with it, needed at most 0.05 (AcquisitionPolicy household)";
    assert_eq!(message, format!("grid: buy: {rule}"));

    // A changed price counts for new contracts only.
    let cheaper = Patch::Merge(json!({"spec": {"price": {"amount": "0.01"}}}));
    seller.api::<SharingPolicy>().patch("standard", &PatchParams::default(), &cheaper).await.unwrap();
    buyer.solver_with("cheap", "1", &[], BUY()).await;
    buyer.solver_is("cheap", "Solved").await;
    let mut prices: Vec<_> = buyer.list::<Contract>().await.iter().map(|contract| price(contract)[0].clone()).collect();
    prices.sort();
    assert_eq!(prices, ["0.01", "0.03"]);

    // What has ended is remembered for its month.
    buyer.delete_solver("shop").await;
    until("one contract is left", async || {
        let left = buyer.list::<Contract>().await.len();
        if left == 1 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
    let ended = buyer.api::<AcquisitionPolicy>().get("household").await.unwrap().status.unwrap().ended;
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].price.amount.as_str(), ended[0].namespace.as_deref()), ("0.03", Some("shop")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_solvers_at_once_do_not_spend_the_last_of_a_ceiling_twice() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    sell(&seller, "standard", json!({})).await;
    allow(&buyer, "household", json!([{"currency": "EUR", "perHour": "0.04"}])).await;
    for number in 0..6 {
        buyer.solver_with(&format!("s{number}"), "500m", &[], BUY()).await;
    }
    // All begin with this.
    buyer.know(&seller).await;
    let (mut solved, mut failed) = (0, Vec::new());
    for number in 0..6 {
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
    assert_eq!((solved, failed.len()), (4, 2), "0.04 EUR are four contracts of 0.01: {failed:?}");
    assert!(failed.iter().all(|message| message.contains("ceiling: 0.05 EUR an hour with it")), "{failed:?}");
    assert_eq!(seller.list::<Contract>().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_say_to_whom_and_a_broken_one_sells_nothing() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    let other = NodeKey::from_seed([9; 32]).unwrap();
    sell(&seller, "friends", json!({"buyers": {"allow": [other.id().to_string()]}, "price": {"amount": "0"}})).await;
    buyer.solver_with("stranger", "1", &[], BUY()).await;
    let message = buyer.solver_is("stranger", "Failed").await;
    assert_eq!(message, format!("grid: list: no sharing policy sells to {} (403)", buyer.key.id()));
    let all = rear::Selector::default();
    let told = seller.rear(&other).list_flavors(&all).await.unwrap();
    assert_eq!(told[0].price.amount, "0");

    // The rule sees the buyer.
    let rule = format!("buyer == \"{}\" ? \"0\" : \"5\"", buyer.key.id());
    let price = json!({"amount": rule, "currency": "EUR", "period": "day"});
    sell(&seller, "others", json!({"price": price})).await;
    buyer.solver_with("known", "1", &[], BUY()).await;
    buyer.solver_is("known", "Solved").await;

    let broken = json!({"spec": {"price": {"amount": "cheap"}}});
    seller.api::<SharingPolicy>().patch("others", &PatchParams::default(), &Patch::Merge(broken)).await.unwrap();
    let refused = seller.rear(&other).list_flavors(&all).await.unwrap_err().to_string();
    assert!(refused.contains("the seller's sharing policy cannot be read"), "{refused}");
    until("its owner is told why", async || {
        let status = seller.api::<SharingPolicy>().get("others").await.unwrap().status.unwrap_or_default();
        let told = !status.accepted && status.message.contains("price rule uses `cheap`");
        if told { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(seller.list::<Contract>().await.len(), 1, "what is sold stays sold");
    for name in ["friends", "others"] {
        seller.api::<SharingPolicy>().delete(name, &DeleteParams::default()).await.unwrap();
    }
    assert_eq!(seller.rear(&other).list_flavors(&all).await.unwrap()[0].price.amount, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_needed_is_asked_for_and_bought_for_as_long_as_wanted() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sell(&seller, "standard", json!({"blocks": {"cpuStep": "1"}, "limits": {"cpu": "2"}})).await;
    let request = |cpu: &str, intents: &[(&str, &str)]| rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: vec![rear::SelectorFilter::Range { name: "cpu".into(), min: Some(cpu.into()), max: None }],
        intents: intents.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        term_seconds: Some(7200),
        wait_millis: None,
        path: None,
    };
    let ask = async |request| seller.rear(&buyer.key).request(&request).await.unwrap().unwrap();
    let mut seen = Vec::new();
    for cpu in ["1", "1500m", "3"] {
        let offer = ask(request(cpu, &[])).await.offers.remove(0);
        seen.push(format!("{:?} {} at {}", offer.fit, offer.configuration.data["cpu"], offer.price.amount));
        assert_eq!(offer.term_seconds, Some(7200));
    }
    assert_eq!(seen, ["Exact \"1\" at 0.02", "More \"2\" at 0.04", "Less \"2\" at 0.04"]);
    let denied = ask(request("1", &[("fluidos-intent-location", "Turin")])).await;
    assert_eq!((denied.offers.len(), denied.denial.as_deref()), (0, Some("location: Milan, needed Turin")));
    assert!(seller.ledger().await.commitments.is_empty(), "asking holds nothing");

    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "AcquisitionPolicy");
    let spec = json!({"ceilings": [{"currency": "EUR", "perHour": "1"}], "termSeconds": 7200});
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    buyer.create::<AcquisitionPolicy>(policy).await;
    buyer.solver_with("shop", "1500m", &[], BUY()).await;
    buyer.solver_is("shop", "Solved").await;
    let bought = buyer.list::<Contract>().await.remove(0);
    assert_eq!(bought.spec.configuration.as_ref().unwrap().data["cpu"], "2", "the block from 1500m on");
    let until: jiff::Timestamp = bought.spec.expiration_time.unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((7100..=7200).contains(&left), "{left} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_broke_its_word_is_not_asked_and_says_nothing_about_the_others() {
    let buyer = Node::start(1, "farm", None).await;
    let (grid, cloud) = (Node::start(2, "grid", Some(4000)).await, Node::start(3, "cloud", Some(4000)).await);
    for seller in [&grid, &cloud] {
        buyer.know(seller).await;
    }
    let (api_version, kind) = ("security.fluidos.eu/v1alpha1", "Rating");
    let did = grid.key.id().to_string();
    let rating = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "grid"}, "spec": {"did": did}});
    buyer.create::<fluidos_model::kinds::Rating>(rating).await;
    let seen = fluidos_model::kinds::RatingStatus { value: Some(17), ..Default::default() };
    let seen = Patch::Merge(json!({"status": seen}));
    buyer.api::<fluidos_model::kinds::Rating>().patch_status("grid", &PatchParams::default(), &seen).await.unwrap();
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "AcquisitionPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"},
                        "spec": {"ceilings": [], "minimumRating": 40}});
    buyer.create::<AcquisitionPolicy>(policy).await;
    until("the policy is accepted", async || {
        let status = buyer.api::<AcquisitionPolicy>().get("p").await.unwrap().status;
        if status.as_ref().is_some_and(|status| status.accepted) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    buyer.solver_with("shop", "1", &[], BUY()).await;
    buyer.solver_is("shop", "Solved").await;
    assert!(grid.list::<Contract>().await.is_empty() && cloud.list::<Contract>().await.len() == 1);
    let found = buyer.list::<fluidos_model::kinds::Discovery>().await.remove(0).status.unwrap().phase.message;
    assert!(found.contains("not grid: list: its rating is 17, needed at least 40 (AcquisitionPolicy p)"), "{found}");
    let bought = buyer.api::<fluidos_model::kinds::Solver>().get("shop").await.unwrap().status.unwrap().contracts;
    assert_eq!(bought[0].why, "1 of 1: price 0, rating ?, latency ?; exactly what was asked for");
}

/// A seller between the wire and the exporter. It answers no requests: it is asked for its flavors.
struct Between {
    exporter: Arc<Exporter>,
    /// What it says that it wants, whatever its terms state.
    advertises: Option<&'static str>,
    /// So many reservations are answered with "later".
    busy: AtomicU32,
}

#[async_trait]
impl Seller for Between {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        let mut flavors = self.exporter.list_flavors(selector, peer).await?;
        if let Some(amount) = self.advertises {
            flavors.iter_mut().for_each(|flavor| flavor.price.amount = amount.into());
        }
        Ok(flavors)
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        let left = self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Refusal::new(RefusalCode::Unavailable, "come back later")),
            Err(_) => self.exporter.reserve(request, buyer).await,
        }
    }

    async fn purchase(
        &self,
        transaction: &str,
        request: rear::PurchaseRequest,
        terms: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        self.exporter.purchase(transaction, request, terms, buyer).await
    }

    async fn cancel(&self, transaction: &str, buyer: NodeId) -> Result<(), Refusal> {
        self.exporter.cancel(transaction, buyer).await
    }

    async fn release(&self, id: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.exporter.release(id, release, party).await
    }
}

async fn between(advertises: Option<&'static str>, busy: u32) -> Node {
    let mut seller = Node::without_rooms(2, "grid", Some(4000)).await;
    seller.open(|exporter| Arc::new(Between { exporter, advertises, busy: AtomicU32::new(busy) })).await;
    seller
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_that_wants_more_than_it_said_is_not_bought_from() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, between(Some("0.001"), 0).await);
    buyer.know(&seller).await;
    sell(&seller, "standard", json!({})).await;
    allow(&buyer, "household", json!([{"currency": "EUR", "perHour": "1"}])).await;
    buyer.solver_with("shop", "1", &[], BUY()).await;
    let message = buyer.solver_is("shop", "Failed").await;
    let rule = "price: the terms state 0.02 EUR/hour, needed at most 0.001 EUR/hour as was offered";
    assert_eq!(message, format!("grid: reserve: {rule}"));
    assert!(buyer.list::<Contract>().await.is_empty() && seller.list::<Contract>().await.is_empty());
    assert!(seller.ledger().await.commitments.is_empty(), "what was held is given back at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_seller_is_waited_for_when_it_asks_to_come_later() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, between(None, 2).await);
    buyer.know(&seller).await;
    buyer.solver_with("shop", "1", &[], BUY()).await;
    until("it says for whom it waits", async || {
        let status = buyer.api::<fluidos_model::kinds::Solver>().get("shop").await.unwrap().status.unwrap_or_default();
        let waits = status.solver_phase.message == "grid: reserve: come back later (503)";
        if waits && !status.solver_phase.phase.is_final() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    buyer.solver_is("shop", "Solved").await;
    assert_eq!(seller.ledger().await.commitments.len(), 1);
}
