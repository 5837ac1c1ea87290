//! The ledger of a pool: what of its capacity is held and committed. Pure; the writer changes one object by
//! compare-and-swap, so of two promises that do not fit together one loses.
//!
//! ```text
//!            hold                     commit
//!   free ───────────► Held{until} ───────────► Committed{contract}
//!     ▲                   │ until is over           │
//!     └───────────────────┴─────────────────────────┘ release, expire
//! ```
//! A hold is *expired* if and only if `now >= until`. Every operation is idempotent by its transaction id: the same
//! request again changes nothing and succeeds, another one under the same id is refused.
//!
//! What a promise *takes* is its amounts; of capacity that is paid per use, and promised more than once, the part that its own
//! over-commitment says ([`Conditions::takes`]). So what is reserved is never promised twice, and what is paid per use is promised at
//! most its factor times what is not reserved. What is served with a contract that was bought takes nothing: it is promised once by
//! whoever sold it.
//!
//! *Invariant*: an operation never makes the sum of what is taken exceed the capacity. When the owner lowers the capacity
//! below what is promised, promises stay and nothing new is promised until enough of them has ended.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Amounts, Conditions, Price, Resource};

/// One object holds them all: about 600 bytes each and 1.5 MiB per object (etcd's limit) leave room for twice as many.
pub const COMMITMENTS_MAX: usize = 1024;
/// Open holds of one buyer: it may compare a few variants of one request, not lock up the pool.
pub const HOLDS_PER_BUYER_MAX: usize = 16;

/// Capacity of one owner and what is promised of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pool {
    /// What is sold altogether.
    pub capacity: Amounts,
    /// What is promised, in no order. Shared, because a plan is a whole pool and changes one of them.
    pub commitments: Vec<Arc<Commitment>>,
}

/// One promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commitment {
    /// The transaction that made it.
    pub transaction: String,
    /// DID of the buyer, or the name an official buyer gives itself.
    pub buyer: String,
    /// The flavor it was cut from.
    pub flavor: String,
    /// How much.
    pub amounts: Amounts,
    /// Held or committed.
    pub state: CommitmentState,
    /// What was agreed when it was held; `None` for promises that older versions made, at a price of 0.
    pub agreed: Option<Agreed>,
    /// The contract that this owner buys from somebody else and serves it with; `None` is capacity of its own.
    pub served_by: Option<String>,
}

/// What was agreed with a hold: the contract's terms are made from it, whatever the policy says later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// Name of the policy by which it was sold; empty without one.
    pub policy: String,
    /// When.
    pub issued: Timestamp,
    /// Until when it was held.
    pub hold_until: Timestamp,
    /// When its contract ends by itself; `None` is never.
    pub ends: Option<Timestamp>,
    /// The price of the contract.
    pub price: Price,
    /// How it is used, how well, how it ends.
    pub conditions: Conditions,
    /// What is agreed of a service; `None` is a slice.
    pub service: Option<AgreedService>,
}

/// What is agreed of a service beside what it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgreedService {
    /// SHA-256 of what is configured, in hex.
    pub digest: String,
    /// The size of the instance stands in what is signed. `false` is a promise of an older version: its terms are the bytes that they were.
    pub sized: bool,
}

/// How firm a promise is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitmentState {
    /// Promised until then.
    Held {
        /// The first moment at which it is not promised any more.
        until: Timestamp,
    },
    /// Sold.
    Committed {
        /// Name of the contract.
        contract: String,
        /// When the contract ends by itself; `None` is never.
        until: Option<Timestamp>,
    },
}

/// What a buyer wants held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldRequest {
    /// The transaction that holds it; the same again is the same hold.
    pub transaction: String,
    /// DID of the buyer.
    pub buyer: String,
    /// The flavor to cut from.
    pub flavor: String,
    /// How much.
    pub amounts: Amounts,
    /// Until when.
    pub until: Timestamp,
    /// On which terms. Those of the first time count when it is asked for again.
    pub agreed: Option<Agreed>,
}

