//! The name of a node: its public key as a `did:key`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard};

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use sha2::{Digest as _, Sha256};

use crate::base58;

/// What stands before an Ed25519 key in a `did:key`: the multicodec `0xed` as a varint.
const MULTICODEC_ED25519: [u8; 2] = [0xed, 0x01];
const DID_PREFIX: &str = "did:key:z";
/// A `did:key` of an Ed25519 key is 56 characters; longer input is refused before any work is done on it.
const DID_LENGTH_MAX: usize = 64;

/// Whether a point is one of the curve takes ten times as long to say as all the rest of reading a name, and every room reads those of
/// all the nodes that are known, again and again. What a text says never changes.
static READ_BEFORE: LazyLock<RwLock<HashMap<Box<str>, NodeId>>> = LazyLock::new(RwLock::default);
/// Twice the nodes that are known at most, of about 150 bytes each. Full, it begins anew.
const READ_BEFORE_MAX: usize = 8192;

/// The name of a node: an Ed25519 public key, written `did:key:z6Mk…` (W3C did:key method).
///
/// *Guarantees*: the bytes are a point of the curve, and not one of the small-order points for which a signature would
/// prove nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// Why a text or key is not the name of a node. Nothing to retry: the input must be corrected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// The text is not a `did:key` at all.
    #[error("`{observed}` is not a node's DID: needed `{DID_PREFIX}…` of an Ed25519 key")]
    NotDidKey {
        /// The beginning of what was given.
        observed: String,
    },
    /// A `did:key` of something else, or of the wrong length.
    #[error("`{observed}` is a did:key, but not of an Ed25519 key: needed multicodec 0xed and 32 bytes")]
    NotEd25519 {
        /// The beginning of what was given.
        observed: String,
    },
    /// The bytes are no usable public key.
    #[error("key {observed} is no usable Ed25519 public key (not on the curve, or of small order)")]
    BadKey {
        /// The key in hexadecimal.
        observed: String,
    },
}

impl NodeId {
    /// Returns the name of the node that has this public key.
    ///
    /// # Errors
    /// [`IdError::BadKey`] if the bytes are not a point of the curve, or one of small order.
    pub fn from_public_key(bytes: [u8; 32]) -> Result<Self, IdError> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(IdError::BadKey { observed: hex(&bytes) }),
        }
    }

    /// Returns the public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first four bytes of the key in hexadecimal: what tells two nodes of one name apart.
    pub fn tag(&self) -> String {
        hex(&self.0[..4])
    }

    /// Returns what two people compare to be sure of a key: SHA-256 of it, in 16 groups of four hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.0);
        let groups: Vec<String> = digest.chunks(2).map(hex).collect();
        groups.join(" ")
    }

    /// Checks a signature of this node over a message (RFC 8032, without the malleable cases).
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 34];
        bytes[..2].copy_from_slice(&MULTICODEC_ED25519);
        bytes[2..].copy_from_slice(&self.0);
        write!(f, "{DID_PREFIX}{}", base58::encode(&bytes))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > DID_LENGTH_MAX {
            return Err(IdError::NotDidKey { observed: text.chars().take(DID_LENGTH_MAX).collect() });
        }
        if let Some(known) = read_before().get(text) {
            return Ok(*known);
        }
        let observed = || text.chars().take(DID_LENGTH_MAX).collect::<String>();
        let not_did = || IdError::NotDidKey { observed: observed() };
        let encoded = text.strip_prefix(DID_PREFIX).ok_or_else(not_did)?;
        let bytes = base58::decode(encoded).ok_or_else(not_did)?;
        let key: [u8; 32] = bytes
            .strip_prefix(&MULTICODEC_ED25519)
            .and_then(|key| key.try_into().ok())
            .ok_or_else(|| IdError::NotEd25519 { observed: observed() })?;
        let id = Self::from_public_key(key)?;
        let mut known = READ_BEFORE.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= READ_BEFORE_MAX {
            known.clear();
        }
        known.insert(text.into(), id);
        Ok(id)
    }
}

fn read_before() -> RwLockReadGuard<'static, HashMap<Box<str>, NodeId>> {
    READ_BEFORE.read().unwrap_or_else(PoisonError::into_inner)
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns the bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    /// From the did:key specification's test vectors for Ed25519.
    const DID: &str = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH";

    #[test]
    fn a_published_did_survives_the_round_trip() {
        let id: NodeId = DID.parse().unwrap();
        assert_eq!(id.to_string(), DID);
        assert_eq!(id.tag(), hex(&id.public_key()[..4]));
        assert_eq!((id.fingerprint().len(), id.fingerprint().split(' ').count()), (79, 16));
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn what_is_not_a_node_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<NodeId>().unwrap_err().to_string();
        assert!(refused("did:web:example.org").contains("not a node's DID"));
        assert!(refused("did:key:z6Mk0OIl").contains("not a node's DID"));
        assert!(refused(&DID.repeat(40)).len() < 200, "a long input is not echoed");
        // X25519: another multicodec
        assert!(refused("did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F").contains("not of an Ed25519 key"));
    }

    #[test]
    fn what_was_read_before_says_the_same_and_is_bounded() {
        let of = |number: u32| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            crate::NodeKey::from_seed(seed).unwrap().id()
        };
        for number in 0..10 {
            let (id, text) = (of(number), of(number).to_string());
            assert_eq!((text.parse(), text.parse()), (Ok(id), Ok(id)));
        }
        let room = READ_BEFORE_MAX as u32 + 20;
        let filler = |number: u32| (format!("filler-{number}").into_boxed_str(), of(0));
        READ_BEFORE.write().unwrap().extend((0..room).map(filler));
        assert_eq!(of(41).to_string().parse(), Ok(of(41)));
        assert!(read_before().len() <= READ_BEFORE_MAX);
        assert!("did:key:z6Mk0OIl".parse::<NodeId>().is_err() && "did:key:z6Mk0OIl".parse::<NodeId>().is_err());
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(NodeId::from_public_key(identity_point).is_err());
    }
}
