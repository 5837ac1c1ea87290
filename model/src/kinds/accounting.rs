//! Account: the running books of one contract. Receipt: one interval of it that both parties have signed. Invoice: one month of it.
//!
//! They outlive their contract: what was used is owed after it has ended. Their contents are those of the two parties, and stand
//! with them only.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SignedTerms;
use super::shared::raw_object;
use crate::receipt::Meter;

/// Whether a contract was sold here or bought.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the variants are their own words
pub enum Direction {
    #[default]
    Sold,
    Bought,
}

impl Direction {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sold => "Sold",
            Self::Bought => "Bought",
        }
    }
}

/// Of which contract.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "accounting.fluidos.eu",
    version = "v1alpha1",
    kind = "Account",
    plural = "accounts",
    shortname = "acct",
    namespaced,
    status = "AccountStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Direction","type":"string","jsonPath":".spec.direction"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Receipts","type":"integer","jsonPath":".status.number"}"#,
    printcolumn = r#"{"name":"Seconds","type":"integer","jsonPath":".status.servedSeconds"}"#,
    printcolumn = r#"{"name":"Disputed","type":"integer","jsonPath":".status.disputed"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Peer","type":"string","priority":1,"jsonPath":".spec.peer"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AccountSpec {
    /// Its name, which is the account's, too.
    pub contract: String,
    /// Whether this node sold or bought.
    pub direction: Direction,
    /// DID of the other party.
    pub peer: String,
    /// Where its REAR was when the account was opened, `ip:port`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_address: String,
    /// The contract, as both have signed it.
    pub signed_terms: SignedTerms,
}

/// Where an account stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccountPhase {
    /// The contract runs.
    #[default]
    Open,
    /// The contract is over, and not all has its receipt.
    Closing,
    /// Everything has its receipt.
    Settled,
    /// The other party has given no receipt for too long, and none is expected any more.
    Unsettled,
}

/// How it stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountStatus {
    /// Where it stands.
    pub phase: AccountPhase,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Number of the last receipt.
    pub number: u64,
    /// Its digest; empty before the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Where it ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Seconds of the whole contract that all receipts charge.
    pub served_seconds: u64,
    /// Receipts with a disputed line.
    pub disputed: u64,
    /// What this node measures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<Meter>,
    /// By how many seconds the seller's clock was ahead of this node's when the contract was made, if it was far off.
    #[serde(skip_serializing_if = "is_zero")]
    pub clock_ahead_seconds: i64,
    /// The last renewal of the contract: at the seller signed by both, at the buyer at least by itself, which binds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<SignedTerms>,
    /// DIDs to which the buyer's key was handed over since the contract was signed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buyer_keys: Vec<String>,
    /// Likewise of the seller's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seller_keys: Vec<String>,
    /// Since when the other party has been asked in vain (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<String>,
}

fn is_zero(seconds: &i64) -> bool {
    *seconds == 0
}

/// What was signed.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "accounting.fluidos.eu",
    version = "v1alpha1",
    kind = "Receipt",
    plural = "receipts",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Contract","type":"string","jsonPath":".spec.contract"}"#,
    printcolumn = r#"{"name":"Number","type":"integer","jsonPath":".spec.number"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.from"}"#,
    printcolumn = r#"{"name":"Until","type":"string","jsonPath":".spec.until"}"#,
    printcolumn = r#"{"name":"Served","type":"integer","jsonPath":".spec.servedSeconds"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".spec.state"}"#,
    printcolumn = r#"{"name":"Digest","type":"string","priority":1,"jsonPath":".spec.digest"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptSpec {
    /// Of which contract.
    pub contract: String,
    /// From 1.
    pub number: u64,
    /// When its interval began (RFC 3339).
    pub from: String,
    /// When it ended.
    pub until: String,
    /// Seconds of the whole contract that it charges: in which it was served, or of what is paid per use in which it was used.
    pub served_seconds: u64,
    /// `Agreed`, or `Disputed` if one of its lines is.
    pub state: String,
    /// SHA-256 of the signed bytes.
    pub digest: String,
    /// The exact bytes that both parties signed, with their signatures: everything above follows from them.
    pub signed: SignedTerms,
}

/// What is owed for a month.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "accounting.fluidos.eu",
    version = "v1alpha1",
    kind = "Invoice",
    plural = "invoices",
    namespaced,
    status = "InvoiceStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Contract","type":"string","jsonPath":".spec.contract"}"#,
    printcolumn = r#"{"name":"Month","type":"string","jsonPath":".spec.month"}"#,
    printcolumn = r#"{"name":"Direction","type":"string","jsonPath":".spec.direction"}"#,
    printcolumn = r#"{"name":"Due","type":"string","jsonPath":".spec.due"}"#,
    printcolumn = r#"{"name":"Payment","type":"string","jsonPath":".status.payment"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct InvoiceSpec {
    /// Of which contract.
    pub contract: String,
    /// Which month of UTC, `2026-11`.
    pub month: String,
    /// Whether this node is paid or pays.
    pub direction: Direction,
    /// What is to be paid, in words.
    pub due: String,
    /// SHA-256 of the document's canonical form, the same at both parties.
    pub digest: String,
    /// The invoice.
    #[schemars(schema_with = "raw_object")]
    pub document: Value,
}

/// Whether it is paid.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct InvoiceStatus {
    /// `Open`, `Claimed` (the buyer says so) or `Acknowledged` (the seller says so).
    pub payment: PaymentState,
    /// The signed words of the parties.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<SignedTerms>,
}

/// Who says that it is paid.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PaymentState {
    /// Nobody.
    #[default]
    Open,
    /// The buyer.
    Claimed,
    /// The seller.
    Acknowledged,
}

impl PaymentState {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Claimed => "Claimed",
            Self::Acknowledged => "Acknowledged",
        }
    }
}
