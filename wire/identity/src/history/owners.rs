//! Who may speak for a key that is lost or stolen: its owner, as the node itself has shown it.
//!
//! Anybody can issue a credential that says "this node is mine". It makes him the owner *for us* only when the node shows it
//! itself, over a link on which it has proven its key, and the first one stays: a thief of the key shows another one later.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::credential::in_time;
use crate::{CredentialError, CredentialKind, NodeId, TrustedIssuers, VerifiedCredential};

/// Who vouches for a key, and for which time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vouch {
    /// The owner.
    pub owner: NodeId,
    /// The beginning of its word.
    pub from: Timestamp,
    /// The end of its word.
    pub until: Timestamp,
}

/// The owners of the nodes that we have met, by key.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Owners(BTreeMap<NodeId, Vouch>);

/// Why a credential makes nobody an owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// It says something else, or about another node than the one that shows it.
    #[error("it is no NodeOwnership of {0}, who shows it")]
    OfSomethingElse(NodeId),
    /// It is not of now.
    #[error(transparent)]
    NotNow(#[from] CredentialError),
    /// The node has shown another owner before, whose word has not ended.
    #[error("{known} is its owner until {until}, and {shown} is shown now")]
    AnotherOwner {
        /// Who is the owner.
        known: NodeId,
        /// Until when.
        until: Timestamp,
        /// Who would be.
        shown: NodeId,
    },
}

impl Owners {
    /// Takes note of the credential that a peer, whose key was proven, shows of itself.
    ///
    /// Another owner takes the place of the first one only when the word of the first has ended, or when this node trusts the
    /// other and not the first.
    ///
    /// # Errors
    /// [`OwnerError`]; then everything is as it was.
    pub fn shown(
        &mut self,
        peer: NodeId,
        credential: &VerifiedCredential,
        trusted: &TrustedIssuers,
        now: Timestamp,
    ) -> Result<(), OwnerError> {
        if credential.kind() != CredentialKind::NodeOwnership || credential.subject() != peer {
            return Err(OwnerError::OfSomethingElse(peer));
        }
        credential.counts_at(now)?;
        let owner = credential.issuer();
        let (mut from, mut until) = (credential.valid_from(), credential.counts_until());
        if let Some(known) = self.0.get(&peer) {
            if known.owner == owner {
                (from, until) = (from.min(known.from), until.max(known.until));
            } else if known.until > now && (trusted.is_owner(&known.owner) || !trusted.is_owner(&owner)) {
                return Err(OwnerError::AnotherOwner { known: known.owner, until: known.until, shown: owner });
            }
        }
        self.0.insert(peer, Vouch { owner, from, until });
        Ok(())
    }

    /// Says whether an owner may speak for one of these keys of one node at a time.
    pub fn speaks_for(&self, owner: &NodeId, keys: &[NodeId], at: Timestamp) -> bool {
        let vouches = keys.iter().filter_map(|key| self.0.get(key));
        vouches.into_iter().any(|vouch| vouch.owner == *owner && in_time(vouch.from, vouch.until, at).is_ok())
    }

    /// Forgets the owner of a key.
    pub fn forget(&mut self, key: &NodeId) {
        self.0.remove(key);
    }

    /// Returns the owner of a key.
    pub fn of(&self, key: &NodeId) -> Option<&Vouch> {
        self.0.get(key)
    }

    /// Returns all of them, to be kept.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Vouch)> {
        self.0.iter()
    }
}

/// What was kept.
impl FromIterator<(NodeId, Vouch)> for Owners {
    fn from_iter<I: IntoIterator<Item = (NodeId, Vouch)>>(kept: I) -> Self {
        Self(kept.into_iter().collect())
    }
}
