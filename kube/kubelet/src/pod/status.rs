//! A pod's status in the API's words: phase, conditions, container states. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{self, Crashes, Hold};
use super::resize::Given;
use super::resources::qos_class;
use engine_runtime::ContainerStatus as Run;

/// Conditions that are there while a resize is not done.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Everything a status depends on.
pub struct View<'a> {
    /// As the API has it, with the status written before.
    pub pod: &'a Pod,
    /// Every run that the runtime remembers.
    pub runs: &'a [Run],
    /// By container.
    pub crashes: &'a BTreeMap<String, Crashes>,
    /// By container.
    pub holds: &'a BTreeMap<String, Hold>,
    /// Runs whose readiness probe has succeeded (or that have none).
    pub ready: &'a BTreeSet<String>,
    /// Runs whose startup probe has succeeded (or that have none).
    pub started: &'a BTreeSet<String>,
    /// Termination messages by run.
    pub messages: &'a BTreeMap<String, String>,
    /// Image ids by container.
    pub images: &'a BTreeMap<String, String>,
    /// The machine's address.
    pub host_ip: &'a str,
    /// The pod's address, once it has one.
    pub pod_ip: Option<&'a str>,
    /// Whether the sandbox exists.
    pub sandbox: bool,
    /// What containers have of CPU and memory.
    pub given: &'a Given,
    /// Type, reason and message of the condition of a resize that is not done.
    pub resizing: Option<&'a (&'static str, &'static str, String)>,
    /// The pod ends.
    pub stopping: bool,
    /// Now.
    pub now: Timestamp,
}

/// The status as it is now.
pub fn status(view: &View<'_>) -> PodStatus {
    let before = view.pod.status.clone().unwrap_or_default();
    let containers: Vec<ContainerStatus> =
        plan::container_names(view.pod).map(|name| container(view, name, &before)).collect();
    let later = super::ephemeral(view.pod).map(|c| container(view, &c.name, &before)).collect();
    let phase = phase(view);
    let conditions = conditions(view, &containers, phase, &before);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(containers),
        ephemeral_container_statuses: Some(later).filter(|all: &Vec<_>| !all.is_empty()),
        host_ip: Some(view.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: view.host_ip.to_owned() }]),
        pod_ip: view.pod_ip.map(str::to_owned),
        pod_ips: view.pod_ip.map(|ip| vec![PodIP { ip: ip.to_owned() }]),
        qos_class: Some(qos_class(view.pod).to_owned()),
        start_time: before.start_time.or(Some(Time(whole_second(view.now)))),
        observed_generation: view.pod.metadata.generation,
        reason: before.reason,
        message: before.message,
        ..PodStatus::default()
    }
}

