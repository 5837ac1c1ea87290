//! Who is woken by a write: an *interest* is a prefix of keys that somebody watches.
//!
//! A node keeps about a hundred watches, and a write concerns a handful of them. Waking all of them for each write costs more than the
//! write. Watchers of one prefix share a channel; those of other prefixes sleep, and are woken once in a while so that they do not fall behind
//! the history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Event;
use crate::state::{HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX};

/// From so many prefixes on those that nobody watches any more are forgotten before another comes: a reader could name a new one each time.
const PREFIXES_KEPT: usize = 1024;
/// Everybody is woken whenever so much of the history has gone by.
const PART: usize = 4;

/// The prefixes that are watched. Clones are the same; watches end with the last.
#[derive(Clone, Default)]
pub(crate) struct Interests {
    channels: Arc<Mutex<HashMap<Arc<str>, watch::Sender<()>>>>,
}

impl Interests {
    /// What changes when something under this prefix does. Subscribe first, then read: nothing is missed.
    pub fn subscribe(&self, prefix: &Arc<str>) -> watch::Receiver<()> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= PREFIXES_KEPT {
            channels.retain(|_, channel| channel.receiver_count() > 0);
        }
        channels.entry(prefix.clone()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Wakes whom these events concern, or all.
    fn wake(&self, events: &[Arc<str>], all: bool) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|prefix, channel| {
            if all || events.iter().any(|key| key.starts_with(&**prefix)) {
                // It fails when nobody listens any more.
                return channel.send(()).is_ok();
            }
            true
        });
    }
}

/// The committer's side.
pub(crate) struct Waker {
    interests: Interests,
    events: usize,
    bytes: usize,
}

impl Waker {
    pub fn new(interests: Interests) -> Self {
        Self { interests, events: 0, bytes: 0 }
    }

    /// Remembers what is written; returns its keys for [`Waker::wake`] once it can be read.
    pub fn note(&mut self, events: &[Event]) -> Vec<Arc<str>> {
        self.events += events.len();
        self.bytes += events.iter().map(Event::bytes).sum::<usize>();
        events.iter().map(|event| event.key.clone()).collect()
    }

    /// Wakes whom the keys concern.
    pub fn wake(&mut self, keys: &[Arc<str>]) {
        let all = self.events >= HISTORY_EVENTS_MAX / PART || self.bytes >= HISTORY_BYTES_MAX / PART;
        if all {
            (self.events, self.bytes) = (0, 0);
        }
        self.interests.wake(keys, all);
    }
}
