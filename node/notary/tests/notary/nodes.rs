//! Nodes that lose their disk, get an old copy of it, or lie: real REAR over TLS on loopback.

use std::path::Path;
use std::time::Duration;

use fluidos_identity::Signed;
use fluidos_log::{EntryKind, HEAD_PURPOSE, Tree, TreeHead, leaf_hash, open_head, verify_consistency};
use fluidos_model::kinds::{
    Account, AccountSpec, Allocation, Contract, Direction, Invoice, LogState, Receipt, TransparencyLog, names,
};
use fluidos_model::market::{CommitmentState, Ended};
use fluidos_rear as rear;
use fluidos_rear::{ClientError, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support;
use crate::support::{Node, agreed, deal, invoices_since, until};

/// What a stranger is told who asks what is sold.
async fn offers(asker: &Node, seller: &Node) -> Result<(), String> {
    match asker.rear(seller).list_flavors(&rear::Selector::default()).await {
        Err(ClientError::Refused { refusal, .. }) => {
            assert_eq!(refusal.code, RefusalCode::Unavailable, "{refusal}");
            Err(refusal.detail)
        }
        other => other.map(|_| ()).map_err(|error| panic!("{error}")),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().file_name());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

async fn receipts(node: &Node, number: usize) -> Vec<Receipt> {
    until(&format!("{number} receipts"), async || {
        let receipts = node.list::<Receipt>().await;
        if receipts.len() >= number { Ok(receipts) } else { Err(format!("{}", receipts.len())) }
    })
    .await
}

fn digests(receipts: &[Receipt]) -> Vec<String> {
    receipts.iter().map(|receipt| receipt.spec.digest.clone()).collect()
}

/// On a busy machine nobody may have looked between a contract's beginning and its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_that_came_and_went_unseen_is_in_the_log() {
    let (buyer, mut seller) = (Node::stopped(1).await, Node::stopped(2).await);
    let contract = agreed(&buyer, &seller, 1, SignedDuration::ZERO);
    let spec = AccountSpec {
        contract: "contract-1".into(),
        direction: Direction::Sold,
        peer: buyer.key.id().to_string(),
        peer_address: buyer.address.to_string(),
        signed_terms: serde_json::from_value(serde_json::to_value(contract.signed_terms.unwrap()).unwrap()).unwrap(),
    };
    seller.api().create(&PostParams::default(), &Account::new("contract-1", spec)).await.unwrap();
    fluidos_notary::begin(&seller.directory()).unwrap();
    seller.open().await;
    seller.log_is(LogState::Complete, 2).await;
    let (book, _) = fluidos_notary::read(&seller.directory()).unwrap();
    let kinds: Vec<_> = book.entries().iter().flatten().map(|entry| (entry.kind, entry.of.as_str())).collect();
    assert_eq!(kinds, [(EntryKind::ContractSigned, "contract-1"), (EntryKind::ContractEnded, "contract-1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_have_signed_is_in_both_logs_and_each_witnesses_the_other() {
    let (buyer, seller, other) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    deal(&buyer, &seller, 1, SignedDuration::ZERO).await;
    buyer.log_is(LogState::Complete, 1).await;
    let log = seller.log_is(LogState::Complete, 1).await;
    let kept = seller.is_witnessed(&buyer, 1).await;
    let head = open_head(&kept.head.unwrap()).unwrap();
    assert_eq!(head.signers().collect::<Vec<_>>(), [seller.key.id(), buyer.key.id()]);
    assert_eq!(head.value().root.to_string(), log.root);
    // The same document is the same leaf.
    assert_eq!(
        buyer.is_witnessed(&seller, 1).await.head.map(|it| open_head(&it).unwrap().value().root),
        Some(head.value().root)
    );
    until("the seller knows its witness", async || {
        let witnesses = seller.log().await.witnesses;
        let agrees = witnesses.iter().any(|w| w.did == buyer.key.id().to_string() && w.witness && w.state == "Agrees");
        if agrees { Ok(()) } else { Err(format!("{witnesses:?}")) }
    })
    .await;
    // Each has shown the other that the contract is in its log.
    for node in [&buyer, &seller] {
        until("the other party has it in its log", async || {
            let contract = node.api::<Contract>().get("contract-1").await.unwrap();
            let told = contract.condition("LoggedByOtherParty").cloned().unwrap_or_default();
            let needed = ("True", "Included", "entry 0 of 1 in the log of the other party");
            let is = (told.status.as_str(), told.reason.as_str(), told.message.as_str()) == needed;
            if is { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }
    // A contract that ends is a second entry, and the heads are consistent.
    buyer.api::<Contract>().delete("contract-1", &DeleteParams::default()).await.unwrap();
    let kept = until("the end is witnessed", async || {
        let kept = seller.rear(&buyer).kept_head(seller.key.id()).await.unwrap();
        let size = kept.head.as_ref().map_or(0, |head| open_head(head).unwrap().value().size);
        if size >= 2 && kept.leaves == size { Ok(kept) } else { Err(format!("{size}")) }
    })
    .await;
    let leaves: Tree = seller.rear(&buyer).kept_leaves(0).await.unwrap().into_iter().collect();
    let later = open_head(&kept.head.unwrap()).unwrap();
    let proof = leaves.consistency(1, later.value().size).unwrap();
    verify_consistency(1, &head.value().root, later.value().size, &later.value().root, &proof).unwrap();

    // Somebody who is no party is told of nothing.
    assert!(other.rear(&seller).kept_contracts("").await.unwrap().is_empty());
    let refused = other.rear(&seller).kept_books("contract-1", 0).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::NotFound));
    assert!(other.rear(&seller).kept_leaves(0).await.unwrap().is_empty());
    let contracts = buyer.rear(&seller).kept_contracts("").await.unwrap();
    assert_eq!(
        contracts.iter().map(|kept| (kept.contract.id.as_str(), kept.ended)).collect::<Vec<_>>(),
        [("contract-1", true)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_lost_everything_sells_nothing_until_it_has_it_back() {
    let (mut buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    let ago = SignedDuration::from_hours(3);
    for number in 1..=3 {
        deal(&buyer, &seller, number, ago).await;
    }
    let entries = 3 + 3 * invoices_since(ago);
    let before = receipts(&seller, 9).await;
    receipts(&buyer, 9).await;
    assert_eq!(offers(&buyer, &seller).await, Ok(()));
    let log = seller.log_is(LogState::Complete, entries).await;
    seller.is_witnessed(&buyer, entries).await;

    // Beyond what is offered: it was sold, when more was.
    buyer.kill().await;
    seller.lose_objects().await;
    seller.lose_log();
    seller.open().await;
    seller.know(&buyer).await;
    tokio::time::sleep(support::WAIT * 2).await;
    let told = offers(&buyer, &seller).await.unwrap_err();
    assert!(told.contains("there is no log here") && told.contains("no node that is known has answered"), "{told}");
    assert_eq!(seller.log().await.state, LogState::Comparing);

    // Killed as soon as something is back, and again.
    buyer.open().await;
    until(
        "the first is back",
        async || if seller.names::<Contract>().await.is_empty() { Err("none".into()) } else { Ok(()) },
    )
    .await;
    seller.kill().await;
    seller.open().await;
    let after = seller.log_is(LogState::Complete, entries).await;
    assert_eq!((after.root, after.missing), (log.root, 0), "the same log goes on");
    assert_eq!(seller.names::<Contract>().await, ["contract-1", "contract-2", "contract-3"]);
    assert_eq!(seller.list::<Allocation>().await.len(), 3);
    let pool = seller.ledger().await;
    assert_eq!(pool.commitments.len(), 3);
    assert!(pool.commitments.iter().all(|known| matches!(known.state, CommitmentState::Committed { .. })));
    assert_eq!(pool.free(Timestamp::now()).cpu_milli, 0, "3 × 400m of 1 are sold");
    let now = receipts(&seller, 9).await;
    assert_eq!(digests(&now)[..9].len(), 9);
    assert!(digests(&before).iter().all(|digest| digests(&now).contains(digest)), "every receipt is back");
    until("it sells again", async || offers(&buyer, &seller).await).await;
    // The restored one is the same party: the buyer ends a contract, and it hears of it.
    buyer.api::<Contract>().delete("contract-2", &DeleteParams::default()).await.unwrap();
    until("it is released", async || {
        let names = seller.names::<Contract>().await;
        if names == ["contract-1", "contract-3"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;

    // What is over comes back as books: its end, its last receipt and its invoice are in the log.
    let log = until("the books of contract 2 are closed", async || {
        let (log, invoices) = (seller.log().await, seller.names::<Invoice>().await.len() as u64);
        // Three contracts, an end, a last receipt, and an invoice for each month.
        if invoices > 0 && log.size == 5 + invoices { Ok(log) } else { Err(format!("{invoices} {log:?}")) }
    })
    .await;
    seller.is_witnessed(&buyer, log.size).await;
    let invoices = seller.names::<Invoice>().await;
    seller.lose_objects().await;
    seller.lose_log();
    seller.know(&buyer).await;
    seller.open().await;
    let after = seller.log_is(LogState::Complete, log.size).await;
    assert_eq!((after.root, after.missing), (log.root, 0));
    assert_eq!(seller.names::<Contract>().await, ["contract-1", "contract-3"], "what is over stays over");
    assert_eq!(seller.ledger().await.commitments.len(), 2);
    assert_eq!(seller.names::<Invoice>().await, invoices);
    assert_eq!(seller.names::<Account>().await, ["contract-1", "contract-2", "contract-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_and_lost_objects_are_caught() {
    let (buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    seller.know(&buyer).await;
    deal(&buyer, &seller, 1, SignedDuration::ZERO).await;
    seller.is_witnessed(&buyer, 1).await;
    let old = tempfile::Builder::new().prefix("flt-notary").tempdir().unwrap();
    seller.kill().await;
    copy(&seller.directory(), old.path());
    let contract_1 = seller.api::<Contract>().get("contract-1").await.unwrap();
    seller.open().await;
    deal(&buyer, &seller, 2, SignedDuration::ZERO).await;
    let log = seller.log_is(LogState::Complete, 2).await;
    seller.is_witnessed(&buyer, 2).await;

    // An old directory: the first contract is there, the second was never heard of. It is whole in itself.
    seller.lose_objects().await;
    seller.lose_log();
    copy(old.path(), &seller.directory());
    let told = fluidos_acquisition::restore::told(&contract_1);
    let now = Timestamp::now();
    let no = Ended::No;
    fluidos_acquisition::restore::take_back(&seller.client, &seller.options, (&told, None), no, now).await.unwrap();
    seller.know(&buyer).await;
    seller.open().await;
    let after = seller.log_is(LogState::Complete, 2).await;
    assert_eq!(after.root, log.root);
    assert_eq!(seller.names::<Contract>().await, ["contract-1", "contract-2"]);
    assert_eq!(seller.ledger().await.commitments.len(), 2);
    let events: Vec<String> = seller.list::<Event>().await.into_iter().filter_map(|event| event.message).collect();
    let needed = format!("{} keeps 2 entries of this node's log, this node has 1", buyer.key.id());
    assert!(events.contains(&needed), "{events:?}");

    // Its objects alone.
    seller.lose_objects().await;
    seller.know(&buyer).await;
    seller.open().await;
    until("the objects are back", async || {
        let names = seller.names::<Contract>().await;
        if names == ["contract-1", "contract-2"] { Ok(()) } else { Err(format!("{names:?} {:?}", seller.log().await)) }
    })
    .await;
    assert_eq!(seller.log_is(LogState::Complete, 2).await.root, log.root, "nothing was taken for ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_history_is_refused_kept_and_told() {
    let (buyer, seller, mut liar) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    liar.know(&buyer).await;
    deal(&liar, &buyer, 1, SignedDuration::ZERO).await;
    let kept = liar.is_witnessed(&buyer, 1).await;
    liar.kill().await;
    // The whole log forked and signed again, with a proof that its maker could make.
    let forged: Tree = [leaf_hash(b"forged"), leaf_hash(b"more")].into_iter().collect();
    let mut head = TreeHead::of(&forged, liar.key.id(), 0, Timestamp::now()).unwrap();
    head.sign(&liar.key).unwrap();
    let submission = rear::HeadSubmission {
        head: head.envelope(),
        from: 1,
        consistency: forged.consistency(1, 2).unwrap(),
        leaves_from: 0,
        leaves: forged.leaves().to_vec(),
    };
    let refused = liar.rear(&buyer).submit_head(&submission).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Conflict),
        "{refused}"
    );
    // Whoever asks gets both, signed by the liar.
    let told = seller.rear(&buyer).kept_head(liar.key.id()).await.unwrap();
    assert_eq!(told.head, kept.head);
    let both = told.rewritten.unwrap().map(|head| open_head(&head).unwrap());
    assert!(both.iter().all(|head| head.signed_by(&liar.key.id())));
    assert_eq!(both[1].value().root, forged.root());
    until("the witness tells its owner", async || {
        let rewritten = buyer.log().await.rewritten;
        if rewritten.len() == 1 && rewritten[0].contains(&liar.key.id().to_string()) {
            Ok(())
        } else {
            Err(format!("{rewritten:?}"))
        }
    })
    .await;
    let events = buyer.list::<Event>().await;
    assert!(events.iter().any(|event| event.reason.as_deref() == Some("HistoryRewritten")));

    // Nobody else can show a head in its name.
    let refused = seller.rear(&buyer).submit_head(&submission).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Forbidden),
        "{refused}"
    );
    let unsigned: Signed<TreeHead> = Signed::new(HEAD_PURPOSE, head.value().clone()).unwrap();
    let unsigned = rear::HeadSubmission { head: unsigned.envelope(), ..submission };
    assert!(liar.rear(&buyer).submit_head(&unsigned).await.is_err());

    // Its own journal changed: one entry is another, with a checksum that fits.
    let path = liar.directory().join("journal");
    let line = std::fs::read_to_string(&path).unwrap();
    let json = line.lines().last().unwrap().split_once(' ').unwrap().1.replace("contract-1", "contract-9");
    let sum: String = fluidos_identity::sha256_hex(json.as_bytes()).chars().take(16).collect();
    std::fs::write(&path, format!("{sum} {json}\n")).unwrap();
    liar.open().await;
    until("its own start finds it out", async || {
        let events: Vec<_> = liar.list::<Event>().await.into_iter().filter_map(|event| event.message).collect();
        if events.iter().any(|told| told.contains("another history of 1 entries")) {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_give_back_is_lost_when_the_owner_says_so() {
    let (buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    deal(&buyer, &seller, 1, SignedDuration::ZERO).await;
    deal(&buyer, &seller, 2, SignedDuration::ZERO).await;
    seller.is_witnessed(&buyer, 2).await;
    let log = seller.log_is(LogState::Complete, 2).await;
    seller.lose_objects().await;
    seller.lose_log();
    // The buyer has lost one of both, too, and does not know it.
    until("the buyer has no contract 2", async || {
        for _ in 0..2 {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = buyer.api::<Contract>().patch("contract-2", &PatchParams::default(), &patch).await;
            let _ = buyer.api::<Contract>().delete("contract-2", &DeleteParams::default()).await;
            let _ = buyer.api::<Account>().delete("contract-2", &DeleteParams::default()).await;
        }
        let names = (buyer.names::<Contract>().await, buyer.names::<Account>().await);
        if names.0 == ["contract-1"] && names.1 == ["contract-1"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    seller.open().await;
    seller.know(&buyer).await;
    let waiting = until("one entry is missing", async || {
        let log = seller.log().await;
        if log.state == LogState::Restoring && log.missing == 1 { Ok(log) } else { Err(format!("{log:?}")) }
    })
    .await;
    assert_eq!(waiting.message, "1 of 2 entries are not accounted for");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = offers(&buyer, &seller).await.unwrap_err();
    assert!(told.starts_with("restoring, nothing is sold: 1 of 2 entries"), "{told}");
    let accept = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_ACCEPT_LOSS: "the disk burnt"}}}));
    seller.api::<TransparencyLog>().patch(names::LOG, &PatchParams::default(), &accept).await.unwrap();
    let after = seller.log_is(LogState::Complete, 3).await;
    assert_eq!((after.missing, after.epoch), (0, 0));
    let kept = seller.is_witnessed(&buyer, 3).await;
    let tree: Tree = seller.rear(&buyer).kept_leaves(0).await.unwrap().into_iter().collect();
    assert_eq!(tree.root_at(2).unwrap().to_string(), log.root, "the loss is in the log, and nothing was rewritten");
    assert!(kept.rewritten.is_none());
    assert_eq!(seller.names::<Contract>().await, ["contract-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_comes_back_with_its_renewals() {
    let (buyer, mut seller) = (Node::start(1).await, Node::start(2).await);
    let hour = |number: i64| Timestamp::now().checked_add(SignedDuration::from_hours(number)).unwrap();
    let ends = [hour(1), hour(2), hour(3), hour(4)];
    let contract = support::agreed_until(&buyer, &seller, 1, SignedDuration::ZERO, Some(ends[0]));
    let terms = Signed::open(contract.signed_terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap();
    let mut renewals = Vec::new();
    for (number, until) in [(1, [0, 1]), (2, [1, 2]), (3, [2, 3])] {
        let renewal = rear::RenewalTerms::of(&terms, number, ends[until[0]], ends[until[1]]);
        let mut renewal = renewal.unwrap();
        renewal.sign(&buyer.key).unwrap();
        renewals.push(renewal);
    }
    for (renewal, entries) in renewals[..2].iter_mut().zip([2, 3]) {
        renewal.sign(&seller.key).unwrap();
        for node in [&seller, &buyer] {
            let renewed = (&contract, Some(&renewal.envelope()));
            let no = Ended::No;
            fluidos_acquisition::restore::take_back(&node.client, &node.options, renewed, no, Timestamp::now())
                .await
                .unwrap();
            // Each is in the log before the next takes its place in the contract.
            node.log_is(LogState::Complete, entries).await;
        }
    }
    let log = seller.is_witnessed(&buyer, 3).await;
    let asked = json!({"spec": {"renewalAsked": renewals[2].envelope()}});
    let before = seller.log().await;

    seller.lose_objects().await;
    seller.lose_log();
    seller.know(&buyer).await;
    seller.open().await;
    let after = seller.log_is(LogState::Complete, 3).await;
    assert_eq!((after.root, after.missing), (before.root, 0), "{log:?}");
    let back = seller.api::<Contract>().get("contract-1").await.unwrap();
    assert_eq!(back.spec.expiration_time, Some(ends[2].to_string()), "it ends when the second renewal says");
    assert_eq!(back.spec.renewal.unwrap().signatures.len(), 2);
    let pool = seller.ledger().await;
    let CommitmentState::Committed { until: sold, .. } = &pool.commitments[0].state else { panic!("{pool:?}") };
    assert_eq!(*sold, Some(ends[2]), "and so long it is promised");

    // While the buyer has asked for the third, the second is given back all the same, and the third renews nothing.
    let patch = Patch::Merge(asked);
    buyer.api::<Contract>().patch("contract-1", &PatchParams::default(), &patch).await.unwrap();
    seller.lose_objects().await;
    seller.know(&buyer).await;
    seller.open().await;
    until("the contract is back", async || {
        let names = seller.names::<Contract>().await;
        if names == ["contract-1"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    let back = seller.api::<Contract>().get("contract-1").await.unwrap().spec;
    assert_eq!((back.expiration_time, back.renewal_asked), (Some(ends[2].to_string()), None));
    assert_eq!(back.renewal.map(|both| both.payload), Some(renewals[1].envelope().payload));
    let pool = seller.ledger().await;
    let CommitmentState::Committed { until: sold, .. } = &pool.commitments[0].state else { panic!("{pool:?}") };
    assert_eq!(*sold, Some(ends[2]), "and promised until then");
}
