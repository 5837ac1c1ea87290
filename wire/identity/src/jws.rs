//! Detached signatures: JWS compact serialization (RFC 7515) with an unencoded, detached payload (RFC 7797), EdDSA.
//!
//! ```text
//!   base64url({"alg":"EdDSA","b64":false,"crit":["b64"],"kid":"did:key:…","typ":"…"}) ".." base64url(signature)
//!   signed bytes: header "." payload, as they are
//! ```
//! The `typ` says what was signed, so a signature over a release can never pass for one over a contract.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{NodeId, NodeKey, memo};

/// A header as we write it is about 150 bytes and the signature 86 characters.
const JWS_LENGTH_MAX: usize = 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    b64: bool,
    crit: Vec<String>,
    kid: NodeId,
    typ: String,
}

/// Why a signature does not hold. Never retry: ask the signer again, or refuse.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwsError {
    /// The text is not a detached JWS of the shape above.
    #[error("not a detached EdDSA signature: {0}")]
    Malformed(String),
    /// It signs another kind of thing.
    #[error("signature is for `{observed}`, needed one for `{needed}`")]
    OtherPurpose {
        /// The `typ` found.
        observed: String,
        /// The `typ` asked for.
        needed: String,
    },
    /// The bytes or the key differ from what was signed.
    #[error("signature of {signer} does not hold for these bytes")]
    Forged {
        /// Who is said to have signed.
        signer: NodeId,
    },
}

/// Returns a detached signature over the payload for one purpose, such as `fluidos-contract+jws`.
///
/// # Errors
/// [`JwsError::Malformed`] if the header cannot be written, which a text never causes.
pub fn jws_sign(key: &NodeKey, purpose: &str, payload: &[u8]) -> Result<String, JwsError> {
    let header =
        Header { alg: "EdDSA".into(), b64: false, crit: vec!["b64".into()], kid: key.id(), typ: purpose.into() };
    let header = serde_json::to_vec(&header).map_err(|error| JwsError::Malformed(error.to_string()))?;
    let header = URL_SAFE_NO_PAD.encode(header);
    let signature = key.sign(&signing_input(&header, payload));
    Ok(format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Returns who signed the payload for this purpose.
///
/// # Errors
/// [`JwsError`] if the text is malformed, is for another purpose, or does not hold for these bytes.
pub fn jws_verify(jws: &str, purpose: &str, payload: &[u8]) -> Result<NodeId, JwsError> {
    let malformed = |reason: &str| JwsError::Malformed(reason.into());
    if jws.len() > JWS_LENGTH_MAX {
        return Err(malformed(&format!("{} characters, at most {JWS_LENGTH_MAX}", jws.len())));
    }
    let (encoded_header, signature) = jws.split_once("..").ok_or_else(|| malformed("no `header..signature`"))?;
    let header = URL_SAFE_NO_PAD.decode(encoded_header).map_err(|_| malformed("header is not base64url"))?;
    let header: Header = serde_json::from_slice(&header).map_err(|error| malformed(&format!("header: {error}")))?;
    if header.alg != "EdDSA" || header.b64 || header.crit != ["b64"] {
        return Err(malformed("needed alg EdDSA, b64 false, crit [b64]"));
    }
    if header.typ != purpose {
        return Err(JwsError::OtherPurpose { observed: header.typ, needed: purpose.into() });
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("signature is not base64url"))?;
    let signature: [u8; 64] = signature.try_into().map_err(|_| malformed("signature is not 64 bytes"))?;
    let holds = || header.kid.verify(&signing_input(encoded_header, payload), &signature);
    if !memo::signature([encoded_header.as_bytes(), payload, &signature], holds) {
        return Err(JwsError::Forged { signer: header.kid });
    }
    Ok(header.kid)
}

fn signing_input(encoded_header: &str, payload: &[u8]) -> Vec<u8> {
    [encoded_header.as_bytes(), b".", payload].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn a_signature_names_its_signer_and_purpose() {
        let key = NodeKey::from_seed([1; 32]).unwrap();
        let jws = jws_sign(&key, "a+jws", b"payload.with.dots").unwrap();
        assert_eq!(jws_verify(&jws, "a+jws", b"payload.with.dots"), Ok(key.id()));
        assert_eq!(jws_verify(&jws, "a+jws", b"other"), Err(JwsError::Forged { signer: key.id() }));
        assert!(matches!(jws_verify(&jws, "b+jws", b"payload.with.dots"), Err(JwsError::OtherPurpose { .. })));
    }

    #[test]
    fn another_key_in_the_header_is_a_forgery() {
        let (key, other) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap());
        let (mine, theirs) = (jws_sign(&key, "a", b"x").unwrap(), jws_sign(&other, "a", b"x").unwrap());
        let mixed = format!("{}..{}", theirs.split_once("..").unwrap().0, mine.split_once("..").unwrap().1);
        assert_eq!(jws_verify(&mixed, "a", b"x"), Err(JwsError::Forged { signer: other.id() }));
    }

    #[test]
    fn weaker_headers_are_refused() {
        let key = NodeKey::from_seed([1; 32]).unwrap();
        for header in [
            format!(r#"{{"alg":"none","b64":false,"crit":["b64"],"kid":"{}","typ":"a"}}"#, key.id()),
            format!(r#"{{"alg":"EdDSA","b64":true,"crit":["b64"],"kid":"{}","typ":"a"}}"#, key.id()),
            format!(r#"{{"alg":"EdDSA","b64":false,"crit":["b64","exp"],"kid":"{}","typ":"a"}}"#, key.id()),
            format!(r#"{{"alg":"EdDSA","b64":false,"crit":["b64"],"kid":"{}","typ":"a","jwk":{{}}}}"#, key.id()),
        ] {
            let header = URL_SAFE_NO_PAD.encode(header);
            let signature = URL_SAFE_NO_PAD.encode(key.sign(&signing_input(&header, b"x")));
            let refused = jws_verify(&format!("{header}..{signature}"), "a", b"x");
            assert!(matches!(refused, Err(JwsError::Malformed(_))), "{refused:?}");
        }
        for text in ["", "..", "a.b.c", &"x".repeat(5000), "é..é"] {
            assert!(jws_verify(text, "a", b"x").is_err(), "{text}");
        }
    }
}
