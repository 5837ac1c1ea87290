//! The two-party protocol beside a model of it: random messages of two buyers, one after the other and at the same time, with the seller
//! killed before or after any of its writes, its answers lost, and holds whose time is over.
//!
//! ```text
//!            reserve            purchase
//!   nothing ────────▶ held ──────────────▶ sold        model: one map, transaction ─▶ (buyer, amounts, sold)
//!      ▲                │ cancel, time      │ release   real: exporter, ledger, REAR over TLS
//!      └────────────────┴───────────────────┘
//! ```
//! After each step the ledger is what the model says in *some* order of the messages; after a kill each of them may have happened or not.

use std::collections::{BTreeMap, BTreeSet};

use fluidos_identity::{NodeKey, Signed};
use fluidos_model::kinds::{Configuration, Contract, Ledger};
use fluidos_model::market::{Amounts, CommitmentState};
use fluidos_rear as rear;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRng;

use crate::support;
use crate::support::Node;
use crate::support::fuse::{Fuse, fused};

const CAPACITY_MILLI: u64 = 3000;
const AMOUNTS_MILLI: [u64; 3] = [500, 1500, 2500];
const TRANSACTIONS: usize = 3;
/// Sequences of one run, and steps of each; `FLT_MODEL_SEQUENCES` runs more, for who has time.
const SEQUENCES: u64 = 12;
const STEPS: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Reserve { milli: u64 },
    Purchase,
    Cancel,
    Release,
}

/// One message of one buyer about one transaction.
#[derive(Clone, Copy, Debug)]
struct Op {
    act: Act,
    buyer: usize,
    transaction: usize,
}

#[derive(Clone, Debug)]
enum Step {
    /// One after the other is one of them; two are at the same time.
    Messages(Vec<Op>),
    /// The same while the seller dies at its so-manieth moment.
    Killed(Vec<Op>, i64),
    /// The time of a hold is over.
    Late(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    buyer: usize,
    milli: u64,
    sold: bool,
}

type Books = BTreeMap<usize, Entry>;

/// What a message does to the books. `signed` says whether its buyer has terms to sign, or a contract to end.
fn apply(books: &Books, op: &Op, signed: bool) -> Books {
    let mut after = books.clone();
    let known = books.get(&op.transaction);
    let mine = known.filter(|entry| entry.buyer == op.buyer);
    match op.act {
        Act::Reserve { milli } => {
            let promised: u64 = books.values().map(|entry| entry.milli).sum();
            if known.is_none() && promised + milli <= CAPACITY_MILLI {
                after.insert(op.transaction, Entry { buyer: op.buyer, milli, sold: false });
            }
        }
        Act::Purchase if mine.is_some() && signed => {
            after.entry(op.transaction).and_modify(|entry| entry.sold = true);
        }
        Act::Cancel if mine.is_some_and(|entry| !entry.sold) => {
            after.remove(&op.transaction);
        }
        Act::Release if mine.is_some_and(|entry| entry.sold) && signed => {
            after.remove(&op.transaction);
        }
        Act::Purchase | Act::Cancel | Act::Release => {}
    }
    after
}

struct World {
    seller: Node,
    buyers: [NodeKey; 2],
    books: Books,
    /// Terms that a buyer was offered, by buyer and transaction; gone when the promise is.
    offered: BTreeMap<(usize, usize), Signed<rear::ContractTerms>>,
    /// Contracts that a buyer has got.
    contracts: BTreeMap<(usize, usize), Signed<rear::ContractTerms>>,
}

/// What a buyer has learnt.
enum Learnt {
    Terms(Box<Signed<rear::ContractTerms>>),
    Contract(Box<Signed<rear::ContractTerms>>),
    Done,
    No(String),
}

impl World {
    async fn new() -> Self {
        let mut seller = Node::without_rooms(1, "grid", Some(CAPACITY_MILLI)).await;
        seller.open(|exporter| exporter).await;
        let buyers = [8, 9].map(|seed| NodeKey::from_seed([seed; 32]).unwrap());
        let (books, offered, contracts) = (Books::new(), BTreeMap::new(), BTreeMap::new());
        Self { seller, buyers, books, offered, contracts }
    }

