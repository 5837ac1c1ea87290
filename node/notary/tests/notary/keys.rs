//! A log whose node has handed its key over: it goes on under the name of the first, for everybody.

use fluidos_log::{Tree, TreeHead, leaf_hash, open_head};
use fluidos_model::kinds::{Contract, LogState, Receipt};
use fluidos_rear as rear;
use fluidos_rear::{ClientError, RefusalCode};
use jiff::{SignedDuration, Timestamp};

use crate::support::{Node, deal, invoices_since, until};

async fn included(node: &Node, contract: &str) {
    until(&format!("{contract} is in the other party's log"), async || {
        let contract = node.api::<Contract>().get(contract).await.unwrap();
        match contract.condition("LoggedByOtherParty") {
            Some(told) if told.status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_on_under_the_next_key_and_comes_back_under_it() {
    let (buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    let ago = SignedDuration::from_hours(2);
    deal(&buyer, &seller, 1, ago).await;
    let entries = 1 + invoices_since(ago);
    let before = open_head(&seller.is_witnessed(&buyer, entries).await.head.unwrap()).unwrap();
    assert!(before.signed_by(&seller.origin));
    let old = seller.key.clone();

    // The hand-over is the next entry; the witness takes it for the same log, whose name it knows.
    seller.rotate(12, &[&buyer]).await;
    let kept = seller.is_witnessed(&buyer, entries + 1).await;
    let after = open_head(&kept.head.unwrap()).unwrap();
    assert_eq!((after.value().origin, kept.rewritten), (old.id(), None));
    assert!(after.signed_by(&seller.key.id()) && !after.signed_by(&old.id()));
    // What is signed under the next key is the next entry, and each shows the other that it has it.
    deal(&buyer, &seller, 2, SignedDuration::ZERO).await;
    let log = seller.log_is(LogState::Complete, entries + 2).await;
    assert_eq!(log.origin, old.id().to_string());
    seller.is_witnessed(&buyer, entries + 2).await;
    for node in [&buyer, &seller] {
        included(node, "contract-1").await;
        included(node, "contract-2").await;
    }
    // Who has stolen the old key shows nothing in the name of the log.
    let thief =
        rear::Client::new(&old, rear::Target { address: buyer.address, expected: Some(buyer.key.id()) }).unwrap();
    let forged: Tree = [leaf_hash(b"forged")].into_iter().collect();
    let mut head = TreeHead::of(&forged, old.id(), 0, Timestamp::now()).unwrap();
    head.sign(&old).unwrap();
    let submission = rear::HeadSubmission {
        head: head.envelope(),
        from: 0,
        consistency: Vec::new(),
        leaves_from: 0,
        leaves: Vec::new(),
    };
    let refused = thief.submit_head(&submission).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Forbidden),
        "{refused}"
    );

    // All is lost but the identity: log, contracts of both keys and their receipts come back.
    let receipts = until("two hours have their receipts", async || {
        let receipts = buyer.names::<Receipt>().await;
        if receipts.len() >= 2 { Ok(receipts) } else { Err(format!("{receipts:?}")) }
    })
    .await;
    seller.lose_objects().await;
    seller.lose_log();
    seller.know(&buyer).await;
    seller.open().await;
    let back = seller.log_is(LogState::Complete, entries + 2).await;
    assert_eq!((back.root, back.missing), (log.root, 0));
    assert_eq!(seller.names::<Contract>().await, ["contract-1", "contract-2"]);
    assert_eq!(seller.ledger().await.commitments.len(), 2);
    until("receipts are back", async || {
        let now = seller.names::<Receipt>().await;
        if receipts.iter().all(|name| now.contains(name)) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let kept = seller.is_witnessed(&buyer, entries + 2).await;
    assert_eq!(kept.rewritten, None, "nobody takes it for another history");
}
