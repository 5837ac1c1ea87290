//! Every choice about a pod's containers: which to start, stop, forget, and when to look again. Pure.
//!
//! ```text
//! pod spec + observed runs + what failed before + now ──plan──▶ actions, when to wake
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

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
    /// Runs whose liveness or startup probe has failed.
    pub unhealthy: &'a BTreeSet<String>,
    /// Runs that were asked to stop, and when they are killed.
    pub asked: &'a BTreeMap<String, i64>,
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
    /// Ask a run to stop; it is killed at the deadline.
    Ask {
        /// The run.
        id: String,
        /// Unix time in nanoseconds.
        deadline_ns: i64,
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
        Some(stopping) => {
            for run in view.runs.iter().filter(|r| r.finished.is_none()) {
                stop(view, &mut plan, &run.id, stopping.deadline_ns);
            }
            plan.over = view.runs.iter().all(|r| r.finished.is_some());
        }
        None => {
            let mut over = true;
            for name in container_names(view.pod) {
                over &= container(view, &mut plan, name);
            }
            if !over {
                // They end with the pod, which does not wait for them.
                for later in super::ephemeral(view.pod) {
                    container(view, &mut plan, &later.name);
                }
            }
            plan.over = over;
        }
    }
    plan
}

/// Whether a container that ended like this runs again. Ephemeral ones never do.
pub fn restarts(pod: &Pod, run: &Run) -> bool {
    if !container_names(pod).any(|name| name == run.name) {
        return false;
    }
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let failed = run.finished.as_ref().is_some_and(|f| f.exit_code != 0);
    match policy {
        "Never" => false,
        "OnFailure" => failed,
        _ => true,
    }
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

/// `true` when it has ended for good.
fn container(view: &View<'_>, plan: &mut Plan, name: &str) -> bool {
    let own = runs_of(view.runs, name);
    for old in own.iter().skip(RUNS_KEPT).filter(|r| r.finished.is_some()) {
        plan.actions.push(Action::Forget { id: old.id.clone() });
    }
    let (attempt, not_before) = match own.first() {
        Some(run) if run.finished.is_none() => {
            if view.unhealthy.contains(&run.id) {
                stop(view, plan, &run.id, view.now_ns.saturating_add(nanos(grace(view.pod))));
            }
            return false;
        }
        Some(run) if !restarts(view.pod, run) => return true,
        Some(run) => (run.attempt + 1, Some(restart_at_ns(run, view.crashes.get(name)))),
        None => (0, None),
    };
    let held = view.holds.get(name);
    if held.is_some_and(|h| h.retry_at_ns.is_none()) {
        return false; // until the pod changes
    }
    let not_before = not_before.max(held.and_then(|h| h.retry_at_ns));
    match not_before {
        Some(at) if at > view.now_ns => wake(plan, at),
        _ => plan.actions.push(Action::Start { container: name.to_owned(), attempt }),
    }
    false
}

fn stop(view: &View<'_>, plan: &mut Plan, id: &str, deadline_ns: i64) {
    // A deadline only ever comes closer: a pod that is deleted with less grace than before ends sooner.
    let asked = view.asked.get(id).copied();
    let deadline_ns = asked.unwrap_or(deadline_ns).min(deadline_ns);
    if view.now_ns >= deadline_ns {
        plan.actions.push(Action::Kill { id: id.to_owned() });
        // The kernel ends it soon, and its end wakes us; if the kill was lost, try again.
        wake(plan, view.now_ns.saturating_add(nanos(Duration::from_secs(1))));
        return;
    }
    if asked.is_none() {
        plan.actions.push(Action::Ask { id: id.to_owned(), deadline_ns });
    }
    wake(plan, deadline_ns);
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use engine_runtime::Finished;
    use serde_json::json;

    const S: i64 = 1_000_000_000;

    fn run(attempt: u32, started: i64, ended: Option<(i64, i32)>) -> Run {
        let finished = ended.map(|(at, exit_code)| Finished {
            at_ns: at * S,
            exit_code,
            signal: 0,
            oom_killed: false,
            lost: false,
            error: None,
        });
        Run { id: format!("r{attempt}"), name: "c".into(), attempt, pid: None, started_at_ns: started * S, finished }
    }

    #[derive(Default)]
    struct Case {
        policy: &'static str,
        runs: Vec<Run>,
        hold: Option<Hold>,
        unhealthy: bool,
        asked: BTreeMap<String, i64>,
        stopping: Option<i64>,
        now: i64,
    }

    fn check(case: &Case) -> String {
        let policy = if case.policy.is_empty() { "Always" } else { case.policy };
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"restartPolicy": policy, "containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let mut crashes = BTreeMap::<String, Crashes>::new();
        for run in &case.runs {
            crashes.entry("c".into()).or_default().observe(run);
        }
        let plan = plan(&View {
            pod: &pod,
            runs: &case.runs,
            crashes: &crashes,
            holds: &case.hold.iter().map(|h| ("c".to_owned(), h.clone())).collect(),
            unhealthy: &case.runs.iter().filter(|_| case.unhealthy).map(|r| r.id.clone()).collect(),
            asked: &case.asked,
            stopping: case.stopping.map(|s| Stopping { deadline_ns: s * S }),
            now_ns: case.now * S,
        });
        let actions: Vec<String> = plan
            .actions
            .iter()
            .map(|a| match a {
                Action::Start { attempt, .. } => format!("start {attempt}"),
                Action::Ask { id, deadline_ns } => format!("ask {id} until {}", deadline_ns / S),
                Action::Kill { id } => format!("kill {id}"),
                Action::Forget { id } => format!("forget {id}"),
            })
            .collect();
        let wake = plan.wake_at_ns.map(|at| format!(" wake {}", at / S)).unwrap_or_default();
        format!("{}{wake}{}", actions.join(", "), if plan.over { " over" } else { "" })
    }

    #[test]
    fn first_start_and_running() {
        assert_eq!(check(&Case::default()), "start 0");
        assert_eq!(check(&Case { runs: vec![run(0, 0, None)], ..Case::default() }), "");
    }

    #[test]
    fn restart_policies() {
        for (policy, code, expected) in
            [("Always", 0, "start 1"), ("OnFailure", 0, " over"), ("OnFailure", 1, "start 1"), ("Never", 1, " over")]
        {
            let runs = vec![run(0, 0, Some((5, code)))];
            assert_eq!(check(&Case { policy, runs, now: 5, ..Case::default() }), expected, "{policy} {code}");
        }
    }

    #[test]
    fn crashes_back_off_and_long_runs_do_not() {
        let two = vec![run(0, 0, Some((1, 1))), run(1, 1, Some((2, 1)))];
        assert_eq!(check(&Case { runs: two.clone(), now: 2, ..Case::default() }), " wake 12");
        assert_eq!(check(&Case { runs: two, now: 12, ..Case::default() }), "start 2");
        let long = vec![run(0, 0, Some((1, 1))), run(1, 1, Some((601, 1)))];
        assert_eq!(check(&Case { runs: long, now: 601, ..Case::default() }), "start 2");
        let delays: Vec<u64> = (1..8).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn old_runs_are_forgotten() {
        let runs = vec![run(0, 0, Some((1, 0))), run(1, 0, Some((700, 0))), run(2, 700, None)];
        assert_eq!(check(&Case { runs, ..Case::default() }), "forget r0");
    }

    #[test]
    fn a_hold_delays() {
        let hold = |retry| {
            Some(Hold { reason: "ErrImagePull".into(), message: String::new(), retry_at_ns: retry, failures: 1 })
        };
        assert_eq!(check(&Case { hold: hold(Some(9 * S)), now: 5, ..Case::default() }), " wake 9");
        assert_eq!(check(&Case { hold: hold(Some(9 * S)), now: 9, ..Case::default() }), "start 0");
        assert_eq!(check(&Case { hold: hold(None), now: 99, ..Case::default() }), "");
    }

    #[test]
    fn stopping_asks_then_kills() {
        let runs = vec![run(0, 0, None)];
        let stopping = Case { runs, stopping: Some(30), now: 1, ..Case::default() };
        assert_eq!(check(&stopping), "ask r0 until 30 wake 30");
        let asked: BTreeMap<_, _> = [("r0".to_owned(), 30 * S)].into();
        let asked_case = |now, stopping| Case {
            runs: vec![run(0, 0, None)],
            asked: asked.clone(),
            stopping: Some(stopping),
            now,
            ..Case::default()
        };
        assert_eq!(check(&asked_case(5, 30)), " wake 30");
        assert_eq!(check(&asked_case(30, 30)), "kill r0 wake 31");
        assert_eq!(check(&asked_case(5, 5)), "kill r0 wake 6", "less grace than before");
        assert_eq!(
            check(&Case { runs: vec![run(0, 0, Some((3, 0)))], stopping: Some(30), now: 4, ..Case::default() }),
            " over"
        );
    }

    #[test]
    fn an_unhealthy_run_is_stopped_with_the_pods_grace() {
        assert_eq!(
            check(&Case { runs: vec![run(0, 0, None)], unhealthy: true, now: 100, ..Case::default() }),
            "ask r0 until 130 wake 130"
        );
    }
}
