//! Whether the other party of a contract has it in its log: what is asked, what an answer proves, and what the Contract says of it. Pure.
//!
//! ```text
//!   Contract ─▶ the leaves that both parties make of it ─▶ other party ─▶ its head, a path ─▶ check ─▶ condition LoggedByOtherParty
//! ```
//! A contract is *included* if and only if each of its leaves, that of the terms and that of the last renewal, has a path to the root of a
//! head that the other party has signed, and that head fits what is kept here of its log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;
use fluidos_log::{Hash, SignedHead, open_head, verify_inclusion};
use fluidos_model::kinds::{Condition, Contract};
use fluidos_rear as rear;
use fluidos_rear::RefusalCode;
use jiff::Timestamp;

use crate::records;

/// The type of the condition.
pub(crate) const LOGGED: &str = "LoggedByOtherParty";
/// Contracts in one exchange: at most twice as many requests, of the 20 in a second that a peer listens to.
pub(crate) const CONTRACTS_IN_ONE: usize = 8;
/// Between two exchanges with one peer.
const PEER_EVERY: Duration = Duration::from_secs(2);
/// The other party writes its log within a second. After a refusal twice as long each time, up to the most.
const FIRST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(600);
const DOUBLINGS_MAX: u32 = 9;
/// It may be busy: only what is missing for the third time, some 14 s after it was signed, is called so.
const MISSING_AFTER: u32 = 3;
/// Words of somebody else.
const REASON_LENGTH_MAX: usize = 300;

/// What came of asking about a contract.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Where its leaves are, and how many the log has.
    Included { places: Vec<u64>, size: u64 },
    /// The log has no such leaf.
    Missing(String),
    /// The other party does not say.
    Refused(String),
    /// What it says does not prove it.
    NotProven(String),
    /// It could not be asked.
    Unreachable(String),
}

/// What is asked about a contract.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    /// The node that is asked, by the key that speaks for it.
    pub other: NodeId,
    /// The first of its keys: it names its log.
    pub origin: NodeId,
    /// The leaves that are to be in it.
    pub leaves: Vec<Hash>,
}

/// The other party of a contract, as the contract names it, and the leaves that both parties make of it.
pub(crate) type Leaves = (NodeId, Vec<Hash>);

/// Returns what is to be in the other party's log; `None` if both have not signed the contract.
pub(crate) fn leaves(contract: &Contract, is_own: impl Fn(&NodeId) -> bool) -> Option<Leaves> {
    let signed = records::terms(&records::envelope(contract.spec.signed_terms.as_ref()?)).ok()?;
    let terms = signed.value();
    let other = [terms.buyer, terms.seller].into_iter().find(|party| !is_own(party))?;
    let entries = [records::of_terms(&signed), records::of_renewal(contract)];
    Some((other, entries.into_iter().flatten().filter_map(|entry| entry.hash().ok()).collect()))
}

/// Checks what the other party shows of one leaf; returns where it is, under which head.
///
/// # Errors
/// Why it proves nothing, in words.
pub(crate) fn check(shown: &rear::Inclusion, leaf: &Hash, question: &Question) -> Result<(u64, SignedHead), String> {
    let head = open_head(&shown.head).map_err(|error| error.to_string())?;
    let value = head.value();
    if value.origin != question.origin || !head.signed_by(&question.other) {
        return Err(format!(
            "its head is of the log of {}, needed that of {}, signed by it",
            value.origin, question.origin
        ));
    }
    verify_inclusion(leaf, shown.index, value.size, &value.root, &shown.inclusion)
        .map_err(|error| error.to_string())?;
    Ok((shown.index, head))
}

/// Returns what a request that brought no proof means.
pub(crate) fn refused(error: &rear::ClientError) -> Answer {
    match error {
        rear::ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::NotFound => {
            Answer::Missing(refusal.detail.clone())
        }
        rear::ClientError::Refused { refusal, .. } => Answer::Refused(refusal.to_string()),
        rear::ClientError::Malformed { .. } => Answer::NotProven(error.to_string()),
        rear::ClientError::Unreachable { .. } => Answer::Unreachable(error.to_string()),
    }
}

