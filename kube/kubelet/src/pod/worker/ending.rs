//! The end: of runs, of the pod, of what it leaves on the machine.

use super::*;
use crate::eviction;
use crate::pod::hooks;

/// SIGTERM, unless the container or its image says otherwise.
const TERM: i32 = 15;
/// How every kubelet words the end of `activeDeadlineSeconds`.
const EXPIRED: (&str, &str) = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

/// How every kubelet calls it.
const EVICTED: &str = "Evicted";
/// What an evicted pod has for its end: what runs out does not wait (upstream's `immediateEvictionGracePeriodSeconds`).
const EVICTION_GRACE: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends the pod when its `activeDeadlineSeconds` are over; answers when that will be.
    pub(super) fn expire(&mut self) -> Option<i64> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let began = self.pod.status.as_ref()?.start_time.as_ref()?.0;
        let due = i64::try_from(began.as_nanosecond()).ok()?.saturating_add(seconds.saturating_mul(1_000_000_000));
        if self.stopping.is_some() {
            return None;
        }
        if due <= now_ns() {
            self.shared.events.normal(&self.pod, None, EXPIRED.0, EXPIRED.1.to_owned());
            self.ended = Some((EXPIRED.0, EXPIRED.1.to_owned()));
            self.begin_stopping(false);
            return None;
        }
        Some(due)
    }

    /// Ends the pod when the node wants it gone, or does not let it begin.
    pub(super) fn evict(&mut self, evicted: Option<String>) {
        let begun = !self.observed.borrow().containers.is_empty() || self.sandbox;
        let new = !std::mem::replace(&mut self.admitted, true) && !begun && !is_told(&self.pod);
        let refused = if new { eviction::refusal(&self.shared, &self.pod) } else { None };
        if self.down || self.stopping.is_some() {
            return;
        }
        let Some(why) = evicted.or(refused) else { return };
        self.shared.events.warning(&self.pod, None, EVICTED, why.clone());
        self.ended = Some((EVICTED, why));
        self.begin_stopping(false);
        let soon = now_ns().saturating_add(plan::nanos(EVICTION_GRACE));
        self.stopping.iter_mut().for_each(|stopping| stopping.deadline_ns = stopping.deadline_ns.min(soon));
    }

    /// Whether the API wants the pod gone.
    pub(super) fn leaves(&self, gone: bool) -> bool {
        gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Begins to stop a run: says so, and runs its `preStop` hook.
    pub(super) fn ask(&mut self, observed: &Observed, id: &str, deadline_ns: i64) {
        let Some(run) = observed.containers.iter().find(|r| r.id == *id) else { return };
        // Who is unhealthy has been told already.
        if !self.unhealthy.contains_key(id) {
            let message = format!("Stopping container {}", run.name);
            self.shared.events.normal(&self.pod, Some(&run.name), "Killing", message);
        }
        let subject = self.subject(id, &run.name);
        let hook = subject.as_ref().and_then(|s| s.container.lifecycle.as_ref()?.pre_stop.clone());
        self.asked.insert(id.to_owned(), Asked { deadline_ns, hook: hook.is_some(), termed_ns: None });
        let Some((subject, hook)) = subject.zip(hook) else { return };
        let (say, run) = (self.verdicts_in.clone(), id.to_owned());
        let task = self.shared.work.spawn(async move {
            let result = hooks::run(&subject, &hook).await;
            let _ = say.send((run, Verdict::Hooked(result))).await; // the worker is gone, and the run with it
        });
        self.hooking.insert(id.to_owned(), task.abort_handle());
    }

    /// Asks a run to end.
    pub(super) async fn term(&mut self, observed: &Observed, id: &str) {
        if let Some(asked) = self.asked.get_mut(id) {
            asked.termed_ns = Some(now_ns());
        }
        self.signal(id, self.stop_signal(observed, id).await).await;
    }

    pub(super) fn begin_stopping(&mut self, gone: bool) {
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

    /// The container's word or the image's, by number or name.
    async fn stop_signal(&self, observed: &Observed, id: &str) -> i32 {
        let name = observed.containers.iter().find(|r| r.id == id).map(|r| r.name.as_str()).unwrap_or_default();
        let spec = crate::pod::container(&self.pod, name);
        let own = spec.as_ref().and_then(|c| c.lifecycle.as_ref()?.stop_signal.as_deref());
        if let Some(signal) = own.and_then(signal_number) {
            return signal;
        }
        let Some(reference) = spec.as_ref().and_then(|c| c.image.as_deref()).and_then(|i| i.parse().ok()) else {
            return TERM;
        };
        let image = self.shared.images.find(&reference).await.ok().flatten();
        image.and_then(|i| signal_number(&i.config.stop_signal)).unwrap_or(TERM)
    }

    /// Nothing runs and nothing will: says how it ended, takes down what it used.
    pub(super) async fn finish(&mut self, observed: &Observed, gone: bool) -> Turn {
        if !gone && !self.report(observed).await {
            return Turn::Wait(Some(now_ns() + plan::nanos(RETRY)));
        }
        self.take_down().await;
        if self.leaves(gone) { self.depart(gone).await } else { Turn::Wait(None) }
    }

    /// Removes everything of the pod but its logs; what fails is tried again.
    pub(super) async fn take_down(&mut self) {
        let uid = uid(&self.pod).to_owned();
        let taken = sweep(&self.shared, &uid).await;
        self.down = taken.is_ok();
        self.sandbox = false;
        if let Err(why) = taken {
            tracing::warn!(pod = self.pod.metadata.name, "take down the pod: {why}");
        }
    }

    /// Lets go of a deleted pod: its files, and then its object.
    pub(super) async fn depart(&mut self, gone: bool) -> Turn {
        let again = Turn::Wait(Some(now_ns() + plan::nanos(RETRY)));
        if !self.down {
            return again;
        }
        let dir = PodDir::new(&self.shared.dir, uid(&self.pod));
        if let Err(e) = remove_dir(dir.root()) {
            tracing::warn!(pod = self.pod.metadata.name, "remove the pod's files: {e}");
            return again;
        }
        if gone || is_static(&self.pod) {
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

    pub(super) fn remove_files(&mut self, id: &str, container: &str, attempt: u32) {
        let dir = PodDir::new(&self.shared.dir, uid(&self.pod));
        let log = dir.log(container, attempt);
        for path in [dir.termination(id), log.with_extension("log.1"), log] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!("remove {}: {e}", path.display()),
                _ => {}
            }
        }
    }
}

/// Whether the pod has begun before, by what the API was told.
fn is_told(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.container_statuses.as_ref().is_some_and(|all| !all.is_empty()))
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

/// A signal by number or name, with `SIG` or without; real-time ones too (`RTMIN+1`).
fn signal_number(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => Some(nix::libc::SIGRTMIN() + offset(rest)?),
        (_, Some(rest)) => Some(nix::libc::SIGRTMAX() + offset(rest)?),
        _ => None,
    };
    let by_name = || format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|s| s as i32).ok();
    text.parse().ok().or(real_time).or_else(by_name)
}
