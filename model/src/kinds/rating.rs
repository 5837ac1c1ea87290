//! Rating (§6.4.5, ratings and metrics database): what this node has seen of a peer, and what others say of it whose word counts here. One
//! for each peer, named as its KnownCluster.
//!
//! The value and what is behind it are computed by [`crate::rating`]; a peer of which nothing was seen has no value, which is
//! shown as `?`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom it is about.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "security.fluidos.eu",
    version = "v1alpha1",
    kind = "Rating",
    plural = "ratings",
    namespaced,
    status = "RatingStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Peer","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Value","type":"string","jsonPath":".status.shown"}"#,
    printcolumn = r#"{"name":"Global","type":"string","jsonPath":".status.globalShown"}"#,
    printcolumn = r#"{"name":"Weight","type":"string","jsonPath":".status.weight"}"#,
    printcolumn = r#"{"name":"Observations","type":"integer","jsonPath":".status.count"}"#,
    printcolumn = r#"{"name":"Latency us","type":"integer","jsonPath":".status.roundTripMicros"}"#,
    printcolumn = r#"{"name":"DID","type":"string","priority":1,"jsonPath":".spec.did"}"#,
    printcolumn = r#"{"name":"Last","type":"string","jsonPath":".status.last"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct RatingSpec {
    /// Its key.
    pub did: String,
    /// What it calls itself. A claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// What was seen, and what follows from it. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RatingStatus {
    /// From 0 (never what was promised) to 100 (always). Absent if nothing was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u8>,
    /// The value as text, `?` if there is none.
    pub shown: String,
    /// From 0 to 100: what was seen here together with what others say in catalogs, weighed by what their authors have proven to this node
    /// ([`crate::rating::combine`]). Absent if nobody whose word counts has said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<u8>,
    /// That value as text, `?` if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub global_shown: String,
    /// How many words of others are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opinions: Option<u32>,
    /// What the observations weigh today, two decimals: the value of a light one says little.
    pub weight: String,
    /// Observations ever made, those folded included.
    pub count: u64,
    /// An observation counts half after so many days.
    pub half_life_days: u32,
    /// The last measured round trip. It is not judged: nobody has promised one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_micros: Option<u64>,
    /// The newest observation in words.
    pub last: String,
    /// The newest observations, newest first, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observations: Vec<RatingObservation>,
    /// What is left of older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded: Option<FoldedObservations>,
}

impl RatingStatus {
    /// Returns the value by which a peer is judged: what was seen here, or what others say if nothing was.
    pub fn judged(&self) -> Option<u8> {
        self.value.or(self.global)
    }
}

/// One thing that was seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct RatingObservation {
    /// What it was.
    pub kind: ObservationKind,
    /// When.
    pub at: String,
    /// Of what it was seen, once each: an object's uid, or a day.
    pub id: String,
}

/// What can be seen of a peer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObservationKind {
    /// It sold what it had offered.
    OfferHonoured,
    /// It refused to hold or to sell what it had offered.
    OfferRefused,
    /// What was bought came into use.
    Delivered,
    /// What was bought did not come into use.
    NotDelivered,
    /// A contract was over although its time was not, and not by our doing.
    ContractBroken,
    /// It has shown a log that does not continue the one it had shown before.
    HistoryRewritten,
    /// It has paid an invoice over more than 0, as this node has acknowledged.
    Paid,
    /// It has bought, and has not signed the receipts of it within 31 days of the end.
    ReceiptsWithheld,
    /// The link to it was up, seen once a day.
    LinkUp,
    /// The link to it was lost, seen once a day at most.
    LinkLost,
}

/// Observations that are kept as a sum: their weights as of one time, in thousandths.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct FoldedObservations {
    /// As of when the weights are.
    pub at: String,
    /// Weight of the good ones.
    pub good_milli: u64,
    /// Weight of the bad ones.
    pub bad_milli: u64,
    /// Weight of the good ones that are about deals, of [`FoldedObservations::good_milli`].
    pub good_deals_milli: u64,
    /// How many they were.
    pub count: u64,
}
