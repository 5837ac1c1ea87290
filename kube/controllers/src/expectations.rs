//! What a controller has done and not yet seen in its cache.
//!
//! A controller that counts pods would count too few right after creating some and create them again. So it waits,
//! object by object, until the cache shows what was done, or long enough that it will not.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::objects::uid;

/// A watch that is behind for longer has been restarted and lists anew.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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

/// What a controller has written of its own objects and not yet seen.
///
/// A status with counters must not be made again from a view that lacks the last one: what was counted would be counted
/// twice, or a pod made for what is done.
#[derive(Debug, Default)]
pub(crate) struct Written {
    by_uid: BTreeMap<String, (u64, Instant)>,
}

impl Written {
    /// Notes the version that a write has answered. One that is no number cannot be compared and is not waited for.
    pub fn note(&mut self, metadata: &ObjectMeta, now: Instant) {
        if let Some(version) = number(metadata) {
            self.by_uid.insert(uid(metadata).to_owned(), (version, now));
        }
    }

    /// Whether the view of an object is at least what was written last.
    pub fn seen(&mut self, metadata: &ObjectMeta, now: Instant) -> bool {
        let Some((version, since)) = self.by_uid.get(uid(metadata)) else { return true };
        let seen =
            number(metadata).is_none_or(|found| found >= *version) || now.saturating_duration_since(*since) >= PATIENCE;
        if seen {
            self.by_uid.remove(uid(metadata));
        }
        seen
    }

    /// Forgets what is not there any more.
    pub fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.by_uid.retain(|uid, _| there(uid));
    }
}

/// Versions are compared as numbers (KEP-5504).
fn number(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_deref()?.parse().ok()
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
    #[test]
    fn an_object_is_older_until_its_write_is_seen() {
        let at = |version: &str| ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let mut written = Written::default();
        let start = Instant::now();
        assert!(written.seen(&at("9"), start));
        written.note(&at("10"), start);
        assert!(!written.seen(&at("9"), start), "compared as numbers");
        assert!(written.seen(&at("11"), start));
        assert!(written.seen(&at("9"), start), "once seen is seen");
        written.note(&at("12"), start);
        assert!(written.seen(&at("9"), start + PATIENCE), "a watch that is behind for so long lists anew");
    }
}
