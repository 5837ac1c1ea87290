//! Credentials: what somebody else says about a node, signed (W3C Verifiable Credentials 2.0, secured by JOSE).
//!
//! A **credential** is one signed statement of an *issuer* about a *subject*, a node: an owner vouches that the node is its
//! own (`NodeOwnership`), a certifier that the node has features (`Feature`). A signature says who speaks, never that it is
//! true: what follows for us is decided in [`crate::proven`], from whom *we* trust.
//!
//! ```text
//!   text ── Credential::parse ──▶ Credential ── check(now, issuer, subject, status list) ──▶ VerifiedCredential
//!           bounded, strict,      the issuer    in its time, about this node,
//!           signature holds       said so       not revoked
//! ```
//!
//! Here every credential has an end (`validUntil`), a subject that is a `did:key`, and claims that are single values. A
//! credential that names a status list counts only beside that list: without it nobody knows whether it was revoked.
//!
//! Limits: one `credentialStatus`; no presentations, no selective disclosure, no JSON-LD processing (members that we do not
//! know are passed over, as VC 2.0 §5.2 allows).

mod body;
mod check;
mod issue;
mod jwt;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

pub(crate) use self::check::in_time;
pub use self::check::{CHECK_STEPS, CheckStep, Demands, Finding, VerifiedCredential};
pub use self::issue::CredentialDraft;
pub use self::status::{STATUS_ENTRIES, STATUS_TEXT_LENGTH_MAX, StatusList};
use crate::NodeId;

/// Clocks of honest machines differ: a credential counts this much before its beginning and after its end.
pub const CLOCK_SKEW_LEEWAY: SignedDuration = SignedDuration::from_mins(5);
/// A credential of ours has about 900 characters; a certifier may say more.
pub const CREDENTIAL_LENGTH_MAX: usize = 16 * 1024;
/// Claims of one credential: a page of them.
pub const CLAIMS_MAX: usize = 64;
/// A claim is a word or a line.
pub const CLAIM_LENGTH_MAX: usize = 256;

/// What a credential is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CredentialKind {
    /// "This node belongs to domain D of mine": the claim `domain`.
    NodeOwnership,
    /// "This node has these features": the other claims.
    Feature,
}

/// Where a credential's revocation is to be read (W3C Bitstring Status List §2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusEntry {
    /// The `id` of the status list credential.
    pub list: String,
    /// The bit of this credential in it.
    pub index: usize,
}

/// A credential whose signature holds: its issuer did say this. Whether it counts now is for [`Credential::check`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    text: String,
    kind: CredentialKind,
    issuer: NodeId,
    subject: NodeId,
    claims: BTreeMap<String, String>,
    valid_from: Timestamp,
    valid_until: Timestamp,
    status: Option<StatusEntry>,
}

/// Why a credential is not believed. None is mended by trying again: ask the issuer for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Longer than any honest one.
    #[error("{observed} characters, at most {max}")]
    TooLong {
        /// How many there are.
        observed: usize,
        /// How many there may be.
        max: usize,
    },
    /// It is not of the form that it must have.
    #[error("{part}: {reason}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What was observed and needed.
        reason: String,
    },
    /// The text differs from what was signed, or somebody else signed it.
    #[error("the signature of {issuer} does not hold for this text")]
    Forged {
        /// Who is said to have signed.
        issuer: NodeId,
    },
    /// It is of another issuer than asked for.
    #[error("issued by {observed}, needed {needed}")]
    OtherIssuer {
        /// Who issued it.
        observed: NodeId,
        /// Who should have.
        needed: NodeId,
    },
    /// It is about another node.
    #[error("about {observed}, needed {needed}")]
    OtherSubject {
        /// Whom it is about.
        observed: NodeId,
        /// Whom it should be about.
        needed: NodeId,
    },
    /// Its time has not come.
    #[error("valid from {from}; it is {now}")]
    NotYet {
        /// When it begins.
        from: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
    /// Its time is over.
    #[error("expired at {until}; it is {now}")]
    Expired {
        /// When it ended.
        until: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
    /// Its issuer has taken it back.
    #[error("revoked by its issuer: bit {index} of {list} is set")]
    Revoked {
        /// The bit.
        index: usize,
        /// The list.
        list: String,
    },
    /// Whether it was revoked cannot be told.
    #[error("whether it was revoked is not known: {reason}")]
    StatusUnknown {
        /// Why.
        reason: String,
    },
}

impl CredentialKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::NodeOwnership, Self::Feature];

    /// Returns the name that a person types.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeOwnership => "NodeOwnership",
            Self::Feature => "Feature",
        }
    }

    /// Returns the member of `type`.
    fn type_name(self) -> &'static str {
        match self {
            Self::NodeOwnership => "NodeOwnershipCredential",
            Self::Feature => "FeatureCredential",
        }
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CredentialKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| format!("{text:?}: needed NodeOwnership or Feature"))
    }
}

impl Credential {
    /// Returns what a text says, if its issuer signed it.
    ///
    /// # Errors
    /// [`CredentialError::TooLong`], [`CredentialError::Malformed`] or [`CredentialError::Forged`].
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let text = text.trim_ascii();
        let jwt = jwt::open(text, CREDENTIAL_LENGTH_MAX)?;
        let body = body::Body::read(&jwt)?;
        let kind = body.kind()?;
        let (subject, claims) = body.claims()?;
        if kind == CredentialKind::NodeOwnership && !claims.get("domain").is_some_and(|domain| crate::is_domain(domain))
        {
            let observed = claims.get("domain").map_or("missing", String::as_str);
            let reason = format!("claim `domain` is {observed:?}, needed a DNS name in lower case");
            return Err(jwt::malformed("credentialSubject", reason));
        }
        let status = body.status()?;
        let (issuer, valid_from, valid_until) = (body.issuer, body.valid_from, body.valid_until);
        Ok(Self { text: text.into(), kind, issuer, subject, claims, valid_from, valid_until, status })
    }

    /// Returns the text, as it travels and is stored.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what it is about.
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// Returns who says so.
    pub fn issuer(&self) -> NodeId {
        self.issuer
    }

    /// Returns the node that it is about.
    pub fn subject(&self) -> NodeId {
        self.subject
    }

    /// Returns what is said.
    pub fn claims(&self) -> &BTreeMap<String, String> {
        &self.claims
    }

    /// Returns when it begins.
    pub fn valid_from(&self) -> Timestamp {
        self.valid_from
    }

    /// Returns when it ends.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }

    /// Returns where its revocation is to be read, if its issuer can revoke it.
    pub fn status(&self) -> Option<&StatusEntry> {
        self.status.as_ref()
    }
}