/// Why the ledger does not promise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerRefusal {
    /// Not enough is free. The buyer may ask for less, or later.
    #[error("{}: {} free, needed {}", resource.name(), resource.text(*observed), resource.text(*needed))]
    TooLittle {
        /// Of what.
        resource: Resource,
        /// How much is free.
        observed: u64,
        /// How much was asked for.
        needed: u64,
    },
    /// Nothing of everything is not a promise.
    #[error("nothing was asked for, needed at least one resource")]
    Nothing,
    /// The same id with other content: a mistake or a replay.
    #[error("transaction {transaction} exists with other content")]
    Conflict {
        /// Which.
        transaction: String,
    },
    /// There is no such hold, or it has expired and is gone.
    #[error("transaction {transaction} is not held: it never was, or its time was over")]
    NotHeld {
        /// Which.
        transaction: String,
    },
    /// It was held and is too late.
    #[error("transaction {transaction} was held until {until}, it is {now}")]
    HoldExpired {
        /// Which.
        transaction: String,
        /// Until when it was held.
        until: Timestamp,
        /// When it was asked for.
        now: Timestamp,
    },
    /// The buyer holds enough.
    #[error("{buyer} has {HOLDS_PER_BUYER_MAX} open holds: buy them or let them expire")]
    TooManyHolds {
        /// Who.
        buyer: String,
    },
    /// The pool's object is full.
    #[error("the pool has {COMMITMENTS_MAX} promises, which is the most it can keep")]
    Full,
}

impl Pool {
    /// Returns what promises take at `now`, or `None` if it cannot be counted in 64 bits.
    pub fn promised(&self, now: Timestamp) -> Option<Amounts> {
        let live = self.commitments.iter().filter(|commitment| !commitment.is_over(now));
        live.map(|known| known.takes()).try_fold(Amounts::default(), |sum, amounts| sum.checked_add(&amounts))
    }

    /// Returns what can still be promised at `now`.
    pub fn free(&self, now: Timestamp) -> Amounts {
        // What cannot be counted is more than there is: nothing is free then.
        self.promised(now).map(|promised| self.capacity.saturating_sub(&promised)).unwrap_or_default()
    }

    /// Returns the promise of a transaction, if there is one.
    pub fn commitment(&self, transaction: &str) -> Option<&Commitment> {
        self.commitments.iter().find(|commitment| commitment.transaction == transaction).map(AsRef::as_ref)
    }

    /// Returns the pool with one more hold.
    ///
    /// # Errors
    /// [`LedgerRefusal`] if it does not fit, the id is taken, or a bound is reached. The pool is unchanged then.
    pub fn hold(&self, request: &HoldRequest, now: Timestamp) -> Result<Self, LedgerRefusal> {
        self.hold_with(request, None, now)
    }

    /// Returns the pool with one more hold, of what is bought from somebody else under a contract of this name.
    ///
    /// # Errors
    /// As of [`Pool::hold`]; what is free does not matter.
    pub fn hold_served(&self, request: &HoldRequest, contract: &str, now: Timestamp) -> Result<Self, LedgerRefusal> {
        self.hold_with(request, Some(contract), now)
    }

