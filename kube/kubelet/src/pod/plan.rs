//! Every choice about a pod's containers: which to start, stop, forget, and when to look again. Pure.
//!
//! ```text
//! pod spec + observed runs + what failed before + now ──plan──▶ actions, when to wake
//!
//! init containers, one after the other ─▶ containers ─▶ over     see `init`
//! preStop ─▶ its turn ─▶ asked ─▶ killed                         see `stop`
//! ```

mod init;
mod stop;

pub use init::{is_sidecar, over};
pub use stop::Asked;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use engine_runtime::ContainerStatus as Run;

/// A crashed container waits this long before its second restart, and twice as long each time after.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// And never longer than this.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// One that has run this long is not crashing: it starts over at no delay.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// Runs kept per container: the current one, and the one before it for `--previous` and `lastState`.
const RUNS_KEPT: usize = 2;

/// Failures in a row and when to try again: of starting, or of pulling an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// As in `state.waiting.reason`.
    pub reason: String,
    /// As in `state.waiting.message`.
    pub message: String,
    /// Unix time in nanoseconds; none: only when the pod changes.
    pub retry_at_ns: Option<i64>,
    /// How often in a row.
    pub failures: u32,
}

/// How often a container ended in a row without having run for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crashes {
    /// The last run that was counted, plus one.
    counted: u32,
    count: u32,
}

impl Crashes {
    /// Takes note of a run; twice the same is fine.
    pub fn observe(&mut self, run: &Run) {
        let Some(finished) = &run.finished else { return };
        if run.attempt < self.counted {
            return;
        }
        let ran = finished.at_ns.saturating_sub(run.started_at_ns);
        self.count = if ran >= nanos(BACKOFF_RESET) { 1 } else { self.count.saturating_add(1) };
        self.counted = run.attempt + 1;
    }

    /// How long the next restart waits, counted from the end of the last run: nothing after the first crash.
    pub fn delay(&self) -> Duration {
        match self.count {
            0 | 1 => Duration::ZERO,
            n => backoff(n - 1),
        }
    }
}

/// 10 s, 20 s, … 5 min after the first, second, … failure.
pub fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(BACKOFF_MAX)
}

/// That the pod is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Unix time in nanoseconds when its containers are killed.
    pub deadline_ns: i64,
}

/// Everything a plan depends on.
pub struct View<'a> {
    /// As the API has it.
    pub pod: &'a Pod,
    /// Every run that the runtime remembers.
    pub runs: &'a [Run],
    /// By container.
    pub crashes: &'a BTreeMap<String, Crashes>,
    /// By container.
    pub holds: &'a BTreeMap<String, Hold>,
    /// Runs whose startup probe has succeeded (or that have none).
    pub started: &'a BTreeSet<String>,
    /// Runs that must end, by how long they have for it: a probe has failed, or a hook.
    pub unhealthy: &'a BTreeMap<String, Duration>,
    /// Runs that are being stopped.
    pub asked: &'a BTreeMap<String, Asked>,
    /// The pod ends.
    pub stopping: Option<Stopping>,
    /// Unix time in nanoseconds.
    pub now_ns: i64,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run this container for the `attempt`th time.
    Start {
        /// Its name.
        container: String,
        /// 0 the first time.
        attempt: u32,
    },
    /// Begin to stop a run, with its `preStop` hook if it has one; it is killed at the deadline.
    Ask {
        /// The run.
        id: String,
        /// Unix time in nanoseconds.
        deadline_ns: i64,
    },
    /// Send it the signal that asks it to end.
    Term {
        /// The run.
        id: String,
    },
    /// Kill a run.
    Kill {
        /// The run.
        id: String,
    },
    /// Drop a run that nobody needs any more.
    Forget {
        /// The run.
        id: String,
    },
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// When time alone changes the plan, in Unix nanoseconds.
    pub wake_at_ns: Option<i64>,
    /// Nothing runs, and nothing will be started.
    pub over: bool,
}

