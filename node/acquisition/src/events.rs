//! Events: what was done about an object, for who looks at it.

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};

use crate::{MANAGER, bounded};

/// Kubernetes refuses longer messages.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// Writes a warning about an object. Events are a courtesy: one that cannot be written is only logged.
pub(crate) async fn warn<K: Resource<DynamicType = ()>>(client: &Client, about: &K, reason: &str, message: &str) {
    write(client, about, "Warning", reason, message).await;
}

/// Writes what was done about an object, in the same way.
pub(crate) async fn tell<K: Resource<DynamicType = ()>>(client: &Client, about: &K, reason: &str, message: &str) {
    write(client, about, "Normal", reason, message).await;
}

async fn write<K: Resource<DynamicType = ()>>(client: &Client, about: &K, kind: &str, reason: &str, message: &str) {
    let now = Time(jiff::Timestamp::now());
    let namespace = about.namespace();
    let event = Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", about.name_any())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(about.name_any()),
            namespace: namespace.clone(),
            uid: about.uid(),
            ..ObjectReference::default()
        },
        type_: Some(kind.into()),
        reason: Some(reason.into()),
        message: Some(bounded(message, MESSAGE_LENGTH_MAX)),
        reporting_component: Some(MANAGER.into()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api = Api::<Event>::namespaced(client.clone(), namespace.as_deref().unwrap_or("default"));
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        tracing::debug!(object = about.name_any(), %error, "event not written");
    }
}
