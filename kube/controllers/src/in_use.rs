//! Which kinds have objects at all.
//!
//! A copy of a kind costs its watch even if it is empty, and most nodes never see most kinds. The collector looks at the names of all
//! objects anyway, so it tells of each kind that has one, and a controller begins when its kind is *in use*: once there has
//! been an object of it since the process began.
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// Group and kind. The version is what the server prefers, and nobody's business.
type GroupKind = (String, String);

#[derive(Clone)]
pub(crate) struct InUse(Arc<watch::Sender<BTreeSet<GroupKind>>>);

impl InUse {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// There is an object of this kind.
    pub fn note(&self, api_version: &str, kind: &str) {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let known = self.0.borrow().iter().any(|(g, k)| g == group && k == kind);
        if !known {
            self.0.send_modify(|kinds| {
                kinds.insert((group.to_owned(), kind.to_owned()));
            });
        }
    }

    /// Waits until one of these kinds of a group is in use.
    pub async fn first(&self, group: &str, kinds: &[&str]) {
        let mut seen = self.0.subscribe();
        // The sender lives in `self`.
        let is_in_use =
            |used: &BTreeSet<GroupKind>| used.iter().any(|(g, kind)| g == group && kinds.contains(&kind.as_str()));
        let _ = seen.wait_for(is_in_use).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_kind_is_in_use_from_its_first_object_on() {
        let in_use = InUse::new();
        in_use.note("apps/v1", "Job");
        in_use.note("v1", "Pod");
        assert_eq!(in_use.first("batch", &["Job", "CronJob"]).now_or_never(), None, "of another group");
        in_use.note("batch/v2", "CronJob");
        assert_eq!(in_use.first("batch", &["Job", "CronJob"]).now_or_never(), Some(()));
        assert_eq!(in_use.first("", &["Pod"]).now_or_never(), Some(()));
    }
}
