//! What the store knows now, and the history that watches and old lists are served from. No I/O.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Change, Error, Precondition, Revision};

/// Events kept for watches that lag behind: a list of 5,000 objects can be followed by a watch while as many change.
pub(crate) const HISTORY_EVENTS_MAX: usize = 8_192;
/// Bytes of values that the history may keep alive; on a device this is the smaller bound.
pub(crate) const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What is as old goes with the next write, at the latest when it is twice as old. etcd's compaction by an API server has the same age. The
/// pages of memory that a crowd of objects took are not given back while one of them holds a value that only the history keeps.
const HISTORY_AGE: Duration = Duration::from_secs(300);

/// The value of a key and the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The revision of its last write.
    pub revision: Revision,
    /// The value.
    pub value: Bytes,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It got its first value.
    Created,
    /// Its value was replaced.
    Updated,
    /// It was removed.
    Deleted,
}

/// One write, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in the order of all writes.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// The value after the write; for [`EventKind::Deleted`] the last one before.
    pub value: Bytes,
    /// The entry before the write, if there was one.
    pub previous: Option<(Revision, Bytes)>,
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.previous.as_ref().map_or(0, |(_, value)| value.len())
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The revision at which they are all current.
    pub revision: Revision,
    /// How many more there are after the last one.
    pub remaining: usize,
}

#[derive(Default)]
pub(crate) struct State {
    entries: BTreeMap<Arc<str>, (Revision, Bytes)>,
    entries_bytes: u64,
    history: VecDeque<Event>,
    history_bytes: usize,
    /// Events up to and including this revision are forgotten.
    compacted: Revision,
    /// The newest revision at a time; once that is long ago, what led to it is forgotten.
    mark: Option<(Instant, Revision)>,
    revision: Revision,
}

