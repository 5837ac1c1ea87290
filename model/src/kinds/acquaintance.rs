//! Acquaintance: a node that this one wants to know again under another key, because there is a contract with it or its owner was
//! named. It is this node's memory of whose word was accepted: lost, an old key that was stolen would be believed again.
//!
//! Hand-overs and revocations are public, signed by whom they are of; no secret is in here.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was accepted about one node.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "security.fluidos.eu",
    version = "v1alpha1",
    kind = "Acquaintance",
    plural = "acquaintances",
    shortname = "acq",
    namespaced,
    status = "AcquaintanceStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Peer","type":"string","jsonPath":".status.name"}"#,
    printcolumn = r#"{"name":"Standing","type":"string","jsonPath":".status.standing"}"#,
    printcolumn = r#"{"name":"Key","type":"string","jsonPath":".status.key"}"#,
    printcolumn = r#"{"name":"Met as","type":"string","priority":1,"jsonPath":".spec.did"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct AcquaintanceSpec {
    /// The key with which it was met first, or under which a contract names it.
    pub did: String,
    /// The hand-overs and the revocation that were accepted, in order: each an envelope in JSON. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Hand-overs of which nobody can say which is a thief's. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Who vouches for its keys, as the node itself has shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vouches: Vec<AcquaintanceVouch>,
}

/// Who vouches for one key.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct AcquaintanceVouch {
    /// Which key.
    pub key: String,
    /// DID of the owner.
    pub owner: String,
    /// The beginning of its word (RFC 3339).
    pub from: String,
    /// The end of its word (RFC 3339).
    pub until: String,
}

/// How it stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct AcquaintanceStatus {
    /// What it calls itself. A claim.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether a key speaks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<AcquaintanceStanding>,
    /// The key that speaks for it; the last one that did, if none does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Why none does, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether a key speaks for a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquaintanceStanding {
    /// One does.
    Current,
    /// Its last one counts no more.
    Revoked,
    /// Nobody can say which: its owner must decide.
    Unknown,
}
