//! Whom a witness asks about which logs, and when: pure.
//!
//! ```text
//!   peers, in the order in which they matter ─┐
//!   heads that are kept ──────────────────────┼─▶ next ─▶ one peer, a few logs ─▶ answered / failed
//!   what each peer was asked, by which head ──┘
//! ```
//! A log is *due* at a peer if and only if what is kept of it here is not what that peer was asked about last, or that was long ago.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;
use fluidos_log::{Hash, TreeHead};

/// Nodes that are compared with: a split view needs one honest one that the liar does not know of.
const PEERS_MAX: usize = 64;
/// Logs in one exchange: two requests each at most, of the 20 in a second that a peer listens to.
pub(crate) const LOGS_MAX: usize = 16;
/// Between two exchanges, whoever is asked: at most eight requests a second.
const EVERY: Duration = Duration::from_secs(2);
/// Between two exchanges with one peer.
const PEER_EVERY: Duration = Duration::from_secs(10);
/// Nothing has changed here; something may have there.
const AGAIN: Duration = Duration::from_secs(3600);
/// Who could have shown that two heads fit was away.
const UNPROVEN_AGAIN: Duration = Duration::from_secs(60);
/// Who does not answer is asked after 10 s, and after an hour in the end.
const DOUBLINGS_MAX: u32 = 9;
/// A peer that does not come to an end is given up; its task ends by the time-outs of its requests.
const BUSY_FOR: Duration = Duration::from_secs(120);

/// A log as it is kept here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    epoch: u64,
    size: u64,
    root: Hash,
}

impl Mark {
    pub(crate) fn of(head: &TreeHead) -> Self {
        Self { epoch: head.epoch, size: head.size, root: head.root }
    }
}

#[derive(Debug, Default)]
struct Peer {
    asked: BTreeMap<NodeId, (Mark, Instant)>,
    not_before: Option<Instant>,
    failures: u32,
}

/// What was compared with whom.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    peers: BTreeMap<NodeId, Peer>,
    not_before: Option<Instant>,
}

impl Rounds {
    /// Returns the next peer to be asked, and about which logs; none is asked about its own. `speaks` is the key that speaks for an origin.
    pub(crate) fn next(
        &mut self,
        peers: &[NodeId],
        kept: &BTreeMap<NodeId, Mark>,
        speaks: impl Fn(&NodeId) -> NodeId,
        now: Instant,
    ) -> Option<(NodeId, Vec<NodeId>)> {
        let may = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if !may(self.not_before) {
            return None;
        }
        let peers = &peers[..peers.len().min(PEERS_MAX)];
        self.peers.retain(|peer, _| peers.contains(peer));
        // Who was asked longest ago, or never.
        let mut free: Vec<_> =
            peers.iter().map(|peer| (self.peers.get(peer).and_then(|it| it.not_before), *peer)).collect();
        free.retain(|(at, _)| may(*at));
        free.sort();
        for (_, did) in free {
            let peer = self.peers.entry(did).or_default();
            peer.asked.retain(|origin, _| kept.contains_key(origin));
            let mut due: Vec<_> = kept
                .iter()
                .filter(|(origin, _)| speaks(origin) != did)
                .filter_map(|(origin, mark)| match peer.asked.get(origin) {
                    Some((asked, again)) if asked == mark => (*again <= now).then_some((Some(*again), *origin)),
                    Some(_) | None => Some((None, *origin)),
                })
                .collect();
            if due.is_empty() {
                continue;
            }
            due.sort();
            peer.not_before = Some(now + BUSY_FOR);
            self.not_before = Some(now + EVERY);
            return Some((did, due.into_iter().take(LOGS_MAX).map(|(_, origin)| origin).collect()));
        }
        None
    }

    /// A peer has answered about these logs; of each whether everything that it keeps was shown to fit, or not to.
    pub(crate) fn answered(&mut self, peer: &NodeId, logs: &[(NodeId, Mark, bool)], now: Instant) {
        let Some(peer) = self.peers.get_mut(peer) else { return };
        (peer.not_before, peer.failures) = (Some(now + PEER_EVERY), 0);
        for (origin, mark, settled) in logs {
            peer.asked.insert(*origin, (*mark, now + if *settled { AGAIN } else { UNPROVEN_AGAIN }));
        }
    }

