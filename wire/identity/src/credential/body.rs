//! What every credential has: type, issuer, time, subject (VC Data Model 2.0 §4).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::jwt::{Jwt, malformed, shown};
use super::{CLAIM_LENGTH_MAX, CLAIMS_MAX, CredentialError, CredentialKind, StatusEntry, status};
use crate::NodeId;

/// The context that must come first (VC 2.0 §4.3).
pub(super) const CONTEXT: &str = "https://www.w3.org/ns/credentials/v2";
/// The context for terms that the issuer has chosen itself (VC 2.0, appendix on undefined terms).
pub(super) const CONTEXT_OWN_TERMS: &str = "https://www.w3.org/ns/credentials/undefined-terms/v2";
/// The type that every credential has.
pub(super) const TYPE: &str = "VerifiableCredential";
/// An RFC 3339 time has 20 to 35 characters.
const TIME_LENGTH_MAX: usize = 40;
/// Name of a list or a type: an address.
const NAME_LENGTH_MAX: usize = 512;
/// What version 1.1 of the data model put the credential and the presentation into.
const OF_OLD: [&str; 2] = ["vc", "vp"];

/// The members that all credentials share, read.
pub(super) struct Body<'a> {
    pub(super) issuer: NodeId,
    pub(super) valid_from: Timestamp,
    pub(super) valid_until: Timestamp,
    pub(super) types: Vec<&'a str>,
    pub(super) subject: &'a Map<String, Value>,
    payload: &'a Map<String, Value>,
}

impl<'a> Body<'a> {
    /// Reads the members of a signed object.
    pub(super) fn read(jwt: &'a Jwt) -> Result<Self, CredentialError> {
        let payload = &jwt.payload;
        // VC-JOSE-COSE §3: with version 2.0 the credential is the payload itself, and these must not be there.
        if let Some(name) = OF_OLD.into_iter().find(|name| payload.contains_key(*name)) {
            return Err(malformed("payload", format!("claim `{name}` is there: needed the data model 2.0")));
        }
        let contexts = texts("@context", payload.get("@context"))?;
        if contexts.first() != Some(&CONTEXT) {
            return Err(malformed("@context", format!("first is {:?}, needed {CONTEXT:?}", contexts.first())));
        }
        let types = texts("type", payload.get("type"))?;
        if !types.contains(&TYPE) {
            return Err(malformed("type", format!("needed {TYPE} among {types:?}")));
        }
        let issuer = issuer(payload)?;
        if issuer != jwt.signer {
            return Err(malformed("issuer", format!("it is {issuer}, and {} has signed", jwt.signer)));
        }
        let subject = payload.get("credentialSubject").and_then(Value::as_object);
        let subject = subject.ok_or_else(|| malformed("credentialSubject", "needed one object".into()))?;
        agree(payload, "sub", subject.get("id"))?;
        agree(payload, "jti", payload.get("id"))?;
        let (valid_from, valid_until) = window(payload)?;
        Ok(Self { issuer, valid_from, valid_until, types, subject, payload })
    }

    /// Returns the kind, of which there must be one.
    pub(super) fn kind(&self) -> Result<CredentialKind, CredentialError> {
        let mut kinds = CredentialKind::ALL.into_iter().filter(|kind| self.types.contains(&kind.type_name()));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            _ => {
                let known = CredentialKind::ALL.map(CredentialKind::type_name).join(" or ");
                Err(malformed("type", format!("needed one of {known} among {:?}", self.types)))
            }
        }
    }

    /// Returns whom it is about and what is said.
    pub(super) fn claims(&self) -> Result<(NodeId, BTreeMap<String, String>), CredentialError> {
        let refused = |reason: String| malformed("credentialSubject", reason);
        let id = self.subject.get("id");
        let subject = id.and_then(Value::as_str).and_then(|id| id.parse::<NodeId>().ok());
        let subject = subject.ok_or_else(|| refused(format!("id is {}, needed a node's did:key", shown(id))))?;
        if self.subject.len() > CLAIMS_MAX + 2 {
            return Err(refused(format!("{} claims, at most {CLAIMS_MAX}", self.subject.len())));
        }
        let said = self.subject.iter().filter(|(name, _)| !matches!(name.as_str(), "id" | "type"));
        let mut claims = BTreeMap::new();
        for (name, value) in said {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(refused(format!("claim {} is no single value", shown(Some(&name.as_str().into())))));
                }
            };
            if name.is_empty() || name.len() > CLAIM_LENGTH_MAX || text.len() > CLAIM_LENGTH_MAX {
                return Err(refused(format!("a claim's name and value have at most {CLAIM_LENGTH_MAX} bytes")));
            }
            // They end on a terminal and in logs.
            if name.chars().chain(text.chars()).any(char::is_control) {
                return Err(refused("a claim has control characters".into()));
            }
            claims.insert(name.clone(), text);
        }
        if claims.is_empty() {
            return Err(refused("it says nothing".into()));
        }
        Ok((subject, claims))
    }

    /// Returns where its revocation is to be read.
    pub(super) fn status(&self) -> Result<Option<StatusEntry>, CredentialError> {
        self.payload.get("credentialStatus").map(status::entry).transpose()
    }

    /// Returns its `id`, if it is an address.
    pub(super) fn id(&self) -> Option<&'a str> {
        self.payload.get("id").and_then(Value::as_str).filter(|id| status::is_address(id))
    }
}

