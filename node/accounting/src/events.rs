//! Events about contracts whose books are disputed or wrong, for who looks at them.

use fluidos_model::kinds::{Contract, names};
use fluidos_model::receipt::{LineState, Receipt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};

use crate::MANAGER;

/// Kubernetes refuses longer messages.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// Says of which lines of a receipt the measures differ, with both numbers.
pub(crate) fn disputed(receipt: &Receipt) -> String {
    let number = |measure: Option<u64>| measure.map_or("?".into(), |measure| measure.to_string());
    let lines = receipt.lines.iter().filter(|line| line.state == LineState::Disputed);
    let lines = lines.map(|line| {
        let (buyer, seller) = (number(line.buyer), number(line.seller));
        format!("{}: {buyer} {unit} by the buyer, {seller} {unit} by the seller", line.line.as_str(), unit = line.unit)
    });
    let lines: Vec<String> = lines.collect();
    format!("receipt {} from {} to {}: {}", receipt.number, receipt.from, receipt.until, lines.join("; "))
}

/// Writes a warning about a contract. One with a `once` is written once, whatever happens between. Events are a courtesy: one that cannot be
/// written is only logged.
pub(crate) async fn warn(client: &Client, contract: &str, reason: &str, once: Option<&str>, message: &str) {
    // Its contract may be over.
    let known = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE).get_opt(contract).await.ok().flatten();
    let now = Time(Timestamp::now());
    let event = Event {
        metadata: ObjectMeta {
            name: once.map(|once| format!("{contract}.{once}")),
            generate_name: once.is_none().then(|| format!("{contract}.")),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(Contract::api_version(&()).into_owned()),
            kind: Some(Contract::kind(&()).into_owned()),
            name: Some(contract.into()),
            namespace: Some(names::NAMESPACE.into()),
            uid: known.and_then(|known| known.uid()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(reason.into()),
        message: Some(message.chars().take(MESSAGE_LENGTH_MAX).collect()),
        reporting_component: Some(MANAGER.into()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api = Api::<Event>::namespaced(client.clone(), names::NAMESPACE);
    match api.create(&PostParams::default(), &event).await {
        // It is there.
        Err(kube::Error::Api(status)) if status.code == 409 && once.is_some() => {}
        Err(error) => tracing::debug!(contract, reason, %error, "event not written"),
        Ok(_) => {}
    }
}
