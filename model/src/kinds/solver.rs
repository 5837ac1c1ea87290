//! Solver: what somebody is looking for, and how far the search is to go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Phase, PhaseStatus, Selector};

/// What is looked for and what is to be done with what is found.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "Solver",
    plural = "solvers",
    shortname = "sol",
    namespaced,
    status = "SolverStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Intent ID","type":"string","jsonPath":".spec.intentID"}"#,
    printcolumn = r#"{"name":"Find Candidate","type":"boolean","jsonPath":".spec.findCandidate"}"#,
    printcolumn = r#"{"name":"Reserve and Buy","type":"boolean","jsonPath":".spec.reserveAndBuy"}"#,
    printcolumn = r#"{"name":"Peering","type":"boolean","jsonPath":".spec.establishPeering"}"#,
    printcolumn = r#"{"name":"Candidate Phase","type":"string","priority":1,"jsonPath":".status.findCandidate"}"#,
    printcolumn = r#"{"name":"Reserving Phase","type":"string","priority":1,"jsonPath":".status.reserveAndBuy"}"#,
    printcolumn = r#"{"name":"Peering Phase","type":"string","priority":1,"jsonPath":".status.peering"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.solverPhase.phase"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.solverPhase.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SolverSpec {
    /// What is looked for; absent finds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// The intent this search serves.
    #[serde(rename = "intentID")]
    pub intent_id: String,
    /// Look for candidates.
    #[serde(default)]
    pub find_candidate: bool,
    /// Reserve the best one and buy it.
    #[serde(default)]
    pub reserve_and_buy: bool,
    /// Make it usable as a node.
    #[serde(default)]
    pub establish_peering: bool,
    /// The spelling that older tools send; read through [`SolverSpec::wants_peering`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enstablish_peering: Option<bool>,
}

impl SolverSpec {
    /// Says whether peering is asked for, in either spelling.
    pub fn wants_peering(&self) -> bool {
        self.establish_peering || self.enstablish_peering.unwrap_or(false)
    }
}

/// How far the search is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SolverStatus {
    /// Looking for candidates.
    pub find_candidate: Phase,
    /// Reserving and buying.
    pub reserve_and_buy: Phase,
    /// Peering.
    pub peering: Phase,
    /// Of the discovery that was started.
    pub discovery_phase: Phase,
    /// Of the reservation that was started.
    pub reservation_phase: Phase,
    /// Of the allocation that was started.
    pub consume_phase: Phase,
    /// Altogether, with the reason in words.
    pub solver_phase: PhaseStatus,
}