    /// What a buyer signs for this message, if it has it.
    fn signed(&self, op: &Op) -> Option<&Signed<rear::ContractTerms>> {
        let key = (op.buyer, op.transaction);
        match op.act {
            Act::Purchase => self.offered.get(&key),
            Act::Release => self.contracts.get(&key),
            Act::Reserve { .. } | Act::Cancel => None,
        }
    }

    async fn send(&self, op: &Op) -> Learnt {
        let buyer = &self.buyers[op.buyer];
        let client = self.seller.rear(buyer);
        let name = format!("t{}", op.transaction);
        let failed = |error: rear::ClientError| Learnt::No(error.to_string());
        match op.act {
            Act::Reserve { milli } => match client.reserve(&reservation(&self.seller, &name, milli)).await {
                Ok(transaction) => {
                    let terms = Signed::open(transaction.terms.as_ref().unwrap(), rear::CONTRACT_PURPOSE).unwrap();
                    Learnt::Terms(Box::new(terms))
                }
                Err(error) => failed(error),
            },
            Act::Purchase => {
                let Some(terms) = self.signed(op) else { return Learnt::No("nothing to sign".into()) };
                let mut terms = terms.clone();
                terms.sign(buyer).unwrap();
                let request = rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() };
                match client.purchase(&name, &request).await {
                    Ok(contract) => {
                        let both = rear::check_contract(contract.signed_terms.as_ref().unwrap(), &terms).unwrap();
                        Learnt::Contract(Box::new(both))
                    }
                    Err(error) => failed(error),
                }
            }
            Act::Cancel => client.cancel(&name).await.map_or_else(failed, |()| Learnt::Done),
            Act::Release => {
                let Some(contract) = self.signed(op) else { return Learnt::No("no contract".into()) };
                let mut release = rear::ReleaseTerms::of(contract, "model", Timestamp::now(), None).unwrap();
                release.sign(buyer).unwrap();
                client.release(&release).await.map_or_else(failed, |()| Learnt::Done)
            }
        }
    }

    /// The ledger as the model has it.
    async fn observed(&self) -> Books {
        let (now, pool) = (Timestamp::now(), self.seller.ledger().await);
        let standing = pool.commitments.iter().filter(|known| !known.is_over(now));
        let books: Books = standing
            .map(|known| {
                let buyer = self.buyers.iter().position(|key| key.id().to_string() == known.buyer).unwrap();
                let sold = matches!(known.state, CommitmentState::Committed { .. });
                let entry = Entry { buyer, milli: known.amounts.cpu_milli, sold };
                (known.transaction.trim_start_matches('t').parse().unwrap(), entry)
            })
            .collect();
        let promised: u64 = books.values().map(|entry| entry.milli).sum();
        assert!(promised <= CAPACITY_MILLI, "{promised} of {CAPACITY_MILLI} are promised: {books:?}");
        books
    }

    /// Every outcome that some order of the messages has; those that were killed may have done nothing.
    fn outcomes(&self, ops: &[Op], killed: bool) -> BTreeSet<Books> {
        let after = |books: &Books, op: &Op| apply(books, op, self.signed(op).is_some());
        let mut outcomes = BTreeSet::new();
        let orders: Vec<Vec<&Op>> = match ops {
            [a, b] => vec![vec![a, b], vec![b, a]],
            ops => vec![ops.iter().collect()],
        };
        for order in orders {
            outcomes.insert(order.iter().fold(self.books.clone(), |books, op| after(&books, op)));
            if killed {
                outcomes.insert(self.books.clone());
                outcomes.extend(order.iter().map(|op| after(&self.books, op)));
            }
        }
        outcomes
    }

