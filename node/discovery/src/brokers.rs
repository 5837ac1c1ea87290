//! Brokers: what official nodes announce themselves over (AMQP). Not built: each says so in its condition, and never that it works.

use fluidos_model::kinds::{Broker, StatusCondition, names};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use substrate_client::Cache;

const CONNECTED: &str = "Connected";
const NOT_BUILT: &str = "NotBuilt";
const MESSAGE: &str =
    "message brokers are not built: announce by multicast, --peer or a catalog (fluidos serve catalog)";

/// Tells each Broker that nothing connects to it, until dropped.
pub async fn tell(client: Client, brokers: Cache<Broker>) {
    let api: Api<Broker> = Api::namespaced(client, names::NAMESPACE);
    brokers.synced().await;
    let mut changes = brokers.changes();
    loop {
        for broker in brokers.list() {
            let Some(condition) = due(&broker, Timestamp::now()) else { continue };
            let change = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
            match api.patch_status(&broker.name_any(), &PatchParams::default(), &change).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::warn!(%error, broker = broker.name_any(), "the status of a Broker could not be written")
                }
                Ok(_) => {}
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The condition to write; `None` if it is there, for this version of the spec.
fn due(broker: &Broker, now: Timestamp) -> Option<StatusCondition> {
    let generation = broker.metadata.generation.unwrap_or_default();
    let before = broker.condition(CONNECTED);
    let same = |c: &StatusCondition| c.status == "False" && c.reason == NOT_BUILT && c.message == MESSAGE;
    if before.is_some_and(|c| same(c) && c.observed_generation == generation) {
        return None;
    }
    let since =
        before.filter(|c| c.status == "False").map_or_else(|| now.to_string(), |c| c.last_transition_time.clone());
    Some(StatusCondition {
        kind: CONNECTED.into(),
        status: "False".into(),
        reason: NOT_BUILT.into(),
        message: MESSAGE.into(),
        last_transition_time: since,
        observed_generation: generation,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn it_is_told_once_for_each_version_and_the_time_is_of_the_change() {
        let now: Timestamp = "2026-11-01T10:00:00Z".parse().unwrap();
        let mut broker = Broker::new("one", fluidos_model::kinds::BrokerSpec::default());
        broker.metadata.generation = Some(1);
        let first = due(&broker, now).unwrap();
        assert_eq!((first.status.as_str(), first.reason.as_str()), ("False", "NotBuilt"));
        broker.status = Some(fluidos_model::kinds::BrokerStatus { conditions: vec![first], ..Default::default() });
        assert_eq!(due(&broker, now), None);
        broker.metadata.generation = Some(2);
        let later = due(&broker, "2026-11-01T11:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((later.last_transition_time.as_str(), later.observed_generation), ("2026-11-01T10:00:00Z", 2));
    }
}
