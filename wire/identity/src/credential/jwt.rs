//! A signed JSON object in one line of text: JWS compact serialization (RFC 7515 §3.1) as VC-JOSE-COSE §3 wants it.
//!
//! ```text
//!   base64url({"alg":"EdDSA","cty":"vc","kid":"did:key:z6Mk…#z6Mk…","typ":"vc+jwt"}) "." base64url(object) "." base64url(signature)
//! ```
//! One algorithm and one key: the one that `kid` names and that *is* the signer's DID. A header therefore cannot talk us
//! into another key (`jwk`, `jku`, `x5c` are not looked at) or a weaker algorithm.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::CredentialError;
use crate::json::strict_json;
use crate::{NodeId, NodeKey, canonical_json};

/// Ours has 190 bytes.
const HEADER_BYTES_MAX: usize = 1024;
const TYPE: &str = "vc+jwt";
const CONTENT: &str = "vc";

/// A signed object whose signature holds.
pub(super) struct Jwt {
    /// Who signed.
    pub(super) signer: NodeId,
    /// What was signed.
    pub(super) payload: Map<String, Value>,
}

/// Returns the signed text of an object.
///
/// # Errors
/// [`CredentialError::Malformed`] if it has no canonical form.
pub(super) fn sign(key: &NodeKey, payload: &Value) -> Result<String, CredentialError> {
    let failed = |error: crate::SignedError| malformed("payload", error.to_string());
    let header = json!({"alg": "EdDSA", "cty": CONTENT, "kid": key_name(&key.id()), "typ": TYPE});
    let [header, payload] = [&header, payload].map(canonical_json);
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.map_err(failed)?),
        URL_SAFE_NO_PAD.encode(payload.map_err(failed)?)
    );
    let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()));
    Ok(format!("{input}.{signature}"))
}

/// Returns what a signed text says and who says so.
///
/// # Errors
/// [`CredentialError`] if it is too long, not of this shape, or the signature does not hold.
pub(super) fn open(text: &str, length_max: usize) -> Result<Jwt, CredentialError> {
    if text.len() > length_max {
        return Err(CredentialError::TooLong { observed: text.len(), max: length_max });
    }
    let parts: Vec<&str> = text.splitn(4, '.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(malformed("text", "needed header.payload.signature".into()));
    };
    let signer = signer(&object("header", header, HEADER_BYTES_MAX)?)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let signature = signature.ok_or_else(|| malformed("signature", "needed 64 bytes in base64url".into()))?;
    let input = &text[..header.len() + 1 + payload.len()];
    if !signer.verify(input.as_bytes(), &signature) {
        return Err(CredentialError::Forged { issuer: signer });
    }
    Ok(Jwt { signer, payload: object("payload", payload, length_max)? })
}

/// Reads the header: one algorithm, one type, the signer's key, and nothing critical that we do not know.
fn signer(header: &Map<String, Value>) -> Result<NodeId, CredentialError> {
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let refused = |reason: String| Err(malformed("header", reason));
    if text("alg") != Some("EdDSA") {
        return refused(format!("alg is {}, needed \"EdDSA\"", shown(header.get("alg"))));
    }
    if !media_type(text("typ"), TYPE) {
        return refused(format!("typ is {}, needed {TYPE:?}", shown(header.get("typ"))));
    }
    if header.contains_key("cty") && !media_type(text("cty"), CONTENT) {
        return refused(format!("cty is {}, needed {CONTENT:?}", shown(header.get("cty"))));
    }
    // RFC 7515 §4.1.11: what is critical and not understood ends the matter. `b64` (RFC 7797) changes what is signed.
    if let Some(name) = ["crit", "b64"].into_iter().find(|name| header.contains_key(*name)) {
        return refused(format!("{name} is there, and no extension is understood here"));
    }
    let kid = text("kid").unwrap_or_default();
    let signer = kid.split_once('#').and_then(|(did, _)| did.parse::<NodeId>().ok());
    match signer {
        Some(signer) if key_name(&signer) == kid => Ok(signer),
        _ => refused(format!("kid is {}, needed did:key:…#… of an Ed25519 key", shown(header.get("kid")))),
    }
}

/// Returns the DID URL of the one key of a did:key (did:key method §3.1).
pub(super) fn key_name(id: &NodeId) -> String {
    let did = id.to_string();
    format!("{did}#{}", did.trim_start_matches("did:key:"))
}

/// RFC 7515 §4.1.9: `application/` may be left out; media types have no case.
fn media_type(observed: Option<&str>, needed: &str) -> bool {
    let observed = observed.unwrap_or_default().to_ascii_lowercase();
    observed.strip_prefix("application/").unwrap_or(&observed) == needed
}

fn object(part: &'static str, encoded: &str, bytes_max: usize) -> Result<Map<String, Value>, CredentialError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed(part, "it is not base64url".into()))?;
    match strict_json(&bytes, bytes_max) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(malformed(part, "it is no JSON object".into())),
        Err(reason) => Err(malformed(part, reason)),
    }
}

/// Returns the beginning of a value, for a message.
pub(super) fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".into(), |value| value.to_string().chars().take(80).collect())
}

pub(super) fn malformed(part: &'static str, reason: String) -> CredentialError {
    CredentialError::Malformed { part, reason }
}
