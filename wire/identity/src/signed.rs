//! A value that one or more nodes have signed, with the exact bytes they signed.
//!
//! ```text
//!   value ── canonical JSON (RFC 8785) ── bytes ──┬── detached JWS of the buyer
//!                                                 └── detached JWS of the seller
//! ```
//! The bytes are kept and sent as they are: nobody has to serialise the value again to check a signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::hex;
use crate::{JwsError, NodeId, NodeKey, jws_sign, jws_verify};

/// A contract is about 1 KiB; a wire body is at most 64 KiB and carries this in base64.
pub const ENVELOPE_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Two parties, and a few witnesses later.
pub const ENVELOPE_SIGNATURES_MAX: usize = 8;
/// Beyond it a JSON number is not exact in every reader (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A signed value as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What was signed, such as `fluidos-contract+jws`.
    pub purpose: String,
    /// The exact bytes, base64url without padding.
    pub payload: String,
    /// Detached JWS, at most one per signer.
    pub signatures: Vec<String>,
}

/// A value with the exact bytes that were signed and signatures that hold.
///
/// *Guarantees*: every signature was verified when it was added; no signer appears twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed<T> {
    value: T,
    purpose: String,
    bytes: Vec<u8>,
    signatures: Vec<(NodeId, String)>,
}

/// Why a value could not be signed or a signed one not be believed.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The value has no canonical form.
    #[error("no canonical JSON: {0}")]
    NotCanonical(String),
    /// The bytes are not such a value.
    #[error("signed payload is not what it should be: {0}")]
    BadPayload(String),
    /// More than one envelope holds.
    #[error("signed payload has {observed} {what}, at most {max}")]
    TooMuch {
        /// Bytes or signatures.
        what: &'static str,
        /// How many there are.
        observed: usize,
        /// How many there may be.
        max: usize,
    },
    /// One of the signatures does not hold.
    #[error(transparent)]
    Signature(#[from] JwsError),
    /// A needed party has not signed.
    #[error("not signed by {0}")]
    Missing(NodeId),
    /// The same party twice.
    #[error("signed twice by {0}")]
    Twice(NodeId),
}

/// Returns the canonical JSON of a value (RFC 8785).
///
/// # Errors
/// [`SignedError::NotCanonical`] if it has numbers that not every reader reads alike: fractions and integers beyond 2^53.
pub fn canonical_json(value: &impl Serialize) -> Result<Vec<u8>, SignedError> {
    let refused = |error: serde_json::Error| SignedError::NotCanonical(error.to_string());
    let value = serde_json::to_value(value).map_err(refused)?;
    check_numbers(&value)?;
    serde_jcs::to_vec(&value).map_err(refused)
}