/// VC 2.0 §4.7: a URL, or an object that has it as `id`.
fn issuer(payload: &Map<String, Value>) -> Result<NodeId, CredentialError> {
    let member = payload.get("issuer");
    let text = member.and_then(|m| m.as_str().or_else(|| m.get("id").and_then(Value::as_str)));
    let issuer = text.and_then(|text| text.parse::<NodeId>().ok());
    let issuer = issuer.ok_or_else(|| malformed("issuer", format!("{}, needed a did:key", shown(member))))?;
    agree(payload, "iss", text.map(Value::from).as_ref())?;
    Ok(issuer)
}

/// A registered claim that says the same as a member must say the same.
fn agree(payload: &Map<String, Value>, claim: &'static str, member: Option<&Value>) -> Result<(), CredentialError> {
    match payload.get(claim) {
        Some(value) if Some(value) != member => {
            Err(malformed("payload", format!("claim `{claim}` is {}, needed {}", shown(Some(value)), shown(member))))
        }
        _ => Ok(()),
    }
}

/// The time in which both the statement and its signature (`nbf`, `exp`) count. An end is demanded: every evidence expires.
fn window(payload: &Map<String, Value>) -> Result<(Timestamp, Timestamp), CredentialError> {
    let from = time(payload, "validFrom")?.ok_or_else(|| malformed("validFrom", "missing".into()))?;
    let until = time(payload, "validUntil")?.ok_or_else(|| malformed("validUntil", "missing: it must end".into()))?;
    let from = seconds(payload, "nbf")?.map_or(from, |signed| signed.max(from));
    let until = seconds(payload, "exp")?.map_or(until, |signed| signed.min(until));
    if from >= until {
        return Err(malformed("validUntil", format!("{until} is not after {from}")));
    }
    Ok((from, until))
}

fn time(payload: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, CredentialError> {
    let Some(member) = payload.get(name) else { return Ok(None) };
    let text = member.as_str().filter(|text| text.len() <= TIME_LENGTH_MAX);
    let time = text.and_then(|text| text.parse::<Timestamp>().ok());
    time.map(Some)
        .ok_or_else(|| malformed(name, format!("{}, needed a time as 2026-01-31T00:00:00Z", shown(Some(member)))))
}

/// RFC 7519 §2, NumericDate; fractions are allowed there and of no use to anybody.
fn seconds(payload: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, CredentialError> {
    let Some(member) = payload.get(name) else { return Ok(None) };
    let time = member.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map(Some)
        .ok_or_else(|| malformed("payload", format!("claim `{name}` is {}, needed seconds", shown(Some(member)))))
}

/// A text or a list of them: few, and not long.
fn texts<'a>(name: &'static str, member: Option<&'a Value>) -> Result<Vec<&'a str>, CredentialError> {
    const ITEMS_MAX: usize = 16;
    let texts: Option<Vec<&str>> = match member {
        Some(Value::String(text)) => Some(vec![text]),
        // A context may also be written out as an object, after the first one; we have no use for it.
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => {
            items.iter().filter(|item| !(name == "@context" && item.is_object())).map(Value::as_str).collect()
        }
        _ => None,
    };
    let texts = texts.filter(|texts| texts.iter().all(|text| text.len() <= NAME_LENGTH_MAX));
    texts.ok_or_else(|| malformed(name, format!("{}, needed texts, at most {ITEMS_MAX}", shown(member))))
}
