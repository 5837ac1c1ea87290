//! The committer: one thread that makes groups of writes durable and then visible.

use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch as watch_channel};

use crate::backend::Backend;
use crate::interest::Waker;
use crate::state::State;
use crate::{Error, Event, Revision, Write};

/// Writes made durable by one sync. The queue holds as many, so a full queue empties at once.
const GROUP: usize = crate::QUEUE;

/// The way to the committer. With the last one the thread ends, and it is waited for: a directory is free again once its store is dropped.
/// That takes a sync, and as long as a snapshot that is under way.
pub(crate) struct Committer {
    /// `None` only while it is dropped.
    writes: Option<mpsc::Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Queues a write.
    pub async fn send(&self, write: Write) -> Result<(), Error> {
        let writes = self.writes.as_ref().ok_or(Error::Closed)?;
        writes.send(write).await.map_err(|_| Error::Closed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has told of its errors
        }
    }
}

/// Starts the committer over a queue of its own.
pub(crate) fn spawn(
    backend: Backend,
    state: Arc<RwLock<State>>,
    newest: watch_channel::Sender<Revision>,
    waker: Waker,
) -> Result<Committer, Error> {
    let (writes, queue) = mpsc::channel(crate::QUEUE);
    let thread = std::thread::Builder::new()
        .name("store-commit".into())
        .stack_size(256 * 1024) // the engine's writes are shallow; the default 2 MiB would be counted against a device
        .spawn(move || run(backend, &state, queue, &newest, waker))
        .map_err(|e| Error::Disk(format!("cannot start the committer: {e}")))?;
    Ok(Committer { writes: Some(writes), thread: Some(thread) })
}

fn run(
    mut backend: Backend,
    state: &Arc<RwLock<State>>,
    mut queue: mpsc::Receiver<Write>,
    newest: &watch_channel::Sender<Revision>,
    mut waker: Waker,
) {
    backend.maintain(state);
    let mut group = Vec::new();
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let (events, accepted, sync) = plan(state, group.drain(..));
        if events.is_empty() {
            continue;
        }
        if let Err(error) = backend.commit(&events, sync) {
            tracing::error!(%error, writes = accepted.len(), "writes refused");
            for done in accepted {
                let _ = done.send(Err(error.clone()));
            }
            continue;
        }
        let revisions: Vec<Revision> = events.iter().map(|event| event.revision).collect();
        let keys = waker.note(&events);
        state.write().unwrap_or_else(|poisoned| poisoned.into_inner()).apply(events, std::time::Instant::now());
        if let Some(last) = revisions.last() {
            newest.send_replace(*last);
        }
        waker.wake(&keys);
        for (done, revision) in accepted.into_iter().zip(revisions) {
            let _ = done.send(Ok(revision)); // a writer that gave up waiting does not undo its write
        }
        backend.maintain(state);
    }
}

type Done = oneshot::Sender<Result<Revision, Error>>;

/// The events of a group, who waits for each, and whether one must be synced; refused writes are answered here.
fn plan(state: &RwLock<State>, group: impl Iterator<Item = Write>) -> (Vec<Event>, Vec<Done>, bool) {
    let state = state.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (mut events, mut accepted, mut sync) = (Vec::new(), Vec::new(), false);
    for write in group {
        match state.plan(&events, &write.key, write.precondition, &write.change) {
            Ok(event) => {
                events.push(event);
                accepted.push(write.done);
                sync |= write.sync;
            }
            Err(error) => {
                let _ = write.done.send(Err(error));
            }
        }
    }
    (events, accepted, sync)
}
