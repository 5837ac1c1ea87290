//! Broker: a message broker over which nodes announce themselves. The type only: nothing connects to it yet.

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

/// Official nodes never write it. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatus {
    /// Until when.
    pub expiration_time: String,
    /// Last change.
    pub last_update_time: String,
}
