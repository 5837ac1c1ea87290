//! ServiceBlueprint: how a service that is sold is made, and what stands of it in flavors and configurations. What it means is in
//! [`crate::service`].

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FlavorPrice;
use super::shared::raw_object;

/// A service and the manifests that make it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "ServiceBlueprint",
    plural = "serviceblueprints",
    shortname = "sbp",
    namespaced,
    status = "ServiceBlueprintStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Category","type":"string","jsonPath":".spec.category"}"#,
    printcolumn = r#"{"name":"Accepted","type":"boolean","jsonPath":".status.accepted"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBlueprintSpec {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Such as `database`.
    pub category: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where it may run: `Provider`, `Consumer`, `Shared`.
    pub hosting_policies: Vec<String>,
    /// What makes it.
    pub templates: Vec<ServiceTemplate>,
    /// JSON Schema of what a buyer configures (ours): `properties` are placeholders. Absent: each placeholder that is no credential is a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "raw_object")]
    pub configuration_template: Option<Value>,
    /// What is made for each buyer (ours). Absent: the placeholder `password`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Vec<BlueprintCredential>>,
    /// The price of the service (ours); absent is what the SharingPolicy says for its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<FlavorPrice>,
    /// Name of the SharingPolicy whose buyers, hold, term, credit limit and conditions count (ours); absent is the first that admits the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing_policy: Option<String>,
}

/// A secret text that is made at purchase.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct BlueprintCredential {
    /// The placeholder that it fills, and its key in the buyer's Secret.
    pub name: String,
    /// Letters and digits, 22 to 128, of 5.95 bits each; absent is 24.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
}

/// `typeData` of a flavor of the type Service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceFlavor {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Such as `database`.
    pub category: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where it may run.
    pub hosting_policies: Vec<String>,
    /// JSON Schema of what a buyer configures.
    pub configuration_template: Value,
    /// How it is sold beyond its price (ours).
    pub policies: ServicePolicies,
    /// Name of the ServiceBlueprint at its seller (ours).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub blueprint: String,
}

/// How a service is sold beyond its price.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(default)]
pub struct ServicePolicies {
    /// What both sign, in the words of [`crate::market::Conditions`]; absent are the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Value>,
}

/// `configuration.data` of a service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceConfiguration {
    /// Where it runs; absent is `Provider`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosting_policy: Option<String>,
    /// What is configured, as the flavor's `configurationTemplate` says.
    pub configuration_data: Value,
}

/// One manifest with placeholders.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The manifest.
    #[schemars(schema_with = "raw_object")]
    pub service_data: Value,
}

/// The flavors that came of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceBlueprintStatus {
    /// Their names.
    pub service_flavors: Vec<String>,
    /// Whether it is sold (ours).
    pub accepted: bool,
    /// Why not, in words (ours).
    pub message: String,
}