/// Returns the condition that follows from an answer; `None` if the Contract says so already, or is to say nothing yet. `failures` is how
/// often in a row it was not included.
pub(crate) fn condition(
    before: Option<&Condition>,
    answer: &Answer,
    failures: u32,
    now: Timestamp,
) -> Option<Condition> {
    let (status, reason, message) = match answer {
        Answer::Included { places, size } => {
            let places: Vec<String> = places.iter().map(u64::to_string).collect();
            ("True", "Included", format!("entry {} of {size} in the log of the other party", places.join(" and ")))
        }
        Answer::Missing(_) if failures < MISSING_AFTER => return None,
        Answer::Missing(told) => ("False", "Missing", told.clone()),
        Answer::NotProven(told) => ("False", "NotProven", told.clone()),
        Answer::Refused(told) => ("Unknown", "Refused", told.clone()),
        Answer::Unreachable(told) => ("Unknown", "Unreachable", told.clone()),
    };
    // What was shown once stays in the log: silence takes nothing back.
    if status == "Unknown" && before.is_some_and(|before| before.status == "True") {
        return None;
    }
    let message = message.chars().filter(|c| !c.is_control()).take(REASON_LENGTH_MAX).collect();
    let condition = Condition {
        kind: LOGGED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: now.to_string(),
        observed_generation: 0,
    };
    condition.after(before)
}

/// What is known of one contract.
#[derive(Debug)]
struct Known {
    leaves: Vec<Hash>,
    included: bool,
    failures: u32,
    not_before: Instant,
}

/// Which contracts are to be asked about.
#[derive(Debug, Default)]
pub(crate) struct Inclusions {
    known: BTreeMap<String, Known>,
    peers: BTreeMap<NodeId, Instant>,
}

impl Inclusions {
    /// Says whether these leaves of a contract are to be asked for now; one that is new has a moment to get into the log.
    pub(crate) fn due(&mut self, contract: &str, leaves: &[Hash], now: Instant) -> bool {
        let fresh = || Known { leaves: leaves.to_vec(), included: false, failures: 0, not_before: now + FIRST };
        let known = self.known.entry(contract.to_owned()).or_insert_with(fresh);
        if known.leaves != leaves {
            *known = fresh();
        }
        !known.included && known.not_before <= now
    }

    /// Says whether a peer may be asked now; then it counts as asked.
    pub(crate) fn may_ask(&mut self, peer: &NodeId, now: Instant) -> bool {
        let may = self.peers.get(peer).is_none_or(|at| *at <= now);
        if may {
            self.peers.insert(*peer, now + MOST);
        }
        may
    }

    /// A peer has answered about contracts, or could not be asked.
    pub(crate) fn asked(&mut self, peer: &NodeId, now: Instant) {
        self.peers.insert(*peer, now + PEER_EVERY);
    }

    /// Takes an answer about one contract; returns how often in a row it was not included.
    pub(crate) fn answered(&mut self, contract: &str, answer: &Answer, now: Instant) -> u32 {
        let Some(known) = self.known.get_mut(contract) else { return 0 };
        known.included = matches!(answer, Answer::Included { .. });
        known.failures = if known.included { 0 } else { known.failures.saturating_add(1) };
        known.not_before = now + (FIRST * 2u32.pow(known.failures.min(DOUBLINGS_MAX))).min(MOST);
        known.failures
    }

