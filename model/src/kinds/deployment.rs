//! FLUIDOSDeployment: a workload manifest with intents, wrapped. `spec` *is* the manifest, or holds it in `pod_manifest`.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shared::raw_object;

/// The manifest, raw.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "fluidos.eu",
    version = "v1",
    kind = "FLUIDOSDeployment",
    plural = "fluidosdeployments",
    singular = "fluidosdeployment",
    shortname = "fd",
    namespaced,
    status = "FLUIDOSDeploymentStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.metaorchestration.status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(transparent)]
pub struct FLUIDOSDeploymentSpec(pub Value);

impl FLUIDOSDeploymentSpec {
    /// Returns the manifest inside, in either of the two shapes.
    pub fn manifest(&self) -> &Value {
        match &self.0["pod_manifest"] {
            nested @ Value::Object(_) => nested,
            _ => &self.0,
        }
    }
}

/// What came of it: `metaorchestration{status, msg, deployed{resource_provider, expandind_resources}}`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(transparent)]
pub struct FLUIDOSDeploymentStatus(pub Value);

impl JsonSchema for FLUIDOSDeploymentSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FLUIDOSDeploymentSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        raw_object(generator)
    }
}

impl JsonSchema for FLUIDOSDeploymentStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FLUIDOSDeploymentStatus".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        raw_object(generator)
    }
}
