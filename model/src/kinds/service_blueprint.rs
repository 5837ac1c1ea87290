//! ServiceBlueprint: how a service that is sold is made. The type only: nothing acts on it yet.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
}
