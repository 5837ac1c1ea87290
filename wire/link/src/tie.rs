//! Which of two sessions with one peer is kept. Pure, and the same on both sides.
//!
//! Both sides dial when they start, so two sessions at once are normal. They see them in different orders, so the choice must
//! not depend on the order; only when one of them is clearly later does the later one win, because its dialler would not have
//! dialled if the earlier one had worked for it.

use std::time::Duration;

use fluidos_identity::NodeId;

/// Two dials are *at once* if the sessions are this close: a handshake and the hellos have five seconds each.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(10);

/// What counts of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The peer's: another one is another process, which `copies.rs` has judged.
    pub(crate) incarnation: u64,
    /// Who dialled.
    pub(crate) dialler: NodeId,
}

/// What happens to the newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// It replaces the older session.
    Replace,
    /// It is closed; the older session stays.
    Keep,
}

/// Chooses between the session there is, of a certain age, and a new one with the same peer. `us` is this node.
pub(crate) fn choose(old: Facts, old_age: Duration, new: Facts, us: NodeId, peer: NodeId) -> Choice {
    if new.incarnation != old.incarnation {
        // Another process has come in the moment in which it was found that there is none: the dialler comes again.
        return Choice::Keep;
    }
    let later = new.dialler == old.dialler || old_age > AT_ONCE;
    if later || new.dialler == us.min(peer) { Choice::Replace } else { Choice::Keep }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::NodeKey;

    use super::*;

    fn nodes() -> (NodeId, NodeId) {
        let id = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap().id();
        (id(1).min(id(2)), id(1).max(id(2)))
    }

    #[test]
    fn both_sides_keep_the_same_one_in_every_order() {
        let (small, large) = nodes();
        for order in [[small, large], [large, small]] {
            for (us, peer) in [(small, large), (large, small)] {
                let facts = |dialler| Facts { incarnation: 7, dialler };
                let [old, new] = order.map(facts);
                let choice = choose(old, Duration::from_millis(3), new, us, peer);
                let kept = if choice == Choice::Replace { new } else { old };
                assert_eq!(kept.dialler, small, "{order:?} seen by {us}");
            }
        }
    }

    #[test]
    fn what_a_process_says_of_its_start_replaces_nothing() {
        let (small, large) = nodes();
        let facts = |incarnation, dialler| Facts { incarnation, dialler };
        let age = Duration::ZERO;
        assert_eq!(choose(facts(1, small), age, facts(2, large), small, large), Choice::Keep);
        assert_eq!(choose(facts(2, large), age, facts(1, small), small, large), Choice::Keep);
    }

    #[test]
    fn a_dialler_that_comes_again_has_lost_the_older_one() {
        let (small, large) = nodes();
        let facts = |dialler| Facts { incarnation: 7, dialler };
        let age = Duration::from_secs(1);
        assert_eq!(choose(facts(large), age, facts(large), small, large), Choice::Replace);
        let age = AT_ONCE + Duration::from_secs(1);
        assert_eq!(choose(facts(small), age, facts(large), small, large), Choice::Replace);
    }
}
