//! Hand-overs and revocations: what is signed, and how it travels.
//!
//! ```text
//!   {"at":"2026-11-25T12:00:00Z","by":did,"from":did,"to":did}     signed by `by` and `to`, purpose fluidos-handover+jws
//!   {"at":"2026-11-25T12:00:00Z","by":did,"key":did,"reason":"…"}  signed by `by`,          purpose fluidos-revocation+jws
//! ```
//! The bytes are canonical JSON (RFC 8785) in an [`Envelope`]; several travel as a JSON array of envelopes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::strict_json;
use crate::{Envelope, NodeId, NodeKey, Signed, SignedError, canonical_json};

/// One has about 1,100 bytes.
pub const STATEMENT_BYTES_MAX: usize = 4096;
/// As many hand-overs as a chain may have, and a revocation of each key.
pub const STATEMENTS_MAX: usize = 128;
/// Bytes of an array of them.
pub const STATEMENTS_BYTES_MAX: usize = STATEMENTS_MAX * (STATEMENT_BYTES_MAX / 2);
/// A line.
pub const REASON_LENGTH_MAX: usize = 128;

const HANDOVER: &str = "fluidos-handover+jws";
const REVOCATION: &str = "fluidos-revocation+jws";

/// Why there is no statement. Never retry.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The bytes are no statement, or more than one has.
    #[error("no statement about a key: {0}")]
    Malformed(String),
    /// It is not signed as it must be.
    #[error("statement about a key: {0}")]
    Signed(#[from] SignedError),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandoverTerms {
    at: Timestamp,
    by: NodeId,
    from: NodeId,
    to: NodeId,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationTerms {
    at: Timestamp,
    by: NodeId,
    key: NodeId,
    reason: String,
}

/// "Another key takes the place of mine." The signatures hold; whether `by` may say so is for [`super::resolve`].
#[derive(Clone, PartialEq, Debug)]
pub struct Handover(Signed<HandoverTerms>);

/// "This key counts no more." The signature holds; whether `by` may say so is for [`super::resolve`].
#[derive(Clone, PartialEq, Debug)]
pub struct Revocation(Signed<RevocationTerms>);

/// Either.
#[derive(Clone, PartialEq, Debug)]
pub enum Statement {
    /// Another key takes the place.
    Handover(Handover),
    /// A key counts no more.
    Revocation(Revocation),
}

impl Handover {
    /// Returns the hand-over of a node to its next key.
    ///
    /// # Errors
    /// [`StatementError::Malformed`] if both are one key.
    pub fn by_key(old: &NodeKey, new: &NodeKey, at: Timestamp) -> Result<Self, StatementError> {
        Self::sign(old, old.id(), new, at)
    }

    /// Returns the hand-over that an owner makes in the place of a key that is lost or stolen.
    ///
    /// # Errors
    /// [`StatementError::Malformed`] if two of the three are one key.
    pub fn by_owner(owner: &NodeKey, from: NodeId, new: &NodeKey, at: Timestamp) -> Result<Self, StatementError> {
        if owner.id() == from {
            return Err(StatementError::Malformed("the owner's key is the node's own".into()));
        }
        Self::sign(owner, from, new, at)
    }

    fn sign(by: &NodeKey, from: NodeId, new: &NodeKey, at: Timestamp) -> Result<Self, StatementError> {
        let terms = HandoverTerms { at: whole_seconds(at), by: by.id(), from, to: new.id() };
        let mut signed = Signed::new(HANDOVER, terms)?;
        signed.sign(by)?;
        signed.sign(new)?;
        Self::read(&signed.envelope())
    }

    fn read(envelope: &Envelope) -> Result<Self, StatementError> {
        let signed = open::<HandoverTerms>(envelope, HANDOVER)?;
        let terms = signed.value();
        if terms.to == terms.from || terms.to == terms.by {
            return Err(StatementError::Malformed("a key does not take its own place".into()));
        }
        signed_by(&signed, &[terms.by, terms.to])?;
        Ok(Self(signed))
    }

    /// Returns the key whose place is taken.
    pub fn from(&self) -> NodeId {
        self.0.value().from
    }

    /// Returns the key that takes it.
    pub fn to(&self) -> NodeId {
        self.0.value().to
    }

    /// Returns who says so: the old key, or an owner.
    pub fn by(&self) -> NodeId {
        self.0.value().by
    }

    /// Returns when, as whoever signed says.
    pub fn at(&self) -> Timestamp {
        self.0.value().at
    }
}

impl Revocation {
    /// Returns the revocation of a key.
    ///
    /// # Errors
    /// [`StatementError::Malformed`] if the reason is no line of at most [`REASON_LENGTH_MAX`] bytes.
    pub fn new(key: NodeId, by: &NodeKey, reason: &str, at: Timestamp) -> Result<Self, StatementError> {
        let terms = RevocationTerms { at: whole_seconds(at), by: by.id(), key, reason: reason.into() };
        let mut signed = Signed::new(REVOCATION, terms)?;
        signed.sign(by)?;
        Self::read(&signed.envelope())
    }

    fn read(envelope: &Envelope) -> Result<Self, StatementError> {
        let signed = open::<RevocationTerms>(envelope, REVOCATION)?;
        let reason = &signed.value().reason;
        if reason.len() > REASON_LENGTH_MAX || reason.chars().any(char::is_control) {
            return Err(StatementError::Malformed(format!(
                "reason: needed a line of at most {REASON_LENGTH_MAX} bytes"
            )));
        }
        signed_by(&signed, &[signed.value().by])?;
        Ok(Self(signed))
    }

    /// Returns the key that counts no more.
    pub fn key(&self) -> NodeId {
        self.0.value().key
    }

    /// Returns who says so.
    pub fn by(&self) -> NodeId {
        self.0.value().by
    }

    /// Returns since when, as whoever signed says.
    pub fn at(&self) -> Timestamp {
        self.0.value().at
    }

    /// Returns why, for people.
    pub fn reason(&self) -> &str {
        &self.0.value().reason
    }
}

impl Statement {
    /// Returns the statement in an envelope.
    ///
    /// # Errors
    /// [`StatementError`] if it is none, or not signed as it must be.
    pub fn read(envelope: &Envelope) -> Result<Self, StatementError> {
        match envelope.purpose.as_str() {
            HANDOVER => Handover::read(envelope).map(Self::Handover),
            REVOCATION => Revocation::read(envelope).map(Self::Revocation),
            _ => Err(StatementError::Malformed(format!("needed purpose {HANDOVER} or {REVOCATION}"))),
        }
    }

    /// Returns the statement in the JSON of an envelope.
    ///
    /// # Errors
    /// As of [`Statement::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let value = strict_json(bytes, STATEMENT_BYTES_MAX).map_err(StatementError::Malformed)?;
        Self::read(&envelope(value)?)
    }

    /// Returns the statements in a JSON array of envelopes.
    ///
    /// # Errors
    /// [`StatementError`] if it is none, has more than [`STATEMENTS_MAX`], or one of them is no statement.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, StatementError> {
        let value = strict_json(bytes, STATEMENTS_BYTES_MAX).map_err(StatementError::Malformed)?;
        match value {
            Value::Array(items) if items.len() <= STATEMENTS_MAX => {
                items.into_iter().map(|item| Self::read(&envelope(item)?)).collect()
            }
            _ => Err(StatementError::Malformed(format!("needed an array of at most {STATEMENTS_MAX}"))),
        }
    }

    /// Returns the JSON array of some.
    ///
    /// # Errors
    /// [`StatementError::Malformed`] if there are more than [`STATEMENTS_MAX`].
    pub fn write_all(statements: &[Self]) -> Result<Vec<u8>, StatementError> {
        let envelopes: Vec<Envelope> = statements.iter().map(Self::envelope).collect();
        if envelopes.len() > STATEMENTS_MAX {
            return Err(StatementError::Malformed(format!("{} of them, at most {STATEMENTS_MAX}", envelopes.len())));
        }
        serde_json::to_vec(&envelopes).map_err(|error| StatementError::Malformed(error.to_string()))
    }

    /// Returns the form that travels and is stored.
    pub fn envelope(&self) -> Envelope {
        match self {
            Self::Handover(handover) => handover.0.envelope(),
            Self::Revocation(revocation) => revocation.0.envelope(),
        }
    }

    /// Returns the key that it is about.
    pub fn about(&self) -> NodeId {
        match self {
            Self::Handover(handover) => handover.from(),
            Self::Revocation(revocation) => revocation.key(),
        }
    }
}