fn check_numbers(value: &serde_json::Value) -> Result<(), SignedError> {
    use serde_json::Value;
    match value {
        Value::Number(number) => match number.as_i64().map(i64::unsigned_abs).or(number.as_u64()) {
            Some(magnitude) if magnitude <= INTEGER_MAX => Ok(()),
            _ => Err(SignedError::NotCanonical(format!("number {number}: write it as text"))),
        },
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(fields) => fields.values().try_for_each(check_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

impl<T: Serialize + DeserializeOwned> Signed<T> {
    /// Returns the value ready to be signed, for one purpose.
    ///
    /// # Errors
    /// [`SignedError`] if it has no canonical form or is too long.
    pub fn new(purpose: &str, value: T) -> Result<Self, SignedError> {
        let bytes = canonical_json(&value)?;
        at_most("bytes", bytes.len(), ENVELOPE_PAYLOAD_BYTES_MAX)?;
        Ok(Self { value, purpose: purpose.into(), bytes, signatures: Vec::new() })
    }

    /// Returns the signed value of an envelope that somebody sent, with every signature verified.
    ///
    /// # Errors
    /// [`SignedError`] if it is for another purpose, too long, not canonical, or any signature does not hold. Who must
    /// have signed is asked with [`Signed::require`].
    pub fn open(envelope: &Envelope, purpose: &str) -> Result<Self, SignedError> {
        if envelope.purpose != purpose {
            let (observed, needed) = (envelope.purpose.chars().take(64).collect(), purpose.into());
            return Err(JwsError::OtherPurpose { observed, needed }.into());
        }
        at_most("base64 characters", envelope.payload.len(), ENVELOPE_PAYLOAD_BYTES_MAX.div_ceil(3) * 4)?;
        at_most("signatures", envelope.signatures.len(), ENVELOPE_SIGNATURES_MAX)?;
        let bad = |reason: String| SignedError::BadPayload(reason);
        let bytes = URL_SAFE_NO_PAD.decode(&envelope.payload).map_err(|error| bad(error.to_string()))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        // Two keys of one name, or spaces, would let two readers see two contracts in the same bytes.
        if canonical_json(&json)? != bytes {
            return Err(bad("the bytes are not canonical JSON (RFC 8785)".into()));
        }
        let value = serde_json::from_value(json).map_err(|error| bad(error.to_string()))?;
        let mut signed = Self { value, purpose: purpose.into(), bytes, signatures: Vec::new() };
        envelope.signatures.iter().try_for_each(|jws| signed.add(jws))?;
        Ok(signed)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Signed<T> {
    /// [`Signed::open`] for what this node keeps and reads again and again: what was read is remembered. Not for what a stranger sends, who could
    /// fill the memory.
    ///
    /// # Errors
    /// As [`Signed::open`].
    pub fn open_kept(envelope: &Envelope, purpose: &str) -> Result<Arc<Self>, SignedError> {
        let texts = [purpose, &envelope.purpose, &envelope.payload].map(str::as_bytes);
        let signatures = envelope.signatures.iter().map(String::as_bytes);
        crate::memo::read(texts.into_iter().chain(signatures), || Self::open(envelope, purpose))
    }
}

impl<T> Signed<T> {
    /// Adds this node's signature; nothing happens if it has signed already.
    ///
    /// # Errors
    /// [`SignedError::TooMuch`] if there is no room for another.
    pub fn sign(&mut self, key: &NodeKey) -> Result<(), SignedError> {
        if self.signed_by(&key.id()) {
            return Ok(());
        }
        let jws = jws_sign(key, &self.purpose, &self.bytes)?;
        self.add(&jws)
    }

    /// Adds a signature that somebody sent over the same bytes.
    ///
    /// # Errors
    /// [`SignedError`] if it does not hold, its signer is there already, or there is no room.
    pub fn add(&mut self, jws: &str) -> Result<(), SignedError> {
        at_most("signatures", self.signatures.len() + 1, ENVELOPE_SIGNATURES_MAX)?;
        let signer = jws_verify(jws, &self.purpose, &self.bytes)?;
        if self.signed_by(&signer) {
            return Err(SignedError::Twice(signer));
        }
        self.signatures.push((signer, jws.into()));
        Ok(())
    }

    /// Checks that each of these has signed.
    ///
    /// # Errors
    /// [`SignedError::Missing`] names the first who has not.
    pub fn require(&self, parties: &[NodeId]) -> Result<(), SignedError> {
        match parties.iter().find(|party| !self.signed_by(party)) {
            Some(party) => Err(SignedError::Missing(*party)),
            None => Ok(()),
        }
    }

    /// Says whether this node has signed.
    pub fn signed_by(&self, node: &NodeId) -> bool {
        self.signatures.iter().any(|(signer, _)| signer == node)
    }

    /// Returns the value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Returns the exact bytes that are signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns who has signed, in the order of signing.
    pub fn signers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.signatures.iter().map(|(signer, _)| *signer)
    }

    /// Returns the SHA-256 of the exact bytes, in hexadecimal: what others refer to.
    pub fn digest(&self) -> String {
        sha256_hex(&self.bytes)
    }

    /// Returns the form that travels and is stored.
    pub fn envelope(&self) -> Envelope {
        Envelope {
            purpose: self.purpose.clone(),
            payload: URL_SAFE_NO_PAD.encode(&self.bytes),
            signatures: self.signatures.iter().map(|(_, jws)| jws.clone()).collect(),
        }
    }
}

/// Returns the SHA-256 of some bytes in hexadecimal: what others refer to.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn at_most(what: &'static str, observed: usize, max: usize) -> Result<(), SignedError> {
    if observed > max { Err(SignedError::TooMuch { what, observed, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    const PURPOSE: &str = "test+jws";

    fn parties() -> (NodeKey, NodeKey) {
        (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap())
    }

    fn envelope_of(bytes: &str) -> Envelope {
        Envelope { purpose: PURPOSE.into(), payload: URL_SAFE_NO_PAD.encode(bytes), signatures: vec![] }
    }

    #[test]
    fn both_parties_sign_the_same_bytes() {
        let (buyer, seller) = parties();
        let mut offer = Signed::new(PURPOSE, json!({"b": 1, "a": {"cpu": "1"}})).unwrap();
        assert_eq!(offer.bytes(), br#"{"a":{"cpu":"1"},"b":1}"#);
        offer.sign(&buyer).unwrap();
        let mut received: Signed<Value> = Signed::open(&offer.envelope(), PURPOSE).unwrap();
        assert!(
            matches!(received.require(&[buyer.id(), seller.id()]), Err(SignedError::Missing(id)) if id == seller.id())
        );
        received.sign(&seller).unwrap();
        received.sign(&seller).unwrap();
        received.require(&[buyer.id(), seller.id()]).unwrap();
        assert_eq!(received.signers().collect::<Vec<_>>(), [buyer.id(), seller.id()]);
        assert_eq!(received.digest(), offer.digest());
        // What was read once is read again as what it is, not as what another envelope says.
        for envelope in [received.envelope(), offer.envelope(), received.envelope()] {
            let again = Signed::<Value>::open_kept(&envelope, PURPOSE).unwrap();
            assert_eq!(*again, Signed::open(&envelope, PURPOSE).unwrap());
            assert!(Signed::<Value>::open_kept(&envelope, "other+jws").is_err());
        }
    }

    #[test]
    fn one_changed_byte_breaks_every_signature() {
        let (buyer, _) = parties();
        let mut offer = Signed::new(PURPOSE, json!({"cpu": "1"})).unwrap();
        offer.sign(&buyer).unwrap();
        let forged = Envelope { payload: URL_SAFE_NO_PAD.encode(r#"{"cpu":"2"}"#), ..offer.envelope() };
        assert!(matches!(
            Signed::<Value>::open(&forged, PURPOSE),
            Err(SignedError::Signature(JwsError::Forged { .. }))
        ));
        assert!(Signed::<Value>::open(&offer.envelope(), "other+jws").is_err());
        let twice = Envelope {
            signatures: [offer.envelope().signatures, offer.envelope().signatures].concat(),
            ..offer.envelope()
        };
        assert!(matches!(Signed::<Value>::open(&twice, PURPOSE), Err(SignedError::Twice(_))));
    }

    #[test]
    fn bytes_that_two_readers_could_read_differently_are_refused() {
        for bytes in
            [r#"{"a":1,"a":2}"#, r#"{ "a":1}"#, r#"{"b":1,"a":1}"#, r#"{"a":1.5}"#, r#"{"a":9007199254740993}"#, "{"]
        {
            assert!(Signed::<Value>::open(&envelope_of(bytes), PURPOSE).is_err(), "{bytes}");
        }
        Signed::<Value>::open(&envelope_of(r#"{"a":1}"#), PURPOSE).unwrap();
    }

    #[test]
    fn an_envelope_is_bounded() {
        let huge = "x".repeat(ENVELOPE_PAYLOAD_BYTES_MAX + 1);
        assert!(matches!(Signed::new(PURPOSE, huge.clone()), Err(SignedError::TooMuch { .. })));
        assert!(Signed::<Value>::open(&envelope_of(&huge), PURPOSE).is_err());
        let many = Envelope { signatures: vec![String::new(); 9], ..envelope_of("1") };
        assert!(matches!(Signed::<Value>::open(&many, PURPOSE), Err(SignedError::TooMuch { .. })));
    }
}
