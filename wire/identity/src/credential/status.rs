//! Which credentials were taken back: a list of bits that their issuer signs and publishes (W3C Bitstring Status List 1.0).
//!
//! ```text
//!   credential ── credentialStatus {list, index} ──▶ list: one bit for each credential, 1 = revoked
//!                                                    GZIP, base64url, in a credential of the same issuer
//! ```
//! An old list is a list in which nobody was revoked yet, so a list has an end, and after that it says nothing. Keep it short:
//! the time from a revocation until everybody must know is the validity of the list before it.

use std::io::Read as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::Body;
use super::issue::common;
use super::jwt::{self, malformed, shown};
use super::{CredentialError, StatusEntry};
use crate::{NodeId, NodeKey};

/// Bits of a list: the least that the specification allows (§3.3), so that a lookup tells little about who was looked up.
pub const STATUS_ENTRIES: usize = 131_072;
/// A list with every second bit at random is 16 KiB, in base64 twice 29 KiB.
pub const STATUS_TEXT_LENGTH_MAX: usize = 64 * 1024;
/// A foreign list may be eight times as long as ours; more is a bomb.
const BYTES_MAX: usize = STATUS_ENTRIES;
/// Where a list is published.
const ADDRESS_LENGTH_MAX: usize = 512;
const TYPE: &str = "BitstringStatusListCredential";
const SUBJECT_TYPE: &str = "BitstringStatusList";
const ENTRY_TYPE: &str = "BitstringStatusListEntry";
const PURPOSE: &str = "revocation";
/// base64url in multibase.
const MULTIBASE: char = 'u';

/// A status list whose signature holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusList {
    issuer: NodeId,
    id: String,
    valid_from: Timestamp,
    valid_until: Timestamp,
    pub(super) bits: Vec<u8>,
}

impl StatusList {
    /// Returns a list in which nobody was revoked.
    pub fn new(issuer: NodeId, id: impl Into<String>, valid_from: Timestamp, valid_until: Timestamp) -> Self {
        Self { issuer, id: id.into(), valid_from, valid_until, bits: vec![0; STATUS_ENTRIES / 8] }
    }

    /// Returns the list in a text, if its issuer signed it.
    ///
    /// # Errors
    /// [`CredentialError`] if it is too long, no status list for revocation, or not signed by its issuer.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let jwt = jwt::open(text.trim_ascii(), STATUS_TEXT_LENGTH_MAX)?;
        let body = Body::read(&jwt)?;
        if !body.types.contains(&TYPE) {
            return Err(malformed("type", format!("needed {TYPE} among {:?}", body.types)));
        }
        let id = body.id().ok_or_else(|| malformed("id", "needed the address of the list".into()))?;
        let member = |name: &str| body.subject.get(name);
        if member("type").and_then(Value::as_str) != Some(SUBJECT_TYPE) {
            return Err(malformed("credentialSubject", format!("needed type {SUBJECT_TYPE}")));
        }
        if member("statusPurpose").and_then(Value::as_str) != Some(PURPOSE) {
            let observed = shown(member("statusPurpose"));
            return Err(malformed("statusPurpose", format!("it is {observed}, needed {PURPOSE:?}")));
        }
        let encoded = member("encodedList").and_then(Value::as_str).unwrap_or_default();
        let bits = unpack(encoded).map_err(|reason| malformed("encodedList", reason))?;
        let (issuer, valid_from, valid_until) = (body.issuer, body.valid_from, body.valid_until);
        Ok(Self { issuer, id: id.into(), valid_from, valid_until, bits })
    }

    /// Returns the signed text for a time.
    ///
    /// # Errors
    /// [`CredentialError`] if the key is not the issuer's, or others would refuse the text.
    pub fn sign(&self, key: &NodeKey) -> Result<String, CredentialError> {
        if key.id() != self.issuer {
            return Err(CredentialError::OtherIssuer { observed: key.id(), needed: self.issuer });
        }
        let mut payload = common(key, TYPE, self.valid_from, self.valid_until);
        payload.insert("id".into(), self.id.as_str().into());
        let subject = json!({
            "id": format!("{}#list", self.id),
            "type": SUBJECT_TYPE,
            "statusPurpose": PURPOSE,
            "encodedList": pack(&self.bits).map_err(|reason| malformed("encodedList", reason))?,
        });
        payload.insert("credentialSubject".into(), subject);
        let text = jwt::sign(key, &payload.into())?;
        Self::parse(&text).map(|_| text)
    }

    /// Sets the bit of a credential: it is revoked. Returns false if there is no such bit.
    #[must_use]
    pub fn revoke(&mut self, index: usize) -> bool {
        let byte = self.bits.get_mut(index / 8);
        byte.map(|byte| *byte |= mask(index)).is_some()
    }

    /// Says whether the credential with this bit was revoked; `None` if there is no such bit.
    pub fn is_set(&self, index: usize) -> Option<bool> {
        self.bits.get(index / 8).map(|byte| byte & mask(index) != 0)
    }

    /// Returns how many were revoked.
    pub fn revoked_count(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Gives the list another time: it is published anew.
    pub fn set_time(&mut self, valid_from: Timestamp, valid_until: Timestamp) {
        (self.valid_from, self.valid_until) = (valid_from, valid_until);
    }

    /// Returns who published it.
    pub fn issuer(&self) -> NodeId {
        self.issuer
    }

    /// Returns its address.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns when it was published.
    pub fn valid_from(&self) -> Timestamp {
        self.valid_from
    }

    /// Returns when it says nothing any more.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }
}

