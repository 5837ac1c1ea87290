//! Shows this node to its peers, until each has seen it as it is now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{NodeId, Standing};
use fluidos_link::PeerInfo;
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{Introductions, plan, present};

/// A peer that did not take a presentation (an older version, one that begins to run, too many at once) is shown it again after
/// this, at the next tick.
const RETRY: Duration = Duration::from_secs(4);

/// What was last shown to a peer.
#[derive(Default)]
pub(super) struct Delivered {
    session: u64,
    bytes: Option<Arc<Vec<u8>>>,
    retry_at: Option<Instant>,
    under_way: bool,
}

/// To whom, on which session, what, and whether it was taken.
pub(super) type Showing = (NodeId, u64, Arc<Vec<u8>>, Result<(), String>);

impl Introductions {
    /// Shows this node to those who have not seen it as it is now.
    pub(super) fn show(&mut self, showing: &mut JoinSet<Showing>) {
        let peers: Vec<PeerInfo> = self.options.links.peers();
        let up: BTreeSet<NodeId> = peers.iter().map(|peer| peer.id).collect();
        self.delivered.retain(|peer, _| up.contains(peer));
        let acquaintances = self.current();
        let for_whom = |knows| Arc::new(plan::presentation(&self.shown, &self.acquaintances, knows));
        let (for_strangers, for_acquaintances) = (for_whom(false), for_whom(true));
        let now = Instant::now();
        for peer in peers {
            let bytes = if acquaintances.contains(&peer.id) { &for_acquaintances } else { &for_strangers };
            let delivered = self.delivered.entry(peer.id).or_default();
            if delivered.session != peer.session {
                *delivered = Delivered { session: peer.session, ..Delivered::default() };
            }
            let same = delivered.bytes.as_ref() == Some(bytes);
            if same || delivered.under_way || delivered.retry_at.is_some_and(|at| at > now) {
                continue;
            }
            let Some(session) = self.options.links.get(&peer.id) else { continue };
            delivered.under_way = true;
            let bytes = bytes.clone();
            showing.spawn(async move {
                let shown = present(&session, &bytes).await;
                (peer.id, peer.session, bytes, shown)
            });
        }
    }

    /// The keys of acquaintances that count.
    fn current(&self) -> BTreeSet<NodeId> {
        let now = Timestamp::now();
        let standings = self.acquaintances.histories().map(|h| h.standing(self.acquaintances.owners(), now));
        standings.filter_map(|standing| if let Standing::Current(key) = standing { Some(key) } else { None }).collect()
    }

    pub(super) fn was_shown(&mut self, done: Result<Showing, tokio::task::JoinError>) {
        let (peer, session, bytes, shown) = match done {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "showing this node to a peer broke off"),
        };
        let Some(delivered) = self.delivered.get_mut(&peer).filter(|delivered| delivered.session == session) else {
            return;
        };
        delivered.under_way = false;
        match shown {
            Ok(()) => (delivered.bytes, delivered.retry_at) = (Some(bytes), None),
            Err(reason) => {
                tracing::debug!(%peer, reason, "a peer did not take the presentation");
                delivered.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }
}
