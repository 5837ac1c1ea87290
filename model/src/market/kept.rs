//! What is kept for buyers: of what is promised, that which nobody else may use meanwhile. Pure.
//!
//! ```text
//!  Ledger ─ paid per use, spot, served by somebody else, over ─▶ kept: holds and contracts, each with its amounts
//! ```
//! The owner's own pods are nobody else's promise, so the Ledger does not stop them: whoever places pods does (the scheduler, the
//! orchestrator), and asks here what is not theirs.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Amounts, BusinessModel, Commitment, CommitmentState, Pool};

/// Capacity that is kept for one buyer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Name of the contract; `None` is a hold, under which nobody runs anything yet.
    pub contract: Option<String>,
    /// The transaction that promised it.
    pub transaction: String,
    /// How much, whether used or not.
    pub amounts: Amounts,
}

impl Kept {
    /// Returns what it is called: the contract, or `hold` and the transaction.
    pub fn name(&self) -> String {
        self.contract.clone().unwrap_or_else(|| format!("hold {}", self.transaction))
    }
}

impl Pool {
    /// Returns what is kept at `now`. What is paid per use may be promised to several and what is spot may be taken back, so neither is
    /// kept; what is served with a contract that was bought is kept by whoever sold that.
    pub fn kept(&self, now: Timestamp) -> Vec<Kept> {
        let kept = |known: &&Arc<Commitment>| {
            let model = known.agreed.as_ref().map(|agreed| agreed.conditions.business_model).unwrap_or_default();
            known.served_by.is_none() && model == BusinessModel::Reserved && !known.is_over(now)
        };
        let of = |known: &Commitment| Kept {
            contract: match &known.state {
                CommitmentState::Committed { contract, .. } => Some(contract.clone()),
                CommitmentState::Held { .. } => None,
            },
            transaction: known.transaction.clone(),
            amounts: known.amounts.clone(),
        };
        self.commitments.iter().filter(kept).map(|known| of(known)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::super::{Agreed, Conditions, Price};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn promise(name: &str, model: Option<BusinessModel>, contract: bool, until: i64) -> Commitment {
        let conditions = |business_model| Conditions { business_model, ..Conditions::default() };
        Commitment {
            transaction: format!("t-{name}"),
            buyer: "did:key:z".into(),
            flavor: "f".into(),
            amounts: Amounts { cpu_milli: 1000, ..Amounts::default() },
            state: match contract {
                true => CommitmentState::Committed { contract: name.into(), until: Some(at(until)) },
                false => CommitmentState::Held { until: at(until) },
            },
            agreed: model.map(|model| Agreed {
                policy: String::new(),
                issued: at(0),
                hold_until: at(1),
                ends: None,
                price: Price::ZERO,
                conditions: conditions(model),
                service: None,
            }),
            served_by: None,
        }
    }

    #[test]
    fn what_is_reserved_or_held_is_kept_until_it_is_over_and_nothing_else() {
        let served = Commitment { served_by: Some("bought".into()), ..promise("served", None, true, 100) };
        let reserved = Some(BusinessModel::Reserved);
        let pool = Pool {
            capacity: Amounts::default(),
            commitments: [
                promise("old", None, true, 100),
                promise("reserved", reserved, true, 100),
                promise("held", reserved, false, 60),
                promise("per-use", Some(BusinessModel::PayPerUse), true, 100),
                promise("spot", Some(BusinessModel::Spot), true, 100),
                promise("bid", Some(BusinessModel::PayPerUse), false, 60),
                promise("over", reserved, true, 10),
                served,
            ]
            .map(Arc::new)
            .into(),
        };
        let names = |now| pool.kept(at(now)).iter().map(Kept::name).collect::<Vec<_>>();
        assert_eq!(names(10), ["old", "reserved", "hold t-held"]);
        assert_eq!(names(60), ["old", "reserved"]);
        assert!(names(100).is_empty());
    }
}
