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
    printcolumn = r#"{"name":"Owner","type":"string","priority":1,"jsonPath":".status.identity.owner.value"}"#,
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
    /// What is known of who it is, since it has shown its credentials to this process (ours).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<KnownClusterIdentity>,
}

/// What is known of who a node is, beyond its key. Only what somebody whom this owner trusts says is proven.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownClusterIdentity {
    /// Why its key counts for nothing; empty if it counts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// The Acquaintance that it is: the DID under which it was met first. Absent: a stranger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// DID of the owner who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<ProvenFact>,
    /// The domain of that owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<ProvenFact>,
    /// How well each of its attributes is known; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<AttributeEvidence>,
    /// What it has shown that counts for nothing, and why; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One proven thing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct ProvenFact {
    /// What is proven.
    pub value: String,
    /// DID of whose word it is.
    pub by: String,
    /// When it must be proven anew (RFC 3339).
    pub until: String,
}

/// How well an attribute of a node is known.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct AttributeEvidence {
    /// Such as `country`.
    pub name: String,
    /// Such as `Italy`.
    pub value: String,
    /// How well. Absent: a measurement has refuted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<AttributeLevel>,
    /// DID of whose word it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When that word ends (RFC 3339); a claim stands as long as the node makes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// What a measurement took off it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How well an attribute is known. A later one is better.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeLevel {
    /// The node says so.
    Claimed,
    /// A probe of this node says so.
    Measured,
    /// A certifier whom this owner trusts says so.
    Audited,
    /// Hardware says so, as an attester whom this owner trusts has verified.
    Attested,
}

impl AttributeLevel {
    /// All of them, the least first, each with its word in policies and tables.
    pub const WORDS: [(Self, &'static str); 4] = [
        (Self::Claimed, "claimed"),
        (Self::Measured, "measured"),
        (Self::Audited, "audited"),
        (Self::Attested, "attested"),
    ];

    /// Returns the word.
    pub fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(level, _)| *level == self).map_or("", |(_, word)| word)
    }
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
