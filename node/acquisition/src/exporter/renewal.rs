//! Whether a contract that was sold goes on: a pure decision. It goes on as it was signed, if it would be sold so today.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::Contract;
use fluidos_model::market::{Asker, Commitment, Conditions, Pool, Sharing, credit, renewed, sale};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;

use super::plan;
use crate::renewals::{self, Renewals};

/// What is asked for, and what there is.
pub(super) struct Asked<'a> {
    pub contract: &'a Contract,
    pub terms: &'a Signed<rear::ContractTerms>,
    pub renewals: &'a Renewals,
    pub renewal: &'a Signed<rear::RenewalTerms>,
    /// The key that speaks for the buyer now.
    pub buyer: NodeId,
    /// What was seen of it.
    pub rating: Option<u8>,
}

/// What is answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// It was renewed so before: the same bytes.
    Again,
    /// It goes on from one moment to the other.
    Renew { from: Timestamp, until: Timestamp },
}

/// Decides about a renewal. `commitment` is the promise of the contract in `pool`.
pub(super) fn decide(
    asked: &Asked,
    commitment: &Commitment,
    (policies, pool): (&[Option<Sharing>], &Pool),
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let no = |reason: String| Refusal::new(RefusalCode::Conflict, reason);
    let forbidden = |error: rear::TermsError| Refusal::new(RefusalCode::Forbidden, error.to_string());
    rear::check_renewal(asked.renewal, asked.terms, &[asked.buyer]).map_err(forbidden)?;
    if asked.renewals.last.as_ref().is_some_and(|last| last.bytes() == asked.renewal.bytes()) {
        return Ok(Answer::Again);
    }
    let status = asked.contract.status.clone().unwrap_or_default();
    if let Some(ends) = status.ends {
        return Err(no(format!("renewal: notice was given, it ends at {ends}")));
    }
    let conditions =
        Conditions::read(asked.terms.value().conditions.as_ref()).map_err(|error| no(error.to_string()))?;
    let (number, ends) = (asked.renewal.value().number, renewals::until(asked.contract));
    let until = renewed(conditions.renewal.as_ref(), (number, asked.renewals.done), ends, now);
    let until = until.map_err(|refusal| no(refusal.to_string()))?;
    let (from, wanted) = asked.renewal.value().times().map_err(forbidden)?;
    if (Some(from), wanted) != (ends, until) {
        let ends = ends.map(|ends| ends.to_string()).unwrap_or_default();
        return Err(no(format!("renewal: from {from} until {wanted}, needed from {ends} until {until}")));
    }
    // What is sold on is decided about by what it costs elsewhere ([`super::resell`]).
    if commitment.served_by.is_none() {
        sold_today(commitment, &conditions, asked.rating, (policies, pool), now)?;
    }
    Ok(Answer::Renew { from, until })
}

/// Checks whether the policies as they stand would sell this again, to this buyer, for this price.
fn sold_today(
    commitment: &Commitment,
    conditions: &Conditions,
    rating: Option<u8>,
    (policies, pool): (&[Option<Sharing>], &Pool),
    now: Timestamp,
) -> Result<(), Refusal> {
    let no = |reason: String| Refusal::new(RefusalCode::Conflict, reason);
    // As if it were over: what it takes is what it may take again.
    let without = pool.release(&commitment.transaction);
    let asker = Asker { did: Some(&commitment.buyer), rating };
    let sale = sale(policies, &without, asker, now).map_err(plan::not_sold)?;
    credit(policies, &sale, pool, &commitment.buyer, now).map_err(plan::not_sold)?;
    if sale.conditions.renewal.is_none() {
        return Err(no("renewal: the seller's sharing policy renews no contracts any more".into()));
    }
    if sale.conditions.business_model != conditions.business_model {
        let (now, then) = (sale.conditions.business_model.as_str(), conditions.business_model.as_str());
        return Err(no(format!("renewal: the seller's sharing policy sells {now} now, and the contract is {then}")));
    }
    if let Some((resource, left, needed)) = sale.free.shortfalls(&commitment.amounts).first() {
        let (left, needed) = (resource.text(*left), resource.text(*needed));
        return Err(no(format!("renewal: {}: {left} sold by the policy now, needed {needed}", resource.name())));
    }
    let today = sale.price.of(&commitment.amounts).map_err(|error| no(format!("renewal: price: {error}")))?;
    let agreed = commitment.agreed.as_ref().map(|agreed| agreed.price).unwrap_or(fluidos_model::market::Price::ZERO);
    let same = today.is_zero() || (today.currency, today.period) == (agreed.currency, agreed.period);
    if !same || today.amount > agreed.amount {
        return Err(no(format!("renewal: price: it is {today} now, and the contract states {agreed}: buy anew")));
    }
    Ok(())
}
