//! Issuing a credential.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::body::{CONTEXT, CONTEXT_OWN_TERMS, TYPE};
use super::{Credential, CredentialError, CredentialKind, StatusEntry, jwt, status};
use crate::{NodeId, NodeKey};

/// A credential before it is signed.
#[derive(Clone, Debug)]
pub struct CredentialDraft {
    /// What it is about.
    pub kind: CredentialKind,
    /// The node that it is about.
    pub subject: NodeId,
    /// What is said. A `NodeOwnership` has `domain`.
    pub claims: BTreeMap<String, String>,
    /// When it begins; fractions of a second are dropped.
    pub valid_from: Timestamp,
    /// When it ends; fractions of a second are dropped.
    pub valid_until: Timestamp,
    /// Where its revocation will be read. Without it the credential cannot be taken back before its end.
    pub status: Option<StatusEntry>,
}

impl CredentialDraft {
    /// Returns the credential, issued by the holder of this key.
    ///
    /// *Guarantees*: what is returned has passed [`Credential::parse`], so nobody is given what others would refuse.
    ///
    /// # Errors
    /// [`CredentialError`] as of [`Credential::parse`]: no claim, too many, no domain, an end before the beginning.
    pub fn sign(&self, key: &NodeKey) -> Result<Credential, CredentialError> {
        let mut subject: Map<String, Value> =
            self.claims.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
        if let Some(name) = ["id", "type"].into_iter().find(|name| subject.contains_key(*name)) {
            return Err(jwt::malformed("credentialSubject", format!("`{name}` is no name of a claim")));
        }
        subject.insert("id".into(), self.subject.to_string().into());
        let mut payload = common(key, self.kind.type_name(), self.valid_from, self.valid_until);
        payload.insert("credentialSubject".into(), subject.into());
        if let Some(entry) = &self.status {
            payload.insert("credentialStatus".into(), status::entry_json(entry));
        }
        Credential::parse(&jwt::sign(key, &payload.into())?)
    }
}

/// The members that all credentials share.
pub(super) fn common(key: &NodeKey, type_name: &str, from: Timestamp, until: Timestamp) -> Map<String, Value> {
    let members = [
        ("@context", json!([CONTEXT, CONTEXT_OWN_TERMS])),
        ("type", json!([TYPE, type_name])),
        ("issuer", key.id().to_string().into()),
        ("validFrom", whole_seconds(from).into()),
        ("validUntil", whole_seconds(until).into()),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string() // a time without its fraction is one
}