/// `Pending` until every container has run once, then what they came to.
fn phase(view: &View<'_>) -> &'static str {
    let latest: Vec<Option<&Run>> =
        plan::container_names(view.pod).map(|n| plan::runs_of(view.runs, n).first().copied()).collect();
    if latest.iter().any(Option::is_none) {
        return if view.stopping && latest.iter().all(Option::is_none) { "Failed" } else { "Pending" };
    }
    let runs: Vec<&Run> = latest.into_iter().flatten().collect();
    let goes_on = |r: &&&Run| r.finished.is_none() || (!view.stopping && plan::restarts(view.pod, r));
    if runs.iter().any(|r| goes_on(&r)) {
        return "Running";
    }
    match runs.iter().all(|r| r.finished.as_ref().is_some_and(|f| f.exit_code == 0)) {
        true => "Succeeded",
        false => "Failed",
    }
}

fn container(view: &View<'_>, name: &str, before: &PodStatus) -> ContainerStatus {
    let spec = super::container(view.pod, name);
    let runs = plan::runs_of(view.runs, name);
    let (latest, previous) = (runs.first().copied(), runs.get(1).copied());
    let hold = view.holds.get(name);
    let told = [&before.container_statuses, &before.ephemeral_container_statuses];
    let earlier = told.into_iter().flatten().flatten().find(|c| c.name == name);
    let (state, last) = match latest {
        None => {
            let (reason, message) = match hold {
                Some(hold) => (hold.reason.clone(), Some(hold.message.clone()).filter(|m| !m.is_empty())),
                None => ("ContainerCreating".to_owned(), None),
            };
            // The runtime may have lost what the API still remembers.
            (waiting(reason, message), earlier.and_then(|c| c.last_state.clone()))
        }
        Some(run) if run.finished.is_none() => {
            let started_at = Some(Time(second(run.started_at_ns)));
            let running =
                ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() };
            (running, previous.map(|r| terminated(view, r)))
        }
        Some(run) => {
            let again = plan::restarts(view.pod, run) && !view.stopping;
            let delay = view.crashes.get(name).map(Crashes::delay).unwrap_or_default();
            match (again, hold) {
                (true, Some(hold)) => {
                    (waiting(hold.reason.clone(), Some(hold.message.clone())), Some(terminated(view, run)))
                }
                (true, None) if !delay.is_zero() => {
                    let message = Some(back_off_message(view.pod, name, delay));
                    (waiting("CrashLoopBackOff".to_owned(), message), Some(terminated(view, run)))
                }
                _ => (terminated(view, run), previous.map(|r| terminated(view, r))),
            }
        }
    };
    let running = state.running.is_some();
    let id = latest.map(|r| r.id.as_str()).unwrap_or_default();
    let given = latest.and_then(|_| view.given.get(name));
    ContainerStatus {
        name: name.to_owned(),
        image: spec.as_ref().and_then(|c| c.image.clone()).unwrap_or_default(),
        image_id: view.images.get(name).cloned().or_else(|| earlier.map(|c| c.image_id.clone())).unwrap_or_default(),
        container_id: latest.map(container_id).or_else(|| earlier.and_then(|c| c.container_id.clone())),
        ready: running && view.ready.contains(id),
        started: Some(running && view.started.contains(id)),
        restart_count: latest
            .map_or_else(|| earlier.map_or(0, |c| c.restart_count), |r| i32::try_from(r.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: given.and_then(|given| given.requests.clone()),
        resources: given.cloned(),
        ..ContainerStatus::default()
    }
}

/// The words of every kubelet for a container in its back-off.
pub fn back_off_message(pod: &Pod, container: &str, delay: std::time::Duration) -> String {
    let meta = &pod.metadata;
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    let seconds = delay.as_secs();
    let delay = match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    };
    let (name, namespace, uid) = (part(&meta.name), part(&meta.namespace), part(&meta.uid));
    format!("back-off {delay} restarting failed container={container} pod={name}_{namespace}({uid})")
}

fn waiting(reason: String, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason), message }),
        ..ContainerState::default()
    }
}

fn terminated(view: &View<'_>, run: &Run) -> ContainerState {
    let Some(finished) = &run.finished else { return ContainerState::default() };
    let reason = match finished {
        f if f.lost => "ContainerStatusUnknown",
        f if f.error.is_some() => "StartError",
        f if f.oom_killed => "OOMKilled",
        f if f.exit_code == 0 => "Completed",
        _ => "Error",
    };
    let lost =
        finished.lost.then(|| "The container's supervisor was gone; how the container ended is not known".to_owned());
    let message = view.messages.get(&run.id).cloned().or_else(|| finished.error.clone()).or(lost);
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(run)),
            exit_code: finished.exit_code,
            finished_at: Some(Time(second(finished.at_ns))),
            message,
            reason: Some(reason.to_owned()),
            signal: Some(finished.signal).filter(|s| *s != 0),
            started_at: Some(Time(second(run.started_at_ns))),
        }),
        ..ContainerState::default()
    }
}

fn container_id(run: &Run) -> String {
    format!("oci://{}", run.id)
}

