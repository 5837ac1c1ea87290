//! TransparencyLog: the log of this node, of which there is one. In its spec the owner says who witnesses it; its status tells how it
//! stands, and whether the node may sell: a node that has lost records sells nothing until it has them back.
//!
//! The entries are not in it: they are in the node's directory, and `fluidos log` lists them.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who witnesses the log. Without anything said the other parties of contracts do.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "security.fluidos.eu",
    version = "v1alpha1",
    kind = "TransparencyLog",
    plural = "transparencylogs",
    shortname = "tlog",
    namespaced,
    status = "TransparencyLogStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Entries","type":"integer","jsonPath":".status.size"}"#,
    printcolumn = r#"{"name":"Missing","type":"integer","jsonPath":".status.missing"}"#,
    printcolumn = r#"{"name":"Root","type":"string","priority":1,"jsonPath":".status.root"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TransparencyLogSpec {
    /// Whether the other parties of contracts witness. Absent: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterparties: Option<bool>,
    /// Further witnesses, by their DID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub dids: Vec<String>,
    /// Further witnesses: known nodes that have all these labels, such as `feature.fluidos.eu/country: Italy`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// How many witnesses at most, 1 to 64. Absent: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<u32>,
    /// Whether this node sells when none of its witnesses can be asked after a start. Absent: `Sell`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unreachable: Option<WhenUnreachable>,
}

/// What happens while no witness can be asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenUnreachable {
    /// A log that is whole is believed.
    #[default]
    Sell,
    /// Nothing is sold before a witness has answered.
    Wait,
}

/// How the log stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogState {
    /// Nobody has been asked yet; nothing is sold.
    #[default]
    Comparing,
    /// Nothing is known to be missing.
    Complete,
    /// A witness keeps more than this node has, and not all of it is back; nothing is sold.
    Restoring,
}

impl LogState {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Comparing => "Comparing",
            Self::Complete => "Complete",
            Self::Restoring => "Restoring",
        }
    }
}

/// How it stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct TransparencyLogStatus {
    /// Whether the node may sell.
    pub state: LogState,
    /// Why, in words.
    pub message: String,
    /// DID of the node whose log it is: its first key.
    pub origin: String,
    /// How often the log was begun anew.
    pub epoch: u64,
    /// How many entries there are.
    pub size: u64,
    /// The root of the tree.
    pub root: String,
    /// Entries of which only the hash is known.
    pub missing: u64,
    /// What was taken back since the node has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoredRecords>,
    /// Who was asked, and what it keeps.
    pub witnesses: Vec<LogWitness>,
    /// Nodes that have shown two histories, to this one or to it and another witness, in words; each begins with the DID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Nodes of whose log another witness keeps a head that nobody has shown to fit the one that is kept here, in words; each begins with
    /// the DID. That proves nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
}

impl TransparencyLogStatus {
    /// Returns the DIDs of the nodes that have shown two histories.
    pub fn rewriters(&self) -> impl Iterator<Item = &str> {
        self.rewritten.iter().filter_map(|words| words.split_whitespace().next())
    }
}

/// What was taken back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct RestoredRecords {
    /// Contracts.
    pub contracts: u64,
    /// Receipts signed by both.
    pub receipts: u64,
    /// Invoices.
    pub invoices: u64,
    /// What was refused, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// What a node keeps of this log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct LogWitness {
    /// Who.
    pub did: String,
    /// Whether it witnesses; others were asked only.
    pub witness: bool,
    /// How many entries it keeps; absent if it has not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it signed what it keeps, or the origin did (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// `Agrees`, `KeepsMore`, `Differs`, `KeepsNothing` or `Silent`.
    pub state: String,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
