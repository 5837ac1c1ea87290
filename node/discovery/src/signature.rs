//! What a node signs when it announces itself on the LAN. A replayed announcement leads to an address where nobody can
//! prove the key, so it needs no time.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluidos_identity::{NodeId, NodeKey};

/// The field that holds the signature.
pub const FIELD: &str = "sig";
/// So that a signature made for something else does not fit here.
const PURPOSE: &str = "fluidos-announcement-1";

/// The signature over all other fields.
pub fn sign(key: &NodeKey, fields: &BTreeMap<String, String>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key.sign(&message(fields)))
}

/// Whether the fields were signed by `id`.
pub fn holds(id: &NodeId, fields: &BTreeMap<String, String>) -> bool {
    let signature = fields.get(FIELD).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    signature
        .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
        .is_some_and(|bytes| id.verify(&message(fields), &bytes))
}

/// Each field with its length, so that no two lists of fields read the same.
fn message(fields: &BTreeMap<String, String>) -> Vec<u8> {
    let mut message = PURPOSE.as_bytes().to_vec();
    for (key, value) in fields.iter().filter(|(key, _)| *key != FIELD) {
        for text in [key, value] {
            message.extend_from_slice(&(text.len() as u32).to_be_bytes());
            message.extend_from_slice(text.as_bytes());
        }
    }
    message
}