fn conditions(view: &View<'_>, containers: &[ContainerStatus], phase: &str, before: &PodStatus) -> Vec<PodCondition> {
    let unready: Vec<&str> = containers.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
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
    let mut own = vec![
        ("PodReadyToStartContainers", view.sandbox && !over, None),
        ("Initialized", true, Some(("PodCompleted", None)).filter(|_| phase == "Succeeded")),
        ("Ready", not_ready.is_none() && gate.is_none(), not_ready.clone().or(gate)),
        ("ContainersReady", not_ready.is_none(), not_ready),
        ("PodScheduled", true, None),
    ];
    own.extend(view.resizing.map(|(kind, reason, message)| (*kind, true, Some((*reason, Some(message.clone()))))));
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

/// Whether the API's status says what ours does. Times and what others add do not count.
pub fn agree(api: Option<&PodStatus>, own: &PodStatus) -> bool {
    let Some(api) = api else { return false };
    let conditions = |s: &PodStatus| -> BTreeMap<String, String> {
        s.conditions.iter().flatten().map(|c| (c.type_.clone(), c.status.clone())).collect()
    };
    let (theirs, ours) = (conditions(api), conditions(own));
    let key = |c: &ContainerStatus| {
        let state = c.state.clone().unwrap_or_default();
        let waiting = state.waiting.and_then(|w| w.reason);
        (
            c.name.clone(),
            c.ready,
            c.restart_count,
            waiting,
            state.running.is_some(),
            state.terminated.map(|t| t.exit_code),
        )
    };
    let containers = |s: &PodStatus| -> Vec<_> {
        let all = [&s.container_statuses, &s.ephemeral_container_statuses];
        all.into_iter().flatten().flatten().map(key).collect()
    };
    ours.iter().all(|(kind, status)| theirs.get(kind) == Some(status))
        && (&api.phase, &api.pod_ip) == (&own.phase, &own.pod_ip)
        && containers(api) == containers(own)
}

fn second(ns: i64) -> Timestamp {
    whole_second(Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The API keeps whole seconds; a status that differs from what it kept would be written again and again.
pub fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use engine_runtime::Finished;
    use serde_json::json;

    fn run(attempt: u32, exit: Option<i32>) -> Run {
        let finished = exit.map(|exit_code| Finished {
            at_ns: 5,
            exit_code,
            signal: 0,
            oom_killed: exit_code == 137,
            lost: false,
            error: None,
        });
        Run { id: format!("r{attempt}"), name: "c".into(), attempt, pid: None, started_at_ns: 1, finished }
    }

    fn check(policy: &str, runs: &[Run], ready: bool, hold: Option<Hold>) -> String {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}))
        .unwrap();
        let mut crashes = BTreeMap::<String, Crashes>::new();
        runs.iter().for_each(|r| crashes.entry("c".into()).or_default().observe(r));
        let ids: BTreeSet<String> = if ready { runs.iter().map(|r| r.id.clone()).collect() } else { BTreeSet::new() };
        let status = status(&View {
            pod: &pod,
            runs,
            crashes: &crashes,
            holds: &hold.into_iter().map(|h| ("c".to_owned(), h)).collect(),
            ready: &ids,
            started: &ids,
            messages: &BTreeMap::new(),
            images: &BTreeMap::new(),
            host_ip: "h",
            pod_ip: Some("p"),
            sandbox: true,
            given: &Given::new(),
            resizing: None,
            stopping: false,
            now: Timestamp::UNIX_EPOCH,
        });
        let c = &status.container_statuses.as_ref().unwrap()[0];
        let word = |s: &ContainerState| match s {
            ContainerState { running: Some(_), .. } => "running".to_owned(),
            ContainerState { waiting: Some(w), .. } => w.reason.clone().unwrap(),
            ContainerState { terminated: Some(t), .. } => format!("{}({})", t.reason.clone().unwrap(), t.exit_code),
            _ => "-".to_owned(),
        };
        let is_ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
        let phase = status.phase.unwrap();
        format!(
            "{phase} {} last {} restarts {} ready {} {}",
            word(c.state.as_ref().unwrap()),
            word(c.last_state.as_ref().unwrap()),
            c.restart_count,
            is_ready.status,
            is_ready.reason.unwrap_or_default()
        )
    }

    #[test]
    fn a_life() {
        let check = |policy: &str, runs: &[Run], ready: bool| check(policy, runs, ready, None);
        assert_eq!(
            check("Always", &[], false),
            "Pending ContainerCreating last - restarts 0 ready False ContainersNotReady"
        );
        assert_eq!(
            check("Always", &[run(0, None)], false),
            "Running running last - restarts 0 ready False ContainersNotReady"
        );
        assert_eq!(check("Always", &[run(0, None)], true), "Running running last - restarts 0 ready True ");
        assert_eq!(
            check("Always", &[run(0, Some(1)), run(1, None)], true),
            "Running running last Error(1) restarts 1 ready True "
        );
        assert_eq!(
            check("Always", &[run(0, Some(1)), run(1, Some(137))], true),
            "Running CrashLoopBackOff last OOMKilled(137) restarts 1 ready False ContainersNotReady"
        );
        assert_eq!(
            check("Never", &[run(0, Some(0))], true),
            "Succeeded Completed(0) last - restarts 0 ready False PodCompleted"
        );
        assert_eq!(check("Never", &[run(0, Some(2))], true), "Failed Error(2) last - restarts 0 ready False PodFailed");
        assert_eq!(
            check("OnFailure", &[run(0, Some(2))], true),
            "Running Error(2) last - restarts 0 ready False ContainersNotReady"
        );
    }

    #[test]
    fn a_hold_says_why() {
        let hold = Hold { reason: "ImagePullBackOff".into(), message: "m".into(), retry_at_ns: None, failures: 2 };
        assert_eq!(
            check("Always", &[], false, Some(hold)),
            "Pending ImagePullBackOff last - restarts 0 ready False ContainersNotReady"
        );
    }

    #[test]
    fn the_words_of_the_back_off() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let text = back_off_message(&pod, "c", std::time::Duration::from_secs(160));
        assert_eq!(text, "back-off 2m40s restarting failed container=c pod=p_n(u)");
    }
}
