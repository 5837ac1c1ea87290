//! A witness and other party that lies to a node which has lost its records: nothing that is not proven is believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fluidos_acquisition::restore::take_back;
use fluidos_identity::{Envelope, NodeId, NodeKey, Signed};
use fluidos_log::{Entry, EntryKind, Hash, Tree, TreeHead, leaf_hash};
use fluidos_model::kinds::{Condition, Contract, Invoice, LogState, Receipt, TransparencyLog, names};
use fluidos_model::market::Ended;
use fluidos_model::receipt::RECEIPT_PURPOSE;
use fluidos_rear as rear;
use fluidos_rear::{KeptBooks, KeptContract, KeptContracts, KeptHead, KeptLeaves, Refusal, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, Nothing, agreed, deal, until, wire};

/// Answers what it is told to.
#[derive(Default)]
struct Liar {
    kept: KeptHead,
    leaves: Vec<Hash>,
    contracts: Vec<KeptContract>,
    books: KeptBooks,
    inclusion: Option<rear::Inclusion>,
    /// More contracts, for ever.
    endless: bool,
    /// The same contracts, for ever.
    repeats: bool,
    pages: AtomicU64,
}

#[async_trait]
impl rear::Notary for Liar {
    async fn submit(&self, _: rear::HeadSubmission, _: NodeId) -> Result<KeptHead, Refusal> {
        Ok(self.kept.clone())
    }

    async fn kept(&self, _: NodeId) -> Result<KeptHead, Refusal> {
        Ok(self.kept.clone())
    }

    async fn leaves(&self, from: u64, _: NodeId) -> Result<KeptLeaves, Refusal> {
        let from = usize::try_from(from).unwrap();
        Ok(KeptLeaves { leaves: self.leaves.iter().skip(from).take(512).copied().collect() })
    }

    async fn consistency(&self, _: NodeId, _: u64, _: u64) -> Result<rear::Consistency, Refusal> {
        Err(Refusal::new(RefusalCode::NotFound, "it shows nothing"))
    }

    async fn inclusion(&self, _: Hash, _: NodeId) -> Result<rear::Inclusion, Refusal> {
        self.inclusion.clone().ok_or_else(|| Refusal::new(RefusalCode::NotFound, "it is not there"))
    }

    async fn contracts(&self, after: &str, _: NodeId) -> Result<KeptContracts, Refusal> {
        let page = self.pages.fetch_add(1, Ordering::SeqCst);
        if self.endless {
            let named = |number| format!("contract-{:06}-{number:02}", page);
            let one = |number| KeptContract {
                contract: rear::Contract { id: named(number), ..self.contracts[0].contract.clone() },
                ..self.contracts[0].clone()
            };
            return Ok(KeptContracts { contracts: (0..16).map(one).collect() });
        }
        let behind = self.contracts.iter().filter(|kept| self.repeats || kept.contract.id.as_str() > after);
        Ok(KeptContracts { contracts: behind.take(16).cloned().collect() })
    }

    async fn books(&self, _: &str, after: u64, _: NodeId) -> Result<KeptBooks, Refusal> {
        Ok(if after == 0 { self.books.clone() } else { KeptBooks::default() })
    }
}

async fn lie(liar: &mut Node, what: Liar) -> Arc<Liar> {
    liar.kill().await;
    let what = Arc::new(what);
    liar.serve(rear::RearService::of(Arc::new(Nothing), None, Some(what.clone()))).await;
    what
}

fn head(key: &NodeKey, origin: &NodeKey, leaves: &[Hash]) -> KeptHead {
    let tree: Tree = leaves.iter().copied().collect();
    let mut head = TreeHead::of(&tree, origin.id(), 0, Timestamp::now()).unwrap();
    head.sign(key).unwrap();
    KeptHead { head: Some(head.envelope()), leaves: leaves.len() as u64, rewritten: None }
}

fn running(contract: rear::Contract) -> KeptContract {
    KeptContract { contract, ended: false, renewal: None, entries: Vec::new() }
}

