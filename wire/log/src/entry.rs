//! What one leaf says.
//!
//! Everything in an entry follows from the document that it names, so the other party of a contract, who has the same document, makes
//! the same leaf: a node that knows a leaf by its hash only recognises the document when it gets it back.

use std::fmt;

use fluidos_identity::{SignedError, canonical_json};
use serde::{Deserialize, Serialize};

use crate::{Hash, leaf_hash};

/// What happened.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Both parties have signed a contract; the digest is that of its terms, the time when they were issued.
    ContractSigned,
    /// Both have signed that it goes on; the digest is that of the renewal, the time when it ends now.
    ContractRenewed,
    /// It is over; the digest is that of its terms again, and there is no time: the parties learn of it at different ones.
    ContractEnded,
    /// The last receipt of a contract is signed by both; with the chain its digest names all of them.
    ReceiptsClosed,
    /// A month of a contract was invoiced; the digest is that of the invoice.
    InvoiceMade,
    /// A key took the place of another; `of` is the new one.
    KeyHandedOver,
    /// A key was revoked; `of` is that key.
    KeyRevoked,
    /// The owner has accepted that entries are lost; the digest is that of their hashes.
    LossAccepted,
}

impl EntryKind {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContractSigned => "contract-signed",
            Self::ContractRenewed => "contract-renewed",
            Self::ContractEnded => "contract-ended",
            Self::ReceiptsClosed => "receipts-closed",
            Self::InvoiceMade => "invoice-made",
            Self::KeyHandedOver => "key-handed-over",
            Self::KeyRevoked => "key-revoked",
            Self::LossAccepted => "loss-accepted",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One leaf: that there is a document. Never what it says.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What happened.
    pub kind: EntryKind,
    /// About which contract or key.
    pub of: String,
    /// SHA-256 of the document's canonical bytes.
    pub digest: Hash,
    /// When, as the document says (RFC 3339, or a month); absent where parties know different times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Entry {
    /// Returns the bytes of the leaf: canonical JSON.
    ///
    /// # Errors
    /// [`SignedError`] in theory only: four texts always have a canonical form.
    pub fn leaf(&self) -> Result<Vec<u8>, SignedError> {
        canonical_json(self)
    }

    /// Returns the hash of the leaf.
    ///
    /// # Errors
    /// As [`Entry::leaf`].
    pub fn hash(&self) -> Result<Hash, SignedError> {
        Ok(leaf_hash(&self.leaf()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_leaf_is_the_same_bytes_for_everybody_and_names_no_content() {
        let entry = Entry {
            kind: EntryKind::ContractSigned,
            of: "contract-1".into(),
            digest: leaf_hash(b"terms"),
            at: Some("2026-01-01T00:00:00Z".into()),
        };
        let leaf = String::from_utf8(entry.leaf().unwrap()).unwrap();
        let digest = entry.digest;
        let needed = r#"{"at":"2026-01-01T00:00:00Z","digest":"D","kind":"contract-signed","of":"contract-1"}"#;
        assert_eq!(leaf, needed.replace('D', &digest.to_string()));
        assert_eq!(serde_json::from_str::<Entry>(&leaf).unwrap(), entry);
        let ended = Entry { kind: EntryKind::ContractEnded, at: None, ..entry.clone() };
        assert_ne!(ended.hash().unwrap(), entry.hash().unwrap());
        for kind in
            [EntryKind::ContractRenewed, EntryKind::ReceiptsClosed, EntryKind::KeyHandedOver, EntryKind::LossAccepted]
        {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
