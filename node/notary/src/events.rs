//! Events about the TransparencyLog, for who looks at it.

use fluidos_model::kinds::{TransparencyLog, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource as _};

use crate::MANAGER;

/// Kubernetes refuses longer messages.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// Writes an event. It is a courtesy: one that cannot be written is only logged.
pub(crate) async fn write(client: &Client, warning: bool, reason: &str, message: &str) {
    let now = Time(Timestamp::now());
    let event = Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", names::LOG)),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(TransparencyLog::api_version(&()).into_owned()),
            kind: Some(TransparencyLog::kind(&()).into_owned()),
            name: Some(names::LOG.into()),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectReference::default()
        },
        type_: Some(if warning { "Warning" } else { "Normal" }.into()),
        reason: Some(reason.into()),
        message: Some(message.chars().take(MESSAGE_LENGTH_MAX).collect()),
        reporting_component: Some(MANAGER.into()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api = Api::<Event>::namespaced(client.clone(), names::NAMESPACE);
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        tracing::debug!(reason, %error, "event not written");
    }
}