impl From<Handover> for Statement {
    fn from(handover: Handover) -> Self {
        Self::Handover(handover)
    }
}

impl From<Revocation> for Statement {
    fn from(revocation: Revocation) -> Self {
        Self::Revocation(revocation)
    }
}

fn envelope(value: Value) -> Result<Envelope, StatementError> {
    serde_json::from_value(value)
        .map_err(|error| StatementError::Malformed(error.to_string().escape_debug().to_string()))
}

fn open<T>(envelope: &Envelope, purpose: &str) -> Result<Signed<T>, StatementError>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    if envelope.payload.len() > STATEMENT_BYTES_MAX {
        return Err(StatementError::Malformed(format!("payload has {} characters", envelope.payload.len())));
    }
    let signed = Signed::<T>::open(envelope, purpose)?;
    // One statement, one text: a time has other spellings, which would be other bytes.
    if canonical_json(signed.value())? != signed.bytes() {
        return Err(StatementError::Malformed("a value is not in its shortest spelling".into()));
    }
    Ok(signed)
}

/// These and nobody else: a signature that nobody asked for is not carried along.
fn signed_by<T>(signed: &Signed<T>, parties: &[NodeId]) -> Result<(), StatementError> {
    signed.require(parties)?;
    match signed.signers().find(|signer| !parties.contains(signer)) {
        Some(signer) => Err(StatementError::Malformed(format!("{signer} has nothing to say here"))),
        None => Ok(()),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time) // a time without its fraction is one
}
