//! The task of one pod: it listens to the API, the runtime, the probes and the clock, asks for a plan, and acts.
//!
//! Reading order: here the loop and what it does; in `observe` what runs, probes and hooks say; in `ending` how runs and the pod end; in
//! `report` what the API is told; in `resizing` more or less CPU and memory.

mod ending;
mod observe;
mod report;
mod resizing;

pub(crate) use ending::{remove_dir, sweep};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::plan::{self, Action, Asked, Crashes, Hold, Plan, Stopping};
use super::probes::{self, Verdict};
use super::start::{self, Outcome, uid};
use super::{PodDir, resize, resources, status};
use crate::Shared;
use crate::manager::Pods;
use crate::static_pods::is_static;
use engine_runtime::{ContainerStatus as Run, Finished, Observed};

/// Verdicts under way: a probe says a few per second, and the worker is never busy for longer than that.
const VERDICTS: usize = 32;
/// How often volumes made of API objects are written anew; the kubelet's default sync period.
const REFRESH: Duration = Duration::from_secs(60);
/// A resize that has not been done is looked at again this much later: others may have gone, memory may have been given back.
const RESIZE: Duration = Duration::from_secs(2);
/// A failed write to the API is tried again this much later.
const RETRY: Duration = Duration::from_secs(1);
/// The supervisor says what it has started at once; later than this, it never will (it has refused to remember it).
const SEEN: Duration = Duration::from_secs(2);

/// What the API says about a pod.
#[derive(Clone, Debug)]
pub struct Input {
    /// The latest version.
    pub pod: Arc<Pod>,
    /// It is in the API no more: whatever of it is here must go.
    pub gone: bool,
    /// What the API shows of a static pod.
    pub shown: Option<Arc<Pod>>,
    /// Why the node ends it.
    pub evicted: Option<String>,
}

/// Starts the task. It ends when nothing of the pod is left on this machine.
pub(crate) fn spawn(shared: Arc<Shared>, input: watch::Receiver<Input>, pods: Pods) -> JoinHandle<()> {
    let work = shared.work.clone();
    work.spawn(async move {
        let pod = Arc::clone(&input.borrow().pod);
        let observed = shared.runtime.watch(uid(&pod)).await;
        Worker::new(shared, input, observed, pods).run().await;
    })
}

struct Worker {
    shared: Arc<Shared>,
    input: watch::Receiver<Input>,
    observed: watch::Receiver<Observed>,
    pod: Arc<Pod>,
    crashes: BTreeMap<String, Crashes>,
    holds: BTreeMap<String, Hold>,
    ready: BTreeSet<String>,
    started: BTreeSet<String>,
    /// Runs that must end, by the grace they have for it.
    unhealthy: BTreeMap<String, Duration>,
    /// Runs that are being stopped.
    asked: BTreeMap<String, Asked>,
    /// `preStop` hooks under way, by run.
    hooking: BTreeMap<String, AbortHandle>,
    messages: BTreeMap<String, String>,
    images: BTreeMap<String, String>,
    /// The pod's addresses, that of IPv4 first.
    pod_ips: Vec<String>,
    sandbox: bool,
    stopping: Option<Stopping>,
    /// Reason and message, if this node ends the pod while the API does not.
    ended: Option<(&'static str, String)>,
    /// It may run here.
    admitted: bool,
    /// What the start under way is to start.
    begun: Vec<(String, u32)>,
    starting: Option<(JoinHandle<Outcome>, CancellationToken)>,
    probing: BTreeMap<String, AbortHandle>,
    verdicts: mpsc::Receiver<(String, Verdict)>,
    verdicts_in: mpsc::Sender<(String, Verdict)>,
    written: Option<(PodStatus, tokio::time::Instant)>,
    /// The uid under which the API shows a static pod.
    shown: Option<String>,
    /// How a static pod is while the API does not show it.
    told: Option<PodStatus>,
    /// All pods of this machine.
    pods: Pods,
    /// What containers have of CPU and memory.
    given: resize::Given,
    /// The condition of a resize that is not done: type, reason, message.
    resizing: Option<(&'static str, &'static str, String)>,
    /// Everything has been taken down; only the log is left.
    down: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.probing.values().chain(self.hooking.values()).for_each(AbortHandle::abort);
        if let Some((task, cancel)) = &self.starting {
            cancel.cancel();
            task.abort();
        }
    }
}

