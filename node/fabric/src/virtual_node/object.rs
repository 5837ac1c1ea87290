//! The Node object of a virtual node. Pure.

use std::collections::BTreeMap;

use fluidos_model::kinds::names;
use fluidos_model::market::Resource;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::deal::Deal;

/// No kubelet runs here: it says what does, in the form that clients compare.
const VERSION: &str = concat!("v1.34.0+fluidos-virtual-node-", env!("CARGO_PKG_VERSION"));

/// How a virtual node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The link is up and the provider has said Ready.
    Ready,
    /// The link is up.
    Waiting,
    /// The provider is there, and what it sold is not, for this reason.
    Missing(String),
    /// It is not.
    Unreachable,
}

/// The API keeps whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The Node of a deal, as it is created and as its metadata should be.
pub(crate) fn node(name: &str, deal: &Deal, latency_micros: Option<u64>) -> Node {
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", deal.architecture.as_str()),
        (names::VIRTUAL_NODE, "true"),
        (names::LABEL_CONTRACT, &deal.name),
        (names::LABEL_PEER, &deal.seller_named.tag()),
    ];
    let labels: BTreeMap<String, String> = labels
        .into_iter()
        .filter(|(_, value)| is_label_value(value))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let mut annotations = BTreeMap::from([(names::ANNOTATION_PEER_DID.to_owned(), deal.seller_named.to_string())]);
    if let Ok(location) = serde_json::to_string(&deal.location) {
        annotations.insert(names::ANNOTATION_LOCATION.into(), location);
    }
    if !deal.features.is_empty()
        && let Ok(features) = serde_json::to_string(&deal.features)
    {
        annotations.insert(names::ANNOTATION_FEATURES.into(), features);
    }
    if let Some(micros) = latency_micros {
        annotations.insert(names::ANNOTATION_LATENCY.into(), micros.to_string());
    }
    let taint = Taint {
        key: names::VIRTUAL_NODE.into(),
        value: Some("true".into()),
        effect: "NoSchedule".into(),
        time_added: None,
    };
    Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(vec![taint]), ..NodeSpec::default() }),
        status: None,
    }
}

/// An architecture is the seller's word: it must not make the whole Node unwritable.
fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// The status that it should have; `None` if it has it.
pub(crate) fn status(found: &Node, deal: &Deal, state: &State, now: Timestamp) -> Option<NodeStatus> {
    let old = found.status.clone().unwrap_or_default();
    // What is not sold is not there.
    let is_there = |resource: &Resource| {
        matches!(resource, Resource::Cpu | Resource::Memory | Resource::Pods) || deal.amounts.get(resource) != 0
    };
    let sold = deal.amounts.resources().filter(is_there);
    let amounts: BTreeMap<String, Quantity> = sold
        .map(|resource| (resource.kubernetes_name().to_owned(), Quantity(resource.text(deal.amounts.get(&resource)))))
        .collect();
    let conditions = conditions(old.conditions.as_deref().unwrap_or_default(), state, now);
    let hostname = found.metadata.name.clone().unwrap_or_default();
    let status = NodeStatus {
        capacity: Some(amounts.clone()),
        allocatable: Some(amounts),
        conditions: Some(conditions),
        addresses: Some(vec![NodeAddress { type_: "Hostname".into(), address: hostname }]),
        node_info: Some(NodeSystemInfo {
            architecture: deal.architecture.chars().take(63).collect(),
            operating_system: "linux".into(),
            os_image: "virtual node of a FLUIDOS contract".into(),
            kubelet_version: VERSION.into(),
            container_runtime_version: concat!("fluidos://", env!("CARGO_PKG_VERSION")).into(),
            ..NodeSystemInfo::default()
        }),
        ..old.clone()
    };
    (status != old).then_some(status)
}

fn conditions(old: &[NodeCondition], state: &State, now: Timestamp) -> Vec<NodeCondition> {
    let (ready, reason, message) = match state {
        State::Ready => ("True", "ProviderReady", "the link is up and the provider has confirmed what runs there"),
        State::Waiting => {
            ("False", "ProviderNotReady", "the link is up; the provider has not confirmed what runs there yet")
        }
        State::Missing(why) => ("False", "ProviderCapacityMissing", why.as_str()),
        State::Unreachable => ("Unknown", "LinkDown", "there is no link to the provider"),
    };
    let (pressure, pressure_reason, pressure_message) = match state {
        State::Unreachable => ("Unknown", reason, message),
        _ => ("False", "Contracted", "what was bought is there"),
    };
    let wanted = [
        ("MemoryPressure", pressure, pressure_reason, pressure_message),
        ("DiskPressure", pressure, pressure_reason, pressure_message),
        ("PIDPressure", pressure, pressure_reason, pressure_message),
        ("Ready", ready, reason, message),
    ];
    let own = wanted.into_iter().map(|(kind, status, reason, message)| {
        let found = old.iter().find(|c| c.type_ == kind);
        let same = found.filter(|c| c.status == status);
        let unchanged = same.filter(|c| c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message));
        unchanged.cloned().unwrap_or_else(|| NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(time(now)),
            last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(time(now))),
        })
    });
    let foreign = old.iter().filter(|c| wanted.iter().all(|(kind, ..)| *kind != c.type_));
    own.chain(foreign.cloned()).collect()
}
