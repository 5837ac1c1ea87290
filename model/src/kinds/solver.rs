//! Solver: what somebody is looking for, and how far the search is to go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Configuration, LedgerAmounts, LedgerError, Phase, PhaseStatus, Selector};
use crate::market::{PARTS_MAX, Split};

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
    /// It may be bought in parts from several sellers if none has all of it (ours). Absent: one seller has all of it, or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SolverSplit>,
    /// What is configured of a service (ours), as its flavor's `configurationTemplate` says. Absent is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
}

/// How a purchase may be split. All parts are bought together or none is; each is a contract and a virtual node of its own, so a
/// single pod never spans two.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct SolverSplit {
    /// What every part is a whole number of: the largest pod. It names each resource that has a filter; filters are of the sum, a
    /// `Range` with `min`.
    pub unit: LedgerAmounts,
    /// How many parts at most, 2 to 8; absent is 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

impl SolverSplit {
    /// Returns the rule. What its filters say is checked by [`Split::check`].
    ///
    /// # Errors
    /// [`LedgerError::Quantity`] names the amount that is none.
    pub fn rule(&self) -> Result<Split, LedgerError> {
        let most = self.most.map_or(PARTS_MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        Ok(Split { unit: self.unit.amounts("split.unit")?, most })
    }
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
    /// What was bought, at most 8 (ours). One that has ended is not there any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub contracts: Vec<SolverContract>,
}

/// One contract of a Solver.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct SolverContract {
    /// Its name.
    pub name: String,
    /// Who sells.
    pub peer: String,
    /// Why it was chosen, in words.
    pub why: String,
}
