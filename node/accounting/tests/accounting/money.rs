//! What two nodes charge and pay: invoices, words about payments, use and renewals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fluidos_identity::{Envelope, Signed};
use fluidos_model::kinds::{AccountPhase, Allocation, Contract, Invoice, PaymentState, SignedTerms, names};
use fluidos_model::market::{BusinessModel, month_of};
use fluidos_model::receipt::{self, Item};
use fluidos_rear as rear;
use fluidos_rear::ReceiptRequest;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_about_an_invoice_that_is_not_here_yet_hold_up_no_receipt() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::ZERO, None).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.release().await;
    seller.lossy.as_ref().unwrap().lose.store(true, Ordering::SeqCst);
    buyer.release().await;
    // The seller has the last receipt and the invoice, and says that it was paid; the buyer has neither.
    seller.phase(AccountPhase::Settled).await;
    let name = until("there is an invoice", async || {
        let invoices = seller.api::<Invoice>().list(&Default::default()).await.unwrap().items;
        invoices.last().map(|invoice| invoice.name_any()).ok_or_else(String::new)
    })
    .await;
    let paid = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_PAID: "now"}}}));
    seller.api::<Invoice>().patch(&name, &PatchParams::default(), &paid).await.unwrap();
    buyer.phase(AccountPhase::Settled).await;
    until("the buyer has heard of it", async || {
        let status = buyer.api::<Invoice>().get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.payment == PaymentState::Acknowledged { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_that_could_not_be_made_is_made_later() {
    let (mut buyer, seller) = two().await;
    // The first hour is the last of a month that is over, and at least one follows.
    let now = Timestamp::now();
    let (month, _) = month_of(now.checked_sub(SignedDuration::from_hours(2)).unwrap());
    deal(&buyer, &seller, now.duration_since(month) + SignedDuration::from_hours(1), None).await;
    let first = until("an invoice of the month before", async || {
        let invoices = buyer.api::<Invoice>().list(&Default::default()).await.unwrap().items;
        invoices.first().map(|invoice| invoice.name_any()).ok_or_else(String::new)
    })
    .await;
    until("the next month has begun", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 3 { Ok(()) } else { Err(number.to_string()) }
    })
    .await;
    // As if it had never been written, and the process ended.
    buyer.kill().await;
    let lost = buyer.api::<Invoice>().get(&first).await.unwrap();
    buyer.api::<Invoice>().delete(&first, &DeleteParams::default()).await.unwrap();
    buyer.open(false).await;
    let again =
        until("it is made again", async || buyer.api::<Invoice>().get(&first).await.map_err(|error| error.to_string()))
            .await;
    assert_eq!(again.spec, lost.spec);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_about_a_payment_that_cannot_be_read_holds_up_no_receipt() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    until("there is a receipt", async || {
        let number = seller.receipts().await.len();
        if number >= 1 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let target = rear::Target { address: seller.address, expected: Some(seller.key.id()) };
    let client = rear::Client::new(&buyer.key, target).unwrap();
    let digest = opened(&seller.receipts().await[0]).value().previous.clone();
    let garbage = Envelope { purpose: "x".into(), payload: "e30".into(), signatures: vec!["y".into()] };
    let request = ReceiptRequest { after: 0, digest, payments: vec![garbage], ..Default::default() };
    let answer = client.receipts(CONTRACT, &request).await.unwrap();
    assert!(answer.receipt.is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paid_per_use_is_charged_by_what_ran_and_not_by_what_was_kept() {
    let (buyer, seller) = two().await;
    let conditions = json!({"businessModel": "pay-per-use", "yields": 3, "tolerancePerMille": 10});
    deal(&buyer, &seller, SignedDuration::ZERO, Some(conditions)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.ready(true).await;
    buyer.ready(false).await;
    // Ready, and nothing runs: that costs nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Half of the half CPU that was bought; and another pod had to yield.
    let uid = buyer.pod("250m", None).await;
    seller.pod("250m", Some(&uid)).await;
    let yields = Patch::Merge(json!({"status": {"yielding": 1}}));
    let allocation = names::allocation(CONTRACT);
    seller.api::<Allocation>().patch_status(&allocation, &PatchParams::default(), &yields).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    for node in [&seller, &buyer] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let sum = |item, of: fn(&receipt::Line) -> Option<u64>| -> u64 {
        receipts.iter().filter_map(|receipt| of(receipt.line(item)?)).sum()
    };
    let (used, reserved) = (sum(Item::Used, |line| line.buyer), sum(Item::Reserved, |line| line.buyer));
    assert!((2_500..=4_500).contains(&used), "{used} ms: half of about six seconds");
    assert!(reserved >= 8, "{reserved} s were ready");
    assert!((4..=8).contains(&sum(Item::Yielded, |line| line.seller)), "{receipts:?}");
    assert!(receipts.iter().all(|receipt| !receipt.is_disputed()), "{receipts:?}");
    // Which pod it was, when, and as each has seen it.
    let pods: Vec<_> = receipts.iter().flat_map(|receipt| &receipt.pods).collect();
    let [pod] = &pods[..] else { panic!("{pods:?}") };
    assert_eq!(pod.pod, uid);
    for ran in [pod.buyer.as_ref().unwrap(), pod.seller.as_ref().unwrap()] {
        assert!((4_000..=8_500).contains(&ran.ms), "{pod:?}");
    }
    let listed: u64 = pods.iter().filter_map(|pod| Some(pod.seller.as_ref()?.ms / 1000)).sum();
    assert!(listed.abs_diff(sum(Item::Pods, |line| line.seller)) <= 1, "the line is their sum: {receipts:?}");
    let charged: u64 = receipts.iter().map(|r| r.charged_ms(BusinessModel::PayPerUse)).sum();
    let (theirs, ours) = (buyer.invoices().await, seller.invoices().await);
    for (bought, sold) in theirs.iter().zip(&ours) {
        assert_eq!(bought.spec.document, sold.spec.document);
        assert_eq!(sold.spec.document["lines"][0]["item"], "used");
    }
    let due: i64 = ours.iter().map(|invoice| invoice.spec.document["dueMinor"].as_i64().unwrap()).sum();
    assert!(
        (due * 1000 - i64::try_from(charged).unwrap()).abs() <= 500,
        "{due} cents for {charged} ms at a cent a second"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_that_is_renewed_is_one_chain_without_a_gap_beyond_its_first_end() {
    let (buyer, seller) = two().await;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(4)).unwrap();
    let longer = end.checked_add(SignedDuration::from_secs(4)).unwrap();
    let signed = deal_until(&buyer, &seller, SignedDuration::ZERO, None, Some(end)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    seller.ready(true).await;
    buyer.ready(false).await;
    let mut renewal = rear::RenewalTerms::of(&signed, 1, end, longer).unwrap();
    let write = async |node: &Node, renewal: &Signed<rear::RenewalTerms>| {
        let Envelope { purpose, payload, signatures } = renewal.envelope();
        let patch = Patch::Merge(json!({"spec": {"renewal": SignedTerms { purpose, payload, signatures }}}));
        node.api::<Contract>().patch(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
    };
    renewal.sign(&buyer.key).unwrap();
    // The seller has signed it, and its answer was lost: what the buyer has signed itself binds it.
    write(&buyer, &renewal).await;
    renewal.sign(&seller.key).unwrap();
    write(&seller, &renewal).await;
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let last = receipts.last().unwrap();
    assert_eq!(
        (last.end, last.until),
        (Some(receipt::End::Expired), Timestamp::from_second(longer.as_second()).unwrap())
    );
    assert!(receipts.windows(2).all(|pair| pair[0].until == pair[1].from), "{receipts:?}");
    let served: u64 = receipts.iter().map(|receipt| receipt.served(fluidos_model::market::MeasuredBy::Both)).sum();
    assert!((5..=8).contains(&served), "{served} s of about eight, none of them twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_only_one_side_has_signed_binds_no_seller() {
    let (buyer, seller) = two().await;
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(3)).unwrap();
    let signed = deal_until(&buyer, &seller, SignedDuration::ZERO, None, Some(end)).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    let longer = end.checked_add(SignedDuration::from_hours(1)).unwrap();
    let mut renewal = rear::RenewalTerms::of(&signed, 1, end, longer).unwrap();
    renewal.sign(&buyer.key).unwrap();
    let Envelope { purpose, payload, signatures } = renewal.envelope();
    let patch = Patch::Merge(json!({"spec": {"renewal": SignedTerms { purpose, payload, signatures }}}));
    for node in [&buyer, &seller] {
        node.api::<Contract>().patch(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
    }
    seller.phase(AccountPhase::Closing).await;
    buyer.phase(AccountPhase::Open).await;
    buyer.release().await;
    buyer.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    assert_eq!(receipts.last().unwrap().until, Timestamp::from_second(end.as_second()).unwrap());
}
