//! Types that several kinds share (official `apis/nodecore/v1alpha1/common.go` and its neighbours).

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::market::{Quantity, QuantityError};

/// Where a piece of work stands. The official spellings, `Timed Out` with its space.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the variants are their own words
pub enum Phase {
    Solved,
    Failed,
    Running,
    Allocating,
    #[default]
    Idle,
    #[serde(rename = "Timed Out")]
    TimedOut,
    Active,
    Pending,
    Inactive,
}

impl Phase {
    /// Returns the official spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Solved => "Solved",
            Self::Failed => "Failed",
            Self::Running => "Running",
            Self::Allocating => "Allocating",
            Self::Idle => "Idle",
            Self::TimedOut => "Timed Out",
            Self::Active => "Active",
            Self::Pending => "Pending",
            Self::Inactive => "Inactive",
        }
    }

    /// Says whether nothing follows by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Solved | Self::Failed | Self::TimedOut)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A phase with its reason and its times (RFC 3339).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PhaseStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When the phase last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
}

/// A reference to another object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct GenericRef {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// Who a node is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NodeIdentity {
    /// What its owner calls itself. A claim.
    #[serde(default)]
    pub domain: String,
    /// The node's own name for itself; ours is the last part of its DID.
    #[serde(rename = "nodeID", default)]
    pub node_id: String,
    /// Where REAR answers, `ip:port`.
    #[serde(default)]
    pub ip: String,
    /// What else is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_information: Option<AdditionalInformation>,
}

/// What else is known about a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct AdditionalInformation {
    /// Liqo cluster id of an official node.
    #[serde(rename = "liqoID", default, skip_serializing_if = "Option::is_none")]
    pub liqo_id: Option<String>,
    /// `did:key` of a node that proves itself (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// Name that its owner gave it (ours). A claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What kind of thing is traded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlavorType {
    /// CPU, memory and pods of a cluster.
    #[default]
    K8Slice,
    /// A virtual machine.
    VM,
    /// A service that somebody runs.
    Service,
    /// A sensor.
    Sensor,
}

impl FlavorType {
    /// Returns the spelling in the API; REAR writes it in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::K8Slice => "K8Slice",
            Self::VM => "VM",
            Self::Service => "Service",
            Self::Sensor => "Sensor",
        }
    }
}

/// What exactly is bought, in the shape of its type.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Configuration {
    /// Which type.
    #[serde(rename = "type")]
    pub flavor_type: FlavorType,
    /// The type's own fields.
    #[schemars(schema_with = "raw_object")]
    pub data: Value,
}

/// What is looked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Which type.
    pub flavor_type: FlavorType,
    /// Filters of that type; absent takes anything.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "raw_object")]
    pub filters: Value,
}

/// Where measurements are to be sent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct TelemetryServer {
    /// Address of the server.
    pub endpoint: String,
    /// Which intents it wants measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<String>,
}

/// Name and namespace of an object that stands inside another.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct EmbeddedMeta {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// The text of a quantity, as it was written. Integers are accepted too, as official inputs write them.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct QuantityText(pub String);

impl QuantityText {
    /// Returns the exact quantity; an empty text is 0.
    ///
    /// # Errors
    /// [`QuantityError`] if the text is not a quantity.
    pub fn parse(&self) -> Result<Quantity, QuantityError> {
        if self.0.is_empty() { Ok(Quantity::default()) } else { Quantity::parse(&self.0) }
    }
}

impl<T: Into<String>> From<T> for QuantityText {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl<'de> Deserialize<'de> for QuantityText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            Value::Null => Ok(Self::default()),
            other => Err(serde::de::Error::custom(format!("observed {other}, needed a quantity"))),
        }
    }
}

impl JsonSchema for QuantityText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true})
    }
}

/// Schema of an object whose fields we do not prescribe.
pub(crate) fn raw_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
