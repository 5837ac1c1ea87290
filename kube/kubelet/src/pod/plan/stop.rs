//! How runs are stopped: the `preStop` hook, then the signal when it is the run's turn, then the end by force. Pure.
//!
//! ```text
//! containers ─────▶ the last sidecar ─▶ … ─▶ the first      hooks begin at once, all of them
//! ```
//!
//! Hooks and turns take from the same grace. Who got the signal late has 2 s in any case, also when nothing of it is left.

use std::time::Duration;

use super::{Action, Plan, View, is_sidecar, nanos, wake};
use crate::pod::{container, init};
use engine_runtime::ContainerStatus as Run;

/// What a run has from its signal on, whatever hooks and others before it have used up; upstream's figure.
const LEAST: Duration = Duration::from_secs(2);
/// A kill that was lost is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A run that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Unix time in nanoseconds when it is killed.
    pub deadline_ns: i64,
    /// Its `preStop` hook runs.
    pub hook: bool,
    /// When it got its signal, in Unix nanoseconds.
    pub termed_ns: Option<i64>,
}

/// Stops everything.
pub(super) fn all(view: &View<'_>, plan: &mut Plan, deadline_ns: i64) {
    let running = || view.runs.iter().filter(|r| r.finished.is_none());
    for run in running().filter(|r| place(view, r).is_none()) {
        one(view, plan, run, deadline_ns, true);
    }
    sidecars(view, plan, deadline_ns);
    plan.over = running().next().is_none();
}

/// Stops the sidecars, the last one first; over once none runs.
pub(super) fn sidecars(view: &View<'_>, plan: &mut Plan, deadline_ns: i64) {
    let running = || view.runs.iter().filter(|r| r.finished.is_none());
    let main =
        running().any(|r| place(view, r).is_none() && !super::super::ephemeral(view.pod).any(|c| c.name == r.name));
    for run in running() {
        let Some(own) = place(view, run) else { continue };
        let turn = !main && !running().any(|r| place(view, r) > Some(own));
        one(view, plan, run, deadline_ns, turn);
    }
    plan.over = !running().any(|r| place(view, r).is_some());
}

/// The place of a sidecar among the init containers.
fn place(view: &View<'_>, run: &Run) -> Option<usize> {
    init(view.pod).position(|c| c.name == run.name && is_sidecar(c))
}

/// Stops a run; `turn`: nobody is left who must end before it.
pub(super) fn one(view: &View<'_>, plan: &mut Plan, run: &Run, deadline_ns: i64, turn: bool) {
    let asked = view.asked.get(&run.id);
    let id = || run.id.clone();
    // A deadline only ever comes closer: a pod that is deleted with less grace than before ends sooner.
    let mut deadline_ns = asked.map_or(deadline_ns, |a| a.deadline_ns.min(deadline_ns));
    if let Some(at) = asked.and_then(|a| a.termed_ns) {
        deadline_ns = deadline_ns.max(at.saturating_add(nanos(LEAST)));
    }
    let late = view.now_ns >= deadline_ns;
    match asked {
        // No grace at all, or none left.
        None if late => plan.actions.push(Action::Kill { id: id() }),
        None => {
            plan.actions.push(Action::Ask { id: id(), deadline_ns });
            if turn && !has_hook(view, run) {
                plan.actions.push(Action::Term { id: id() });
            }
        }
        Some(Asked { termed_ns: Some(_), .. }) if late => plan.actions.push(Action::Kill { id: id() }),
        Some(Asked { termed_ns: None, hook, .. }) if late || (turn && !hook) => {
            plan.actions.push(Action::Term { id: id() });
            return wake(plan, deadline_ns.max(view.now_ns.saturating_add(nanos(LEAST))));
        }
        Some(_) => {}
    }
    // The kernel ends it soon, and its end wakes us; if the kill was lost, try again.
    wake(plan, if late { view.now_ns.saturating_add(nanos(AGAIN)) } else { deadline_ns });
}

fn has_hook(view: &View<'_>, run: &Run) -> bool {
    container(view.pod, &run.name).is_some_and(|c| c.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some()))
}