    /// What was answered agrees with the books and with what was answered before.
    fn learn(&mut self, op: &Op, learnt: Learnt, alone: bool) {
        let key = (op.buyer, op.transaction);
        let entry = self.books.get(&op.transaction).filter(|entry| entry.buyer == op.buyer).cloned();
        match learnt {
            Learnt::Terms(terms) => {
                if alone {
                    assert!(entry.is_some(), "{op:?}: terms, and nothing is promised");
                    let same = self.offered.get(&key).is_none_or(|before| before.bytes() == terms.bytes());
                    assert!(same, "{op:?}: the same hold has the same terms");
                }
                self.offered.insert(key, *terms);
            }
            Learnt::Contract(contract) => {
                if let Some(before) = self.contracts.get(&key) {
                    assert_eq!(before.envelope(), contract.envelope(), "{op:?}: one sale is one contract");
                }
                if alone {
                    assert!(entry.is_some_and(|entry| entry.sold), "{op:?}: a contract, and nothing is sold");
                }
                self.contracts.insert(key, *contract);
            }
            Learnt::Done => {}
            Learnt::No(reason) if alone => match op.act {
                Act::Purchase if self.signed(op).is_some() => {
                    assert!(entry.is_none(), "{op:?}: held, and refused: {reason}");
                }
                _ => {}
            },
            Learnt::No(_) => {}
        }
    }

    async fn step(&mut self, step: &Step) {
        let (ops, moment) = match step {
            Step::Messages(ops) => (ops, None),
            Step::Killed(ops, moment) => (ops, Some(*moment)),
            Step::Late(transaction) => return self.late(*transaction).await,
        };
        let outcomes = self.outcomes(ops, moment.is_some());
        let before = self.books.clone();
        let learnt = match moment {
            None => futures::future::join_all(ops.iter().map(|op| self.send(op))).await,
            Some(moment) => {
                let fuse = Fuse::at(moment);
                self.seller.kill().await;
                self.seller.open_as(fused(&self.seller.client, &fuse), |exporter| exporter).await;
                let all = futures::future::join_all(ops.iter().map(|op| self.send(op)));
                let learnt = tokio::select! {
                    () = fuse.burnt() => Vec::new(),
                    learnt = all => learnt,
                };
                self.seller.kill().await;
                self.seller.open(|exporter| exporter).await;
                learnt
            }
        };
        self.books = self.observed().await;
        assert!(
            outcomes.contains(&self.books),
            "{step:?} on {before:?} left {:?}, needed one of {outcomes:?}",
            self.books
        );
        let alone = ops.len() == 1 && moment.is_none();
        for (op, learnt) in ops.iter().zip(learnt) {
            self.learn(op, learnt, alone);
        }
        self.forget();
        if !alone {
            self.ask_again().await;
        }
    }

    /// Of messages that were sent together, or to who was killed, nobody knows which terms stand: each buyer asks again for what is held.
    async fn ask_again(&mut self) {
        for (transaction, entry) in self.books.clone().into_iter().filter(|(_, entry)| !entry.sold) {
            self.offered.remove(&(entry.buyer, transaction));
            let op = Op { act: Act::Reserve { milli: entry.milli }, buyer: entry.buyer, transaction };
            let learnt = self.send(&op).await;
            assert!(matches!(learnt, Learnt::Terms(_)), "{op:?}: what is held is offered again");
            assert_eq!(self.observed().await, self.books, "{op:?}: asked again it changes nothing");
            self.learn(&op, learnt, true);
        }
    }

    /// Terms and contracts of promises that are no more.
    fn forget(&mut self) {
        let books = self.books.clone();
        let held = |(buyer, transaction): &(usize, usize)| books.get(transaction).filter(|entry| entry.buyer == *buyer);
        self.offered.retain(|key, _| held(key).is_some());
        self.contracts.retain(|key, _| held(key).is_some_and(|entry| entry.sold));
    }

    async fn late(&mut self, transaction: usize) {
        let ledgers = self.seller.api::<Ledger>();
        let name = format!("t{transaction}");
        let past = (Timestamp::now() - jiff::SignedDuration::from_secs(1)).to_string();
        support::until("the time is set", async || {
            let mut ledger = ledgers.get("pool").await.unwrap();
            for known in &mut ledger.spec.commitments {
                if known.transaction_id == name && known.contract.is_none() {
                    known.until = Some(past.clone());
                }
            }
            ledgers.replace("pool", &Default::default(), &ledger).await.map_err(|error| error.to_string())
        })
        .await;
        if self.books.get(&transaction).is_some_and(|entry| !entry.sold) {
            self.books.remove(&transaction);
        }
        assert_eq!(self.observed().await, self.books, "late {transaction}");
        self.forget();
    }

