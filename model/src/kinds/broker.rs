//! Broker: a message broker over which nodes announce themselves. It is stored as official nodes write it; nothing connects to it,
//! and its condition `Connected` says so.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the broker is and what is said there.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "network.fluidos.eu",
    version = "v1alpha1",
    kind = "Broker",
    plural = "brokers",
    shortname = "broker",
    shortname = "brokers",
    namespaced,
    status = "BrokerStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".spec.role"}"#,
    printcolumn = r#"{"name":"Connected","type":"string","jsonPath":".status.conditions[?(@.type==\"Connected\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Connected\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct BrokerSpec {
    /// Its name.
    pub name: String,
    /// Its host; the port is 5671.
    pub address: String,
    /// `publisher`, `subscriber`; anything else is both.
    pub role: String,
    /// Which announcements are wanted, as JSON text.
    pub rule: String,
    /// What is announced, as JSON text.
    pub metric: String,
    /// Secret with `CA_cert.pem`.
    pub cacert: String,
    /// Secret with `tls.crt` and `tls.key`.
    pub clcert: String,
}

/// How it stands. Times are RFC 3339; official nodes have the two of them and never write them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatus {
    /// Until when.
    pub expiration_time: String,
    /// Last change.
    pub last_update_time: String,
    /// Ours: `Connected`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
}

/// One thing that holds or does not, as Kubernetes says it (`metav1.Condition`).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    /// Of what: `Connected`, `Peering`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// One word why.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Since when, RFC 3339.
    pub last_transition_time: String,
    /// Of which version of the spec.
    #[serde(default)]
    pub observed_generation: i64,
}

impl Broker {
    /// Returns the condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&StatusCondition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
    }
}