/// Returns where a credential's revocation is to be read.
pub(super) fn entry(member: &Value) -> Result<StatusEntry, CredentialError> {
    let refused = |reason: String| Err(malformed("credentialStatus", reason));
    let text = |name: &str| member.get(name).and_then(Value::as_str);
    if text("type") != Some(ENTRY_TYPE) || text("statusPurpose") != Some(PURPOSE) {
        return refused(format!("{}, needed one {ENTRY_TYPE} for {PURPOSE}", shown(Some(member))));
    }
    if member.get("statusSize").is_some_and(|size| size != 1) {
        return refused("needed one bit for each credential".into());
    }
    let index = text("statusListIndex").filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    let index = index.and_then(|text| text.parse::<usize>().ok()).filter(|index| *index < BYTES_MAX * 8);
    let list = text("statusListCredential").filter(|list| is_address(list));
    match (list, index) {
        (Some(list), Some(index)) => Ok(StatusEntry { list: list.into(), index }),
        _ => refused(format!("{}, needed a list and an index", shown(Some(member)))),
    }
}

/// Says whether a text can be a URL (RFC 3986 §2): it ends on a terminal and in logs.
pub(super) fn is_address(text: &str) -> bool {
    (1..=ADDRESS_LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns the member that says where a credential's revocation is to be read.
pub(super) fn entry_json(entry: &StatusEntry) -> Value {
    json!({
        "type": ENTRY_TYPE,
        "statusPurpose": PURPOSE,
        "statusListIndex": entry.index.to_string(), // a text: §2.1
        "statusListCredential": entry.list,
    })
}

/// Index 0 is the left-most bit (§3.3).
fn mask(index: usize) -> u8 {
    0x80 >> (index % 8)
}

fn pack(bits: &[u8]) -> Result<String, String> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder.write_all(bits).and_then(|()| encoder.finish()).map_err(|error| error.to_string())?;
    Ok(format!("{MULTIBASE}{}", URL_SAFE_NO_PAD.encode(packed)))
}

fn unpack(encoded: &str) -> Result<Vec<u8>, String> {
    let encoded = encoded.strip_prefix(MULTIBASE).ok_or("needed multibase base64url, which begins with u")?;
    let packed = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| error.to_string())?;
    let mut bits = Vec::new();
    // One byte more than allowed tells a list of the greatest size from a bomb.
    let read = GzDecoder::new(packed.as_slice()).take(BYTES_MAX as u64 + 1).read_to_end(&mut bits);
    read.map_err(|error| format!("not GZIP: {error}"))?;
    if !(STATUS_ENTRIES / 8..=BYTES_MAX).contains(&bits.len()) {
        return Err(format!("{} bytes of bits, needed {} to {BYTES_MAX}", bits.len(), STATUS_ENTRIES / 8));
    }
    Ok(bits)
}

/// Lets a test make a list that is none.
#[cfg(test)]
pub(super) fn pack_for_test(bits: &[u8]) -> String {
    pack(bits).unwrap_or_default()
}
