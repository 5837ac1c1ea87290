//! KnownCluster: a node that somebody told us about. Together they are the peering candidates database.
//!
//! A neighbour *expires* if and only if its `status.expirationTime` is a time and that time is over; one with an empty
//! status stays, as with official nodes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a node answers and what is known about it. Only `address` is official.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "network.fluidos.eu",
    version = "v1alpha1",
    kind = "KnownCluster",
    plural = "knownclusters",
    shortname = "kclust",
    shortname = "kclusts",
    namespaced,
    status = "KnownClusterStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Link","type":"string","jsonPath":".status.link.state"}"#,
    printcolumn = r#"{"name":"Trust","type":"string","jsonPath":".spec.trust"}"#,
    printcolumn = r#"{"name":"Source","type":"string","priority":1,"jsonPath":".spec.source"}"#,
    printcolumn = r#"{"name":"DID","type":"string","priority":1,"jsonPath":".spec.did"}"#,
    printcolumn = r#"{"name":"Expiration Time","type":"string","priority":1,"jsonPath":".status.expirationTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct KnownClusterSpec {
    /// Where REAR answers, `ip:port`.
    pub address: String,
    /// `did:key` that it must prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// What it calls itself. A claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its owner calls itself. A claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where else it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<KnownClusterEndpoints>,
    /// What it says it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Who told us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<KnownClusterSource>,
    /// Whether it may receive our workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<KnownClusterTrust>,
}

/// Addresses of a node, `ip:port`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct KnownClusterEndpoints {
    /// REAR over HTTPS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rear: Vec<String>,
    /// The link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<String>,
}

/// Who told us about a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownClusterSource {
    /// The owner, by hand.
    Static,
    /// Multicast DNS.
    Multicast,
    /// It came to us.
    Inbound,
    /// A broker.
    Broker,
    /// A catalog.
    Catalog,
}

/// Whether a node may receive our workloads.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownClusterTrust {
    /// It may.
    Trusted,
    /// It may not; it can be bought from and sold to.
    Untrusted,
}

/// What is seen of it. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownClusterStatus {
    /// When it is forgotten unless it is seen again; empty is never.
    pub expiration_time: String,
    /// When it was last seen.
    pub last_update_time: String,
    /// How the link to it stands (ours).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<KnownClusterLink>,
}

/// How the link to a node stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownClusterLink {
    /// Up or not.
    pub state: LinkState,
    /// Since when (RFC 3339).
    pub since: String,
    /// Round-trip time in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_micros: Option<u64>,
    /// Why it is not up, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether a link is up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is.
    Up,
    /// It was.
    Down,
    /// It is being tried.
    Dialing,
}