/// Decides.
pub fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    match view.stopping {
        Some(stopping) => stop::all(view, &mut plan, stopping.deadline_ns),
        None if over(view.pod, view.runs) => {
            // Its sidecars served it; ephemeral containers end with the pod, which does not wait for them.
            let deadline_ns = view.now_ns.saturating_add(nanos(grace(view.pod)));
            stop::sidecars(view, &mut plan, deadline_ns);
        }
        None => {
            if init::proceed(view, &mut plan) {
                container_names(view.pod).for_each(|name| container(view, &mut plan, name));
            }
            super::ephemeral(view.pod).for_each(|later| container(view, &mut plan, &later.name));
        }
    }
    plan
}

/// Whether a container that ended like this runs again while its pod goes on. Ephemeral ones never do, sidecars always.
pub fn restarts(pod: &Pod, run: &Run) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = super::init(pod).find(|c| c.name == run.name);
    let Some(own) = init.or_else(|| spec.containers.iter().find(|c| c.name == run.name)) else { return false };
    let code = run.finished.as_ref().map_or(0, |f| f.exit_code);
    let policy = own.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always");
    match (init, policy) {
        (Some(init), _) if is_sidecar(init) => true,
        _ if ruled(own, code) => true,
        (_, "Never") => false,
        (Some(_), _) | (None, "OnFailure") => code != 0,
        _ => true,
    }
}

/// Whether a rule of its own starts a container again that ended with this code (KEP-5307).
fn ruled(container: &Container, code: i32) -> bool {
    let rules = container.restart_policy_rules.iter().flatten().filter(|rule| rule.action == "Restart");
    rules.filter_map(|rule| rule.exit_codes.as_ref()).any(|codes| {
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        listed == (codes.operator == "In")
    })
}

/// When a finished run may be followed by the next.
pub fn restart_at_ns(run: &Run, crashes: Option<&Crashes>) -> i64 {
    let ended = run.finished.as_ref().map_or(0, |f| f.at_ns);
    ended.saturating_add(nanos(crashes.map(Crashes::delay).unwrap_or_default()))
}

/// The runs of a container, the latest first.
pub fn runs_of<'a>(runs: &'a [Run], container: &str) -> Vec<&'a Run> {
    let mut own: Vec<&Run> = runs.iter().filter(|r| r.name == container).collect();
    own.sort_by_key(|r| std::cmp::Reverse(r.attempt));
    own
}

/// The names of the containers that the pod is made of, in order.
pub fn container_names(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.spec.iter().flat_map(|s| s.containers.iter().map(|c| c.name.as_str()))
}

/// Keeps a container going that ends or not by the pod's restart policy.
fn container(view: &View<'_>, plan: &mut Plan, name: &str) {
    match runs_of(view.runs, name).first() {
        Some(run) if run.finished.is_some() && !restarts(view.pod, run) => forget_old(view, plan, name),
        _ => go_on(view, plan, name),
    }
}

/// Keeps a container running, whatever it has ended with.
fn go_on(view: &View<'_>, plan: &mut Plan, name: &str) {
    forget_old(view, plan, name);
    let own = runs_of(view.runs, name);
    let (attempt, not_before) = match own.first() {
        Some(run) if run.finished.is_none() => {
            if let Some(grace) = view.unhealthy.get(&run.id) {
                stop::one(view, plan, run, view.now_ns.saturating_add(nanos(*grace)), true);
            }
            return;
        }
        Some(run) => (run.attempt + 1, Some(restart_at_ns(run, view.crashes.get(name)))),
        None => (0, None),
    };
    let held = view.holds.get(name);
    if held.is_some_and(|h| h.retry_at_ns.is_none()) {
        return; // until the pod changes
    }
    let not_before = not_before.max(held.and_then(|h| h.retry_at_ns));
    match not_before {
        Some(at) if at > view.now_ns => wake(plan, at),
        _ => plan.actions.push(Action::Start { container: name.to_owned(), attempt }),
    }
}

fn forget_old(view: &View<'_>, plan: &mut Plan, name: &str) {
    let own = runs_of(view.runs, name);
    let old = own.into_iter().skip(RUNS_KEPT).filter(|r| r.finished.is_some());
    plan.actions.extend(old.map(|r| Action::Forget { id: r.id.clone() }));
}

fn wake(plan: &mut Plan, at_ns: i64) {
    plan.wake_at_ns = Some(plan.wake_at_ns.map_or(at_ns, |old| old.min(at_ns)));
}

/// The pod's own grace period; the API's default is 30 s.
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// A duration as signed nanoseconds.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
