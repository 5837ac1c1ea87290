//! Who the parties of a contract are, also after their keys were handed over: a contract names the keys that signed it for ever.
//!
//! ```text
//!   terms: buyer K0, seller S0 ─┐
//!   Speakers: K0 is K1 now ─────┴─▶ Account.status.buyerKeys [K1] ─▶ receipts that K0 or K1 has signed are the buyer's
//! ```
//! What was learned stays in the account: receipts are read at the start, when nobody has told yet who speaks for whom, and by who has the
//! objects alone.

use std::collections::BTreeSet;

use fluidos_identity::{NodeId, Signed, SignedError, Speakers};
use fluidos_model::kinds::AccountStatus;
use fluidos_rear::ContractTerms;

/// As many as one node's history has ([`fluidos_identity`]).
const KEYS_MAX: usize = 64;

/// The keys of both parties: the one that the contract names, then those that it was handed over to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Parties {
    buyer: Vec<NodeId>,
    seller: Vec<NodeId>,
}

impl Parties {
    pub fn of(terms: &ContractTerms, status: Option<&AccountStatus>) -> Self {
        let of = |named: NodeId, later: Option<&Vec<String>>| {
            let later = later.into_iter().flatten().take(KEYS_MAX).filter_map(|did| did.parse().ok());
            std::iter::once(named).chain(later).collect()
        };
        Self {
            buyer: of(terms.buyer, status.map(|status| &status.buyer_keys)),
            seller: of(terms.seller, status.map(|status| &status.seller_keys)),
        }
    }

    /// Returns the keys of the buyer or the seller.
    pub fn keys(&self, seller: bool) -> &[NodeId] {
        if seller { &self.seller } else { &self.buyer }
    }

    /// Checks that something carries the signatures of both.
    ///
    /// # Errors
    /// [`SignedError`] names the key that has not signed, as it is now.
    pub fn require_both<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        signed: &Signed<T>,
    ) -> Result<(), SignedError> {
        [&self.buyer, &self.seller].into_iter().try_for_each(|keys| require_one(signed, keys))
    }
}

/// Checks that one of these keys has signed something.
///
/// # Errors
/// [`SignedError`] names the last of them.
pub(crate) fn require_one<T: serde::Serialize + serde::de::DeserializeOwned>(
    signed: &Signed<T>,
    keys: &[NodeId],
) -> Result<(), SignedError> {
    if keys.iter().any(|key| signed.signed_by(key)) {
        Ok(())
    } else {
        signed.require(&keys[keys.len().saturating_sub(1)..])
    }
}

/// Returns the key that speaks for the node with these keys now. `own` are this node's, of which `key` is the current one.
pub(crate) fn current(keys: &[NodeId], speakers: &Speakers, (own, key): (&BTreeSet<NodeId>, NodeId)) -> Option<NodeId> {
    if keys.iter().any(|known| own.contains(known)) {
        return Some(key);
    }
    keys.last().map(|last| speakers.current(last))
}

/// Notes in an account to whom the keys of its parties were handed over; returns whether that is new.
pub(crate) fn note(
    status: &mut AccountStatus,
    terms: &ContractTerms,
    speakers: &Speakers,
    own: (&BTreeSet<NodeId>, NodeId),
) -> bool {
    let parties = Parties::of(terms, Some(status));
    let mut new = false;
    for (seller, later) in [(false, &mut status.buyer_keys), (true, &mut status.seller_keys)] {
        let keys = parties.keys(seller);
        if let Some(current) = current(keys, speakers, own)
            && !keys.contains(&current)
            && later.len() < KEYS_MAX
        {
            later.push(current.to_string());
            new = true;
        }
    }
    new
}
