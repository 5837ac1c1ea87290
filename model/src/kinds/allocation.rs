//! Allocation: a contract in use.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GenericRef;

/// Which contract is in use.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "Allocation",
    plural = "allocations",
    shortname = "alloc",
    shortname = "allocs",
    namespaced,
    status = "AllocationStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Contract","type":"string","jsonPath":".spec.contract.name"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(default)]
pub struct AllocationSpec {
    /// The contract.
    pub contract: GenericRef,
    /// Unused by official nodes.
    pub forwarding: bool,
}

/// How its use stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocationStatus {
    /// Where it stands.
    pub status: AllocationPhase,
    /// When it last changed (RFC 3339).
    pub last_update_time: String,
    /// Why, in words.
    pub message: String,
    /// How many of the buyer's pods have to yield now, as the contract says (ours).
    #[serde(skip_serializing_if = "is_none")]
    pub yielding: u64,
    /// What came of it: the virtual node at the buyer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_ref: Option<GenericRef>,
}

fn is_none(pods: &u64) -> bool {
    *pods == 0
}

/// Where an allocation stands, in the official spellings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the variants are their own words
pub enum AllocationPhase {
    Active,
    Provisioning,
    ResourceCreation,
    Peering,
    Released,
    #[default]
    Inactive,
    Error,
}