impl Worker {
    fn new(
        shared: Arc<Shared>,
        input: watch::Receiver<Input>,
        observed: watch::Receiver<Observed>,
        pods: Pods,
    ) -> Self {
        let (verdicts_in, verdicts) = mpsc::channel(VERDICTS);
        let Input { pod, shown, .. } = input.borrow().clone();
        let pod = match shown.and_then(|shown| shown.status.clone()) {
            Some(status) if is_static(&pod) => Arc::new(Pod { status: Some(status), ..Pod::clone(&pod) }),
            _ => pod,
        };
        // A restarted kubelet finds the addresses where they were written.
        let known = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        let pod_ips = known.iter().map(|address| address.ip.clone()).collect();
        let sandbox = observed.borrow().alive;
        let down = is_over(&pod);
        let given = resize::given(&pod);
        Self {
            shared,
            input,
            observed,
            pod,
            crashes: BTreeMap::new(),
            holds: BTreeMap::new(),
            ready: BTreeSet::new(),
            started: BTreeSet::new(),
            unhealthy: BTreeMap::new(),
            asked: BTreeMap::new(),
            hooking: BTreeMap::new(),
            messages: BTreeMap::new(),
            images: BTreeMap::new(),
            pod_ips,
            sandbox,
            stopping: None,
            ended: None,
            admitted: false,
            begun: Vec::new(),
            starting: None,
            probing: BTreeMap::new(),
            verdicts,
            verdicts_in,
            written: None,
            shown: None,
            told: None,
            pods,
            given,
            resizing: None,
            down,
        }
    }

    async fn run(mut self) {
        if self.down {
            // It ended before we started: whatever is left of it is swept, and its status stays as it is.
            self.take_down().await;
        }
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.reset();
        loop {
            let wake = match self.turn().await {
                Turn::Ended => return,
                Turn::Wait(wake) => wake,
            };
            let sleep = wake.map_or(Duration::MAX, |at| {
                Duration::from_nanos(u64::try_from(at.saturating_sub(now_ns())).unwrap_or(0))
            });
            tokio::select! {
                // All arms only wake: dropping any of them loses nothing.
                changed = self.input.changed() => if changed.is_err() { return },
                // A dead watch does not wake: a new one is made after the next start.
                Ok(()) = self.observed.changed() => {}
                Some((run, verdict)) = self.verdicts.recv() => self.hear(run, verdict),
                outcome = finished(&mut self.starting) => self.learn(outcome).await,
                _ = refresh.tick() => self.refresh().await,
                () = tokio::time::sleep(sleep.min(Duration::from_secs(3600))) => {}
            }
        }
    }

    /// What is to be seen of the runs: one whose `postStart` hook has not come back does not count as running yet.
    fn visible(&self, mut observed: Observed) -> Observed {
        if self.starting.is_some() && self.stopping.is_none() {
            observed.containers.retain(|run| {
                let new = self.begun.iter().any(|(name, attempt)| (name, *attempt) == (&run.name, run.attempt));
                let lifecycle = super::container(&self.pod, &run.name).and_then(|c| c.lifecycle.clone());
                !new || run.finished.is_some() || lifecycle.is_none_or(|l| l.post_start.is_none())
            });
        }
        observed
    }

    /// Looks, plans, acts and reports once.
    async fn turn(&mut self) -> Turn {
        let Input { pod, gone, shown, evicted } = self.input.borrow_and_update().clone();
        self.pod = if is_static(&pod) { self.as_shown(&pod, shown) } else { pod };
        if gone || self.pod.metadata.deletion_timestamp.is_some() {
            self.begin_stopping(gone);
        }
        self.evict(evicted);
        if self.down {
            return if self.leaves(gone) { self.depart(gone).await } else { Turn::Wait(None) };
        }
        let observed = self.observed.borrow_and_update().clone();
        let observed = self.visible(observed);
        let expires = self.expire();
        self.note(&observed);
        self.resize(&observed);
        let plan = self.plan(&observed);
        self.act(&plan, &observed).await;
        if plan.over && self.starting.is_none() {
            return self.finish(&observed, gone).await;
        }
        let reported = gone || self.report(&observed).await;
        let again = (!reported).then(|| now_ns() + plan::nanos(RETRY));
        let resize = self.resizing.is_some().then(|| now_ns() + plan::nanos(RESIZE));
        // Runs that were just asked to stop are planned for again: their hooks are known now.
        let asked = plan.actions.iter().any(|a| matches!(a, Action::Ask { .. } | Action::Term { .. })).then(now_ns);
        Turn::Wait(plan.wake_at_ns.into_iter().chain(again).chain(resize).chain(expires).chain(asked).min())
    }

    fn plan(&self, observed: &Observed) -> Plan {
        plan::plan(&plan::View {
            pod: &self.pod,
            runs: &observed.containers,
            crashes: &self.crashes,
            holds: &self.holds,
            started: &self.started,
            unhealthy: &self.unhealthy,
            asked: &self.asked,
            stopping: self.stopping,
            now_ns: now_ns(),
        })
    }