    fn hold_with(&self, request: &HoldRequest, served_by: Option<&str>, now: Timestamp) -> Result<Self, LedgerRefusal> {
        let mut pool = self.expire(now);
        if let Some(known) = pool.commitment(&request.transaction) {
            let same = (&known.buyer, &known.flavor, &known.amounts)
                == (&request.buyer, &request.flavor, &request.amounts)
                && known.served_by.as_deref() == served_by;
            let conflict = || LedgerRefusal::Conflict { transaction: request.transaction.clone() };
            return if same { Ok(pool) } else { Err(conflict()) };
        }
        if request.amounts.is_zero() {
            return Err(LedgerRefusal::Nothing);
        }
        if request.until <= now {
            let (transaction, until) = (request.transaction.clone(), request.until);
            return Err(LedgerRefusal::HoldExpired { transaction, until, now });
        }
        let held_by_buyer = pool.commitments.iter().filter(|known| known.is_held() && known.buyer == request.buyer);
        if held_by_buyer.count() >= HOLDS_PER_BUYER_MAX {
            return Err(LedgerRefusal::TooManyHolds { buyer: request.buyer.clone() });
        }
        if pool.commitments.len() >= COMMITMENTS_MAX {
            return Err(LedgerRefusal::Full);
        }
        let free = match &request.agreed {
            _ if served_by.is_some() => request.amounts.clone(),
            Some(agreed) => agreed.conditions.promises(&pool.free(now)),
            None => pool.free(now),
        };
        if let Some((resource, observed, needed)) = free.shortfalls(&request.amounts).first() {
            return Err(LedgerRefusal::TooLittle { resource: resource.clone(), observed: *observed, needed: *needed });
        }
        pool.commitments.push(Arc::new(Commitment {
            transaction: request.transaction.clone(),
            buyer: request.buyer.clone(),
            flavor: request.flavor.clone(),
            amounts: request.amounts.clone(),
            state: CommitmentState::Held { until: request.until },
            agreed: request.agreed.clone(),
            served_by: served_by.map(str::to_owned),
        }));
        Ok(pool)
    }

    /// Returns the pool with a hold turned into a sale.
    ///
    /// # Errors
    /// [`LedgerRefusal`] if nothing is held under this id, or it has expired, or it was sold under another contract.
    pub fn commit(
        &self,
        transaction: &str,
        contract: &str,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, LedgerRefusal> {
        let transaction = || transaction.to_owned();
        let known =
            self.commitment(&transaction()).ok_or_else(|| LedgerRefusal::NotHeld { transaction: transaction() })?;
        match &known.state {
            CommitmentState::Committed { contract: sold, .. } if sold == contract => return Ok(self.clone()),
            CommitmentState::Committed { .. } => return Err(LedgerRefusal::Conflict { transaction: transaction() }),
            CommitmentState::Held { until } if *until <= now => {
                return Err(LedgerRefusal::HoldExpired { transaction: transaction(), until: *until, now });
            }
            CommitmentState::Held { .. } => {}
        }
        let mut pool = self.clone();
        for commitment in pool.commitments.iter_mut().filter(|known| known.transaction == transaction()) {
            Arc::make_mut(commitment).state = CommitmentState::Committed { contract: contract.into(), until };
        }
        Ok(pool)
    }

    /// Returns the pool with a sale that ends later: `until` instead of `from`. The same again changes nothing.
    ///
    /// # Errors
    /// [`LedgerRefusal`] if nothing is sold under this id, it has ended, or it ends at another time.
    pub fn extend(
        &self,
        transaction: &str,
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Self, LedgerRefusal> {
        let none = || LedgerRefusal::NotHeld { transaction: transaction.to_owned() };
        let known = self.commitment(transaction).filter(|known| !known.is_over(now)).ok_or_else(none)?;
        match &known.state {
            CommitmentState::Committed { until: Some(ends), .. } if *ends == until => return Ok(self.clone()),
            CommitmentState::Committed { until: Some(ends), .. } if *ends == from => {}
            _ => return Err(LedgerRefusal::Conflict { transaction: transaction.to_owned() }),
        }
        let mut pool = self.clone();
        for commitment in pool.commitments.iter_mut().filter(|known| known.transaction == transaction) {
            if let CommitmentState::Committed { until: ends, .. } = &mut Arc::make_mut(commitment).state {
                *ends = Some(until);
            }
        }
        Ok(pool)
    }

    /// Returns the pool without the promise of this transaction. There need not be one.
    pub fn release(&self, transaction: &str) -> Self {
        let kept = self.commitments.iter().filter(|commitment| commitment.transaction != transaction);
        Self { capacity: self.capacity.clone(), commitments: kept.cloned().collect() }
    }

    /// Returns the pool without what is over at `now`.
    pub fn expire(&self, now: Timestamp) -> Self {
        let kept = self.commitments.iter().filter(|commitment| !commitment.is_over(now));
        Self { capacity: self.capacity.clone(), commitments: kept.cloned().collect() }
    }

    /// Returns when the next promise is over by itself: when to look again.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.commitments.iter().filter_map(|known| known.until()).min()
    }
}

impl Commitment {
    /// Returns what it takes of the capacity.
    pub fn takes(&self) -> Amounts {
        if self.served_by.is_some() {
            return Amounts::default();
        }
        self.agreed.as_ref().map_or_else(|| self.amounts.clone(), |agreed| agreed.conditions.takes(&self.amounts))
    }

