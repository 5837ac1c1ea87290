//! A contract as a file that proves itself: on any machine, offline, with nothing but the file.
//!
//! ```text
//! {"contract": {…},                        what was agreed, to be read
//!  "payload": "{…}",                       the exact text that was signed (RFC 7515 §7.2.1, RFC 7797: not encoded)
//!  "signatures": [{"by": did, "protected": …, "signature": …}, …]}
//! ```
//! A proof *holds* if and only if both parties have signed the payload and `contract` says the same. The payload is there so that a
//! change can be named: if only `contract` was changed, the signatures still hold and show what stood there.

mod party;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{Envelope, NodeId, STATEMENTS_BYTES_MAX, STATEMENTS_MAX, Signed, Statement, strict_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::party::{handovers_of, require_party};
use crate::terms::{TermsError, open_contract};
use crate::{CONTRACT_PURPOSE, ContractTerms};

/// Terms are at most 16 KiB and stand there twice, with a few signatures.
pub const PROOF_BYTES_MAX: usize = 64 * 1024;
/// That, and the hand-overs of both parties.
pub const PROOF_WITH_HANDOVERS_BYTES_MAX: usize = PROOF_BYTES_MAX + STATEMENTS_BYTES_MAX;
/// Changes that are named; who changed more has written another contract.
const CHANGES_MAX: usize = 8;

/// The name under which a contract stands in its file.
const MEMBER: &str = "contract";

/// A contract that both parties have signed.
#[derive(Clone, PartialEq, Debug)]
pub struct Proof {
    /// What was agreed.
    pub terms: ContractTerms,
    /// Who has signed it.
    pub signers: Vec<NodeId>,
    /// SHA-256 of what was signed.
    pub digest: String,
}

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It is too long, no JSON, has an unknown member or one key twice.
    #[error("not a proof of a contract: {0}")]
    Malformed(String),
    /// What is written is not what was signed.
    #[error("changed after it was signed: {}", .0.join("; "))]
    Changed(Vec<String>),
    /// A signature does not hold, or one of the parties has not signed.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// A party has not signed, nor has a key that follows its own.
    #[error("not signed by the {party} {named}: signed by {}; {why}", .signers.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" and "))]
    Party {
        /// Buyer or seller.
        party: &'static str,
        /// The key that the contract names.
        named: NodeId,
        /// Who signed.
        signers: Vec<NodeId>,
        /// What is missing.
        why: String,
    },
    /// What stands there as a hand-over is none.
    #[error("handovers: {0}")]
    Handovers(String),
    /// A signature is said to be somebody else's.
    #[error("signatures[{index}].by is {observed}, needed {needed} who made it")]
    By {
        /// Which, from 0.
        index: usize,
        /// Who is named.
        observed: String,
        /// Who signed.
        needed: NodeId,
    },
}

/// What stands in a file beside what is to be read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    payload: String,
    signatures: Vec<Signature>,
    /// Statements about the keys of parties that have others now.
    #[serde(default)]
    handovers: Vec<Envelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    by: String,
    protected: String,
    signature: String,
}

/// Returns the file of a signed contract.
///
/// # Errors
/// [`ProofError`] if it is not signed by both parties: then it would prove nothing.
pub fn export_contract(envelope: &Envelope) -> Result<String, ProofError> {
    export_signed(&both(open_contract(envelope)?)?, MEMBER)
}

/// Returns what a file proves.
///
/// # Errors
/// [`ProofError`]: it proves nothing, and why; a change is named with its field.
pub fn verify_contract(file: &str) -> Result<Proof, ProofError> {
    let signed = verify_signed::<ContractTerms>(file, MEMBER, CONTRACT_PURPOSE)?;
    let signed = both(open_contract(&signed.envelope())?)?;
    let (signers, digest) = (signed.signers().collect(), signed.digest());
    Ok(Proof { terms: signed.value().clone(), signers, digest })
}

/// Returns the file of anything signed, in which it stands under this name. Who must have signed is the caller's to check.
///
/// # Errors
/// [`ProofError::Malformed`] in theory only.
pub fn export_signed<T: Serialize + DeserializeOwned>(signed: &Signed<T>, member: &str) -> Result<String, ProofError> {
    export_with_handovers(signed, member, &[])
}

/// Returns such a file, with the statements by which it is proven who speaks for a party now.
///
/// # Errors
/// As of [`export_signed`]; [`ProofError::Handovers`] if there are more than a file may have.
pub fn export_with_handovers<T: Serialize + DeserializeOwned>(
    signed: &Signed<T>,
    member: &str,
    handovers: &[Statement],
) -> Result<String, ProofError> {
    if handovers.len() > STATEMENTS_MAX {
        return Err(ProofError::Handovers(format!("{}, at most {STATEMENTS_MAX}", handovers.len())));
    }
    let malformed = |error: &dyn fmt::Display| ProofError::Malformed(error.to_string());
    let payload = String::from_utf8(signed.bytes().to_vec()).map_err(|error| malformed(&error))?;
    let read: Value = serde_json::from_str(&payload).map_err(|error| malformed(&error))?;
    let envelope = signed.envelope();
    let signatures = signed.signers().zip(&envelope.signatures).map(|(by, jws)| {
        let (protected, signature) = jws.split_once("..").unwrap_or((jws, ""));
        Signature { by: by.to_string(), protected: protected.into(), signature: signature.into() }
    });
    let signatures = signatures.collect::<Vec<_>>();
    let mut file = json!({ member: read, "payload": payload, "signatures": signatures });
    if !handovers.is_empty() {
        file["handovers"] = handovers.iter().map(|statement| json!(statement.envelope())).collect();
    }
    serde_json::to_string_pretty(&file).map_err(|error| malformed(&error))
}