    /// What a step comes upon, in words.
    fn meets(&self, step: &Step) -> Vec<String> {
        let state = |transaction: usize, buyer: usize| match self.books.get(&transaction) {
            None => "nothing",
            Some(entry) if entry.buyer != buyer => "another's",
            Some(entry) if entry.sold => "its own sold",
            Some(_) => "its own held",
        };
        let of = |op: &Op| {
            let act = match op.act {
                Act::Reserve { .. } => "Reserve",
                Act::Purchase => "Purchase",
                Act::Cancel => "Cancel",
                Act::Release => "Release",
            };
            format!("{act} on {}", state(op.transaction, op.buyer))
        };
        match step {
            Step::Messages(ops) => ops.iter().map(of).collect(),
            Step::Killed(..) => vec!["killed".into()],
            Step::Late(transaction) => {
                let buyer = self.books.get(transaction).map_or(0, |entry| entry.buyer);
                vec![format!("late on {}", state(*transaction, buyer))]
            }
        }
    }

    /// Whatever happened: each buyer that has terms finishes its purchase or learns that it cannot; then all is given back.
    async fn settle(&mut self) {
        for (transaction, entry) in self.books.clone() {
            let op = |act| Op { act, buyer: entry.buyer, transaction };
            if entry.sold {
                self.step(&Step::Messages(vec![op(Act::Purchase)])).await;
                let contracts = self.seller.list::<Contract>().await;
                assert!(!contracts.is_empty(), "what is sold has a contract");
                self.step(&Step::Messages(vec![op(Act::Release)])).await;
            } else {
                self.step(&Step::Messages(vec![op(Act::Cancel)])).await;
            }
        }
        assert_eq!(self.books, Books::new());
        self.seller.empty().await;
    }
}

fn reservation(seller: &Node, transaction: &str, cpu_milli: u64) -> rear::ReserveRequest {
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

fn op() -> impl Strategy<Value = Op> {
    let act = prop_oneof![
        3 => proptest::sample::select(&AMOUNTS_MILLI[..]).prop_map(|milli| Act::Reserve { milli }),
        4 => Just(Act::Purchase),
        2 => Just(Act::Cancel),
        2 => Just(Act::Release),
    ];
    // Mostly a buyer speaks of its own.
    let stranger = proptest::bool::weighted(0.2);
    (act, stranger, 0..TRANSACTIONS).prop_map(|(act, stranger, transaction)| Op {
        act,
        buyer: (transaction + usize::from(stranger)) % 2,
        transaction,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => op().prop_map(|op| Step::Messages(vec![op])),
        3 => (op(), op()).prop_map(|(a, b)| Step::Messages(vec![a, b])),
        3 => (proptest::collection::vec(op(), 1..3), 0i64..10).prop_map(|(ops, moment)| Step::Killed(ops, moment)),
        1 => (0..TRANSACTIONS).prop_map(Step::Late),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_what_the_model_says_in_some_order_whatever_is_killed() {
    let more = std::env::var("FLT_MODEL_SEQUENCES").ok().and_then(|text| text.parse().ok());
    let mut met: BTreeSet<String> = BTreeSet::new();
    for seed in 0..more.unwrap_or(SEQUENCES) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let steps = proptest::collection::vec(step(), STEPS).new_tree(&mut runner).unwrap().current();
        let mut world = World::new().await;
        for step in &steps {
            met.extend(world.meets(step));
            world.step(step).await;
        }
        world.settle().await;
    }
    let states = ["nothing", "its own held", "its own sold", "another's"];
    for act in ["Reserve", "Purchase", "Cancel", "Release"] {
        for state in states.iter().filter(|state| act != "Release" || **state == "its own sold") {
            let wanted = format!("{act} on {state}");
            assert!(met.contains(&wanted), "{wanted} was never met: {met:?}");
        }
    }
    assert!(met.contains("killed") && met.contains("late on its own held"), "{met:?}");
}
