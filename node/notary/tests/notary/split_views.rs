//! A node that shows two witnesses two histories: they compare on their own, over REAR on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fluidos_identity::NodeId;
use fluidos_log::{Hash, Tree, TreeHead, leaf_hash, open_head};
use fluidos_model::kinds::{LogState, TransparencyLogStatus};
use fluidos_rear as rear;
use fluidos_rear::{KeptBooks, KeptContracts, KeptHead, KeptLeaves, Refusal, RefusalCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

use crate::support::{Node, Nothing, deal, until};

fn tree(leaves: &[&str]) -> Tree {
    leaves.iter().map(|leaf| leaf_hash(leaf.as_bytes())).collect()
}

/// Shows a witness a head of a log that is new to it.
async fn show(node: &Node, witness: &Node, tree: &Tree, with_leaves: bool) {
    let mut head = TreeHead::of(tree, node.key.id(), 0, Timestamp::now()).unwrap();
    head.sign(&node.key).unwrap();
    let submission = rear::HeadSubmission {
        head: head.envelope(),
        from: 0,
        consistency: Vec::new(),
        leaves_from: 0,
        leaves: if with_leaves { tree.leaves().to_vec() } else { Vec::new() },
    };
    let kept = node.rear(witness).submit_head(&submission).await.unwrap();
    assert_eq!(kept.leaves, if with_leaves { tree.size() } else { 0 });
}

/// Two witnesses that know each other.
async fn witnesses() -> (Node, Node) {
    let (one, other) = (Node::start(1).await, Node::start(2).await);
    for node in [&one, &other] {
        node.log_is(LogState::Complete, 0).await;
    }
    (one, other)
}

async fn log_that(node: &Node, what: &str, is: impl Fn(&TransparencyLogStatus) -> bool) -> TransparencyLogStatus {
    until(what, async || {
        let log = node.log().await;
        if is(&log) { Ok(log) } else { Err(format!("{log:?}")) }
    })
    .await
}

/// Waits until a witness has found out, and checks what it keeps.
async fn finds_out(witness: &Node, liar: &Node, other: &Node, roots: [Hash; 2]) {
    let did = liar.key.id().to_string();
    let log = log_that(witness, "the split view is found", |log| !log.rewritten.is_empty()).await;
    assert_eq!(log.rewriters().collect::<Vec<_>>(), [did.as_str()], "that is what rating reads");
    assert!(log.rewritten[0].contains(&other.key.id().to_string()), "who keeps the other: {:?}", log.rewritten);
    let kept = rear::Notary::kept(witness.notary.as_ref().unwrap().as_ref(), liar.key.id()).await.unwrap();
    let both = kept.rewritten.unwrap().map(|head| open_head(&head).unwrap());
    assert!(both.iter().all(|head| head.signed_by(&liar.key.id())));
    assert_eq!(both.map(|head| head.value().root), roots);
    let told = witness.list::<Event>().await;
    let told = told.iter().filter(|event| event.reason.as_deref() == Some("HistoryRewritten")).count();
    assert_eq!(told, 1, "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_heads_of_one_size_are_found_by_both_witnesses() {
    let (one, other) = witnesses().await;
    let liar = Node::stopped(3).await;
    let (left, right) = (tree(&["a", "b"]), tree(&["a", "x"]));
    show(&liar, &one, &left, false).await;
    show(&liar, &other, &right, false).await;
    one.know(&other).await;
    other.know(&one).await;
    finds_out(&one, &liar, &other, [left.root(), right.root()]).await;
    finds_out(&other, &liar, &one, [right.root(), left.root()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_heads_of_two_sizes_are_found_by_leaves_of_either() {
    let (one, other) = witnesses().await;
    let liar = Node::stopped(3).await;
    let (short, long) = (tree(&["a", "b", "c"]), tree(&["a", "x", "c", "d", "e"]));
    show(&liar, &one, &short, false).await;
    show(&liar, &other, &long, true).await;
    one.know(&other).await;
    other.know(&one).await;
    // One has no leaves and is shown them, the other has its own.
    finds_out(&one, &liar, &other, [short.root(), long.root()]).await;
    finds_out(&other, &liar, &one, [long.root(), short.root()]).await;
}

/// A node that shows any two heads of its log to fit, if they do.
struct Shows {
    tree: Tree,
    asked: AtomicU64,
}

#[async_trait]
impl rear::Notary for Shows {
    async fn submit(&self, _: rear::HeadSubmission, _: NodeId) -> Result<KeptHead, Refusal> {
        Ok(KeptHead::default())
    }

    async fn kept(&self, _: NodeId) -> Result<KeptHead, Refusal> {
        Ok(KeptHead::default())
    }

    async fn leaves(&self, _: u64, _: NodeId) -> Result<KeptLeaves, Refusal> {
        Ok(KeptLeaves::default())
    }

    async fn consistency(&self, _: NodeId, from: u64, to: u64) -> Result<rear::Consistency, Refusal> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let root = self.tree.root_at(from).unwrap();
        Ok(rear::Consistency { root, consistency: self.tree.consistency(from, to).unwrap() })
    }

    async fn inclusion(&self, _: Hash, _: NodeId) -> Result<rear::Inclusion, Refusal> {
        Err(Refusal::new(RefusalCode::NotFound, "it is not there"))
    }

    async fn contracts(&self, _: &str, _: NodeId) -> Result<KeptContracts, Refusal> {
        Ok(KeptContracts::default())
    }

    async fn books(&self, _: &str, _: u64, _: NodeId) -> Result<KeptBooks, Refusal> {
        Ok(KeptBooks::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_leaves_the_node_itself_is_asked_and_only_what_is_proven_counts() {
    let (one, other) = witnesses().await;
    let (liar, mut honest) = (Node::stopped(3).await, Node::stopped(4).await);
    let tree_of = tree(&["a", "b", "c", "d", "e"]);
    let shows = Arc::new(Shows { tree: tree_of.clone(), asked: AtomicU64::default() });
    honest.serve(rear::RearService::of(Arc::new(Nothing), None, Some(shows.clone()))).await;
    one.know(&honest).await;
    // The honest one has grown between the two; the liar has forked, and answers nobody.
    show(&honest, &one, &tree(&["a", "b", "c"]), false).await;
    show(&honest, &other, &tree_of, false).await;
    show(&liar, &one, &tree(&["a", "b", "c"]), false).await;
    show(&liar, &other, &tree(&["a", "x", "c", "d"]), false).await;
    one.know(&other).await;
    let log = log_that(&one, "the liar's heads are not shown to fit", |log| !log.unproven.is_empty()).await;
    let [unproven] = &log.unproven[..] else { panic!("{log:?}") };
    assert!(unproven.starts_with(&format!("{}: ", liar.key.id())), "{unproven}");
    assert!(unproven.contains(&other.key.id().to_string()) && unproven.contains("4 entries"), "{unproven}");
    assert!(log.rewritten.is_empty(), "nothing is proven: {log:?}");
    assert!(shows.asked.load(Ordering::SeqCst) > 0, "the honest one was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_through_logs_of_others_are_few_and_those_through_the_own_log_are_not() {
    let (buyer, seller, other) = (Node::start(1).await, Node::start(2).await, Node::stopped(3).await);
    deal(&buyer, &seller, 1, SignedDuration::ZERO).await;
    deal(&buyer, &seller, 2, SignedDuration::ZERO).await;
    seller.is_witnessed(&buyer, 2).await;
    let (itself, witness) = (other.rear(&seller), other.rear(&buyer));
    let own = itself.consistency(seller.key.id(), 1, 2).await.unwrap();
    assert_eq!(witness.consistency(seller.key.id(), 1, 2).await.unwrap(), own, "whoever is asked shows the same");
    for _ in 0..12 {
        itself.consistency(seller.key.id(), 1, 2).await.unwrap();
    }
    assert!(itself.consistency(seller.key.id(), 1, 3).await.unwrap_err().to_string().contains("no 1 of 3 leaves"));
    let mut last = String::new();
    for _ in 0..12 {
        last =
            witness.consistency(seller.key.id(), 1, 2).await.map_or_else(|error| error.to_string(), |_| String::new());
    }
    assert!(last.contains("too much is asked about the logs of others"), "{last}");
}
