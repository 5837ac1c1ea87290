//! What runs, as the runtime tells it. CRI has no word for changes (containerd 1.6; later ones offer it): all is listed once a second, and at once
//! when containerd says that a process has ended, as kubelets do it (PLEG).
//!
//! ```text
//! once a second, a task ended, we started one ──▶ ListPodSandbox, ListContainers ──▶ what is new: ContainerStatus ──▶ who watches its pod
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use engine_host::sys;
use engine_runtime::{ContainerStatus, Finished, Observed};
use http_body_util::BodyExt;
use tokio::sync::{Notify, watch};

use crate::calls::{Inner, SHORT, pid};
use crate::kept;
use crate::messages::{self as cri, state};
use crate::plan::label;

const PERIOD: Duration = Duration::from_secs(1);
/// CRI learns from the same event as we do that a container ended: it is asked a few times.
const SOON: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(200)];
/// Nobody waits longer for the end of a log: it is some milliseconds on a busy machine.
const WRITTEN: Duration = Duration::from_secs(1);
/// The exit code of who was killed.
const KILLED: i32 = 137;
/// The kubelet's default `containerLogMaxSize`.
const LOG_SIZE_MAX: u64 = 10 << 20;

/// Who watches, and what was seen last.
#[derive(Default)]
pub(crate) struct Watcher {
    hurry: Arc<Notify>,
    seen: Mutex<Seen>,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    /// By pod.
    watched: BTreeMap<String, watch::Sender<Observed>>,
    /// By the runtime's id: the state when it was told, and what was told.
    known: BTreeMap<String, (i32, Known)>,
    running: bool,
    /// The runtime did not answer the last time.
    away: bool,
}

#[derive(Clone)]
struct Known {
    status: ContainerStatus,
    log: String,
}

