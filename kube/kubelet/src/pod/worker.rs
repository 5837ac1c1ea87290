//! The task of one pod: it listens to the API, the runtime, the probes and the clock, asks for a plan, and acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::plan::{self, Action, Crashes, Hold, Plan, Stopping};
use super::probes::{self, Verdict};
use super::start::{self, Outcome, uid};
use super::{PodDir, resize, resources, status};
use crate::Shared;
use crate::manager::Pods;
use engine_runtime::{ContainerStatus as Run, Finished, Observed};

/// Verdicts under way: a probe says a few per second, and the worker is never busy for longer than that.
const VERDICTS: usize = 32;
/// The API bounds `terminated.message` to this.
const TERMINATION_MESSAGE_MAX: u64 = 4096;
/// How often volumes made of API objects are written anew; the kubelet's default sync period.
const REFRESH: Duration = Duration::from_secs(60);
/// A resize that has not been done is looked at again this much later: others may have gone, memory may have been given back.
const RESIZE: Duration = Duration::from_secs(2);
/// A failed write to the API is tried again this much later.
const RETRY: Duration = Duration::from_secs(1);
/// The supervisor says what it has started at once; later than this, it never will (it has refused to remember it).
const SEEN: Duration = Duration::from_secs(2);
/// SIGTERM, unless the image says otherwise.
const TERM: i32 = 15;

/// What the API says about a pod.
#[derive(Clone, Debug)]
pub struct Input {
    /// The latest version.
    pub pod: Arc<Pod>,
    /// It is in the API no more: whatever of it is here must go.
    pub gone: bool,
}

