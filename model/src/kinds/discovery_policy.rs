//! DiscoveryPolicy (§6.4.1): through which approaches a node makes itself known, and whom it takes into its peering
//! candidates database.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KnownClusterSource, KnownClusterTrust};

/// Outgoing: what is announced, and where. Incoming: who is taken. Several policies all count: a node is announced by an
/// approach if every policy allows it, and a candidate is taken if every policy takes it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "network.fluidos.eu",
    version = "v1alpha1",
    kind = "DiscoveryPolicy",
    plural = "discoverypolicies",
    shortname = "dpol",
    namespaced,
    status = "DiscoveryPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Multicast","type":"string","jsonPath":".status.multicast.state"}"#,
    printcolumn = r#"{"name":"Heard","type":"integer","jsonPath":".status.multicast.heard"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct DiscoveryPolicySpec {
    /// How this node makes itself known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<OutgoingDiscovery>,
    /// Who becomes a peering candidate. It does not judge those that the owner named (`--peer`, or by hand).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<IncomingDiscovery>,
}

/// How a node makes itself known.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct OutgoingDiscovery {
    /// By which approaches: Multicast, Catalog. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approaches: Option<Vec<KnownClusterSource>>,
    /// Names of the features that are told. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Whether what is sold here is announced in catalogs, as an unknown buyer would be told. Absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<bool>,
    /// Whether this node says in catalogs how it has fared with sellers of which it has bought. It tells everybody there whose customer
    /// this node is, so absent is no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opinions: Option<bool>,
    /// Further features of this node, such as `hardware: lidar`. Keys and values are as of labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Who becomes a peering candidate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct IncomingDiscovery {
    /// Found by which approaches: Multicast, Inbound, Catalog. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approaches: Option<Vec<KnownClusterSource>>,
    /// Features that it must have, each with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Rules over its features. All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<FeatureRequirement>,
    /// The least trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_trust: Option<KnownClusterTrust>,
    /// The least rating, 0 to 100. Who has none yet passes: everybody was new once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub minimum_rating: Option<u8>,
}

/// A rule over one feature, as in a label selector of Kubernetes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct FeatureRequirement {
    /// Name of the feature, such as `country`.
    pub key: String,
    /// How it is compared.
    pub operator: FeatureOperator,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a feature is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureOperator {
    /// It is one of the values.
    In,
    /// It is none of the values, or is not told.
    NotIn,
    /// It is told.
    Exists,
    /// It is not told.
    DoesNotExist,
}

/// What discovery does and saw. Written on the policy `default` alone, which the node makes if there is none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryPolicyStatus {
    /// What is wrong with this policy; empty if nothing is. A policy that cannot be read takes nobody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How multicast DNS stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast: Option<MulticastStatus>,
    /// The last nodes that were not taken, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedPeer>,
}

/// How multicast DNS stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct MulticastStatus {
    /// Whether it is on.
    pub state: MulticastState,
    /// Announcements of other nodes that were heard since the start, refused ones too.
    pub heard: u64,
}

/// Whether a node announces itself by multicast DNS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastState {
    /// It announces itself and listens.
    Announcing,
    /// It only listens, as a policy says.
    Listening,
    /// It was started with `--no-mdns`.
    Off,
}

/// A node that was not taken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct RejectedPeer {
    /// What it calls itself, or where it was seen; its key if that is known.
    pub peer: String,
    /// Which policy or rule of discovery, the observed and the needed.
    pub reason: String,
    /// When, the last time (RFC 3339).
    pub at: String,
}