impl Watcher {
    /// Something may have changed.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pod now and from now on. Waits for a runtime that does not answer: what it runs is not known, and guessing would start it twice.
pub(crate) async fn watch(inner: &Arc<Inner>, pod_uid: &str) -> watch::Receiver<Observed> {
    let (receiver, begin) = {
        let mut seen = inner.watcher.seen();
        let receiver = seen.watched.entry(pod_uid.to_owned()).or_default().subscribe();
        (receiver, !std::mem::replace(&mut seen.running, true))
    };
    if begin {
        tokio::spawn(run(Arc::downgrade(inner)));
        tokio::spawn(listen(Arc::downgrade(inner)));
    }
    while !look(inner).await {
        tokio::time::sleep(PERIOD).await;
    }
    receiver
}

/// Looks as long as the runtime is used and somebody watches.
async fn run(inner: Weak<Inner>) {
    let mut soon = SOON.iter();
    loop {
        let Some(hurry) = inner.upgrade().map(|inner| Arc::clone(&inner.watcher.hurry)) else { return };
        let wait = soon.next().copied().unwrap_or(PERIOD);
        // Losing the race loses nothing: both only wake.
        tokio::select! {
            () = hurry.notified() => soon = SOON.iter(),
            () = tokio::time::sleep(wait) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let watched = !inner.watcher.seen().watched.is_empty();
        if watched {
            look(&inner).await;
        }
    }
}

/// Listens to containerd for tasks that end. One that cannot be listened to is looked at once a second.
async fn listen(inner: Weak<Inner>) {
    loop {
        let Some(now) = inner.upgrade() else { return };
        let filters = vec![r#"namespace==k8s.io,topic=="/tasks/exit""#.to_owned()];
        let method = "/containerd.services.events.v1.Events/Subscribe";
        let hurry = Arc::clone(&now.watcher.hurry);
        let followed = now.client.follow(method, &cri::SubscribeRequest { filters }).await;
        drop(now);
        if let Ok(mut body) = followed {
            while let Some(Ok(_)) = body.frame().await {
                hurry.notify_one();
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Looks at everything once, and tells who watches; whether the runtime answered.
pub(crate) async fn look(inner: &Arc<Inner>) -> bool {
    let _one = inner.watcher.looking.lock().await;
    let listed = async { Ok((inner.sandboxes(None).await?, inner.containers(None, None).await?)) };
    let listed: Result<_, engine_runtime::Error> = listed.await;
    let was_away = std::mem::replace(&mut inner.watcher.seen().away, listed.is_err());
    let (sandboxes, containers) = match listed {
        Ok(listed) => listed,
        Err(e) => {
            if !was_away {
                tracing::warn!("{e}; its containers run on, and are looked at when it answers");
            }
            return false;
        }
    };
    if was_away {
        tracing::info!("the container runtime answers again");
    }
    end_orphans(inner, &sandboxes, &containers).await;
    let before = inner.watcher.seen().known.clone();
    let mut known = BTreeMap::new();
    for container in containers.iter().filter(|container| is_one(container.state)) {
        match before.get(&container.id).filter(|(state, _)| *state == container.state) {
            Some(same) => drop(known.insert(container.id.clone(), same.clone())),
            None => match inner.status(&container.id, container.state == state::RUNNING).await {
                Ok(answer) => {
                    if container.state == state::EXITED {
                        written(&answer).await;
                    }
                    let state = answer.status.as_ref().map_or(container.state, |status| status.state);
                    let log = answer.status.as_ref().map(|status| status.log_path.clone()).unwrap_or_default();
                    let status = told(inner, &answer).filter(|_| is_one(state));
                    known.extend(status.map(|status| (container.id.clone(), (state, Known { status, log }))));
                }
                Err(e) => tracing::debug!("a container went while it was looked at: {e}"),
            },
        }
    }
    let mut by_pod: BTreeMap<&str, Observed> = BTreeMap::new();
    for sandbox in &sandboxes {
        let pod = sandbox.labels.get(label::POD).map(String::as_str).unwrap_or_default();
        by_pod.entry(pod).or_default().alive |= sandbox.state == cri::SANDBOX_READY;
    }
    for container in &containers {
        let pod = container.labels.get(label::POD).map(String::as_str).unwrap_or_default();
        let status = known.get(&container.id).map(|(_, known)| known.status.clone());
        let status = status.map(|status| lost_if(inner.lost_file(pod, &container.sandbox_id).exists(), status));
        by_pod.entry(pod).or_default().containers.extend(status);
    }
    by_pod.values_mut().for_each(|pod| pod.containers.sort_by_key(|run| (run.started_at_ns, run.id.clone())));
    rotate(inner, &known).await;
    let mut seen = inner.watcher.seen();
    seen.known = known;
    for (uid, sender) in &seen.watched {
        let now = by_pod.remove(uid.as_str()).unwrap_or_default();
        sender.send_if_modified(|last| {
            let is_new = *last != now;
            *last = now;
            is_new
        });
    }
    seen.watched.retain(|_, sender| sender.receiver_count() > 0);
    true
}

/// A sandbox whose own process has ended has no network of its own any more: what runs in it ends, too, as kubelets have it, and its pod gets
/// another one.
async fn end_orphans(inner: &Inner, sandboxes: &[cri::PodSandbox], containers: &[cri::Container]) {
    let runs_in = |id: &str| containers.iter().any(|c| c.sandbox_id == id && c.state == state::RUNNING);
    for sandbox in sandboxes.iter().filter(|s| s.state != cri::SANDBOX_READY && runs_in(&s.id)) {
        let pod = sandbox.labels.get(label::POD).map(String::as_str).unwrap_or_default();
        let ended = match kept::remember(&inner.lost_file(pod, &sandbox.id), &()) {
            Ok(()) => inner.stop_sandbox(&sandbox.id).await,
            Err(e) => Err(e),
        };
        if let Err(e) = ended {
            tracing::warn!("a sandbox whose process has ended: {e}");
        }
    }
}

/// What ended with its sandbox is lost, as it is with a supervisor.
fn lost_if(sandbox_is_lost: bool, mut status: ContainerStatus) -> ContainerStatus {
    if let Some(finished) = status.finished.as_mut().filter(|end| end.exit_code == KILLED && !end.oom_killed) {
        finished.lost |= sandbox_is_lost;
    }
    status
}

/// Whether it has run, or was to: one that was only created has not.
fn is_one(state: i32) -> bool {
    matches!(state, state::RUNNING | state::EXITED | state::UNKNOWN)
}

/// Waits until nobody writes a container's log any more. containerd tells an end when its streams have ended, and then what it has read of them
/// goes on into the log: who is told of the end reads the last words there.
async fn written(answer: &cri::ContainerStatusResponse) {
    let path = answer.status.as_ref().map(|status| status.log_path.as_str()).filter(|path| !path.is_empty());
    let Some(log) = path.and_then(|path| fs::File::open(path).ok()) else { return };
    let deadline = tokio::time::Instant::now() + WRITTEN;
    // A file system without leases does not say it: then one does not wait.
    while sys::has_writer(log.as_fd()).unwrap_or(false) {
        if tokio::time::Instant::now() > deadline {
            tracing::debug!("a container has ended and its log is still written: {path:?}");
            return;
        }
        tokio::time::sleep(SOON[0]).await;
    }
}

/// What the runtime tells of a container, in our words, and the kernel of its memory; nothing of one that is not ours.
pub(crate) fn told(inner: &Inner, answer: &cri::ContainerStatusResponse) -> Option<ContainerStatus> {
    let mut status = in_our_words(answer)?;
    let of = answer.status.as_ref()?;
    let (Some(pod), Some(file)) = (of.labels.get(label::POD), of.annotations.get(label::OOM_FILE)) else {
        return Some(status);
    };
    let file = Path::new(file);
    match &mut status.finished {
        None => inner.memory.listen(pod, &status.id, file),
        Some(end) if end.exit_code == KILLED && !end.lost => {
            end.oom_killed |= inner.memory.ran_out(pod, &status.id, file, &inner.oom_kept(pod, &status.id));
        }
        Some(_) => inner.memory.let_go(pod, Some(&status.id)),
    }
    Some(status)
}

fn in_our_words(answer: &cri::ContainerStatusResponse) -> Option<ContainerStatus> {
    let status = answer.status.as_ref()?;
    let of = |name: &str| status.labels.get(name).cloned();
    let (id, name, attempt) = (of(label::RUN)?, of(label::NAME)?, of(label::ATTEMPT)?.parse().ok()?);
    let running = status.state == state::RUNNING;
    let began = if status.started_at > 0 { status.started_at } else { status.created_at };
    let finished = (!running).then(|| {
        let never = status.started_at <= 0 || matches!(status.reason.as_str(), "StartError" | "ContainerCannotRun");
        let lost = status.state == state::UNKNOWN || status.reason == "Unknown";
        Finished {
            at_ns: if status.finished_at > 0 { status.finished_at } else { began },
            exit_code: if lost { KILLED } else { status.exit_code },
            signal: 0, // CRI does not tell
            oom_killed: status.reason == "OOMKilled",
            lost,
            error: (never && !lost).then(|| status.message.clone()),
        }
    });
    Some(ContainerStatus {
        id,
        name,
        attempt,
        pid: pid(&answer.info).filter(|_| running),
        started_at_ns: began,
        finished,
    })
}

/// A log that has grown is set aside as `.1`, and the runtime begins a new one: it does not bound them itself.
async fn rotate(inner: &Inner, known: &BTreeMap<String, (i32, Known)>) {
    let running = known.iter().filter(|(_, (state, known))| *state == state::RUNNING && !known.log.is_empty());
    for (id, (_, Known { log, .. })) in running {
        if fs::metadata(log).map_or(0, |found| found.len()) < LOG_SIZE_MAX {
            continue;
        }
        let reopened = match fs::rename(log, format!("{log}.1")) {
            Ok(()) => {
                let request = cri::ContainerId { id: id.clone() };
                let method = "/runtime.v1.RuntimeService/ReopenContainerLog";
                inner.client.call::<cri::Empty>(method, &request, SHORT).await.map(drop).map_err(|e| e.why)
            }
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = reopened {
            tracing::warn!("set the log {log} aside: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    fn answer(state: i32, exit_code: i32, reason: &str, started_at: i64) -> cri::ContainerStatusResponse {
        let labels = [(label::RUN, "r"), (label::NAME, "main"), (label::ATTEMPT, "2")];
        let status = cri::ContainerStatus {
            state,
            created_at: 1,
            started_at,
            finished_at: 9,
            exit_code,
            reason: reason.to_owned(),
            message: "why".to_owned(),
            labels: crate::plan::labels(labels),
            ..Default::default()
        };
        let info = crate::plan::labels([("info", r#"{"pid":7,"config":{}}"#)]);
        cri::ContainerStatusResponse { status: Some(status), info }
    }

    #[test]
    fn ends_in_our_words() {
        let running = in_our_words(&answer(state::RUNNING, 0, "", 5)).unwrap();
        assert_eq!((running.pid, running.started_at_ns, running.attempt, running.finished), (Some(7), 5, 2, None));
        let end = |answer| in_our_words(&answer).unwrap().finished.unwrap();
        let killed = end(answer(state::EXITED, 137, "OOMKilled", 5));
        assert!(killed.oom_killed && killed.exit_code == 137 && killed.error.is_none());
        assert_eq!(end(answer(state::EXITED, 128, "StartError", 0)).error.as_deref(), Some("why"));
        let lost = end(answer(state::UNKNOWN, 255, "Unknown", 5));
        assert!(lost.lost && lost.exit_code == 137);
        let mut foreign = answer(state::RUNNING, 0, "", 5);
        foreign.status.as_mut().unwrap().labels.clear();
        assert_eq!(in_our_words(&foreign), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_end_waits_for_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut answer = answer(state::EXITED, 0, "", 5);
        answer.status.as_mut().unwrap().log_path = path.display().to_string();
        written(&answer).await; // there is none
        let mut log = fs::File::create(&path).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            std::io::Write::write_all(&mut log, b"last").unwrap();
        });
        written(&answer).await;
        assert_eq!(fs::read(&path).unwrap(), b"last");
        writer.join().unwrap();
    }
}
