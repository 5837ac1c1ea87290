//! Two live processes with one key: which of them stays.
//!
//! A **copy** is a second process that runs with the key of a node, from a disk that was copied, a backup that was restored
//! beside the original, or a theft. A restart is none: the process before it is dead. They look alike at first, a newcomer with
//! another incarnation, so the older one is asked:
//!
//! ```text
//!   older   ────answers────────answers───── asked ──answers──▶  alive: the newcomer is a copy, and is refused
//!   newcomer                    │ first seen
//!   older   ────answers──╳                  asked ── COPY_PROBE ──▶ dead: a restart, the newcomer stays
//! ```
//! Older is who was *seen* first here. What a process says about its own start (`incarnation`) only breaks ties: a thief can
//! say anything. So this protects who is up; a node that comes back to find its thief established is the younger, and its
//! owner hands its key over ([`crate::Handover::by_owner`]).
//!
//! Limits: a copy that says the incarnation of the original is taken for another session of it; two that never meet a common
//! peer are not seen.

use jiff::{SignedDuration, Timestamp};

/// How long an older process is given to answer: ten round trips around the earth. A restart is refused for no longer.
pub const COPY_PROBE: SignedDuration = SignedDuration::from_secs(2);

/// One process of a node, as a peer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incarnation {
    /// What it says when it started: the link's `incarnation`.
    pub number: u64,
    /// When it was first seen here.
    pub first_seen: Timestamp,
    /// When it last answered something that it was asked; `None` if it never was.
    pub answered: Option<Timestamp>,
}

/// Which process stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WhoStays {
    /// This one; there is no other, or the others are dead.
    Only(u64),
    /// It cannot be said yet: these older ones must be asked, until then.
    Ask {
        /// Whom.
        older: Vec<u64>,
        /// When silence is an answer.
        until: Timestamp,
    },
    /// There are copies. The oldest stays, the younger are refused, and the owner is told.
    Copies {
        /// Who stays.
        stays: u64,
        /// Who is refused, in order of age.
        refused: Vec<u64>,
    },
}

/// Returns which of the processes of one key stays; `None` if there are none.
///
/// *Guarantees*: the order of the processes does not matter.
pub fn who_stays(incarnations: &[Incarnation], now: Timestamp) -> Option<WhoStays> {
    let mut by_age = incarnations.to_vec();
    by_age.sort_by_key(|one| (one.first_seen, one.number));
    let newest = *by_age.last()?;
    // A sum that does not fit is beyond every time.
    let until = newest.first_seen.checked_add(COPY_PROBE).unwrap_or(Timestamp::MAX);
    let is_alive = |one: &Incarnation| {
        one.number == newest.number || one.answered.is_some_and(|answered| answered > newest.first_seen)
    };
    let (alive, silent): (Vec<Incarnation>, Vec<Incarnation>) = by_age.into_iter().partition(is_alive);
    if !silent.is_empty() && now < until {
        return Some(WhoStays::Ask { older: silent.iter().map(|one| one.number).collect(), until });
    }
    let mut alive: Vec<u64> = alive.iter().map(|one| one.number).collect();
    alive.dedup();
    let stays = alive.remove(0); // the newest at least is among them
    Some(if alive.is_empty() { WhoStays::Only(stays) } else { WhoStays::Copies { stays, refused: alive } })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn one(number: u64, first_seen: i64, answered: Option<i64>) -> Incarnation {
        Incarnation { number, first_seen: at(first_seen), answered: answered.map(at) }
    }

    #[test]
    fn a_restart_stays_and_a_copy_is_refused() {
        let copies = |stays, refused: &[u64]| Some(WhoStays::Copies { stays, refused: refused.to_vec() });
        let stays = |processes: &[Incarnation], now| who_stays(processes, at(now));
        assert_eq!(stays(&[], 0), None);
        assert_eq!(stays(&[one(1, 0, None)], 0), Some(WhoStays::Only(1)));
        // It answered before the newcomer came, which says nothing about now.
        let asked = stays(&[one(1, 0, Some(99)), one(2, 100, None)], 101);
        assert_eq!(asked, Some(WhoStays::Ask { older: vec![1], until: at(102) }));
        assert_eq!(stays(&[one(1, 0, Some(99)), one(2, 100, None)], 102), Some(WhoStays::Only(2)), "a restart");
        assert_eq!(stays(&[one(1, 0, Some(101)), one(2, 100, None)], 101), copies(1, &[2]), "a copy");
        // What it says of its own start does not help a thief.
        assert_eq!(stays(&[one(9, 0, Some(101)), one(1, 100, Some(101))], 101), copies(9, &[1]));
        assert_eq!(stays(&[one(1, 0, None), one(2, 50, Some(101)), one(3, 100, None)], 200), copies(2, &[3]));
        assert_eq!(
            stays(&[one(5, 0, Some(101)), one(5, 100, None)], 101),
            Some(WhoStays::Only(5)),
            "two sessions of one"
        );
    }

    proptest! {
        #[test]
        fn neither_order_nor_number_lets_a_newcomer_stay_beside_who_answers(
            number in any::<u64>(), others in proptest::collection::vec((any::<u64>(), 0i64..100), 0..4), turn in 0usize..5,
        ) {
            prop_assume!(number != 7 && others.iter().all(|(other, _)| *other != 7 && *other != number));
            let mut processes: Vec<Incarnation> = others.iter().map(|(n, seen)| one(*n, 1 + seen, None)).collect();
            processes.push(one(7, 0, Some(201)));
            processes.push(one(number, 200, Some(300)));
            let expected = who_stays(&processes, at(400));
            let turn = turn % processes.len();
            processes.rotate_left(turn);
            prop_assert_eq!(&who_stays(&processes, at(400)), &expected);
            prop_assert_eq!(expected, Some(WhoStays::Copies { stays: 7, refused: vec![number] }));
        }
    }
}
