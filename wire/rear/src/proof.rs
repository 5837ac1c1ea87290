//! A contract as a file that proves itself: on any machine, offline, with nothing but the file.
//!
//! ```text
//! {"contract": {…},                        what was agreed, to be read
//!  "payload": "{…}",                       the exact text that was signed (RFC 7515 §7.2.1, RFC 7797: not encoded)
//!  "signatures": [{"by": did, "protected": …, "signature": …}, …]}
//! ```
//! A proof *holds* if and only if both parties have signed the payload and `contract` says the same. The payload is there so that a
//! change can be named: if only `contract` was changed, the signatures still hold and show what stood there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{Envelope, NodeId, Signed, strict_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::terms::{TermsError, open_contract};
use crate::{CONTRACT_PURPOSE, ContractTerms};

/// Terms are at most 16 KiB and stand there twice, with a few signatures.
pub const PROOF_BYTES_MAX: usize = 64 * 1024;
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
    let malformed = |error: &dyn fmt::Display| ProofError::Malformed(error.to_string());
    let payload = String::from_utf8(signed.bytes().to_vec()).map_err(|error| malformed(&error))?;
    let read: Value = serde_json::from_str(&payload).map_err(|error| malformed(&error))?;
    let envelope = signed.envelope();
    let signatures = signed.signers().zip(&envelope.signatures).map(|(by, jws)| {
        let (protected, signature) = jws.split_once("..").unwrap_or((jws, ""));
        Signature { by: by.to_string(), protected: protected.into(), signature: signature.into() }
    });
    let signatures = signatures.collect::<Vec<_>>();
    let file = json!({ member: read, "payload": payload, "signatures": signatures });
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
    let malformed = |error: serde_json::Error| ProofError::Malformed(error.to_string());
    // Two members of one name: two readers could see two contracts in it.
    let mut strict = strict_json(file.as_bytes(), PROOF_BYTES_MAX).map_err(ProofError::Malformed)?;
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
    let payload = serde_json::from_str(&file.payload).map_err(malformed)?;
    let mut changes = Vec::new();
    compare(member, &written, &payload, &mut changes);
    if !changes.is_empty() {
        changes.truncate(CHANGES_MAX);
        return Err(ProofError::Changed(changes));
    }
    Ok(signed)
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::NodeKey;
    use serde_json::json;

    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32]).unwrap()
    }

    fn signed(signers: &[u8]) -> Envelope {
        let terms = ContractTerms {
            version: 1,
            contract_id: "contract-1".into(),
            transaction_id: "t1".into(),
            flavor_id: "f".into(),
            flavor_type: "k8slice".into(),
            configuration: json!({"cpu": "1", "memory": "1Gi"}),
            buyer: key(1).id(),
            seller: key(2).id(),
            price: ["0.02", "EUR", "hour"].map(Into::into),
            conditions: None,
            issued: "2026-01-01T00:00:00Z".into(),
            until: None,
        };
        let mut signed = terms.into_signed().unwrap();
        signers.iter().for_each(|seed| signed.sign(&key(*seed)).unwrap());
        signed.envelope()
    }

    fn file() -> String {
        export_contract(&signed(&[1, 2])).unwrap()
    }

    fn changed(change: impl Fn(&mut Value)) -> String {
        let mut file: Value = serde_json::from_str(&file()).unwrap();
        change(&mut file);
        verify_contract(&file.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn what_was_exported_proves_itself() {
        let proof = verify_contract(&file()).unwrap();
        assert_eq!(proof.terms.price, ["0.02", "EUR", "hour"]);
        assert_eq!(proof.signers, [key(1).id(), key(2).id()]);
        let one = export_contract(&signed(&[1])).unwrap_err().to_string();
        assert_eq!(one, format!("not signed by {}", key(2).id()));
    }

    #[test]
    fn a_change_is_named() {
        for (path, value, expected) in [
            ("/contract/price/0", json!("0.01"), r#"contract.price[0] is "0.01", "0.02" was signed"#),
            ("/contract/configuration/cpu", json!("8"), r#"contract.configuration.cpu is "8", "1" was signed"#),
            ("/contract/version", json!(2), "contract.version is 2, 1 was signed"),
            ("/contract/price", json!([]), r#"contract.price is [], ["0.02","EUR","hour"] was signed"#),
        ] {
            let told = changed(|file| *file.pointer_mut(path).unwrap() = value.clone());
            assert_eq!(told, format!("changed after it was signed: {expected}"));
        }
        let added = changed(|file| file["contract"]["until"] = json!("2030-01-01T00:00:00Z"));
        assert!(added.contains(r#"contract.until is "2030-01-01T00:00:00Z", null was signed"#), "{added}");
        let removed = changed(|file| drop(file["contract"].as_object_mut().unwrap().remove("seller")));
        assert!(removed.contains("contract.seller is null, "), "{removed}");
    }

    #[test]
    fn what_is_forged_or_odd_proves_nothing() {
        let both = |file: &mut Value| {
            file["contract"]["price"][0] = json!("0.01");
            file["payload"] = file["payload"].as_str().unwrap().replace("0.02", "0.01").into();
        };
        assert!(changed(both).contains("does not hold for these bytes"));
        let swapped = changed(|file| file["signatures"][0]["by"] = json!(key(3).id().to_string()));
        assert!(swapped.starts_with("signatures[0].by is did:key:"), "{swapped}");
        let one = changed(|file| drop(file["signatures"].as_array_mut().unwrap().pop()));
        assert_eq!(one, format!("not signed by {}", key(2).id()));
        let twice = changed(|file| {
            let first = file["signatures"][0].clone();
            file["signatures"].as_array_mut().unwrap().push(first);
        });
        assert!(twice.contains("signed twice by"), "{twice}");
        assert!(changed(|file| file["note"] = json!("paid")).contains("unknown field `note`"));
        assert!(changed(|file| file["signatures"][0]["alg"] = json!("none")).contains("unknown field `alg`"));
        assert!(changed(|file| file["contract"]["price"] = json!(0.02)).contains("contract.price is 0.02"));
        let spaced = changed(|file| file["payload"] = format!(" {}", file["payload"].as_str().unwrap()).into());
        assert!(spaced.contains("not canonical JSON"), "{spaced}");
        for (from, to) in
            [(r#""cpu": "1","#, r#""cpu": "1", "cpu": "8","#), (r#""contract": {"#, r#""contract": {}, "contract": {"#)]
        {
            let text = file().replacen(from, to, 1);
            assert!(verify_contract(&text).unwrap_err().to_string().contains("twice"), "{text}");
        }
        for text in ["", "[]", "{}", "null", &"[".repeat(1000), &"x".repeat(PROOF_BYTES_MAX + 1)] {
            assert!(matches!(verify_contract(text), Err(ProofError::Malformed(_))), "{}", text.len());
        }
    }
}