/// Starts the task. It ends when nothing of the pod is left on this machine.
pub(crate) fn spawn(shared: Arc<Shared>, input: watch::Receiver<Input>, pods: Pods) -> JoinHandle<()> {
    tokio::spawn(async move {
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
    unhealthy: BTreeSet<String>,
    /// Runs asked to stop → when they are killed.
    asked: BTreeMap<String, i64>,
    messages: BTreeMap<String, String>,
    images: BTreeMap<String, String>,
    pod_ip: Option<String>,
    sandbox: bool,
    stopping: Option<Stopping>,
    starting: Option<(JoinHandle<Outcome>, CancellationToken)>,
    probing: BTreeMap<String, AbortHandle>,
    verdicts: mpsc::Receiver<(String, Verdict)>,
    verdicts_in: mpsc::Sender<(String, Verdict)>,
    written: Option<(PodStatus, tokio::time::Instant)>,
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
        self.probing.values().for_each(AbortHandle::abort);
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
        let pod = Arc::clone(&input.borrow().pod);
        // A restarted kubelet finds the address where it was written.
        let pod_ip = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
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
            unhealthy: BTreeSet::new(),
            asked: BTreeMap::new(),
            messages: BTreeMap::new(),
            images: BTreeMap::new(),
            pod_ip,
            sandbox,
            stopping: None,
            starting: None,
            probing: BTreeMap::new(),
            verdicts,
            verdicts_in,
            written: None,
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

    /// Looks, plans, acts and reports once.
    async fn turn(&mut self) -> Turn {
        let Input { pod, gone } = self.input.borrow_and_update().clone();
        self.pod = pod;
        if gone || self.pod.metadata.deletion_timestamp.is_some() {
            self.begin_stopping(gone);
        }
        if self.down {
            return if self.stopping.is_some() { self.depart(gone).await } else { Turn::Wait(None) };
        }
        let observed = self.observed.borrow_and_update().clone();
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
        Turn::Wait(plan.wake_at_ns.into_iter().chain(again).chain(resize).min())
    }

    /// Gives containers what the pod shall have, or notes why not.
    fn resize(&mut self, observed: &Observed) {
        self.resizing = None;
        if self.stopping.is_some() || self.starting.is_some() {
            return;
        }
        let decision = {
            let pods = self.pods.borrow();
            let own = uid(&self.pod);
            let others = pods.iter().filter(|(uid, pod)| *uid != own && !is_over(pod)).map(|(_, pod)| pod.as_ref());
            resize::decide(&self.pod, &self.given, others, self.shared.free())
        };
        match decision {
            resize::Decision::Same => {}
            resize::Decision::Pending(reason, why) => self.resizing = Some(("PodResizePending", reason, why)),
            resize::Decision::Change(containers) => match self.change(&containers, observed) {
                Ok(()) => self.given = resize::given(&Pod { status: None, ..Pod::clone(&self.pod) }),
                Err(why) => self.resizing = Some(("PodResizeInProgress", "Error", why)),
            },
        }
    }

    /// Writes the cgroups of containers that run, and asks those to stop that are to be run again. A cgroup may not have more than the one above it,
    /// so the pod's grows first and shrinks last (with the next start, if there is one).
    fn change(&mut self, containers: &[(String, bool)], observed: &Observed) -> Result<(), String> {
        let running = |name: &str| observed.containers.iter().find(|run| run.name == name && run.finished.is_none());
        let cgroups = &self.shared.cgroups;
        let top = format!("pod{}", uid(&self.pod));
        let of = |run: &Run| format!("{top}/{}", &run.id[..run.id.len().min(16)]);
        let spec = self.pod.spec.as_ref();
        let wanted: Vec<_> = spec.iter().flat_map(|spec| &spec.containers).collect();
        let mut runs = Vec::new();
        for (name, restart) in containers {
            let Some((run, container)) = running(name).zip(wanted.iter().find(|c| c.name == *name)) else { continue };
            let limits = resources::container_limits(container);
            if let (false, Some(limit), Some((used, _))) =
                (*restart, limits.memory_limit_bytes, cgroups.usage(&of(run)))
                && limit < used
            {
                return Err(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
            runs.push((run, limits, *restart));
        }
        if runs.is_empty() {
            return Ok(()); // what starts is given it
        }
        let write = |path: &str, limits: &engine_runtime::cgroups::Limits| {
            cgroups.create(path, limits).map(drop).map_err(|e| start::chain(&e))
        };
        let old = resources::pod_limits(&resize::with(&self.pod, &self.given));
        let new = resources::pod_limits(&self.pod);
        write(&top, &old.larger(&new))?;
        for (run, limits, restart) in &runs {
            if *restart {
                self.shared.events.normal(
                    &self.pod,
                    Some(&run.name),
                    "Killing",
                    format!("Container {} resize requires restart", run.name),
                );
                self.unhealthy.insert(run.id.clone());
            } else {
                write(&of(run), limits)?;
            }
        }
        if runs.iter().any(|(.., restart)| *restart) { Ok(()) } else { write(&top, &new) }
    }

    fn begin_stopping(&mut self, gone: bool) {
        let now = now_ns();
        let meta = &self.pod.metadata;
        let seconds = meta.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
        let grace = seconds.map_or_else(|| plan::grace(&self.pod), Duration::from_secs);
        // The time that the API set is when it should be over; if we were away then, it should have been long ago.
        let due = meta.deletion_timestamp.as_ref().and_then(|t| i64::try_from(t.0.as_nanosecond()).ok());
        let own = self.stopping.map_or(now.saturating_add(plan::nanos(grace)), |s| s.deadline_ns);
        let deadline_ns = match due {
            _ if gone => now,
            Some(due) => own.min(due.max(now)),
            None => own,
        };
        if self.stopping.is_none() {
            self.holds.clear();
            if let Some((_, cancel)) = &self.starting {
                cancel.cancel();
            }
        }
        self.stopping = Some(Stopping { deadline_ns });
    }

    /// Takes note of what is new about the runs.
    fn note(&mut self, observed: &Observed) {
        self.sandbox = observed.alive;
        for run in &observed.containers {
            self.crashes.entry(run.name.clone()).or_default().observe(run);
            match &run.finished {
                Some(finished) if !self.messages.contains_key(&run.id) => {
                    self.note_end(&run.id, &run.name, finished);
                    self.note_back_off(run);
                }
                None if !self.probing.contains_key(&run.id) => self.begin_probing(&run.id, &run.name),
                _ => {}
            }
        }
        let known = |id: &String| observed.containers.iter().any(|r| r.id == *id);
        self.asked.retain(|id, _| known(id));
        self.messages.retain(|id, _| known(id));
    }

    fn note_end(&mut self, id: &str, container: &str, finished: &Finished) {
        let path = PodDir::new(&self.shared.dir, uid(&self.pod)).termination(id);
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open(path) {
            let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, TERMINATION_MESSAGE_MAX), &mut text); // no words, then
        }
        if let Some(abort) = self.probing.remove(id) {
            abort.abort();
        }
        self.ready.remove(id);
        self.started.remove(id);
        self.unhealthy.remove(id);
        self.asked.remove(id);
        // An empty message is kept too, as the mark that this end has been noted; the status leaves it out.
        self.messages.insert(id.to_owned(), String::from_utf8_lossy(&text).into_owned());
        let cgroup = format!("pod{}/{}", uid(&self.pod), &id[..id.len().min(16)]);
        let cgroups = self.shared.cgroups.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = cgroups.remove(&cgroup) {
                tracing::warn!("remove cgroup: {}", start::chain(&e));
            }
        });
        tracing::info!(
            pod = self.pod.metadata.name,
            container,
            exit_code = finished.exit_code,
            oom = finished.oom_killed,
            "container ended"
        );
    }

    fn note_back_off(&self, run: &Run) {
        let delay = self.crashes.get(&run.name).map(Crashes::delay).unwrap_or_default();
        if delay.is_zero() || self.stopping.is_some() || !plan::restarts(&self.pod, run) {
            return;
        }
        let meta = &self.pod.metadata;
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        let (container, name, namespace, uid) = (&run.name, part(&meta.name), part(&meta.namespace), part(&meta.uid));
        let message = format!("Back-off restarting failed container {container} in pod {name}_{namespace}({uid})");
        self.shared.events.warning(&self.pod, Some(container), "BackOff", message);
    }

    fn begin_probing(&mut self, id: &str, container: &str) {
        let Some(spec) = self.pod.spec.iter().flat_map(|s| &s.containers).find(|c| c.name == container) else { return };
        let host = self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        let address = match &self.pod_ip {
            Some(ip) if !host => ip.clone(),
            _ => self.shared.host_ip.clone(),
        };
        if spec.readiness_probe.is_none() && spec.startup_probe.is_none() && spec.liveness_probe.is_none() {
            // Nothing to ask: no task is needed to know the answer.
            self.started.insert(id.to_owned());
            self.ready.insert(id.to_owned());
            self.probing.insert(id.to_owned(), tokio::spawn(async {}).abort_handle());
            return;
        }
        let subject = probes::Subject {
            runtime: Arc::clone(&self.shared.runtime),
            pod_uid: uid(&self.pod).to_owned(),
            run: id.to_owned(),
            address,
            container: spec.clone(),
        };
        let task = tokio::spawn(probes::probe(subject, self.verdicts_in.clone()));
        self.probing.insert(id.to_owned(), task.abort_handle());
    }

    fn hear(&mut self, run: String, verdict: Verdict) {
        let runs = self.observed.borrow().containers.clone();
        let Some(name) = runs.iter().find(|r| r.id == run && r.finished.is_none()).map(|r| r.name.clone()) else {
            return;
        };
        match verdict {
            Verdict::Started => drop(self.started.insert(run)),
            Verdict::Ready(true) => drop(self.ready.insert(run)),
            Verdict::Ready(false) => drop(self.ready.remove(&run)),
            Verdict::Failed(probe, why) => {
                self.shared.events.warning(&self.pod, Some(&name), "Unhealthy", format!("{probe} probe failed: {why}"));
            }
            Verdict::Unhealthy(probe) => {
                let message = format!("Container {name} failed {probe} probe, will be restarted");
                self.shared.events.normal(&self.pod, Some(&name), "Killing", message);
                self.unhealthy.insert(run);
            }
        }
    }

    fn plan(&self, observed: &Observed) -> Plan {
        plan::plan(&plan::View {
            pod: &self.pod,
            runs: &observed.containers,
            crashes: &self.crashes,
            holds: &self.holds,
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
                Action::Ask { id, deadline_ns } => {
                    if let Some(run) =
                        observed.containers.iter().find(|r| r.id == *id).filter(|_| self.stopping.is_some())
                    {
                        self.shared.events.normal(
                            &self.pod,
                            Some(&run.name),
                            "Killing",
                            format!("Stopping container {}", run.name),
                        );
                    }
                    self.signal(id, self.stop_signal(observed, id).await).await;
                    self.asked.insert(id.clone(), *deadline_ns);
                }
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
            let task = tokio::spawn(start::start(shared, pod, starts, held, cancel.clone()));
            self.starting = Some((task, cancel));
        }
    }

    async fn signal(&self, id: &str, signal: i32) {
        if let Err(e) = self.shared.runtime.signal(uid(&self.pod), id, signal).await {
            // Its supervisor is gone, and so is it; the runtime's watch says so.
            tracing::debug!(pod = self.pod.metadata.name, "signal a container: {}", start::chain(&e));
        }
    }

    /// The image's word, by number or name.
    async fn stop_signal(&self, observed: &Observed, id: &str) -> i32 {
        let name = observed.containers.iter().find(|r| r.id == id).map(|r| r.name.as_str()).unwrap_or_default();
        let spec = super::container(&self.pod, name);
        let Some(reference) = spec.as_ref().and_then(|c| c.image.as_deref()).and_then(|i| i.parse().ok()) else {
            return TERM;
        };
        let image = self.shared.images.find(&reference).await.ok().flatten();
        let text = image.map(|i| i.config.stop_signal).unwrap_or_default();
        let by_name = text.parse::<nix::sys::signal::Signal>().map(|s| s as i32).ok();
        let with_prefix = format!("SIG{text}").parse::<nix::sys::signal::Signal>().map(|s| s as i32).ok();
        text.parse::<i32>().ok().or(by_name).or(with_prefix).unwrap_or(TERM)
    }

    /// Takes in what a start has learned.
    async fn learn(&mut self, outcome: Option<Outcome>) {
        self.starting = None;
        let Some(outcome) = outcome else { return };
        self.pod_ip = outcome.pod_ip.or(self.pod_ip.take());
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
        if let Err(why) = start::refresh(&self.shared, &self.pod, self.pod_ip.as_deref()).await {
            self.shared.events.warning(&self.pod, None, "FailedMount", why);
        }
    }

    fn status(&self, observed: &Observed) -> PodStatus {
        let messages =
            self.messages.iter().filter(|(_, m)| !m.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect();
        status::status(&status::View {
            pod: &self.pod,
            runs: &observed.containers,
            crashes: &self.crashes,
            holds: &self.holds,
            ready: &self.ready,
            started: &self.started,
            messages: &messages,
            images: &self.images,
            host_ip: &self.shared.host_ip,
            pod_ip: self.pod_ip.as_deref(),
            sandbox: self.sandbox,
            given: &self.given,
            resizing: self.resizing.as_ref(),
            stopping: self.stopping.is_some(),
            now: Timestamp::now(),
        })
    }

    /// Writes the status if it is new; `false` when that must be tried again.
    async fn report(&mut self, observed: &Observed) -> bool {
        let status = self.status(observed);
        let agrees = status::agree(self.pod.status.as_ref(), &status);
        if let Some((written, at)) = self.written.as_ref().filter(|(written, _)| *written == status) {
            // Others may have written over it (a node that was thought lost); or the watch has not shown ours yet.
            if agrees || at.elapsed() < RETRY {
                return agrees;
            }
            tracing::info!(
                pod = self.pod.metadata.name,
                phase = written.phase,
                "the status was changed by others; writing it again"
            );
        } else if self.pod.status.as_ref() == Some(&status) {
            return true;
        }
        let meta = &self.pod.metadata;
        // The uid makes sure that it is this pod and not one of the same name. Fields that went away are named.
        let mut body = serde_json::json!({"metadata": {"uid": meta.uid}, "status": status});
        for field in ["podIP", "podIPs", "reason", "message"] {
            if body["status"].get(field).is_none() && self.written.is_some() {
                body["status"][field] = serde_json::Value::Null;
            }
        }
        let api: Api<Pod> = self.api();
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(_) => {
                self.written = Some((status, tokio::time::Instant::now()));
                true
            }
            // The watch will say that it is gone, or replaced.
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => true,
            Err(e) => {
                tracing::warn!(pod = name, "write the pod's status: {e}");
                false
            }
        }
    }

    /// Nothing runs and nothing will: says how it ended, takes down what it used.
    async fn finish(&mut self, observed: &Observed, gone: bool) -> Turn {
        if !gone && !self.report(observed).await {
            return Turn::Wait(Some(now_ns() + plan::nanos(RETRY)));
        }
        self.take_down().await;
        match self.stopping {
            Some(_) => self.depart(gone).await,
            None => Turn::Wait(None),
        }
    }

    /// Removes everything of the pod but its logs; what fails is tried again.
    async fn take_down(&mut self) {
        let uid = uid(&self.pod).to_owned();
        let taken = sweep(&self.shared, &uid).await;
        self.down = taken.is_ok();
        self.sandbox = false;
        if let Err(why) = taken {
            tracing::warn!(pod = self.pod.metadata.name, "take down the pod: {why}");
        }
    }

    /// Lets go of a deleted pod: its files, and then its object.
    async fn depart(&mut self, gone: bool) -> Turn {
        let again = Turn::Wait(Some(now_ns() + plan::nanos(RETRY)));
        if !self.down {
            return again;
        }
        let dir = PodDir::new(&self.shared.dir, uid(&self.pod));
        if let Err(e) = remove_dir(dir.root()) {
            tracing::warn!(pod = self.pod.metadata.name, "remove the pod's files: {e}");
            return again;
        }
        if gone {
            return Turn::Ended;
        }
        let meta = &self.pod.metadata;
        let preconditions = Some(Preconditions { uid: meta.uid.clone(), resource_version: None });
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match self.api().delete(meta.name.as_deref().unwrap_or_default(), &params).await {
            // It may stay for its finalizers; the watch says when it is gone.
            Ok(_) => Turn::Wait(None),
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Turn::Wait(None),
            Err(e) => {
                tracing::warn!(pod = meta.name, "delete the pod: {e}");
                again
            }
        }
    }

    fn remove_files(&mut self, id: &str, container: &str, attempt: u32) {
        let dir = PodDir::new(&self.shared.dir, uid(&self.pod));
        let log = dir.log(container, attempt);
        for path in [dir.termination(id), log.with_extension("log.1"), log] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!("remove {}: {e}", path.display()),
                _ => {}
            }
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

/// Takes a pod off the machine: processes, namespaces, cgroups, address, volumes. Absence is fine.
pub(crate) async fn sweep(shared: &Shared, uid: &str) -> Result<(), String> {
    let text = |e: &dyn std::error::Error| start::chain(e);
    shared.runtime.remove(uid).await.map_err(|e| text(&e))?;
    let (cgroups, path) = (shared.cgroups.clone(), format!("pod{uid}"));
    match tokio::task::spawn_blocking(move || cgroups.remove(&path)).await {
        Ok(removed) => removed.map_err(|e| text(&e))?,
        Err(e) => return Err(e.to_string()),
    }
    if let Some(network) = &shared.network {
        network.detach(uid).await.map_err(|e| text(&e))?;
    }
    shared.images.release(uid).await.map_err(|e| text(&e))?;
    let dir = PodDir::new(&shared.dir, uid);
    remove_dir(&dir.root().join("volumes")).map_err(|e| e.to_string())
}

/// Removes a directory; absence is fine.
pub(crate) fn remove_dir(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
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
