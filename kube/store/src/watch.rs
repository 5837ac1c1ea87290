//! A *watcher* reads the history from where it stands and sleeps when it has reached the newest revision, until
//! something under its prefix changes (`interest.rs`).

use std::sync::{Arc, RwLock};

use tokio::sync::watch as watch_channel;

use crate::state::State;
use crate::{Error, Event, Revision};

/// Events handed over at once, so that a watcher that starts far behind does not copy the whole history.
const BATCH: usize = 512;

/// A watch on the keys of one prefix.
pub struct Watcher {
    prefix: Arc<str>,
    position: Revision,
    state: Arc<RwLock<State>>,
    /// Changes when something under the prefix does, and now and then.
    changed: watch_channel::Receiver<()>,
}

impl Watcher {
    pub(crate) fn new(
        prefix: Arc<str>,
        from: Revision,
        state: Arc<RwLock<State>>,
        changed: watch_channel::Receiver<()>,
    ) -> Self {
        Self { prefix, position: from, state, changed }
    }

    /// Waits for the next events: one or more, in order. Dropping the future loses none.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the watcher fell behind the history; [`Error::Closed`] when the store is gone.
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.changed.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// The events that are there already, at most [`BATCH`]; none when the watcher is up to date.
    pub fn ready(&mut self) -> Result<Vec<Event>, Error> {
        self.changed.mark_unchanged();
        let state = self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.check_history(self.position)?;
        let mut events = Vec::new();
        for event in state.events_after(self.position) {
            if events.len() == BATCH {
                return Ok(events);
            }
            self.position = event.revision;
            if event.key.starts_with(&*self.prefix) {
                events.push(event.clone());
            }
        }
        Ok(events)
    }

    /// Every event up to this revision has been delivered: what a bookmark says. Of what does not concern the watcher it is as new as its
    /// last look, which [`Watcher::ready`] is, too.
    pub fn position(&self) -> Revision {
        self.position
    }
}
