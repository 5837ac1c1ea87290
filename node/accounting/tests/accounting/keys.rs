//! Books of a contract whose party has another key than the one that signed it.

use fluidos_accounting::bill;
use fluidos_model::kinds::{AccountPhase, Contract, Invoice, PaymentState, SignedTerms, names};
use fluidos_model::market::month_of;
use fluidos_model::receipt::Bill;
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::*;

async fn receipts(node: &Node, number: usize) {
    node.phase(AccountPhase::Open).await;
    until(&format!("{number} receipts"), async || {
        let receipts = node.receipts().await.len();
        if receipts >= number { Ok(()) } else { Err(format!("{receipts}: {:?}", node.account().await.status)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_renewals_invoices_and_payments_go_on_under_the_next_keys_of_both() {
    calm().await;
    let (mut buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    let now = Timestamp::now();
    let ends = [600, 1200].map(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap());
    let terms = deal_until(&buyer, &seller, SignedDuration::from_hours(3), None, Some(ends[0])).await;
    let names_old = [buyer.key.id(), seller.key.id()];
    receipts(&buyer, 3).await;
    receipts(&seller, 3).await;

    // First the seller has another key, then the buyer; what was signed before stays as it is.
    seller.rotate(12, &[&buyer]).await;
    buyer.rotate(11, &[&seller]).await;
    until("both have noted the keys", async || {
        let of = |account: fluidos_model::kinds::Account| account.status.map(|s| (s.buyer_keys, s.seller_keys));
        let needed = Some((vec![buyer.key.id().to_string()], vec![seller.key.id().to_string()]));
        let found = [of(buyer.account().await), of(seller.account().await)];
        if found.iter().all(|found| *found == needed) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let first = opened(&seller.receipts().await[0]);
    first.require(&names_old).unwrap();
    // A renewal under the new keys moves its end.
    let mut renewal = rear::RenewalTerms::of(&terms, 1, ends[0], ends[1]).unwrap();
    renewal.sign(&buyer.key).unwrap();
    renewal.sign(&seller.key).unwrap();
    let fluidos_identity::Envelope { purpose, payload, signatures } = renewal.envelope();
    let signed = SignedTerms { purpose, payload, signatures };
    for node in [&buyer, &seller] {
        let patch = Patch::Merge(json!({"spec": {"renewal": signed}}));
        node.api::<Contract>().patch(CONTRACT, &PatchParams::default(), &patch).await.unwrap();
        until("the renewal counts", async || {
            let known = node.account().await.status.unwrap_or_default().renewal;
            if known.as_ref() == Some(&signed) { Ok(()) } else { Err(format!("{known:?}")) }
        })
        .await;
    }
    // Killed and opened again before anybody has said who speaks for whom: the account has it.
    seller.kill().await;
    seller.speakers.set(Default::default(), Default::default());
    seller.open(false).await;
    buyer.release().await;
    seller.release().await;
    buyer.phase(AccountPhase::Settled).await;
    seller.phase(AccountPhase::Settled).await;
    let books = same_books(&buyer, &seller).await;
    let last = opened(seller.receipts().await.last().unwrap());
    assert_eq!((last.value(), last.value().number), (books.last().unwrap(), 4));
    last.require(&[buyer.key.id(), seller.key.id()]).unwrap();

    let [bought, sold] = [buyer.invoices().await, seller.invoices().await];
    assert_eq!(
        bought.iter().map(|i| &i.spec.digest).collect::<Vec<_>>(),
        sold.iter().map(|i| &i.spec.digest).collect::<Vec<_>>()
    );
    // Also by who has the objects alone.
    let Bill::Invoice(estimate) =
        bill(&buyer.account().await, &buyer.receipts().await, month_of(last.value().from).0).unwrap()
    else {
        panic!("it costs nothing")
    };
    assert_eq!(estimate.number, bought.last().unwrap().spec.document["number"]);
    let name = bought.last().unwrap().name_any();
    let paid = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_PAID: "now"}}}));
    buyer.api::<Invoice>().patch(&name, &PatchParams::default(), &paid).await.unwrap();
    until("the seller has the word of the buyer's new key", async || {
        let status = seller.api::<Invoice>().get(&name).await.unwrap().status.unwrap_or_default();
        if status.payment == PaymentState::Claimed { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_before_has_nothing_to_say_and_a_strangers_signature_is_none() {
    let (buyer, mut seller) = two().await;
    deal(&buyer, &seller, SignedDuration::from_hours(2), None).await;
    receipts(&buyer, 2).await;
    receipts(&seller, 2).await;
    let old = buyer.key.clone();
    let mut buyer = buyer;
    buyer.rotate(11, &[&seller]).await;
    let account = buyer.account().await.status.unwrap();
    let request =
        rear::ReceiptRequest { after: account.number, digest: account.digest, receipt: None, payments: vec![] };
    let ask = async |key: &fluidos_identity::NodeKey| {
        let target = rear::Target { address: seller.address, expected: Some(seller.key.id()) };
        rear::Client::new(key, target).unwrap().receipts(CONTRACT, &request).await
    };
    // Whoever has the old key is no party any more.
    assert!(ask(&old).await.unwrap_err().to_string().contains("no account of contract"));
    ask(&buyer.key).await.unwrap();
    // Objects with a key that nobody has handed over to count nothing, whoever writes them there.
    let stranger = fluidos_identity::NodeKey::from_seed([9; 32]).unwrap();
    let mut receipts = buyer.receipts().await;
    let mut forged =
        fluidos_identity::Signed::new(fluidos_model::receipt::RECEIPT_PURPOSE, opened(&receipts[0]).value().clone())
            .unwrap();
    forged.sign(&stranger).unwrap();
    forged.sign(&seller.key).unwrap();
    let fluidos_identity::Envelope { purpose, payload, signatures } = forged.envelope();
    receipts[0].spec.signed = SignedTerms { purpose, payload, signatures };
    let month = month_of(forged.value().from).0;
    let refused = bill(&buyer.account().await, &receipts, month).unwrap_err();
    assert!(refused.to_string().contains("signed"), "{refused}");
    seller.kill().await;
}
