//! Discovery: one look around for a solver. PeeringCandidate: one flavor that was seen.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EmbeddedFlavor, EmbeddedMeta, PhaseStatus, Selector};

/// What to look for and for whom.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "advertisement.fluidos.eu",
    version = "v1alpha1",
    kind = "Discovery",
    plural = "discoveries",
    shortname = "dis",
    namespaced,
    status = "DiscoveryStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Solver ID","type":"string","jsonPath":".spec.solverID"}"#,
    printcolumn = r#"{"name":"PC Namespace","type":"string","priority":1,"jsonPath":".status.peeringCandidateList.items[0].metadata.namespace"}"#,
    printcolumn = r#"{"name":"PC Name","type":"string","jsonPath":".status.peeringCandidateList.items[0].metadata.name"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase.phase"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.phase.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverySpec {
    /// For which solver.
    #[serde(rename = "solverID")]
    pub solver_id: String,
    /// What is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Whether to be told of changes. Not built: only false is acted on.
    #[serde(default)]
    pub subscribe: bool,
}

/// What was found.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryStatus {
    /// How far it is.
    pub phase: PhaseStatus,
    /// The candidates, best first.
    pub peering_candidate_list: PeeringCandidateList,
}

/// A list of candidates inside another object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(default)]
pub struct PeeringCandidateList {
    /// The candidates.
    pub items: Vec<EmbeddedPeeringCandidate>,
}

/// A candidate inside another object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(default)]
pub struct EmbeddedPeeringCandidate {
    /// Its name and namespace.
    pub metadata: EmbeddedMeta,
    /// What it is.
    pub spec: PeeringCandidateSpec,
    /// When it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PeeringCandidateStatus>,
}

/// One flavor that a known node offers.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "advertisement.fluidos.eu",
    version = "v1alpha1",
    kind = "PeeringCandidate",
    plural = "peeringcandidates",
    namespaced,
    status = "PeeringCandidateStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Provider ID","type":"string","jsonPath":".spec.flavor.spec.providerID"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.flavor.spec.flavorType.typeIdentifier"}"#,
    printcolumn = r#"{"name":"Available","type":"boolean","jsonPath":".spec.available"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PeeringCandidateSpec {
    /// Who is interested.
    #[serde(rename = "interestedSolverIDs", default)]
    pub interested_solver_ids: Vec<String>,
    /// What is offered.
    pub flavor: EmbeddedFlavor,
    /// Whether nobody has taken it.
    #[serde(default)]
    pub available: bool,
    /// The one interested solver of older files. Read only.
    #[serde(rename = "solverID", default, skip_serializing_if = "Option::is_none")]
    pub solver_id: Option<String>,
    /// The opposite of `available` in older files. Read only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<bool>,
    /// DID of the seller, proven when it was asked (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller_did: Option<String>,
}

/// When it was seen. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PeeringCandidateStatus {
    /// First.
    pub creation_time: String,
    /// Last.
    pub last_update_time: String,
}