impl State {
    /// The state as found on disk: its history begins now.
    pub fn recovered(entries: BTreeMap<Arc<str>, (Revision, Bytes)>, revision: Revision) -> Self {
        let entries_bytes = entries.iter().map(|(key, (_, value))| (key.len() + value.len()) as u64).sum();
        Self { entries, entries_bytes, compacted: revision, revision, ..Self::default() }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn size_bytes(&self) -> u64 {
        self.entries_bytes
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        let (key, (revision, value)) = self.entries.get_key_value(key)?;
        Some(Entry { key: key.clone(), revision: *revision, value: value.clone() })
    }

    /// At most `limit` current entries after the key `after`.
    pub fn slice(&self, after: Option<&str>, limit: usize) -> Vec<Entry> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entry = |(key, (revision, value)): (&Arc<str>, &(Revision, Bytes))| Entry {
            key: key.clone(),
            revision: *revision,
            value: value.clone(),
        };
        self.entries.range::<str, _>((start, Bound::Unbounded)).take(limit).map(entry).collect()
    }

    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page, Error> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let revision = at.unwrap_or(self.revision);
        let start = match after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let current = self
            .entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (revision, value))| Entry { key: key.clone(), revision: *revision, value: value.clone() });
        if revision == self.revision {
            let mut current = current;
            let entries: Vec<Entry> = current.by_ref().take(limit).collect();
            return Ok(Page { entries, revision, remaining: current.count() });
        }
        let past = self.undo(prefix, start, revision)?;
        let mut then: BTreeMap<Arc<str>, Entry> = current.map(|entry| (entry.key.clone(), entry)).collect();
        for (key, before) in past {
            match before {
                Some((revision, value)) => then.insert(key.clone(), Entry { key, revision, value }),
                None => then.remove(&key),
            };
        }
        let remaining = then.len().saturating_sub(limit);
        Ok(Page { entries: then.into_values().take(limit).collect(), revision, remaining })
    }

    /// For each key under `prefix` written after `revision`: what it was at `revision`.
    #[allow(clippy::type_complexity)] // key → entry before, if any: naming it would not say more
    fn undo(
        &self,
        prefix: &str,
        start: Bound<&str>,
        revision: Revision,
    ) -> Result<BTreeMap<Arc<str>, Option<(Revision, Bytes)>>, Error> {
        if revision > self.revision {
            return Err(Error::Future { asked: revision, newest: self.revision });
        }
        self.check_history(revision)?;
        let mut past = BTreeMap::new();
        let within = |key: &str| match start {
            Bound::Excluded(after) => key > after,
            _ => true,
        };
        for event in self.events_after(revision).rev() {
            if event.key.starts_with(prefix) && within(&event.key) {
                past.insert(event.key.clone(), event.previous.clone());
            }
        }
        Ok(past)
    }

    /// That every event after `from` is still known.
    pub fn check_history(&self, from: Revision) -> Result<(), Error> {
        if from < self.compacted { Err(Error::Compacted { asked: from, oldest: self.compacted }) } else { Ok(()) }
    }

    pub fn events_after(&self, from: Revision) -> impl DoubleEndedIterator<Item = &Event> {
        let begin = self.history.partition_point(|event| event.revision <= from);
        self.history.range(begin..)
    }

    /// What `change` under `key` would be, on top of `pending`, the earlier events of the same group.
    pub fn plan(
        &self,
        pending: &[Event],
        key: &Arc<str>,
        precondition: Precondition,
        change: &Change,
    ) -> Result<Event, Error> {
        let current = match pending.iter().rev().find(|event| event.key == *key) {
            Some(event) if event.kind == EventKind::Deleted => None,
            Some(event) => Some((event.revision, event.value.clone())),
            None => self.entries.get(key).cloned(),
        };
        let owned = || key.to_string();
        match (precondition, &current) {
            (Precondition::Absent, None) => {}
            (Precondition::Absent, Some((found, _))) => return Err(Error::Exists { key: owned(), found: *found }),
            (Precondition::Revision(_), None) => return Err(Error::NotFound { key: owned() }),
            (Precondition::Revision(expected), Some((found, _))) if expected != *found => {
                return Err(Error::Conflict { key: owned(), expected, found: *found });
            }
            (Precondition::Revision(_), Some(_)) => {}
        }
        let revision = pending.last().map_or(self.revision, |event| event.revision) + 1;
        let (kind, value) = match (change, &current) {
            (Change::Put(value), None) => (EventKind::Created, value.clone()),
            (Change::Put(value), Some(_)) => (EventKind::Updated, value.clone()),
            (Change::Delete, Some((_, last))) => (EventKind::Deleted, last.clone()),
            (Change::Delete, None) => return Err(Error::NotFound { key: owned() }),
        };
        Ok(Event { revision, key: key.clone(), kind, value, previous: current })
    }

    /// Shows a group of events that are durable.
    pub fn apply(&mut self, events: Vec<Event>, now: Instant) {
        for event in events {
            if let Some((_, value)) = &event.previous {
                self.entries_bytes -= (event.key.len() + value.len()) as u64;
            }
            if event.kind == EventKind::Deleted {
                self.entries.remove(&event.key);
            } else {
                self.entries_bytes += (event.key.len() + event.value.len()) as u64;
                self.entries.insert(event.key.clone(), (event.revision, event.value.clone()));
            }
            self.revision = event.revision;
            self.history_bytes += event.bytes();
            self.history.push_back(event);
        }
        let (marked_at, marked) = *self.mark.get_or_insert((now, self.revision));
        let aged = now.duration_since(marked_at) >= HISTORY_AGE;
        if aged {
            self.mark = Some((now, self.revision));
        }
        let is_old = |event: &Event| aged && event.revision <= marked;
        while self.history.len() > HISTORY_EVENTS_MAX
            || self.history_bytes > HISTORY_BYTES_MAX
            || self.history.front().is_some_and(is_old)
        {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
        if aged {
            self.history.shrink_to(self.history.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    fn write(state: &mut State, now: Instant) -> Revision {
        let change = Change::Put(Bytes::from_static(b"value"));
        let key: Arc<str> = format!("/key/{}", state.revision()).into();
        let event = state.plan(&[], &key, Precondition::Absent, &change).unwrap();
        state.apply(vec![event], now);
        state.revision()
    }

    #[test]
    fn history_goes_with_the_first_write_after_its_age() {
        let (mut state, begun) = (State::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let first = write(&mut state, at(0));
        let second = write(&mut state, at(200));
        assert!(state.check_history(first - 1).is_ok(), "nothing is old yet");
        let third = write(&mut state, at(300));
        assert!(state.check_history(first - 1).is_err(), "300 s later the first is forgotten");
        assert_eq!(state.events_after(first).map(|event| event.revision).collect::<Vec<_>>(), [second, third]);
        write(&mut state, at(599));
        assert!(state.check_history(first).is_ok(), "the second is 399 s old, the mark after it 299");
        write(&mut state, at(600));
        assert!(state.check_history(second).is_err() && state.check_history(third).is_ok());
        assert!(state.get("/key/0").is_some(), "what is there stays there");
    }
}