    /// Returns when it is over by itself; `None` is never.
    pub fn until(&self) -> Option<Timestamp> {
        match &self.state {
            CommitmentState::Held { until } => Some(*until),
            CommitmentState::Committed { until, .. } => *until,
        }
    }

    /// Returns the contract by which it is sold; `None` is a hold.
    pub fn contract(&self) -> Option<&str> {
        match &self.state {
            CommitmentState::Committed { contract, .. } => Some(contract),
            CommitmentState::Held { .. } => None,
        }
    }

    /// Says whether it is over at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }

    /// Says whether it is a hold.
    pub fn is_held(&self) -> bool {
        matches!(self.state, CommitmentState::Held { .. })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cpus(cpu_milli: u64) -> Amounts {
        Amounts { cpu_milli, ..Amounts::default() }
    }

    fn pool(cpu_milli: u64) -> Pool {
        Pool { capacity: cpus(cpu_milli), commitments: vec![] }
    }

    fn hold(transaction: &str, cpu_milli: u64, until: i64) -> HoldRequest {
        let (buyer, flavor) = ("did:key:zBuyer".into(), "slice".into());
        HoldRequest {
            transaction: transaction.into(),
            buyer,
            flavor,
            amounts: cpus(cpu_milli),
            until: at(until),
            agreed: None,
        }
    }

    #[test]
    fn what_is_held_is_not_promised_twice() {
        let held = pool(1000).hold(&hold("a", 600, 60), at(0)).unwrap();
        let refused = held.hold(&hold("b", 600, 60), at(59)).unwrap_err();
        assert_eq!(refused.to_string(), "cpu: 400m free, needed 600m");
        held.hold(&hold("b", 600, 120), at(60)).unwrap();
    }

    #[test]
    fn what_is_served_with_a_bought_contract_takes_nothing_of_the_pool() {
        let full = pool(1000).hold(&hold("own", 1000, 60), at(0)).unwrap();
        let served = full.hold_served(&hold("on", 5000, 60), "contract-x", at(0)).unwrap();
        assert_eq!(served.free(at(0)), cpus(0));
        assert_eq!(served.commitment("on").unwrap().served_by.as_deref(), Some("contract-x"));
        assert_eq!(served.hold_served(&hold("on", 5000, 60), "contract-x", at(1)), Ok(served.clone()), "again");
        assert!(matches!(served.hold(&hold("on", 5000, 60), at(1)), Err(LedgerRefusal::Conflict { .. })));
        let own = served.release("own");
        assert_eq!(own.free(at(0)), cpus(1000), "what is sold on leaves the pool to others");
        own.hold(&hold("next", 1000, 60), at(0)).unwrap();
    }

    #[test]
    fn a_sale_ends_later_once_for_each_end() {
        let held = pool(1000).hold(&hold("a", 600, 60), at(0)).unwrap();
        let sold = held.commit("a", "contract-a", Some(at(100)), at(1)).unwrap();
        let longer = sold.extend("a", at(100), at(200), at(90)).unwrap();
        assert_eq!(longer.commitment("a").unwrap().until(), Some(at(200)));
        assert_eq!(longer.extend("a", at(100), at(200), at(90)).unwrap(), longer, "the same again");
        assert_eq!(longer.free(at(150)), cpus(400), "it is not promised to somebody else");
        assert!(matches!(longer.extend("a", at(100), at(300), at(90)), Err(LedgerRefusal::Conflict { .. })));
        assert!(matches!(sold.extend("a", at(100), at(200), at(100)), Err(LedgerRefusal::NotHeld { .. })), "too late");
        assert!(matches!(held.extend("a", at(60), at(200), at(1)), Err(LedgerRefusal::Conflict { .. })), "only held");
        assert!(matches!(held.extend("b", at(60), at(200), at(1)), Err(LedgerRefusal::NotHeld { .. })));
    }

    #[test]
    fn a_hold_is_sold_once_and_in_time() {
        let held = pool(1000).hold(&hold("a", 600, 60), at(0)).unwrap();
        let sold = held.commit("a", "contract-1", None, at(59)).unwrap();
        assert_eq!(sold.commit("a", "contract-1", None, at(300)), Ok(sold.clone()), "again is the same");
        assert!(matches!(sold.commit("a", "contract-2", None, at(59)), Err(LedgerRefusal::Conflict { .. })));
        assert!(matches!(held.commit("a", "contract-1", None, at(60)), Err(LedgerRefusal::HoldExpired { .. })));
        assert!(matches!(held.commit("b", "contract-1", None, at(0)), Err(LedgerRefusal::NotHeld { .. })));
        assert_eq!(sold.expire(at(i64::from(u32::MAX))), sold);
        assert_eq!(sold.release("a").free(at(0)), cpus(1000));
        assert_eq!(sold.release("nobody"), sold);
    }

    #[test]
    fn the_same_id_is_the_same_hold_or_a_conflict() {
        let held = pool(1000).hold(&hold("a", 600, 60), at(0)).unwrap();
        assert_eq!(held.hold(&hold("a", 600, 90), at(1)), Ok(held.clone()));
        assert!(matches!(held.hold(&hold("a", 1, 60), at(1)), Err(LedgerRefusal::Conflict { .. })));
    }

    #[test]
    fn one_buyer_does_not_lock_up_the_pool() {
        let mut full = pool(1000);
        for index in 0..HOLDS_PER_BUYER_MAX {
            full = full.hold(&hold(&index.to_string(), 1, 60), at(0)).unwrap();
        }
        assert!(matches!(full.hold(&hold("more", 1, 60), at(0)), Err(LedgerRefusal::TooManyHolds { .. })));
        let other = HoldRequest { buyer: "did:key:zOther".into(), ..hold("more", 1, 60) };
        full.hold(&other, at(0)).unwrap();
    }

    #[test]
    fn what_is_paid_per_use_is_promised_more_than_once_and_what_is_reserved_is_not() {
        use super::super::BusinessModel;
        let per_use = |transaction: &str, cpu_milli| {
            let conditions = Conditions {
                business_model: BusinessModel::PayPerUse,
                overcommit_per_cent: Some(300),
                ..Conditions::default()
            };
            let (price, issued) = (Price::ZERO, at(0));
            let agreed =
                Agreed { policy: "p".into(), issued, hold_until: at(60), ends: None, price, conditions, service: None };
            HoldRequest { agreed: Some(agreed), ..hold(transaction, cpu_milli, 60) }
        };
        // 1,000 of which 400 are reserved: three times 600 may be paid per use.
        let pool = pool(1000).hold(&hold("r", 400, 60), at(0)).unwrap().hold(&per_use("a", 900), at(0)).unwrap();
        let refused = pool.hold(&per_use("b", 901), at(0)).unwrap_err();
        assert_eq!(refused.to_string(), "cpu: 900m free, needed 901m");
        let full = pool.hold(&per_use("b", 900), at(0)).unwrap();
        assert_eq!(full.free(at(0)), Amounts::default());
        assert!(full.hold(&hold("s", 1, 60), at(0)).is_err(), "nothing is left to be reserved");
        assert_eq!(full.release("r").free(at(0)), cpus(400));
    }

    #[test]
    fn a_pool_that_shrank_promises_nothing_new_and_keeps_its_word() {
        let mut sold = pool(1000).hold(&hold("a", 600, 60), at(0)).unwrap().commit("a", "c", None, at(0)).unwrap();
        sold.capacity = cpus(500);
        assert_eq!(sold.free(at(1)), Amounts::default());
        assert!(sold.hold(&hold("b", 1, 60), at(1)).is_err());
        assert_eq!(sold.expire(at(1)).commitments.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hold { transaction: u8, cpu_milli: u64, seconds: i64, per_cent: Option<u32> },
        Commit { transaction: u8 },
        Release { transaction: u8 },
        Expire,
        Wait { seconds: i64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..12, prop_oneof![0u64..700, Just(u64::MAX)], -5i64..60, proptest::option::of(100u32..1000)).prop_map(
                |(transaction, cpu_milli, seconds, per_cent)| Step::Hold { transaction, cpu_milli, seconds, per_cent }
            ),
            (0u8..12).prop_map(|transaction| Step::Commit { transaction }),
            (0u8..12).prop_map(|transaction| Step::Release { transaction }),
            Just(Step::Expire),
            (0i64..40).prop_map(|seconds| Step::Wait { seconds }),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_steps_promises_more_than_there_is(steps in prop::collection::vec(step(), 0..80)) {
            let (mut pool, mut now) = (pool(1000), 0);
            for step in steps {
                let before = pool.clone();
                let next = match step {
                    Step::Hold { transaction, cpu_milli, seconds, per_cent } => {
                        let mut request = hold(&transaction.to_string(), cpu_milli, now + seconds);
                        request.agreed = per_cent.map(|per_cent| {
                            let conditions = Conditions {
                                business_model: super::super::BusinessModel::PayPerUse,
                                overcommit_per_cent: Some(per_cent),
                                ..Conditions::default()
                            };
                            let (price, issued, hold_until) = (Price::ZERO, at(now), at(now + seconds));
                            Agreed { policy: String::new(), issued, hold_until, ends: None, price, conditions, service: None }
                        });
                        pool.hold(&request, at(now))
                    }
                    Step::Commit { transaction } =>
                        pool.commit(&transaction.to_string(), &format!("contract-{transaction}"), None, at(now)),
                    Step::Release { transaction } => Ok(pool.release(&transaction.to_string())),
                    Step::Expire => Ok(pool.expire(at(now))),
                    Step::Wait { seconds } => { now += seconds; Ok(pool.clone()) }
                };
                pool = next.unwrap_or(before);
                // Counted without the ledger's own help.
                let live = pool.commitments.iter().filter(|c| c.until().is_none_or(|until| until > at(now)));
                let part = |c: &Commitment| {
                    let per_cent = c.agreed.as_ref().and_then(|a| a.conditions.overcommit_per_cent).unwrap_or(100);
                    (u128::from(c.amounts.cpu_milli) * 100).div_ceil(u128::from(per_cent))
                };
                let sum: u128 = live.map(|known| part(known)).sum();
                prop_assert!(sum <= 1000, "{sum} promised of 1000: {pool:?}");
                prop_assert_eq!(u128::from(pool.free(at(now)).cpu_milli), 1000 - sum);
                let mut ids: Vec<_> = pool.commitments.iter().map(|c| &c.transaction).collect();
                ids.sort();
                ids.dedup();
                prop_assert_eq!(ids.len(), pool.commitments.len(), "one promise per transaction");
            }
        }
    }
}
