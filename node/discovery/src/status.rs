//! What discovery tells about itself: who was rejected and why, and whether multicast is heard at all.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fluidos_model::kinds::RejectedPeer;
use jiff::Timestamp;
use tokio::sync::watch;

/// Rejections that can be looked at.
const REJECTED_MAX: usize = 64;
/// Announcers that are counted; more are "many".
const HEARD_MAX: usize = 4096;
/// Who announces garbage in a loop does not make this node write as often: so many writes in [`WRITES_WITHIN`].
const WRITES_MAX: usize = 6;
const WRITES_WITHIN: Duration = Duration::from_secs(180);
/// A node that stops does not wait longer for its catalogs.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// Texts of strangers.
const TEXT_MAX: usize = 200;

/// What can be asked of running discovery.
#[derive(Clone, Default)]
pub struct Handle {
    seen: Arc<Mutex<Seen>>,
    /// Ends those that follow catalogs.
    stop: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Seen {
    /// The newest first.
    rejected: VecDeque<RejectedPeer>,
    heard: BTreeSet<String>,
    changed: bool,
    /// When it was written lately.
    written: VecDeque<Instant>,
}

impl Handle {
    /// The last nodes that were not taken, the newest first.
    pub fn rejected(&self) -> Vec<RejectedPeer> {
        self.lock().rejected.iter().cloned().collect()
    }

    /// How many other nodes have announced themselves since the start, refused ones too.
    pub fn heard(&self) -> u64 {
        self.lock().heard.len() as u64
    }

    /// Takes this node out of catalogs, before it stops; within two seconds, or not.
    pub async fn withdraw(&self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(WITHDRAWAL, self.stop.closed()).await.is_err() {
            tracing::debug!("a catalog does not answer: the announcement stays until its lifetime is over");
        }
    }

    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Notes a node that was not taken. The same for the same reason is noted once, with its last time.
    pub(crate) fn reject(&self, peer: &str, reason: &str, now: Timestamp) {
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect::<String>();
        let fresh = RejectedPeer { peer: short(peer), reason: short(reason), at: now.to_string() };
        let mut seen = self.lock();
        if let Some(known) = seen.rejected.iter_mut().find(|r| (&r.peer, &r.reason) == (&fresh.peer, &fresh.reason)) {
            known.at = fresh.at;
            return;
        }
        tracing::debug!(peer = fresh.peer, reason = fresh.reason, "a node was not taken");
        seen.rejected.truncate(REJECTED_MAX - 1);
        seen.rejected.push_front(fresh);
        seen.changed = true;
    }

    /// Forgets what was said about a node that is taken now.
    pub(crate) fn taken(&self, peer: &str) {
        let mut seen = self.lock();
        let before = seen.rejected.len();
        seen.rejected.retain(|rejected| rejected.peer != peer);
        seen.changed |= seen.rejected.len() != before;
    }

    /// Notes that somebody announced itself.
    pub(crate) fn hear(&self, who: &str) {
        let mut seen = self.lock();
        if seen.heard.len() < HEARD_MAX && seen.heard.insert(who.chars().take(TEXT_MAX).collect()) {
            seen.changed = true;
        }
    }

    /// Whether there is something new to be written now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut seen = self.lock();
        seen.written.retain(|written| now.duration_since(*written) < WRITES_WITHIN);
        let due = seen.changed && seen.written.len() < WRITES_MAX;
        if due {
            seen.changed = false;
            seen.written.push_back(now);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rejected_is_told_once_bounded_and_not_written_too_often() {
        let (handle, start, at) = (Handle::default(), Instant::now(), Timestamp::UNIX_EPOCH);
        assert!(!handle.is_due(start));
        for _ in 0..3 {
            handle.reject("grid", "country is Italy, needed France", at);
        }
        assert_eq!(handle.rejected().len(), 1);
        assert!(handle.is_due(start));
        for i in 0..200 {
            handle.reject(&format!("n{i}\u{7}"), &"x".repeat(1000), at);
        }
        assert_eq!((handle.rejected().len(), handle.rejected()[0].peer.as_str()), (REJECTED_MAX, "n199"));
        assert_eq!(handle.rejected()[0].reason.len(), TEXT_MAX);
        for i in 1..WRITES_MAX {
            assert!(handle.is_due(start), "write {i}");
            handle.reject(&format!("m{i}"), "x", at);
        }
        assert!(!handle.is_due(start + WRITES_WITHIN - Duration::from_secs(1)));
        assert!(handle.is_due(start + WRITES_WITHIN));
        for i in 1..WRITES_MAX {
            handle.taken(&format!("m{i}"));
        }
        handle.taken("n199");
        assert_eq!(handle.rejected()[0].peer, "n198");
    }
}
