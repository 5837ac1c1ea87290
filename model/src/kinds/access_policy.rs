//! AccessPolicy (§6.4.5): who may do what here, in the words of Cedar.
//!
//! A policy is *in force* if and only if its text was accepted by the decision point, as a whole. A text that is refused
//! changes nothing: what was accepted of that object before (`status.accepted`) stays in force.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Statements of Cedar. Everything that no statement permits is denied; a `forbid` counts more than every `permit`.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "security.fluidos.eu",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    shortname = "apol",
    namespaced,
    status = "AccessPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Statements","type":"integer","jsonPath":".status.statements"}"#,
    printcolumn = r#"{"name":"Allowed","type":"integer","jsonPath":".status.allowed"}"#,
    printcolumn = r#"{"name":"Denied","type":"integer","jsonPath":".status.denied"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct AccessPolicySpec {
    /// The statements, at most 64 KiB. What they may name is in docs/reference/policy.md.
    #[schemars(length(max = 65536))]
    pub cedar: String,
}

/// What the decision point made of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPolicyStatus {
    /// Whether the text in `spec` is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PolicyState>,
    /// How many statements of this object are in force.
    pub statements: u32,
    /// Why the text is not in force, beginning with its line; empty otherwise.
    pub message: String,
    /// The text that is in force, which is an older one while the one in `spec` is refused.
    pub accepted: String,
    /// Decisions since the node has started in which a statement of this object permitted.
    pub allowed: u64,
    /// Decisions since the node has started in which a statement of this object forbade.
    pub denied: u64,
}

/// Whether a text is in force.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It is.
    InForce,
    /// It could not be read; see the message.
    Refused,
}
