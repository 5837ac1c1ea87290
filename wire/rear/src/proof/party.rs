//! Who has signed for a party whose key has changed since the contract named it, offline.
//!
//! ```text
//!   contract names K0 ── hand-over signed by K0 and K1 ──▶ K1 ── … ──▶ K2        who has one of these has signed for the party
//!                                                            └ signed by an owner: who vouches for the node is not in the file
//! ```
//! Every key of the chain counts, not only the last: a receipt is signed by the key of its hour, and stays as it is.

use fluidos_identity::{Doubt, KeyHistory, NodeId, Owners, STATEMENTS_MAX, Signed, Standing, Statement};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ProofError;

/// Returns the statements that say which keys follow the one that the contract names: hand-overs that its own keys have signed, in order,
/// and a revocation at the end. What else is among the statements changes nothing.
///
/// # Errors
/// [`Doubt`]: a key was handed over to two, one of them perhaps a thief's, and nobody can say which.
pub fn handovers_of(named: NodeId, statements: &[Statement], now: Timestamp) -> Result<Vec<Statement>, Doubt> {
    // Statements of other nodes are no part of the chain, however many there are.
    let mut keys = vec![named];
    let mut next = 0;
    while let Some(key) = keys.get(next).copied().filter(|_| keys.len() <= STATEMENTS_MAX) {
        let to = statements.iter().filter_map(|statement| match statement {
            Statement::Handover(handover) if handover.from() == key => Some(handover.to()),
            _ => None,
        });
        let new: Vec<NodeId> = to.filter(|to| !keys.contains(to)).collect();
        keys.extend(new);
        next += 1;
    }
    let of_chain: Vec<Statement> =
        statements.iter().filter(|statement| keys.contains(&statement.about())).cloned().collect();
    let mut history = KeyHistory::new(named);
    match history.learn(&of_chain, &Owners::default(), now) {
        Standing::Unknown(doubt) => Err(doubt),
        Standing::Current(_) | Standing::Revoked { .. } => Ok(history.accepted().to_vec()),
    }
}

fn keys_of(named: NodeId, statements: &[Statement], now: Timestamp) -> Result<Vec<NodeId>, Doubt> {
    let followed = handovers_of(named, statements, now)?;
    let next = followed.iter().filter_map(|statement| match statement {
        Statement::Handover(handover) => Some(handover.to()),
        Statement::Revocation(_) => None,
    });
    Ok(std::iter::once(named).chain(next).collect())
}

/// Checks that a party has signed something, with the key that is named or one that follows it; returns the key.
///
/// # Errors
/// [`ProofError::Party`] names the party, who signed instead, and what is missing.
pub fn require_party<T: Serialize + DeserializeOwned>(
    signed: &Signed<T>,
    party: &'static str,
    named: NodeId,
    statements: &[Statement],
    now: Timestamp,
) -> Result<NodeId, ProofError> {
    let refused = |why: String| ProofError::Party { party, named, signers: signed.signers().collect(), why };
    if signed.signed_by(&named) {
        return Ok(named);
    }
    let keys = keys_of(named, statements, now).map_err(|doubt| refused(doubt.to_string()))?;
    let found = keys.iter().rev().find(|key| signed.signed_by(key));
    found.copied().ok_or_else(|| {
        let last = keys[keys.len() - 1];
        refused(match keys.len() {
            1 => "no hand-over of that key by itself is there; needed the history.json of the party".into(),
            _ => format!("its hand-overs lead to {last}, which has not signed either"),
        })
    })
}
