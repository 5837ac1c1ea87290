//! Whether a contract that was bought is renewed now: a pure decision. It is if it may be, is still used, and can be paid.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Contract, names};
use fluidos_model::market::{Conditions, Price, Purchase, may_buy};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::plan::View;
use crate::renewals;

/// What was asked for and not answered is asked again for so long beyond the end: the seller may have signed it.
const OPEN_FOR: SignedDuration = SignedDuration::from_secs(60);

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask for it.
    Ask { renewal: Box<Signed<rear::RenewalTerms>> },
    /// It is not renewed, for this reason.
    Stays { reason: String },
    /// Look again then.
    At(Timestamp),
    /// It ends when it ends.
    Never,
}

/// Decides about a contract that this node has bought.
pub(super) fn next(
    view: &View,
    contract: &Contract,
    signed: &Signed<rear::ContractTerms>,
    parties: [NodeId; 2],
    now: Timestamp,
) -> Next {
    let conditions = Conditions::read(signed.value().conditions.as_ref()).unwrap_or_default();
    let (Some(rule), Some(until)) = (conditions.renewal, renewals::until(contract)) else { return Next::Never };
    let standing = renewals::of(contract, signed, parties);
    if let Some(asked) = standing.asked {
        let open = until.checked_add(OPEN_FOR).is_ok_and(|last| now < last);
        return if open { Next::Ask { renewal: Box::new(asked) } } else { Next::Never };
    }
    let number = standing.done.saturating_add(1);
    let ending = contract.status.as_ref().is_some_and(|status| status.ends.is_some());
    if until <= now || !rule.allows(number) || ending {
        return Next::Never;
    }
    if rule.opens(until) > now {
        return Next::At(rule.opens(until));
    }
    if let Err(refusal) = affordable(view, contract, signed, until) {
        return Next::Stays { reason: refusal };
    }
    let renewal = rule.end_after(until).map(|end| rear::RenewalTerms::of(signed, number, until, end));
    match renewal {
        Some(Ok(renewal)) => Next::Ask { renewal: Box::new(renewal) },
        _ => Next::Stays { reason: "its next end cannot be counted".into() },
    }
}

/// The ceilings as they are when it goes on: until then it is counted already.
fn affordable(
    view: &View,
    contract: &Contract,
    signed: &Signed<rear::ContractTerms>,
    until: Timestamp,
) -> Result<(), String> {
    let [amount, currency, period] = &signed.value().price;
    let price = Price::parse(amount, currency, period).map_err(|error| error.to_string())?;
    let namespace = contract.annotations().get(names::ANNOTATION_NAMESPACE).map(String::as_str);
    let purchase = Purchase { price: Some(price.unwrap_or(Price::ZERO)), namespace };
    may_buy(view.purse.policy.as_ref(), &purchase, &view.purse.expenses, until).map_err(|refusal| refusal.to_string())
}
