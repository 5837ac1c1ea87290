//! What a controller has done and not yet seen in its cache.
//!
//! A controller that counts pods would count too few right after creating some and create them again. So it waits,
//! object by object, until the cache shows what was done, or long enough that it will not.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A watch that is behind for longer has been restarted and lists anew.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Expectations {
    by_owner: BTreeMap<String, Pending>,
}

#[derive(Debug)]
struct Pending {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    since: Instant,
}

impl Expectations {
    fn of(&mut self, owner: &str, now: Instant) -> &mut Pending {
        let pending = self.by_owner.entry(owner.to_owned());
        let pending =
            pending.or_insert_with(|| Pending { created: BTreeSet::new(), deleted: BTreeSet::new(), since: now });
        pending.since = now;
        pending
    }

    /// The owner's object of this identity was created.
    pub fn created(&mut self, owner: &str, uid: &str, now: Instant) {
        self.of(owner, now).created.insert(uid.to_owned());
    }

    /// The owner's object of this identity was deleted.
    pub fn deleted(&mut self, owner: &str, uid: &str, now: Instant) {
        self.of(owner, now).deleted.insert(uid.to_owned());
    }

    /// Compares with what the cache shows: `seen` answers whether an object is there, `leaving` whether it is gone or on
    /// its way out.
    pub fn settle(&mut self, seen: impl Fn(&str) -> bool, leaving: impl Fn(&str) -> bool, now: Instant) {
        self.by_owner.retain(|_, pending| {
            pending.created.retain(|uid| !seen(uid));
            pending.deleted.retain(|uid| !leaving(uid));
            let open = !pending.created.is_empty() || !pending.deleted.is_empty();
            open && now.saturating_duration_since(pending.since) < PATIENCE
        });
    }

    /// Whether all that was done for the owner is seen.
    pub fn met(&self, owner: &str) -> bool {
        !self.by_owner.contains_key(owner)
    }

    /// When to look again if nothing changes.
    pub fn wake(&self) -> Option<Duration> {
        (!self.by_owner.is_empty()).then_some(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn an_owner_waits_until_all_is_seen_or_it_has_waited_long_enough() {
        let mut expectations = Expectations::default();
        let start = Instant::now();
        expectations.created("o", "a", start);
        expectations.created("o", "b", start);
        expectations.deleted("o", "c", start);
        let settle = |e: &mut Expectations, seen: &[&str], gone: &[&str], at| {
            e.settle(|uid| seen.contains(&uid), |uid| gone.contains(&uid), at);
            e.met("o")
        };
        assert!(!settle(&mut expectations, &["a"], &["c"], start));
        assert!(settle(&mut expectations, &["b"], &[], start));
        expectations.created("o", "lost", start);
        assert!(!settle(&mut expectations, &[], &[], start + PATIENCE / 2));
        assert!(settle(&mut expectations, &[], &[], start + PATIENCE));
    }
}
