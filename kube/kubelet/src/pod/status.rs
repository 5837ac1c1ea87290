//! A pod's status in the API's words: phase, container states and, in `conditions`, conditions. Pure.

mod conditions;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{self, Crashes, Hold};
use super::resize::Given;
use super::resources::qos_class;
use engine_runtime::ContainerStatus as Run;

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
    /// The machine's addresses.
    pub host_ips: &'a [String],
    /// The pod's addresses, once it has them.
    pub pod_ips: &'a [String],
    /// Whether the sandbox exists.
    pub sandbox: bool,
    /// What containers have of CPU and memory.
    pub given: &'a Given,
    /// Type, reason and message of the condition of a resize that is not done.
    pub resizing: Option<&'a (&'static str, &'static str, String)>,
    /// The pod ends.
    pub stopping: bool,
    /// Reason and message of the end, if it is the node that ends the pod.
    pub ended: Option<(&'a str, &'a str)>,
    /// Now.
    pub now: Timestamp,
}

/// The status as it is now.
pub fn status(view: &View<'_>) -> PodStatus {
    let before = view.pod.status.clone().unwrap_or_default();
    let all = |names: &mut dyn Iterator<Item = &str>| -> Vec<ContainerStatus> {
        names.map(|name| container(view, name, &before)).collect()
    };
    let containers = all(&mut plan::container_names(view.pod));
    let init = all(&mut super::init(view.pod).map(|c| c.name.as_str()));
    let later = all(&mut super::ephemeral(view.pod).map(|c| c.name.as_str()));
    let phase = phase(view);
    let conditions = conditions::conditions(view, &init, &containers, phase, &before);
    let ended = view.ended.filter(|_| phase == "Failed");
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: some_of(init),
        ephemeral_container_statuses: some_of(later),
        host_ip: view.host_ips.first().cloned(),
        host_ips: some_of(view.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: view.pod_ips.first().cloned(),
        pod_ips: some_of(view.pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: Some(qos_class(view.pod).to_owned()),
        start_time: before.start_time.or(Some(Time(whole_second(view.now)))),
        observed_generation: view.pod.metadata.generation,
        reason: ended.map(|(reason, _)| reason.to_owned()).or(before.reason),
        message: ended.map(|(_, message)| message.to_owned()).or(before.message),
        ..PodStatus::default()
    }
}

fn some_of<T>(all: Vec<T>) -> Option<Vec<T>> {
    Some(all).filter(|all| !all.is_empty())
}

/// `Pending` until every container has run once, then what they came to.
fn phase(view: &View<'_>) -> &'static str {
    let stopped = !view.runs.iter().any(|r| r.finished.is_none());
    if stopped && view.stopping && view.ended.is_some() {
        return "Failed";
    }
    let latest: Vec<Option<&Run>> =
        plan::container_names(view.pod).map(|n| plan::runs_of(view.runs, n).first().copied()).collect();
    if latest.iter().any(Option::is_none) {
        let failed = stopped && (view.stopping || plan::over(view.pod, view.runs));
        return if failed { "Failed" } else { "Pending" };
    }
    let runs: Vec<&Run> = latest.into_iter().flatten().collect();
    let goes_on = |r: &&&Run| r.finished.is_none() || (!view.stopping && plan::restarts(view.pod, r));
    // A sidecar is waited for, an ephemeral container is not.
    let served = super::init(view.pod).any(|c| plan::runs_of(view.runs, &c.name).iter().any(|r| r.finished.is_none()));
    if served || runs.iter().any(|r| goes_on(&r)) {
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
    let told = [&before.container_statuses, &before.init_container_statuses, &before.ephemeral_container_statuses];
    let earlier = told.into_iter().flatten().flatten().find(|c| c.name == name);
    let (state, last) = match latest {
        None => {
            let (reason, message) = match hold {
                Some(hold) => (hold.reason.clone(), Some(hold.message.clone()).filter(|m| !m.is_empty())),
                None => (not_yet(view.pod).to_owned(), None),
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
            let again = plan::restarts(view.pod, run) && !view.stopping && !plan::over(view.pod, view.runs);
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
    let plain_init = super::init(view.pod).any(|c| c.name == name && !plan::is_sidecar(c));
    let done = plain_init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let id = latest.map(|r| r.id.as_str()).unwrap_or_default();
    let given = latest.and_then(|_| view.given.get(name));
    ContainerStatus {
        name: name.to_owned(),
        image: spec.as_ref().and_then(|c| c.image.clone()).unwrap_or_default(),
        image_id: view.images.get(name).cloned().or_else(|| earlier.map(|c| c.image_id.clone())).unwrap_or_default(),
        container_id: latest.map(container_id).or_else(|| earlier.and_then(|c| c.container_id.clone())),
        ready: if plain_init { done } else { running && view.ready.contains(id) },
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

/// Why a container that has not run yet waits, if nothing went wrong.
pub fn not_yet(pod: &Pod) -> &'static str {
    if super::init(pod).next().is_some() { "PodInitializing" } else { "ContainerCreating" }
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
    let message = message.map(|said| super::last_words::cut(&said, super::all_containers(view.pod).count()));
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
        let all = [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses];
        all.into_iter().flatten().flatten().map(key).collect()
    };
    ours.iter().all(|(kind, status)| theirs.get(kind) == Some(status))
        && (&api.phase, &api.pod_ip, &api.pod_ips) == (&own.phase, &own.pod_ip, &own.pod_ips)
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
mod tests;
