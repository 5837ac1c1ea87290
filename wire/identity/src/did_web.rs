//! `did:web`: a domain that says whose keys it has (did:web method; DID Core 1.0).
//!
//! ```text
//!   did:web:farm.example ── https://farm.example/.well-known/did.json ── verificationMethod: did:key of the owner
//! ```
//! Whoever controls the web server of a domain can put a document there, so a document that names a key binds the two: the
//! domain vouches for the key. A key that names a domain (`alsoKnownAs`, a typed `--domain`) proves nothing.
//!
//! This room does not fetch: bytes are handed in, and who fetched them over HTTPS says when. Only a domain's own document is
//! read; `did:web` with a path or port is refused.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::NodeId;
use crate::json::strict_json;

/// A document has about 600 bytes for a key; an owner may have several.
pub const DID_DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// Keys that are looked at.
const METHODS_MAX: usize = 32;
/// RFC 1035 §2.3.4, in text.
const DOMAIN_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;
const PREFIX: &str = "did:web:";

/// The DID of a domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DidWeb {
    domain: String,
}

/// Why a domain does not vouch for a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DidWebError {
    /// Not the DID of a domain.
    #[error("`{observed}` is not did:web: of a DNS name in lower case, without path and port")]
    NotDidWeb {
        /// The beginning of what was given.
        observed: String,
    },
    /// The bytes are no DID document.
    #[error("not a DID document: {0}")]
    Malformed(String),
    /// It is the document of somebody else.
    #[error("document of {observed}, needed one of {needed}")]
    OtherSubject {
        /// Whose it is.
        observed: String,
        /// Whose it should be.
        needed: String,
    },
    /// The document does not name the key.
    #[error("{did} does not name {key} among the keys with which it makes statements (assertionMethod)")]
    NotNamed {
        /// Whose document.
        did: String,
        /// Which key.
        key: NodeId,
    },
}

impl DidWeb {
    /// Returns the domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns where its document is published.
    pub fn document_url(&self) -> String {
        format!("https://{}/.well-known/did.json", self.domain)
    }

    /// Returns the document that names one key, for its owner to publish.
    pub fn document(&self, key: &NodeId) -> Value {
        let did = key.to_string();
        let multibase = did.trim_start_matches("did:key:");
        let method = format!("{self}#{multibase}");
        json!({
            "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
            "id": self.to_string(),
            "alsoKnownAs": [did],
            "verificationMethod": [{
                "id": method, "type": "Multikey", "controller": self.to_string(), "publicKeyMultibase": multibase,
            }],
            "authentication": [method],
            "assertionMethod": [method],
        })
    }

    /// Checks that a document of this domain names a key as one with which it makes statements.
    ///
    /// # Errors
    /// [`DidWebError`] says what is wrong with the document, or that it does not name the key.
    pub fn check_document(&self, document: &[u8], key: &NodeId) -> Result<(), DidWebError> {
        let malformed = |reason: &str| DidWebError::Malformed(reason.into());
        let value = strict_json(document, DID_DOCUMENT_BYTES_MAX).map_err(DidWebError::Malformed)?;
        let document = value.as_object().ok_or_else(|| malformed("no JSON object"))?;
        let id = document.get("id").and_then(Value::as_str).ok_or_else(|| malformed("no `id`"))?;
        if id != self.to_string() {
            let observed = id.chars().take(DOMAIN_LENGTH_MAX).flat_map(char::escape_debug).collect();
            return Err(DidWebError::OtherSubject { observed, needed: self.to_string() });
        }
        let list = |name: &str| match document.get(name) {
            None => Ok(&[][..]),
            Some(Value::Array(items)) if items.len() <= METHODS_MAX => Ok(items.as_slice()),
            Some(_) => Err(DidWebError::Malformed(format!("`{name}` is no list of at most {METHODS_MAX}"))),
        };
        let (methods, used) = (list("verificationMethod")?, list("assertionMethod")?);
        let named = used.iter().any(|entry| match entry {
            Value::Object(method) => self.is_key(method, key),
            Value::String(reference) => {
                let mut methods = methods.iter().filter_map(Value::as_object);
                methods.any(|method| self.is_referred(method, reference) && self.is_key(method, key))
            }
            _ => false,
        });
        if named { Ok(()) } else { Err(DidWebError::NotNamed { did: self.to_string(), key: *key }) }
    }

    /// A reference may leave out the DID (DID Core §3.2.2).
    fn is_referred(&self, method: &Map<String, Value>, reference: &str) -> bool {
        let absolute = |url: &str| if url.starts_with('#') { format!("{self}{url}") } else { url.to_owned() };
        method.get("id").and_then(Value::as_str).is_some_and(|id| absolute(id) == absolute(reference))
    }

