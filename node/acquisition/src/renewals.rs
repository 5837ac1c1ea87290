//! How often a contract was renewed, and until when it lasts: read from what is signed in it, on both sides alike.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Contract, SignedTerms};
use fluidos_rear as rear;
use jiff::Timestamp;

use crate::convert;

/// The renewals of a contract as they stand in it.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    /// How often it was renewed, by both.
    pub done: u32,
    /// The last one that both have signed.
    pub last: Option<Signed<rear::RenewalTerms>>,
    /// One that the buyer has asked for, and of which it does not know yet what came of it.
    pub asked: Option<Signed<rear::RenewalTerms>>,
}

/// Returns what stands in a contract. What its parties have not signed is as if it were not there. `parties` are the keys that speak
/// for buyer and seller now.
pub(crate) fn of(contract: &Contract, signed: &Signed<rear::ContractTerms>, parties: [NodeId; 2]) -> Renewals {
    let named = [signed.value().buyer, signed.value().seller];
    let open = |terms: Option<&SignedTerms>| {
        let renewal = rear::open_renewal(&convert::envelope(terms?)).ok()?;
        let is_by =
            |index: usize| [parties, named].iter().filter_map(|keys| keys.get(index)).any(|key| renewal.signed_by(key));
        let by = (rear::check_renewal(&renewal, signed, &[]).is_ok() && is_by(0), is_by(1));
        by.0.then_some((renewal, by.1))
    };
    let (last, before) = match open(contract.spec.renewal.as_ref()) {
        Some((last, true)) => (Some(last), None),
        // A node of before has written what it asks for in the place of the last one.
        Some((asked, false)) => (None, Some(asked)),
        None => (None, None),
    };
    let done = |asked: &Signed<rear::RenewalTerms>| asked.value().number.saturating_sub(1);
    let done = last.as_ref().map(|last| last.value().number).or(before.as_ref().map(done)).unwrap_or(0);
    // What was answered meanwhile is not open, whatever else stands there.
    let asked = open(contract.spec.renewal_asked.as_ref()).map(|(asked, _)| asked).or(before);
    Renewals { done, last, asked: asked.filter(|asked| asked.value().number == done.saturating_add(1)) }
}

/// Returns when a contract ends by itself now.
pub(crate) fn until(contract: &Contract) -> Option<Timestamp> {
    contract.spec.expiration_time.as_ref().and_then(|until| until.parse().ok())
}
