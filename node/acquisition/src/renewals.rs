//! How often a contract was renewed, and until when it lasts: read from what is signed in it, on both sides alike.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::Contract;
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
    let envelope = contract.spec.renewal.as_ref().map(convert::envelope);
    let Some(renewal) = envelope.and_then(|envelope| rear::open_renewal(&envelope).ok()) else {
        return Renewals::default();
    };
    let named = [signed.value().buyer, signed.value().seller];
    let is_by =
        |index: usize| [parties, named].iter().filter_map(|keys| keys.get(index)).any(|key| renewal.signed_by(key));
    if rear::check_renewal(&renewal, signed, &[]).is_err() || !is_by(0) {
        return Renewals::default();
    }
    let number = renewal.value().number;
    if is_by(1) {
        Renewals { done: number, last: Some(renewal), asked: None }
    } else {
        Renewals { done: number.saturating_sub(1), last: None, asked: Some(renewal) }
    }
}

/// Returns when a contract ends by itself now.
pub(crate) fn until(contract: &Contract) -> Option<Timestamp> {
    contract.spec.expiration_time.as_ref().and_then(|until| until.parse().ok())
}
