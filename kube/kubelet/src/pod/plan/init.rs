//! What comes before the containers of a pod, and when all of it is over. Pure.
//!
//! ```text
//! init container    ── ends with 0 ──────────▶ the next
//! sidecar (Always)  ── has started, runs on ─▶ the next
//! ```
//!
//! How far a pod has come is read from its runs: who is further on has let pass what stands before it. A sandbox that was lost took its
//! containers with it; in the next one the pod begins anew, and runs from before it count no more.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Plan, View, container_names, forget_old, go_on, restarts, runs_of};
use crate::pod::init;
use engine_runtime::ContainerStatus as Run;

/// Whether an init container is one that runs on beside the containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether nothing of the pod is started any more: its containers have ended for good, or an init container has failed for good.
/// Sidecars may run still.
pub fn over(pod: &Pod, runs: &[Run]) -> bool {
    let ended = |name: &str| runs_of(runs, name).first().is_some_and(|r| r.finished.is_some() && !restarts(pod, r));
    container_names(pod).all(ended) || init_failed(pod, runs)
}

/// Whether an init container has failed and is not run again.
pub fn init_failed(pod: &Pod, runs: &[Run]) -> bool {
    init(pod).filter(|c| !is_sidecar(c)).any(|c| {
        let latest = runs_of(runs, &c.name).first().copied();
        latest.is_some_and(|r| r.finished.as_ref().is_some_and(|f| f.exit_code != 0) && !restarts(pod, r))
    })
}

/// Does what comes before the containers; whether it is their turn.
pub(super) fn proceed(view: &View<'_>, plan: &mut Plan) -> bool {
    let lost = view.runs.iter().filter_map(|r| r.finished.as_ref().filter(|f| f.lost).map(|f| f.at_ns)).max();
    let now =
        |name: &str| runs_of(view.runs, name).first().copied().filter(|r| lost.is_none_or(|at| r.started_at_ns > at));
    let all: Vec<&Container> = init(view.pod).collect();
    let reached = match container_names(view.pod).any(|name| now(name).is_some()) {
        true => all.len(),
        false => all.iter().rposition(|c| now(&c.name).is_some()).unwrap_or(0),
    };
    for (place, container) in all.into_iter().enumerate() {
        let sidecar = is_sidecar(container);
        let passed = place < reached
            || now(&container.name).is_some_and(|run| match &run.finished {
                Some(finished) => !sidecar && finished.exit_code == 0,
                None => sidecar && view.started.contains(&run.id),
            });
        match passed && !sidecar {
            true => forget_old(view, plan, &container.name),
            false => go_on(view, plan, &container.name),
        }
        if !passed {
            return false;
        }
    }
    true
}
