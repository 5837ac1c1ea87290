//! What one node says of another, signed by itself. How opinions travel is not built: a catalog will gather them.

use fluidos_identity::{Envelope, NodeId, NodeKey, Signed, SignedError};
use fluidos_model::rating::{Evidence, Word};
use serde::{Deserialize, Serialize};

/// What is signed.
pub const PURPOSE: &str = "fluidos-opinion+jws";

/// What its author has seen of somebody, as weights in thousandths.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Opinion {
    /// Who says it.
    pub author: NodeId,
    /// About whom.
    pub subject: NodeId,
    /// Weight of what was good.
    pub good_milli: u32,
    /// Weight of what was bad.
    pub bad_milli: u32,
    /// When it was said (RFC 3339); a newer one of an author replaces the older.
    pub issued: String,
}

/// Why an opinion is not listened to.
#[derive(Debug, thiserror::Error)]
pub enum OpinionError {
    /// It is not signed as it should be, or cannot be read.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Nobody is heard about itself.
    #[error("{author} speaks of itself")]
    OfItself {
        /// Who.
        author: NodeId,
    },
}

impl Opinion {
    /// Returns it with its author's signature.
    ///
    /// # Errors
    /// [`SignedError`] if it cannot be signed.
    pub fn sign(self, author: &NodeKey) -> Result<Envelope, SignedError> {
        let mut signed = Signed::new(PURPOSE, self)?;
        signed.sign(author)?;
        Ok(signed.envelope())
    }

    /// Returns the opinion of an envelope that somebody sent, if its author has signed it.
    ///
    /// # Errors
    /// [`OpinionError`] says why it is not listened to.
    pub fn open(envelope: &Envelope) -> Result<Self, OpinionError> {
        let signed = Signed::<Self>::open(envelope, PURPOSE)?;
        let opinion = signed.value();
        signed.require(&[opinion.author])?;
        if opinion.author == opinion.subject {
            return Err(OpinionError::OfItself { author: opinion.author });
        }
        Ok(opinion.clone())
    }

    /// Returns it with what this node has seen of its author, to be weighed by `fluidos_model::rating::combine`.
    pub fn word(&self, author: Evidence) -> Word {
        Word { author, good: f64::from(self.good_milli) / 1000.0, bad: f64::from(self.bad_milli) / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32]).unwrap()
    }

    fn opinion(author: u8, subject: u8) -> Opinion {
        let issued = "2026-11-25T00:00:00Z".into();
        Opinion { author: key(author).id(), subject: key(subject).id(), good_milli: 1500, bad_milli: 0, issued }
    }

    #[test]
    fn only_its_author_can_have_said_it_and_about_another() {
        let signed = opinion(1, 2).sign(&key(1)).unwrap();
        let read = Opinion::open(&signed).unwrap();
        assert_eq!(read, opinion(1, 2));
        assert_eq!(read.word(Evidence::default()).good, 1.5);
        assert!(matches!(Opinion::open(&opinion(1, 2).sign(&key(3)).unwrap()), Err(OpinionError::Signed(_))));
        assert!(matches!(Opinion::open(&opinion(1, 1).sign(&key(1)).unwrap()), Err(OpinionError::OfItself { .. })));
        let other = opinion(1, 3).sign(&key(1)).unwrap();
        let mixed = Envelope { payload: other.payload, ..signed };
        assert!(Opinion::open(&mixed).is_err(), "the signature is over other bytes");
    }
}