    /// Says whether a verification method is this key, in one of the forms in which Ed25519 keys are published.
    fn is_key(&self, method: &Map<String, Value>, key: &NodeId) -> bool {
        let text = |name: &str| method.get(name).and_then(Value::as_str);
        // Somebody else's key may be listed; it then speaks for somebody else.
        if text("controller") != Some(&self.to_string()) {
            return false;
        }
        match text("type") {
            Some("Multikey" | "Ed25519VerificationKey2020") => text("publicKeyMultibase")
                .and_then(|multibase| format!("did:key:{multibase}").parse::<NodeId>().ok())
                .is_some_and(|observed| observed == *key),
            Some("JsonWebKey" | "JsonWebKey2020") => {
                let jwk = method.get("publicKeyJwk").and_then(Value::as_object);
                let member = |name: &str| jwk.and_then(|jwk| jwk.get(name)).and_then(Value::as_str);
                // RFC 8037 §2
                member("kty") == Some("OKP")
                    && member("crv") == Some("Ed25519")
                    && member("x").is_some_and(|x| x == URL_SAFE_NO_PAD.encode(key.public_key()))
            }
            _ => false,
        }
    }
}

impl FromStr for DidWeb {
    type Err = DidWebError;

    fn from_str(text: &str) -> Result<Self, DidWebError> {
        let domain = text.strip_prefix(PREFIX).filter(|domain| is_domain(domain));
        let observed = || text.chars().take(DOMAIN_LENGTH_MAX).collect();
        domain
            .map(|domain| Self { domain: domain.into() })
            .ok_or_else(|| DidWebError::NotDidWeb { observed: observed() })
    }
}

impl fmt::Display for DidWeb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.domain)
    }
}

/// Says whether a text is a DNS name in lower case, of at least two labels (RFC 1123 §2.1), and no address.
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label that begins with a digit makes an address of it for whoever follows the URL standard (`127.0.0.0x1`), past every resolver.
    let last_is_name = text.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()));
    text.len() <= DOMAIN_LENGTH_MAX && text.contains('.') && text.split('.').all(label) && last_is_name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;
    use crate::NodeKey;

    fn id(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn web() -> DidWeb {
        "did:web:farm.example".parse().unwrap()
    }

    fn check(document: &Value, key: &NodeId) -> Result<(), DidWebError> {
        web().check_document(document.to_string().as_bytes(), key)
    }

    #[test]
    fn what_is_published_names_its_key_and_no_other() {
        assert_eq!(web().document_url(), "https://farm.example/.well-known/did.json");
        let document = web().document(&id(1));
        assert_eq!(check(&document, &id(1)), Ok(()));
        assert!(matches!(check(&document, &id(2)), Err(DidWebError::NotNamed { .. })));
        let other: DidWeb = "did:web:grid.example".parse().unwrap();
        let refused = other.check_document(document.to_string().as_bytes(), &id(1));
        assert!(matches!(refused, Err(DidWebError::OtherSubject { .. })));
    }

    #[test]
    fn other_forms_of_a_key_are_read() {
        let x = URL_SAFE_NO_PAD.encode(id(1).public_key());
        let method = json!({"id": "#k", "type": "JsonWebKey", "controller": "did:web:farm.example",
                            "publicKeyJwk": {"kty": "OKP", "crv": "Ed25519", "x": x}});
        let referred = json!({"id": "did:web:farm.example", "verificationMethod": [method],
                              "assertionMethod": ["did:web:farm.example#k"]});
        assert_eq!(check(&referred, &id(1)), Ok(()));
        let embedded = json!({"id": "did:web:farm.example", "assertionMethod": [method]});
        assert_eq!(check(&embedded, &id(1)), Ok(()));
    }

    #[test]
    fn a_key_that_is_only_mentioned_is_not_named() {
        let mut document = web().document(&id(1));
        document["assertionMethod"] = json!([]);
        assert!(check(&document, &id(1)).is_err(), "listed, but not to make statements with");
        let mut document = web().document(&id(1));
        document["verificationMethod"][0]["controller"] = json!("did:web:thief.example");
        assert!(check(&document, &id(1)).is_err(), "controlled by somebody else");
        let document = json!({"id": "did:web:farm.example", "alsoKnownAs": [id(1).to_string()]});
        assert!(check(&document, &id(1)).is_err(), "an alias is a claim");
    }

    #[test]
    fn only_domains_are_domains() {
        for text in ["did:web:farm.example", "did:web:a-b.c1.example"] {
            assert_eq!(text.parse::<DidWeb>().unwrap().to_string(), text);
        }
        for text in [
            "did:web:",
            "did:web:localhost",
            "did:web:Farm.example",
            "did:web:farm.example:path",
            "did:web:farm.example%3A8443",
            "did:web:-a.example",
            "did:web:a..b",
            "did:web:127.0.0.1",
            "did:web:127.0.0.0x1",
            "did:web:10.0x1",
            "did:key:z6Mk",
            "did:web:a.b/../c",
            "did:web:a.b#c",
        ] {
            assert!(text.parse::<DidWeb>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic_or_name_a_key(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(web().check_document(&bytes, &id(1)).is_err());
        }

        #[test]
        fn a_changed_document_names_no_other_key(at in 0usize..700, byte in any::<u8>()) {
            let mut document = web().document(&id(1)).to_string().into_bytes();
            let at = at % document.len();
            document[at] = byte;
            prop_assert!(web().check_document(&document, &id(2)).is_err());
            let _ = web().check_document(&document, &id(1)); // it may: spaces, members that nobody reads
        }
    }
}