    /// A peer could not be asked.
    pub(crate) fn failed(&mut self, peer: &NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(peer) else { return };
        peer.not_before = Some(now + (PEER_EVERY * 2u32.pow(peer.failures.min(DOUBLINGS_MAX))).min(AGAIN));
        peer.failures = peer.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::NodeKey;
    use fluidos_log::leaf_hash;

    use super::*;

    fn id(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn same(origin: &NodeId) -> NodeId {
        *origin
    }

    fn mark(size: u64) -> Mark {
        Mark { epoch: 0, size, root: leaf_hash(&size.to_be_bytes()) }
    }

    #[test]
    fn each_peer_is_asked_about_each_log_when_it_changes_and_once_an_hour() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rounds = Rounds::default();
        let peers = [id(1), id(2)];
        let mut kept: BTreeMap<NodeId, Mark> = [(id(1), mark(1)), (id(9), mark(1))].into();
        let (first, logs) = rounds.next(&peers, &kept, same, at(0)).unwrap();
        // Nobody is asked about its own log.
        assert!(!logs.contains(&first) && logs.contains(&id(9)));
        assert_eq!(rounds.next(&peers, &kept, same, at(1)), None, "one exchange in two seconds");
        let (second, _) = rounds.next(&peers, &kept, same, at(2)).unwrap();
        assert_ne!(first, second);
        let all = |settled| [(id(1), mark(1), settled), (id(9), mark(1), settled)];
        rounds.answered(&id(1), &all(true), at(3));
        rounds.answered(&id(2), &all(false), at(3));
        assert_eq!(rounds.next(&peers, &kept, same, at(14)), None, "nothing has changed");
        // What was not shown to fit is looked at again, what was is not.
        assert_eq!(rounds.next(&peers, &kept, same, at(64)).unwrap().0, id(2));
        rounds.answered(&id(2), &all(true), at(65));
        kept.insert(id(9), mark(2));
        assert_eq!(rounds.next(&peers, &kept, same, at(70)).unwrap(), (id(1), vec![id(9)]));
        rounds.answered(&id(1), &[(id(9), mark(2), true)], at(70));
        assert_eq!(rounds.next(&peers, &kept, same, at(76)).unwrap(), (id(2), vec![id(9)]));
        rounds.answered(&id(2), &[(id(9), mark(2), true)], at(76));
        assert_eq!(rounds.next(&peers, &kept, same, at(600)), None);
        assert_eq!(rounds.next(&peers, &kept, same, at(3671)).unwrap(), (id(1), vec![id(9)]), "an hour later");
    }

    #[test]
    fn who_is_away_is_asked_less_and_less_and_a_crowd_is_bounded() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let kept: BTreeMap<NodeId, Mark> = (100..150).map(|seed| (id(seed), mark(1))).collect();
        let mut rounds = Rounds::default();
        let (_, logs) = rounds.next(&[id(1)], &kept, same, at(0)).unwrap();
        assert_eq!(logs.len(), LOGS_MAX);
        let answers: Vec<_> = logs.iter().map(|origin| (*origin, mark(1), true)).collect();
        rounds.answered(&id(1), &answers, at(0));
        // The next ones come next.
        let (_, next) = rounds.next(&[id(1)], &kept, same, at(10)).unwrap();
        assert!(next.iter().all(|origin| !logs.contains(origin)));
        rounds.failed(&id(1), at(10));
        assert_eq!(rounds.next(&[id(1)], &kept, same, at(19)), None);
        assert!(rounds.next(&[id(1)], &kept, same, at(20)).is_some());
        rounds.failed(&id(1), at(20));
        assert_eq!(rounds.next(&[id(1)], &kept, same, at(39)), None);
        assert!(rounds.next(&[id(1)], &kept, same, at(40)).is_some());
        let crowd: Vec<NodeId> = (1..=90).map(id).collect();
        let mut asked = Vec::new();
        for second in 0..90 {
            asked.extend(rounds.next(&crowd, &kept, same, at(1000 + second)).map(|(peer, _)| peer));
        }
        assert_eq!(asked.len(), 45, "one in two seconds");
        for second in 0..110 {
            asked.extend(rounds.next(&crowd, &kept, same, at(1100 + second)).map(|(peer, _)| peer));
        }
        asked.sort();
        asked.dedup();
        assert!(asked.len() <= PEERS_MAX && asked.len() > 45, "{}", asked.len());
    }

    #[test]
    fn who_never_ends_is_given_up_and_who_never_answers_is_asked_once_an_hour_in_the_end() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut kept: BTreeMap<NodeId, Mark> = [(id(9), mark(1))].into();
        let mut rounds = Rounds::default();
        assert!(rounds.next(&[id(1)], &kept, same, at(0)).is_some());
        assert_eq!(rounds.next(&[id(1)], &kept, same, at(119)), None, "it may still end");
        assert!(rounds.next(&[id(1)], &kept, same, at(120)).is_some());
        let mut last = 120;
        for wait in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
            rounds.failed(&id(1), at(last));
            assert_eq!(rounds.next(&[id(1)], &kept, same, at(last + wait - 1)), None, "asked before {wait} s");
            last += wait;
            assert!(rounds.next(&[id(1)], &kept, same, at(last)).is_some(), "not asked after {wait} s");
        }
        // One answer, and it is asked as any other.
        rounds.answered(&id(1), &[(id(9), mark(1), true)], at(last));
        kept.insert(id(9), mark(2));
        assert_eq!(rounds.next(&[id(1)], &kept, same, at(last + 9)), None);
        assert!(rounds.next(&[id(1)], &kept, same, at(last + 10)).is_some());
        rounds.failed(&id(1), at(last + 10));
        assert!(rounds.next(&[id(1)], &kept, same, at(last + 20)).is_some(), "what failed before is forgotten");
    }
}