    async fn act(&mut self, plan: &Plan, observed: &Observed) {
        let mut starts = Vec::new();
        for action in &plan.actions {
            match action {
                Action::Start { container, attempt } => starts.push((container.clone(), *attempt)),
                Action::Ask { id, deadline_ns } => self.ask(observed, id, *deadline_ns),
                Action::Term { id } => self.term(observed, id).await,
                Action::Kill { id } => self.signal(id, nix::libc::SIGKILL).await,
                Action::Forget { id } => {
                    if let Err(e) = self.shared.runtime.forget(uid(&self.pod), id).await {
                        tracing::warn!(pod = self.pod.metadata.name, "forget a run: {}", start::chain(&e));
                    }
                    if let Some(run) = observed.containers.iter().find(|r| r.id == *id) {
                        self.remove_files(id, &run.name, run.attempt);
                    }
                }
            }
        }
        if !starts.is_empty() && self.starting.is_none() && self.stopping.is_none() {
            let cancel = CancellationToken::new();
            let (shared, pod, held) =
                (Arc::clone(&self.shared), Arc::new(resize::with(&self.pod, &self.given)), self.holds.clone());
            self.begun.clone_from(&starts);
            let task = self.shared.work.spawn(start::start(shared, pod, starts, held, cancel.clone()));
            self.starting = Some((task, cancel));
        }
    }

    async fn signal(&self, id: &str, signal: i32) {
        if let Err(e) = self.shared.runtime.signal(uid(&self.pod), id, signal).await {
            // Its supervisor is gone, and so is it; the runtime's watch says so.
            tracing::debug!(pod = self.pod.metadata.name, "signal a container: {}", start::chain(&e));
        }
    }

    /// Takes in what a start has learned.
    async fn learn(&mut self, outcome: Option<Outcome>) {
        self.starting = None;
        let Some(outcome) = outcome else { return };
        if !outcome.pod_ips.is_empty() {
            self.pod_ips = outcome.pod_ips;
        }
        self.images.extend(outcome.images);
        if outcome.sandbox && !self.observed.borrow().alive {
            self.observed = self.shared.runtime.watch(uid(&self.pod)).await;
        }
        for (container, result) in outcome.results {
            let held = match result {
                Ok(run) if self.is_seen(&run).await => None,
                Ok(_) => Some(start::hold_unseen()),
                Err(hold) => Some(hold),
            };
            match held {
                None => drop(self.holds.remove(&container)),
                Some(hold) => drop(self.holds.insert(container, hold)),
            }
        }
        for (run, container, message) in outcome.hooks_failed {
            self.shared.events.normal(&self.pod, Some(&container), "Killing", "FailedPostStartHook".to_owned());
            self.unhealthy.insert(run, plan::grace(&self.pod));
            // It runs again by the pod's policy; meanwhile this is why it does not.
            let hold = Hold { reason: "PostStartHookError".into(), message, retry_at_ns: Some(0), failures: 1 };
            self.holds.insert(container, hold);
        }
    }

    /// Waits until the runtime's watch shows a run: planned before that, it would be started a second time.
    async fn is_seen(&mut self, run: &str) -> bool {
        let shown = self.observed.wait_for(|o| !o.alive || o.containers.iter().any(|c| c.id == run));
        matches!(tokio::time::timeout(SEEN, shown).await, Ok(Ok(_)))
    }

    async fn refresh(&self) {
        let volumes = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        if self.down || self.stopping.is_some() || !self.sandbox || !volumes.into_iter().any(|v| v.empty_dir.is_none())
        {
            return;
        }
        if let Err(why) = start::refresh(&self.shared, &self.pod, &self.pod_ips).await {
            self.shared.events.warning(&self.pod, None, "FailedMount", why);
        }
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), self.pod.metadata.namespace.as_deref().unwrap_or("default"))
    }
}

enum Turn {
    /// Nothing is left to do, ever.
    Ended,
    /// Until something happens, or until then (Unix nanoseconds).
    Wait(Option<i64>),
}

/// Whether the pod has ended according to the API: then it is never started again.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The end of a start, if one is under way.
async fn finished(starting: &mut Option<(JoinHandle<Outcome>, CancellationToken)>) -> Option<Outcome> {
    match starting {
        Some((task, _)) => match task.await {
            Ok(outcome) => Some(outcome),
            Err(e) => {
                tracing::error!("a start was lost: {e}");
                None
            }
        },
        None => std::future::pending().await,
    }
}

fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
