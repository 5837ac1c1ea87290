//! Reservation: what is to be reserved and bought from one candidate.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Configuration, FlavorPrice, GenericRef, NodeIdentity, Phase, PhaseStatus, SignedTerms, TelemetryServer};
use crate::market::Conditions;

/// What is to be reserved and bought.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "reservation.fluidos.eu",
    version = "v1alpha1",
    kind = "Reservation",
    plural = "reservations",
    shortname = "res",
    namespaced,
    status = "ReservationStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Solver ID","type":"string","jsonPath":".spec.solverID"}"#,
    printcolumn = r#"{"name":"Reserve","type":"boolean","jsonPath":".spec.reserve"}"#,
    printcolumn = r#"{"name":"Purchase","type":"boolean","jsonPath":".spec.purchase"}"#,
    printcolumn = r#"{"name":"Seller","type":"string","jsonPath":".spec.seller.domain"}"#,
    printcolumn = r#"{"name":"Peering Candidate","type":"string","priority":1,"jsonPath":".spec.peeringCandidate.name"}"#,
    printcolumn = r#"{"name":"Transaction ID","type":"string","priority":1,"jsonPath":".status.transactionID"}"#,
    printcolumn = r#"{"name":"Reserve Phase","type":"string","jsonPath":".status.reservePhase"}"#,
    printcolumn = r#"{"name":"Purchase Phase","type":"string","jsonPath":".status.purchasePhase"}"#,
    printcolumn = r#"{"name":"Contract","type":"string","priority":1,"jsonPath":".status.contract.name"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase.phase"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.phase.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// For which solver.
    #[serde(rename = "solverID")]
    pub solver_id: String,
    /// Who buys.
    pub buyer: NodeIdentity,
    /// Who sells.
    pub seller: NodeIdentity,
    /// What exactly; absent is the whole flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Reserve it.
    #[serde(default)]
    pub reserve: bool,
    /// Buy it; may be set later.
    #[serde(default)]
    pub purchase: bool,
    /// From which candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peering_candidate: Option<GenericRef>,
    /// Where the seller is to send measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_telemetry_endpoint: Option<TelemetryServer>,
    /// Which part of a purchase that is split (ours); absent is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<ReservationPart>,
    /// Why this candidate, in words (ours).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The most that it may cost: what was offered when it was decided on (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<FlavorPrice>,
    /// The conditions that were decided on (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
}

/// One part of a purchase that is split: all are bought, or none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct ReservationPart {
    /// The purchase: the same for all of its parts.
    pub group: String,
    /// Which, from 1.
    pub number: u32,
    /// Of how many.
    pub of: u32,
}

/// How far it is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ReservationStatus {
    /// Altogether, with the reason in words.
    pub phase: PhaseStatus,
    /// Reserving.
    pub reserve_phase: Phase,
    /// Buying.
    pub purchase_phase: Phase,
    /// The seller's name for what is held.
    #[serde(rename = "transactionID", skip_serializing_if = "String::is_empty")]
    pub transaction_id: String,
    /// What the buyer has signed (ours). It stands here before anything is paid: whoever goes on after a crash can take back what
    /// may have been sold, though the seller does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_terms: Option<SignedTerms>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<GenericRef>,
}