    /// Forgets contracts that are gone, and peers that are asked no more.
    pub(crate) fn retain(&mut self, there: impl Fn(&str) -> bool, now: Instant) {
        self.known.retain(|contract, _| there(contract));
        self.peers.retain(|_, at| *at > now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use fluidos_identity::NodeKey;
    use fluidos_log::{Tree, TreeHead, leaf_hash};

    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32]).unwrap()
    }

    #[test]
    fn only_a_path_to_a_head_of_that_log_signed_by_its_party_proves_it() {
        let tree: Tree = (0..7u8).map(|leaf| leaf_hash(&[leaf])).collect();
        let shown = |signer: u8, origin: u8, index: u64| {
            let mut head = TreeHead::of(&tree, key(origin).id(), 0, Timestamp::UNIX_EPOCH).unwrap();
            head.sign(&key(signer)).unwrap();
            rear::Inclusion { head: head.envelope(), index, inclusion: tree.inclusion(index, 7).unwrap() }
        };
        // Its second key speaks for it, and its first names its log.
        let leaf = leaf_hash(&[3]);
        let question = Question { other: key(2).id(), origin: key(1).id(), leaves: vec![leaf] };
        let (index, head) = check(&shown(2, 1, 3), &leaf, &question).unwrap();
        assert_eq!((index, head.value().size), (3, 7));
        assert!(check(&shown(2, 1, 4), &leaf, &question).unwrap_err().contains("leads to root"));
        assert!(check(&shown(2, 2, 3), &leaf, &question).unwrap_err().contains("needed that of"));
        assert!(check(&shown(3, 1, 3), &leaf, &question).unwrap_err().contains("signed by it"));
        let cut = rear::Inclusion { inclusion: Vec::new(), ..shown(2, 1, 3) };
        assert!(check(&cut, &leaf, &question).is_err());
        let mut unsigned = shown(2, 1, 3);
        unsigned.head.signatures.clear();
        assert!(check(&unsigned, &leaf, &question).is_err());
    }

    #[test]
    fn the_contract_says_what_came_of_it_and_silence_takes_nothing_back() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let missing = Answer::Missing("the log has 4 entries".into());
        assert_eq!(condition(None, &missing, 2, at(1)), None, "it may be about to write it");
        let first = condition(None, &missing, 3, at(2)).unwrap();
        assert_eq!((first.status.as_str(), first.reason.as_str()), ("False", "Missing"));
        assert_eq!(condition(Some(&first), &missing, 4, at(9)), None, "nothing is new");
        let lie = condition(Some(&first), &Answer::NotProven("x\n".repeat(400)), 1, at(9)).unwrap();
        assert_eq!(lie.last_transition_time, first.last_transition_time, "it is not shown since then");
        assert!(lie.message.len() == 300 && !lie.message.contains('\n'));
        let away = Answer::Unreachable("nobody answers".into());
        assert_eq!(condition(Some(&first), &away, 1, at(10)).unwrap().status, "Unknown");
        let included = condition(Some(&first), &Answer::Included { places: vec![2, 5], size: 9 }, 0, at(11)).unwrap();
        assert_eq!(included.message, "entry 2 and 5 of 9 in the log of the other party");
        assert_eq!((included.status.as_str(), included.last_transition_time), ("True", at(11).to_string()));
        let included = condition(None, &Answer::Included { places: vec![2], size: 9 }, 0, at(11)).unwrap();
        for silent in [away, Answer::Refused("restoring".into())] {
            assert_eq!(condition(Some(&included), &silent, 1, at(12)), None);
        }
        assert_eq!(condition(Some(&included), &missing, 3, at(12)).unwrap().status, "False");
    }

    #[test]
    fn it_is_asked_until_it_is_shown_and_again_after_a_renewal() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut inclusions = Inclusions::default();
        let [first, renewed] = [vec![leaf_hash(b"a")], vec![leaf_hash(b"a"), leaf_hash(b"b")]];
        let missing = Answer::Missing(String::new());
        assert!(!inclusions.due("c", &first, at(0)), "it is being written");
        assert!(inclusions.due("c", &first, at(2)));
        assert_eq!(inclusions.answered("c", &missing, at(2)), 1);
        assert!(!inclusions.due("c", &first, at(5)) && inclusions.due("c", &first, at(6)));
        assert_eq!(inclusions.answered("c", &missing, at(6)), 2);
        assert!(!inclusions.due("c", &first, at(13)) && inclusions.due("c", &first, at(14)));
        (0..20).for_each(|_| {
            inclusions.answered("c", &missing, at(14));
        });
        assert!(!inclusions.due("c", &first, at(613)) && inclusions.due("c", &first, at(614)));
        assert_eq!(inclusions.answered("c", &Answer::Included { places: vec![], size: 1 }, at(14)), 0);
        assert!(!inclusions.due("c", &first, at(10_000)));
        assert!(!inclusions.due("c", &renewed, at(10_000)) && inclusions.due("c", &renewed, at(10_002)));
        // A peer is asked again when it has answered, and a little later.
        let peer = key(1).id();
        assert!(inclusions.may_ask(&peer, at(0)) && !inclusions.may_ask(&peer, at(9)));
        inclusions.asked(&peer, at(10));
        assert!(!inclusions.may_ask(&peer, at(11)) && inclusions.may_ask(&peer, at(12)));
        inclusions.retain(|_| false, at(12));
        assert!(!inclusions.due("c", &renewed, at(10_002)), "it is new again");
    }
}
