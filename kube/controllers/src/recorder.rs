//! Events: what a controller has done to an object, told to who looks at it.
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tracing::debug;

use crate::objects::{name, namespace, stamp, uid};

/// Writes events in the name of one controller.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub client: Client,
    pub component: &'static str,
}

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

impl Recorder {
    /// Events are a courtesy: one that cannot be written is only logged. Those of objects without a namespace live in
    /// `default`, as kubectl expects.
    pub async fn event(&self, of: (&str, &str, &ObjectMeta), kind: Kind, reason: &str, message: &str) {
        let (api_version, object_kind, metadata) = of;
        let now = Timestamp::now();
        let home = Some(namespace(metadata)).filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        let event = json!({
            "metadata": {"name": format!("{}.{:x}", name(metadata), now.as_nanosecond()), "namespace": home},
            "involvedObject": {
                "apiVersion": api_version, "kind": object_kind, "name": name(metadata),
                "namespace": metadata.namespace, "uid": uid(metadata), "resourceVersion": metadata.resource_version,
            },
            "type": match kind { Kind::Normal => "Normal", Kind::Warning => "Warning" },
            "reason": reason, "message": message, "count": 1, "firstTimestamp": stamp(now), "lastTimestamp": stamp(now),
            "source": {"component": self.component}, "reportingComponent": self.component, "reportingInstance": "",
        });
        let event: Event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(error) => return debug!(%error, "event not made"),
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), home);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            debug!(object = name(metadata), %error, "event not written");
        }
    }
}
