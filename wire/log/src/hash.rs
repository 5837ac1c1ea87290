//! SHA-256 of leaves and nodes (RFC 9162 §2.1.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Before a leaf, so that no node can be shown as one.
const LEAF: u8 = 0;
/// Before a node.
const NODE: u8 = 1;

/// A SHA-256, as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

/// A text is no hash.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{observed:?} is no hash: needed 64 lower-case hexadecimal digits")]
pub struct HashError {
    /// The beginning of it.
    pub observed: String,
}

/// Returns the hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([LEAF]).chain_update(leaf).finalize().into())
}

pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([NODE]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root of a tree without leaves.
pub(crate) fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let refused = || HashError { observed: text.chars().take(72).collect() };
        let digits = text.bytes().map(digit).collect::<Option<Vec<u8>>>().ok_or_else(refused)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        if !rest.is_empty() {
            return Err(refused());
        }
        bytes.try_into().map(Self).map_err(|_| refused())
    }
}

impl TryFrom<String> for Hash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hash_is_one_text_and_other_texts_are_none() {
        // RFC 9162 §2.1.1: the root of the empty tree is the hash of nothing, a leaf that of a zero byte.
        assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let leaf = leaf_hash(b"");
        assert_eq!(leaf.to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(leaf.to_string().parse(), Ok(leaf));
        for text in ["", "6e", &"6E".repeat(32), &"g".repeat(64), &"0".repeat(63), &"0".repeat(66)] {
            assert!(text.parse::<Hash>().is_err(), "{text}");
        }
    }
}
