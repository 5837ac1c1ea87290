//! How a twin stands, as it is written on its consumer's pod. Pure.
//!
//! A provider is believed about what only it can see, within bounds: texts are cut, addresses must be its own, and what is
//! not about the containers of this very pod is left out. Conditions that others write stay.

use fluidos_identity::FabricPrefix;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod,
    PodCondition, PodIP, PodStatus,
};
use serde_json::{Map, Value};

use crate::deal::is_pod_address;
use crate::frames::cut;
use crate::virtual_node::time;

/// Conditions that only whoever runs the pod can know.
const CONDITIONS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
const PHASES: [&str; 4] = ["Pending", "Running", "Succeeded", "Failed"];
const WORD_LENGTH_MAX: usize = 128;
const MESSAGE_LENGTH_MAX: usize = 1024;
/// `sha256:` and 64 digits behind a scheme; image names are at most 255.
const ID_LENGTH_MAX: usize = 320;
/// One of each family.
const ADDRESSES_MAX: usize = 2;

/// The status of a pod whose twin stands like this.
pub(crate) fn merged(pod: &Pod, observed: &PodStatus, prefix: Option<&FabricPrefix>) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = observed.phase.clone().filter(|phase| PHASES.contains(&phase.as_str()));
    let is_own = |address: &String| prefix.is_some_and(|prefix| is_pod_address(prefix, address));
    let addresses: Vec<String> =
        observed.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).filter(is_own).take(ADDRESSES_MAX).collect();
    let address = observed.pod_ip.clone().filter(is_own).or_else(|| addresses.first().cloned());
    let containers = spec.containers.iter().map(|c| (c.name.as_str(), c.image.as_deref()));
    let init = spec.init_containers.iter().flatten().map(|c| (c.name.as_str(), c.image.as_deref()));
    PodStatus {
        phase: phase.or(old.phase.clone()),
        conditions: Some(conditions(&old, observed)),
        reason: observed.reason.as_deref().map(|text| cut(text, WORD_LENGTH_MAX)),
        message: observed.message.as_deref().map(|text| cut(text, MESSAGE_LENGTH_MAX)),
        start_time: observed.start_time.clone().or(old.start_time.clone()),
        pod_ip: address,
        pod_ips: (!addresses.is_empty()).then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
        host_ip: None,
        host_ips: None,
        container_statuses: statuses(containers, observed.container_statuses.as_deref()),
        init_container_statuses: statuses(init, observed.init_container_statuses.as_deref()),
        ..old
    }
}

/// The status of a pod that is not sent to a provider.
pub(crate) fn barred(old: &PodStatus, reason: &str) -> PodStatus {
    PodStatus {
        phase: Some("Pending".into()),
        reason: Some("Refused".into()),
        message: Some(reason.into()),
        ..old.clone()
    }
}

/// The status of a pod that its provider does not take.
pub(crate) fn refused(old: &PodStatus, reason: &str, yields: bool) -> PodStatus {
    PodStatus {
        phase: Some("Pending".into()),
        reason: Some(if yields { "Yielded" } else { "Refused" }.into()),
        message: Some(format!("the provider refused it: {reason}")),
        ..old.clone()
    }
}

/// The status of a pod that its provider has taken down although it was wanted.
pub(crate) fn lost(old: &PodStatus, why: Option<&str>, now: Timestamp) -> PodStatus {
    let message = "the provider has taken it down";
    let message = why.map_or_else(|| message.to_owned(), |why| format!("{message}: {why}"));
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some("Evicted".into()),
        message: Some(message),
        ..doubted(old, now)
    }
}

/// The status of a pod about which nobody can say anything: not ready, for nobody can reach it.
pub(crate) fn doubted(old: &PodStatus, now: Timestamp) -> PodStatus {
    let mut status = old.clone();
    for condition in status.conditions.iter_mut().flatten() {
        if condition.type_ == "Ready" && condition.status == "True" {
            condition.status = "False".into();
            condition.reason = Some("LinkDown".into());
            condition.message = Some("there is no link to the provider".into());
            condition.last_transition_time = Some(time(now));
        }
    }
    status
}

/// The merge patch that makes one of the other; `None` if they are alike.
pub(crate) fn patch(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    if old == new {
        return None;
    }
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(), // a status is always an object
    };
    let (old, new) = (fields(old), fields(new));
    let mut changed: Map<String, Value> =
        old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)).collect();
    changed.extend(new.into_iter().filter(|(key, value)| old.get(key) != Some(value)));
    Some(Value::Object(Map::from_iter([("status".to_owned(), Value::Object(changed))])))
}

fn conditions(old: &PodStatus, observed: &PodStatus) -> Vec<PodCondition> {
    let is_peers = |condition: &&PodCondition| CONDITIONS.contains(&condition.type_.as_str());
    let own = old.conditions.iter().flatten().filter(|condition| !is_peers(condition)).cloned();
    let found = CONDITIONS.iter().filter_map(|kind| {
        let condition = observed.conditions.iter().flatten().find(|c| c.type_ == *kind)?;
        ["True", "False", "Unknown"].contains(&condition.status.as_str()).then(|| PodCondition {
            type_: (*kind).to_owned(),
            status: condition.status.clone(),
            reason: condition.reason.as_deref().map(|text| cut(text, WORD_LENGTH_MAX)),
            message: condition.message.as_deref().map(|text| cut(text, MESSAGE_LENGTH_MAX)),
            last_transition_time: condition.last_transition_time.clone(),
            ..PodCondition::default()
        })
    });
    own.chain(found).collect()
}

fn statuses<'a>(
    containers: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    observed: Option<&[ContainerStatus]>,
) -> Option<Vec<ContainerStatus>> {
    let observed = observed?;
    let one = |(name, image): (&str, Option<&str>)| {
        let found = observed.iter().find(|status| status.name == name)?;
        Some(ContainerStatus {
            name: name.to_owned(),
            // The name that the consumer wrote: a provider cannot tell of another image.
            image: image.unwrap_or_default().to_owned(),
            image_id: cut(&found.image_id, ID_LENGTH_MAX),
            container_id: found.container_id.as_deref().map(|id| cut(id, ID_LENGTH_MAX)),
            ready: found.ready,
            started: found.started,
            restart_count: found.restart_count.max(0),
            state: found.state.as_ref().map(container_state),
            last_state: found.last_state.as_ref().map(container_state),
            ..ContainerStatus::default()
        })
    };
    Some(containers.filter_map(one).collect())
}

fn container_state(state: &ContainerState) -> ContainerState {
    let word = |text: &Option<String>| text.as_deref().map(|text| cut(text, WORD_LENGTH_MAX));
    let message = |text: &Option<String>| text.as_deref().map(|text| cut(text, MESSAGE_LENGTH_MAX));
    ContainerState {
        running: state.running.as_ref().map(|running| ContainerStateRunning { started_at: running.started_at.clone() }),
        terminated: state.terminated.as_ref().map(|ended| ContainerStateTerminated {
            container_id: ended.container_id.as_deref().map(|id| cut(id, ID_LENGTH_MAX)),
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: word(&ended.reason),
            message: message(&ended.message),
            started_at: ended.started_at.clone(),
            finished_at: ended.finished_at.clone(),
        }),
        waiting: state
            .waiting
            .as_ref()
            .map(|waiting| ContainerStateWaiting { reason: word(&waiting.reason), message: message(&waiting.message) }),
    }
}
