//! What two nodes sign about what was served, also when one lies or has lost it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fluidos_identity::{Envelope, NodeKey, Signed};
use fluidos_model::kinds::{Account, AccountPhase, Invoice, PaymentState, Receipt, SignedTerms, names};
use fluidos_model::receipt::{self, Item, LineState, RECEIPT_PURPOSE};
use fluidos_rear as rear;
use fluidos_rear::ReceiptRequest;
use jiff::SignedDuration;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_served_is_signed_by_both_invoiced_and_paid() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::ZERO, None).await;
    buyer.phase(AccountPhase::Open).await;
    seller.phase(AccountPhase::Open).await;
    seller.ready(true).await;
    buyer.ready(false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in [&buyer, &seller] {
        node.gauge.bytes.store(5_000, Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    seller.release().await;
    buyer.release().await;
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;

    let receipts = same_books(&buyer, &seller).await;
    let last = receipts.last().unwrap();
    assert!(last.end.is_some());
    let served: u64 = receipts.iter().map(|receipt| receipt.served(fluidos_model::market::MeasuredBy::Both)).sum();
    assert!((7..=12).contains(&served), "{served} s of about nine: {receipts:?}");
    for receipt in &receipts {
        assert!(!receipt.is_disputed(), "{receipt:?}");
        assert_eq!(receipt.line(Item::Reserved).unwrap().state, LineState::Agreed);
    }
    // Each counted its own: 5,000 out and 10,000 in, as the gauges say of both ends.
    let sent: u64 = receipts.iter().filter_map(|receipt| receipt.line(Item::BytesToSeller)?.buyer).sum();
    assert_eq!(sent, 5_000);

    // The invoice is the same bytes, 36 EUR an hour is a cent a second.
    let (theirs, ours) = (buyer.invoices().await, seller.invoices().await);
    let bytes = |invoices: &[Invoice]| {
        invoices.iter().map(|i| fluidos_identity::canonical_json(&i.spec.document).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&theirs), bytes(&ours));
    let due: i64 = ours.iter().map(|invoice| invoice.spec.document["dueMinor"].as_i64().unwrap()).sum();
    assert_eq!(due, i64::try_from(served).unwrap());

    // The buyer says that it has paid; the seller that it was: each hears of it.
    let name = ours.last().unwrap().name_any();
    for (node, state) in [(&buyer, PaymentState::Claimed), (&seller, PaymentState::Acknowledged)] {
        let paid = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_PAID: "now"}}}));
        node.api::<Invoice>().patch(&name, &PatchParams::default(), &paid).await.unwrap();
        for node in [&buyer, &seller] {
            until(&format!("the invoice is {state:?}"), async || {
                let status = node.api::<Invoice>().get(&name).await.unwrap().status.unwrap_or_default();
                if status.payment == state { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_without_the_other_are_made_up_and_a_lost_answer_is_the_same_receipt() {
    let (mut buyer, mut seller) = two().await;
    seller.kill().await;
    // Three hours ago: the buyer, too, was not there until now.
    deal(&buyer, &seller, SignedDuration::from_hours(3), None).await;
    buyer.phase(AccountPhase::Open).await;
    buyer.ready(false).await;
    seller.ready(true).await;
    until("the buyer says that nobody answers", async || {
        let status = buyer.account().await.status.unwrap_or_default();
        if status.message.contains("connect") { Ok(()) } else { Err(status.message) }
    })
    .await;
    // The buyer is killed, too; both come back, and the first answer is lost after the seller has written it.
    buyer.kill().await;
    seller.open(true).await;
    seller.phase(AccountPhase::Open).await;
    buyer.open(false).await;
    until("the hours are made up", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let lost = seller.lossy.as_ref().unwrap().lost.lock().unwrap().clone();
    assert_eq!(lost.len(), 1, "an answer was lost");
    let first = buyer.receipts().await.remove(0);
    let lost = lost[0].receipt.clone().unwrap();
    assert_eq!(first.spec.signed.payload, lost.payload, "asked again, the same bytes");
    assert_eq!(first.spec.signed.signatures, lost.signatures);
    for node in [&buyer, &seller] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    same_books(&buyer, &seller).await;
    assert_eq!(opened(&first).value().served(fluidos_model::market::MeasuredBy::Both), 0, "nobody has seen it serve");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_that_counts_what_it_did_not_serve_is_disputed_and_pays_for_its_level() {
    let (buyer, seller) = two().await;
    let level = json!([{"objective": "availability", "perMille": 990, "creditPerMille": 1}]);
    deal(&buyer, &seller, SignedDuration::ZERO, Some(json!({"tolerancePerMille": 1, "serviceLevels": level}))).await;
    for node in [&buyer, &seller] {
        node.phase(AccountPhase::Open).await;
    }
    // The buyer's virtual node never comes up.
    seller.ready(true).await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    for node in [&seller, &buyer] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let receipts = same_books(&buyer, &seller).await;
    let disputed = receipts.iter().find(|receipt| receipt.is_disputed()).unwrap();
    let line = disputed.line(Item::Reserved).unwrap();
    assert_eq!((line.state, line.buyer), (LineState::Disputed, Some(0)));
    assert!(line.seller.unwrap() >= 16, "{line:?}");
    for node in [&buyer, &seller] {
        let told = events(node, "ReceiptDisputed").await;
        let numbers = format!("reserved: 0 s by the buyer, {} s by the seller", line.seller.unwrap());
        assert!(told.len() == 1 && told[0].contains(&numbers), "needed {numbers}: {told:?}");
        let invoices = node.invoices().await;
        let document = &invoices[0].spec.document;
        assert_eq!((document["dueMinor"].as_i64(), &document["disputed"][0]), (Some(0), &json!(disputed.number)));
        assert_eq!(document["creditNotes"][0]["served"], json!(0));
    }
    // Counted again after a crash, it is told once.
    let mut buyer = buyer;
    buyer.kill().await;
    let back = json!({"status": {"number": disputed.number - 1, "digest": "", "until": null, "phase": "Closing", "disputed": 0}});
    let patch = Patch::Merge(back);
    buyer.api::<Account>().patch_status(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
    buyer.open(false).await;
    buyer.phase(AccountPhase::Settled).await;
    assert_eq!(events(&buyer, "ReceiptDisputed").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_that_one_side_has_lost_come_back_from_the_other() {
    let (mut buyer, mut seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(3), None).await;
    until("the hours are made up", async || {
        let number =
            buyer.api::<Account>().get_opt(CONTRACT).await.unwrap().and_then(|a| a.status).map_or(0, |s| s.number);
        if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    for loses in [0, 1] {
        let node = if loses == 0 { &mut buyer } else { &mut seller };
        node.kill().await;
        node.api::<Receipt>().delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
        node.api::<Account>().delete(CONTRACT, &DeleteParams::default()).await.unwrap();
        node.open(false).await;
        if loses == 1 {
            // An account is made of its contract, which goes in a moment.
            until("the seller keeps an account again", async || {
                match seller.api::<Account>().get_opt(CONTRACT).await.unwrap() {
                    Some(_) => Ok(()),
                    None => Err("none".to_owned()),
                }
            })
            .await;
            // The buyer has something to settle, and so meets a seller that knows nothing.
            for node in [&buyer, &seller] {
                node.release().await;
            }
            break;
        }
        until("the buyer has them again", async || {
            let number = buyer.receipts().await.len();
            if number >= 3 { Ok(()) } else { Err(format!("{number} receipts")) }
        })
        .await;
    }
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    assert!(same_books(&buyer, &seller).await.last().is_some_and(|last| last.number >= 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_sees_or_changes_the_books() {
    let (buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    // A receipt that both sign takes away what an account says of others before it: the next is an hour away.
    until("both hours have their receipts", async || {
        let account = seller.api::<Account>().get_opt(CONTRACT).await.unwrap();
        let number = account.and_then(|account| account.status).map_or(0, |status| status.number);
        if number >= 2 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    let stranger = NodeKey::from_seed([9; 32]).unwrap();
    let target = || rear::Target { address: seller.address, expected: Some(seller.key.id()) };
    let client = rear::Client::new(&stranger, target()).unwrap();
    let digest = opened(&seller.receipts().await[0]).value().previous.clone();
    let request = ReceiptRequest { after: 0, digest: digest.clone(), ..Default::default() };
    let refused = client.receipts(CONTRACT, &request).await.unwrap_err().to_string();
    assert!(refused.contains("no account of contract"), "{refused}");
    let unknown = client.receipts("contract-x", &request).await.unwrap_err().to_string();
    assert_eq!(refused.replace(CONTRACT, "contract-x"), unknown, "a stranger cannot tell what there is");
    // The buyer itself, with other books.
    let client = rear::Client::new(&buyer.key, target()).unwrap();
    let other = ReceiptRequest { after: 0, digest: "cd".repeat(32), ..Default::default() };
    let refused = client.receipts(CONTRACT, &other).await.unwrap_err().to_string();
    assert!(refused.contains("differ") && refused.contains(&digest), "{refused}");
    let told = seller.account().await.status.unwrap().message;
    assert!(told.contains("differ"), "{told}");
    let told = events(&seller, "AccountWrong").await;
    assert!(told.len() == 1 && told[0].contains("differ"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_one_account_is_its_own_matter_and_half_signed_receipts_count_nothing() {
    let (mut buyer, seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    buyer.phase(AccountPhase::Open).await;
    until("there are receipts", async || {
        let number = buyer.account().await.status.unwrap_or_default().number;
        if number >= 2 { Ok(()) } else { Err(format!("{number} receipts")) }
    })
    .await;
    buyer.kill().await;
    // Somebody has edited the API: an account that nobody can read, and a next receipt that the seller has not signed.
    let (api_version, kind) = ("accounting.fluidos.eu/v1alpha1", "Account");
    let terms = json!({"purpose": "fluidos-contract+jws", "payload": "e30", "signatures": []});
    let bad: Account = from(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "contract-bad"},
        "spec": {"contract": "contract-bad", "direction": "Bought", "peer": "x", "signedTerms": terms}}));
    buyer.api::<Account>().create(&PostParams::default(), &bad).await.unwrap();
    let last = buyer.receipts().await.pop().unwrap();
    let known = opened(&last).value().clone();
    let mut forged = Signed::new(
        RECEIPT_PURPOSE,
        receipt::Receipt {
            number: known.number + 1,
            previous: opened(&last).digest(),
            from: known.until,
            until: known.until.checked_add(SignedDuration::from_hours(1)).unwrap(),
            ..known.clone()
        },
    )
    .unwrap();
    forged.sign(&buyer.key).unwrap();
    let Envelope { purpose, payload, signatures } = forged.envelope();
    let mut object = last.clone();
    object.metadata = Default::default();
    object.metadata.name = Some(names::receipt(CONTRACT, known.number + 1));
    object.spec.number = known.number + 1;
    object.spec.signed = SignedTerms { purpose, payload, signatures };
    buyer.api::<Receipt>().create(&PostParams::default(), &object).await.unwrap();
    buyer.open(false).await;
    until("it is told", async || {
        let status = buyer.account().await.status.unwrap_or_default();
        let told = status.message.contains(&seller.key.id().to_string());
        if told && status.number == known.number { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(buyer.api::<Account>().get("contract-bad").await.unwrap().spec, bad.spec, "it is left as it is");
    let told = events(&buyer, "AccountWrong").await;
    let of = |named: &str| told.iter().filter(|told| told.contains(named)).count();
    assert_eq!((of(&seller.key.id().to_string()), of("cannot be read")), (1, 1), "{told:?}");
    // Without the forged one all goes on.
    buyer.kill().await;
    let name = names::receipt(CONTRACT, known.number + 1);
    buyer.api::<Receipt>().delete(&name, &DeleteParams::default()).await.unwrap();
    buyer.open(false).await;
    for node in [&buyer, &seller] {
        node.release().await;
    }
    buyer.phase(AccountPhase::Settled).await;
}