/// Returns what a file proves that somebody has signed, under this name and for this purpose. Who must have signed is the caller's
/// to check.
///
/// # Errors
/// [`ProofError`]: it proves nothing, and why; a change is named with its field.
pub fn verify_signed<T: Serialize + DeserializeOwned>(
    file: &str,
    member: &str,
    purpose: &str,
) -> Result<Signed<T>, ProofError> {
    if file.len() > PROOF_BYTES_MAX {
        return Err(ProofError::Malformed(format!("{} bytes, at most {PROOF_BYTES_MAX}", file.len())));
    }
    match verify_with_handovers(file, member, purpose)? {
        (signed, handovers) if handovers.is_empty() => Ok(signed),
        _ => Err(ProofError::Malformed("unknown field `handovers`".into())),
    }
}

/// Returns what a file proves that somebody has signed, and the statements about keys that it brings, whose signatures hold. Who must
/// have signed is the caller's to check, with [`require_party`].
///
/// # Errors
/// As of [`verify_signed`]; [`ProofError::Handovers`].
pub fn verify_with_handovers<T: Serialize + DeserializeOwned>(
    file: &str,
    member: &str,
    purpose: &str,
) -> Result<(Signed<T>, Vec<Statement>), ProofError> {
    let malformed = |error: serde_json::Error| ProofError::Malformed(error.to_string());
    // Two members of one name: two readers could see two contracts in it.
    let mut strict = strict_json(file.as_bytes(), PROOF_WITH_HANDOVERS_BYTES_MAX).map_err(ProofError::Malformed)?;
    let written = strict.as_object_mut().and_then(|members| members.remove(member));
    let written = written.ok_or_else(|| ProofError::Malformed(format!("missing field `{member}`")))?;
    let file: Signatures = serde_json::from_value(strict).map_err(malformed)?;
    let envelope = Envelope {
        purpose: purpose.into(),
        payload: URL_SAFE_NO_PAD.encode(&file.payload),
        signatures: file.signatures.iter().map(|it| format!("{}..{}", it.protected, it.signature)).collect(),
    };
    let signed: Signed<T> = Signed::open(&envelope, purpose).map_err(TermsError::from)?;
    for (index, (by, signer)) in file.signatures.iter().map(|it| &it.by).zip(signed.signers()).enumerate() {
        if *by != signer.to_string() {
            let observed = by.chars().take(128).collect();
            return Err(ProofError::By { index, observed, needed: signer });
        }
    }
    if file.handovers.len() > STATEMENTS_MAX {
        return Err(ProofError::Handovers(format!("{}, at most {STATEMENTS_MAX}", file.handovers.len())));
    }
    let handovers = file.handovers.iter().map(Statement::read).collect::<Result<Vec<_>, _>>();
    let handovers = handovers.map_err(|error| ProofError::Handovers(error.to_string()))?;
    let payload = serde_json::from_str(&file.payload).map_err(malformed)?;
    let mut changes = Vec::new();
    compare(member, &written, &payload, &mut changes);
    if !changes.is_empty() {
        changes.truncate(CHANGES_MAX);
        return Err(ProofError::Changed(changes));
    }
    Ok((signed, handovers))
}

fn both(signed: Signed<ContractTerms>) -> Result<Signed<ContractTerms>, TermsError> {
    signed.require(&[signed.value().buyer, signed.value().seller])?;
    Ok(signed)
}

/// Names what differs: the path, what is written, what was signed.
fn compare(path: &str, written: &Value, signed: &Value, changes: &mut Vec<String>) {
    match (written, signed) {
        (Value::Object(written), Value::Object(signed)) => {
            let missing = signed.keys().filter(|key| !written.contains_key(*key));
            for key in written.keys().chain(missing) {
                let of = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or(Value::Null);
                compare(&format!("{path}.{}", cut(key)), &of(written), &of(signed), changes);
            }
        }
        (Value::Array(written), Value::Array(signed)) if written.len() == signed.len() => {
            for (index, (written, signed)) in written.iter().zip(signed).enumerate() {
                compare(&format!("{path}[{index}]"), written, signed, changes);
            }
        }
        _ if written == signed => {}
        _ => changes.push(format!("{path} is {}, {} was signed", cut(&written.to_string()), cut(&signed.to_string()))),
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
