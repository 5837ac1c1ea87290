//! Compares what others were shown of the logs that are kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use fluidos_identity::NodeId;
use fluidos_model::kinds::KnownClusterTrust;

use super::exchanges::EXCHANGES_MAX;
use super::{Addresses, Brought, Keeper};
use crate::compare::{Compared, compare};
use crate::rounds::Mark;

/// What the status has room for.
const UNPROVEN_MAX: usize = 64;

impl Keeper {
    /// Begins the next exchange with another witness, if it is time.
    pub(super) async fn compare_next(
        &mut self,
        addresses: &Arc<Addresses>,
        chosen: &BTreeSet<NodeId>,
        parties: &BTreeSet<NodeId>,
    ) {
        if self.exchanges.len() >= EXCHANGES_MAX {
            return;
        }
        let speakers = &self.notary.options.speakers;
        let kept: BTreeMap<NodeId, Mark> = {
            let shelf = self.notary.shelf.lock().await;
            shelf.heads().map(|head| (head.origin, Mark::of(head))).collect()
        };
        if kept.is_empty() {
            return;
        }
        self.unproven.retain(|(origin, witness), _| kept.contains_key(origin) && addresses.contains_key(witness));
        let trusted: BTreeSet<NodeId> = self
            .caches
            .known
            .list()
            .iter()
            .filter(|known| known.spec.trust == Some(KnownClusterTrust::Trusted))
            .filter_map(|known| Some(speakers.current(&known.spec.did.as_ref()?.parse().ok()?)))
            .collect();
        let matters = |did: &NodeId| match () {
            () if parties.contains(did) || chosen.contains(did) => 0,
            () if trusted.contains(did) => 1,
            () => 2,
        };
        let mut peers: Vec<NodeId> = addresses.keys().copied().collect();
        peers.sort_by_key(|did| (matters(did), *did));
        let speaks = |origin: &NodeId| speakers.current(origin);
        let Some((peer, logs)) = self.rounds.next(&peers, &kept, speaks, Instant::now()) else { return };
        let logs: Vec<_> = logs.into_iter().filter_map(|origin| Some((origin, *kept.get(&origin)?))).collect();
        let (notary, addresses) = (self.notary.clone(), addresses.clone());
        self.exchanges.spawn(async move { Brought::Compared(peer, compare(&notary, peer, &logs, &addresses).await) });
    }

    pub(super) fn compared(&mut self, peer: NodeId, brought: Result<Vec<Compared>, String>) {
        let all = match brought {
            Ok(all) => all,
            Err(reason) => {
                tracing::debug!(%peer, reason, "a witness cannot be asked what it keeps of others");
                self.rounds.failed(&peer, Instant::now());
                return;
            }
        };
        let logs: Vec<_> = all.iter().map(|one| (one.origin, one.mark, one.unproven.is_empty())).collect();
        self.rounds.answered(&peer, &logs, Instant::now());
        for one in all {
            let key = (one.origin, peer);
            if one.unproven.is_empty() {
                self.unproven.remove(&key);
            } else if self.unproven.len() < UNPROVEN_MAX || self.unproven.contains_key(&key) {
                self.unproven.insert(key, one.unproven);
            }
        }
    }
}
