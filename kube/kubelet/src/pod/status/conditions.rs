//! The conditions of a pod.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, whole_second};
use crate::pod::plan;

/// Conditions that are there while a resize is not done.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// All of them: those of the kubelet, and those of others as they were.
pub(super) fn conditions(
    view: &View<'_>,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    phase: &str,
    before: &PodStatus,
) -> Vec<PodCondition> {
    let sidecars = init.iter().filter(|c| is_sidecar(view, c));
    let unready: Vec<&str> = sidecars.chain(containers).filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    let over = matches!(phase, "Succeeded" | "Failed");
    let not_ready = match (phase, unready.is_empty()) {
        ("Succeeded", _) => Some(("PodCompleted", None)),
        ("Failed", _) => Some(("PodFailed", None)),
        (_, false) => {
            Some(("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" ")))))
        }
        (_, true) => None,
    };
    let old = before.conditions.clone().unwrap_or_default();
    let gates = view.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let missing_gate =
        gates.map(|g| &g.condition_type).find(|t| !old.iter().any(|c| c.type_ == **t && c.status == "True"));
    let gate = missing_gate.map(|t| {
        (
            "ReadinessGatesNotReady",
            Some(format!("corresponding condition of pod readiness gate \"{t}\" does not exist or is not \"True\".")),
        )
    });
    let incomplete = incomplete(view, init);
    let completed = Some(("PodCompleted", None)).filter(|_| phase == "Succeeded");
    let mut own = vec![
        ("PodReadyToStartContainers", view.sandbox && !over, None),
        ("Initialized", incomplete.is_none(), incomplete.or(completed)),
        ("Ready", not_ready.is_none() && gate.is_none(), not_ready.clone().or(gate)),
        ("ContainersReady", not_ready.is_none(), not_ready),
        ("PodScheduled", true, None),
    ];
    own.extend(view.resizing.map(|(kind, reason, message)| (*kind, true, Some((*reason, Some(message.clone()))))));
    let evicted = view.ended.filter(|(reason, _)| *reason == "Evicted" && phase == "Failed");
    own.extend(
        evicted
            .map(|(_, message)| ("DisruptionTarget", true, Some(("TerminationByKubelet", Some(message.to_owned()))))),
    );
    let is_own = |c: &&PodCondition| own.iter().any(|(t, ..)| *t == c.type_) || RESIZE.contains(&c.type_.as_str());
    let mut all: Vec<PodCondition> = old.iter().filter(|c| !is_own(c)).cloned().collect();
    for (type_, is, why) in own {
        let status = if is { "True" } else { "False" };
        let earlier = old.iter().find(|c| c.type_ == type_);
        let unchanged = earlier.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let (reason, message) = why.map_or((None, None), |(reason, message)| (Some(reason.to_owned()), message));
        all.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: unchanged.or(Some(Time(whole_second(view.now)))),
            observed_generation: view.pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    all
}

/// Reason and message while init containers have not done their part. What has begun once has been initialized.
fn incomplete(view: &View<'_>, init: &[ContainerStatus]) -> Option<(&'static str, Option<String>)> {
    if plan::container_names(view.pod).any(|name| !plan::runs_of(view.runs, name).is_empty()) {
        return None;
    }
    let done = |c: &&ContainerStatus| if is_sidecar(view, c) { c.started == Some(true) } else { c.ready };
    let open: Vec<&str> = init.iter().filter(|c| !done(c)).map(|c| c.name.as_str()).collect();
    let message = format!("containers with incomplete status: [{}]", open.join(" "));
    Some(("ContainersNotInitialized", Some(message))).filter(|_| !open.is_empty())
}

fn is_sidecar(view: &View<'_>, status: &ContainerStatus) -> bool {
    crate::pod::init(view.pod).any(|c| c.name == status.name && plan::is_sidecar(c))
}