/// Terms as these have signed them.
fn signed(buyer: &Node, seller: &Node, id: &str, signers: &[&NodeKey]) -> rear::Contract {
    let whole = agreed(buyer, seller, 1, SignedDuration::ZERO).signed_terms.unwrap();
    let terms: Signed<rear::ContractTerms> = Signed::open(&whole, rear::CONTRACT_PURPOSE).unwrap();
    let mut terms = rear::ContractTerms { contract_id: id.into(), ..terms.value().clone() }.into_signed().unwrap();
    signers.iter().for_each(|key| terms.sign(key).unwrap());
    wire(buyer, seller, id, terms.envelope())
}

async fn refused(victim: &Node, needed: &[&str]) {
    until(&format!("{needed:?} is refused"), async || {
        let log = victim.log().await;
        let told = log.restored.clone().unwrap_or_default().refused;
        let all = needed.iter().all(|needed| told.iter().any(|told| told.contains(needed)));
        if all && log.state == LogState::Restoring { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contracts_that_are_not_proven_are_not_taken_back() {
    let (honest, mut victim, mut liar) = (Node::start(1).await, Node::stopped(2).await, Node::stopped(3).await);
    fluidos_notary::begin(&victim.directory()).unwrap();
    victim.open().await;
    deal(&honest, &victim, 7, SignedDuration::ZERO).await;
    victim.log_is(LogState::Complete, 1).await;
    let other = NodeKey::from_seed([9; 32]).unwrap();
    // It keeps a head that the victim has signed, of an entry that nobody has.
    let own = victim.is_witnessed(&honest, 1).await;
    let own = fluidos_log::open_head(&own.head.unwrap()).unwrap().value().root;
    let leaves = [own, leaf_hash(b"what is lost")];
    let both = [&liar.key, &victim.key];
    let mut moved = signed(&liar, &victim, "contract-4", &both);
    moved.id = "contract-5".into();
    let what = Liar {
        kept: head(&victim.key, &victim.key, &leaves),
        leaves: leaves.to_vec(),
        contracts: [
            signed(&liar, &victim, "contract-1", &[&liar.key]),
            signed(&honest, &liar, "contract-2", &[&honest.key, &liar.key]),
            signed(&liar, &victim, "contract-3", &[&liar.key, &other]),
            moved,
            signed(&honest, &victim, "contract-6", &[&honest.key, &victim.key]),
            signed(&liar, &victim, "contract-7", &both),
        ]
        .map(running)
        .to_vec(),
        ..Liar::default()
    };
    lie(&mut liar, what).await;
    victim.know(&liar).await;
    let not_signed = format!("contract-1: not signed by {}", victim.key.id());
    refused(
        &victim,
        &[
            &not_signed,
            "contract contract-2: it is not between the two of us",
            &not_signed.replace("contract-1", "contract-3"),
            "contract contract-5: its terms are of contract contract-4",
            "contract contract-6: it is not between the two of us",
            "contract contract-7: its name is in use here for other terms",
        ],
    )
    .await;
    assert_eq!(victim.names::<Contract>().await, ["contract-7"]);
    assert_eq!(victim.ledger().await.commitments.len(), 1);
    let log = victim.log().await;
    assert_eq!((log.missing, log.size), (1, 2), "and what is missing is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_this_node_did_not_sign_closes_nothing_and_leaves_must_give_the_root() {
    let (victim, mut liar) = (Node::start(2).await, Node::stopped(3).await);
    let forged = [leaf_hash(b"a"), leaf_hash(b"b")];
    let kept = head(&liar.key, &victim.key, &forged);
    lie(&mut liar, Liar { kept, leaves: forged.to_vec(), ..Liar::default() }).await;
    victim.know(&liar).await;
    until("its answer counts for nothing", async || {
        let log = victim.log().await;
        let told = log.witnesses.iter().any(|w| w.message == "it shows a head that this node has not signed");
        if told && log.state == LogState::Complete { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
    // A head that is the victim's own, and leaves that are not.
    let kept = head(&victim.key, &victim.key, &[leaf_hash(b"true"), leaf_hash(b"too")]);
    lie(&mut liar, Liar { kept, leaves: forged.to_vec(), ..Liar::default() }).await;
    until("its leaves are refused", async || {
        let log = victim.log().await;
        let told = log.message.contains("its leaves do not give the root that this node has signed");
        if told && (log.state, log.size) == (LogState::Restoring, 0) { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
    // Nobody has them: the log begins anew, and everybody is told.
    let accept = Patch::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_ACCEPT_LOSS: "nobody has it"}}}));
    victim.api::<TransparencyLog>().patch(names::LOG, &PatchParams::default(), &accept).await.unwrap();
    let log = victim.log_is(LogState::Complete, 1).await;
    assert_eq!((log.epoch, log.missing), (1, 0));
    let honest = Node::start(1).await;
    deal(&honest, &victim, 7, SignedDuration::ZERO).await;
    victim.log_is(LogState::Complete, 2).await;
    let kept = victim.is_witnessed(&honest, 2).await;
    assert_eq!(fluidos_log::open_head(&kept.head.unwrap()).unwrap().value().epoch, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_that_are_not_proven_are_not_taken_back_and_an_endless_answer_ends() {
    let (mut victim, mut liar) = (Node::stopped(2).await, Node::stopped(3).await);
    fluidos_notary::begin(&victim.directory()).unwrap();
    victim.open().await;
    let contract = signed(&liar, &victim, "contract-1", &[&liar.key, &victim.key]);
    let terms: Signed<rear::ContractTerms> =
        Signed::open(contract.signed_terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap();
    let value = terms.value();
    let entry = Entry {
        kind: EntryKind::ContractSigned,
        of: value.contract_id.clone(),
        digest: terms.digest().parse().unwrap(),
        at: Some(value.issued.clone()),
    };
    let leaves = [entry.hash().unwrap(), leaf_hash(b"what is lost")];
    // A receipt that the victim never signed, and an invoice that is not in its log.
    let receipt = json!({"version": 1, "contractID": "contract-1", "number": 1});
    let mut receipt = Signed::new(RECEIPT_PURPOSE, receipt).unwrap();
    receipt.sign(&liar.key).unwrap();
    let invoice = json!({
        "number": "1", "contractID": "contract-1", "termsDigest": terms.digest(), "month": "2026-01",
        "buyer": liar.key.id(), "seller": victim.key.id(), "receipts": [1, 1], "lastReceipt": "", "complete": true,
        "price": ["36", "EUR", "hour"], "lines": [], "dueMinor": 0, "due": "0.00 EUR",
    });
    let lies = |receipts: Vec<Envelope>, invoices: Vec<Value>| Liar {
        kept: head(&victim.key, &victim.key, &leaves),
        leaves: leaves.to_vec(),
        contracts: vec![running(contract.clone())],
        books: KeptBooks { receipts, invoices },
        ..Liar::default()
    };
    let [first, second] = [lies(vec![], vec![invoice]), lies(vec![receipt.envelope()], vec![])];
    let repeats = Liar { repeats: true, ..lies(vec![], vec![]) };
    let what = lie(&mut liar, first).await;
    victim.know(&liar).await;
    until("it was asked twice", async || {
        let (pages, log) = (what.pages.load(Ordering::SeqCst), victim.log().await);
        if pages >= 4 && log.state == LogState::Restoring { Ok(()) } else { Err(format!("{pages} {log:?}")) }
    })
    .await;
    assert!(victim.names::<Invoice>().await.is_empty(), "it is in no log");
    lie(&mut liar, repeats).await;
    refused(&victim, &["its contracts do not come in order: contract-1 behind contract-1"]).await;
    lie(&mut liar, second).await;
    refused(&victim, &["contract contract-1: "]).await;
    // The contract itself is proven, and back.
    assert_eq!(victim.names::<Contract>().await, ["contract-1"]);
    assert!(victim.names::<Receipt>().await.is_empty() && victim.names::<Invoice>().await.is_empty());

    let what = Liar {
        kept: head(&victim.key, &victim.key, &leaves),
        leaves: leaves.to_vec(),
        contracts: vec![running(signed(&liar, &victim, "contract-9", &[&liar.key]))],
        endless: true,
        ..Liar::default()
    };
    let what = lie(&mut liar, what).await;
    until("it is not listened to for ever", async || {
        let (pages, told) =
            (what.pages.load(Ordering::SeqCst), victim.log().await.restored.unwrap_or_default().refused);
        if pages >= 64 && told.len() == 16 { Ok(()) } else { Err(format!("{pages} {told:?}")) }
    })
    .await;
    assert_eq!(victim.names::<Contract>().await, ["contract-1"]);
}

/// Waits until a contract says whether it is in the other party's log.
async fn logged(node: &Node, contract: &str, status: &str, reason: &str) -> Condition {
    until(&format!("{contract} is {reason} in the other party's log"), async || {
        let contract = node.api::<Contract>().get(contract).await.unwrap();
        match contract.condition("LoggedByOtherParty") {
            Some(told) if (told.status.as_str(), told.reason.as_str()) == (status, reason) => Ok(told.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_has_not_our_contract_in_its_log_is_told_of_in_the_contract() {
    let (victim, mut liar) = (Node::start(2).await, Node::stopped(3).await);
    let at = |node: &Node| (node.client.clone(), node.options.clone());
    let (client, options) = at(&victim);
    let has = async |number| {
        let told = agreed(&victim, &liar, number, SignedDuration::ZERO);
        take_back(&client, &options, (&told, None), Ended::No, Timestamp::now()).await.unwrap();
    };
    has(1).await;
    let away = logged(&victim, "contract-1", "Unknown", "Unreachable").await;
    assert!(!away.last_transition_time.is_empty() && !away.message.is_empty(), "{away:?}");
    // It answers that it has none.
    lie(&mut liar, Liar::default()).await;
    let missing = logged(&victim, "contract-1", "False", "Missing").await;
    assert!(missing.message.contains("it is not there"), "{missing:?}");
    assert_ne!(missing.last_transition_time, away.last_transition_time);
    // It shows a log that has another leaf there.
    let tree: Tree = [leaf_hash(b"a"), leaf_hash(b"b")].into_iter().collect();
    let mut head = TreeHead::of(&tree, liar.key.id(), 0, Timestamp::now()).unwrap();
    head.sign(&liar.key).unwrap();
    let inclusion = tree.inclusion(0, 2).unwrap();
    let shown = rear::Inclusion { head: head.envelope(), index: 0, inclusion };
    lie(&mut liar, Liar { inclusion: Some(shown), ..Liar::default() }).await;
    let lie = logged(&victim, "contract-1", "False", "NotProven").await;
    assert!(lie.message.contains("leads to root"), "{lie:?}");
    assert_eq!(lie.last_transition_time, missing.last_transition_time, "it is not shown since then");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_made_for_who_asks_is_no_proof() {
    let (victim, mut liar) = (Node::start(2).await, Node::stopped(3).await);
    // It has shown the victim one log, and makes another with the contract in it.
    let terms = agreed(&victim, &liar, 1, SignedDuration::ZERO);
    let signed: Signed<rear::ContractTerms> =
        Signed::open(terms.signed_terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap();
    let entry = Entry {
        kind: EntryKind::ContractSigned,
        of: "contract-1".into(),
        digest: signed.digest().parse().unwrap(),
        at: Some(signed.value().issued.clone()),
    };
    let shows = |leaves: &[Hash]| {
        let tree: Tree = leaves.iter().copied().collect();
        let mut head = TreeHead::of(&tree, liar.key.id(), 0, Timestamp::now()).unwrap();
        head.sign(&liar.key).unwrap();
        (head.envelope(), tree)
    };
    let (public, _) = shows(&[leaf_hash(b"a"), leaf_hash(b"b")]);
    let submission =
        rear::HeadSubmission { head: public, from: 0, consistency: vec![], leaves_from: 0, leaves: vec![] };
    liar.rear(&victim).submit_head(&submission).await.unwrap();
    let (head, tree) = shows(&[leaf_hash(b"a"), entry.hash().unwrap()]);
    let shown = rear::Inclusion { head, index: 1, inclusion: tree.inclusion(1, 2).unwrap() };
    lie(&mut liar, Liar { inclusion: Some(shown), ..Liar::default() }).await;
    take_back(&victim.client, &victim.options, (&terms, None), Ended::No, Timestamp::now()).await.unwrap();
    let told = logged(&victim, "contract-1", "False", "NotProven").await;
    assert!(told.message.contains("two histories"), "{told:?}");
    // What a look has found of the log is written at its end, the Contract before.
    until("that is kept", async || {
        let log = victim.log().await;
        let kept = log.rewriters().collect::<Vec<_>>() == [liar.key.id().to_string()];
        if kept { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
}
