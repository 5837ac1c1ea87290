//! Which key speaks for a node now. Pure: no clock, no file, and no order of arrival.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use super::{Handover, Owners, Revocation, STATEMENTS_MAX, Statement};
use crate::NodeId;
use crate::credential::CLOCK_SKEW_LEEWAY;

/// Hand-overs of one node: one a month for five years.
pub const HANDOVERS_MAX: usize = 64;

/// Statements of a fork that are kept: two keys, each by the key itself and by an owner.
const BRANCHES_MAX: usize = 4;

/// How a node stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// This key speaks for it.
    Current(NodeId),
    /// Its last key counts no more, and none has taken its place.
    Revoked {
        /// The key.
        key: NodeId,
        /// Who has revoked it.
        by: NodeId,
        /// Since when.
        at: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// Nobody can say. It has no rights until its owner decides.
    Unknown(Doubt),
}

/// Why nobody can say which key speaks for a node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// Two hand-overs of one key.
    #[error("{key} was handed over to {} keys: {}", to.len(), to.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", "))]
    Fork {
        /// The key.
        key: NodeId,
        /// To whom, in order.
        to: Vec<NodeId>,
    },
    /// A key that was handed over comes back.
    #[error("{key} was handed over and comes back")]
    Loop {
        /// The key.
        key: NodeId,
    },
    /// More hand-overs than any honest node has.
    #[error("more than {HANDOVERS_MAX} hand-overs")]
    TooLong,
    /// More statements than are looked at.
    #[error("{0} statements, at most {STATEMENTS_MAX}")]
    TooMany(usize),
}

/// What this node has accepted about one other: its memory, which a key that is stolen later cannot change.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyHistory {
    origin: NodeId,
    accepted: Vec<Statement>,
    /// The hand-overs that make a fork: it is not forgotten when only one of them is shown the next time.
    doubts: Vec<Statement>,
}

/// Returns how a node stands, known by one of its keys, for somebody who has heard these statements and nothing before.
///
/// *Guarantees*: the order and repetition of statements do not matter; what nobody may say, what is dated in the future, and
/// what is about other keys changes nothing.
pub fn resolve(did: NodeId, statements: &[Statement], owners: &Owners, now: Timestamp) -> Standing {
    KeyHistory::new(did).learn(statements, owners, now)
}

/// Returns the key from which the addresses of a node follow: the first of those that have handed over to one another up to
/// this one, each by itself. It is the same for all who see the same statements, whenever they met the node: pods keep their
/// addresses when a key changes. A key that the owner put in the place of a lost one begins anew: who does not know the owner
/// could not tell.
pub fn first_key(key: NodeId, statements: &[Statement]) -> NodeId {
    let mut chain = vec![key];
    loop {
        let last = chain[chain.len() - 1];
        let before: BTreeSet<NodeId> = statements
            .iter()
            .filter_map(|statement| match statement {
                Statement::Handover(h) if h.to() == last && h.by() == h.from() => Some(h.from()),
                _ => None,
            })
            .collect();
        match before.first() {
            Some(one) if before.len() == 1 && !chain.contains(one) && chain.len() <= HANDOVERS_MAX => chain.push(*one),
            _ => return last,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current(key) => write!(f, "current {key}"),
            Self::Revoked { key, by, at, reason } => write!(f, "revoked {key} by {by} at {at}: {reason}"),
            Self::Unknown(doubt) => write!(f, "unknown {doubt}"),
        }
    }
}

impl KeyHistory {
    /// Returns the history of a node that was met with this key.
    pub fn new(origin: NodeId) -> Self {
        Self { origin, accepted: Vec::new(), doubts: Vec::new() }
    }

    /// Returns the history that was kept: [`KeyHistory::accepted`] and [`KeyHistory::doubts`], as they were.
    pub fn restore(origin: NodeId, accepted: Vec<Statement>, doubts: Vec<Statement>) -> Self {
        Self { origin, accepted, doubts }
    }

    /// Learns statements, from whomever, and returns how the node stands then. What was followed is kept.
    pub fn learn(&mut self, statements: &[Statement], owners: &Owners, now: Timestamp) -> Standing {
        if statements.len() > STATEMENTS_MAX {
            return Standing::Unknown(Doubt::TooMany(statements.len()));
        }
        let heard = [&self.doubts, statements].concat();
        let (standing, followed) =
            Walk { accepted: &self.accepted, statements: &heard, owners, now }.follow(self.origin);
        match &standing {
            Standing::Current(_) | Standing::Revoked { .. } => {
                self.accepted = followed;
                self.doubts.clear();
            }
            Standing::Unknown(Doubt::Fork { key, to }) => {
                // What leads to the fork is as good as without it; what was accepted before is not given up for it.
                if followed.starts_with(&self.accepted) {
                    self.accepted = followed;
                }
                self.doubts = branches(heard, *key, to);
            }
            Standing::Unknown(_) => {}
        }
        standing
    }

    /// Returns how the node stands by what was kept.
    pub fn standing(&self, owners: &Owners, now: Timestamp) -> Standing {
        Walk { accepted: &self.accepted, statements: &self.doubts, owners, now }.follow(self.origin).0
    }

    /// Returns the first key, by which the node was met.
    pub fn origin(&self) -> NodeId {
        self.origin
    }

    /// Returns what was accepted, to be kept: the chain of hand-overs, and a revocation at its end.
    pub fn accepted(&self) -> &[Statement] {
        &self.accepted
    }

    /// Returns the hand-overs that make a fork, to be kept; none if there is no doubt.
    pub fn doubts(&self) -> &[Statement] {
        &self.doubts
    }

    /// Returns the keys of before: who proves one of them now is not this node any more.
    pub fn retired(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.accepted.iter().filter_map(|statement| match statement {
            Statement::Handover(handover) => Some(handover.from()),
            Statement::Revocation(_) => None,
        })
    }
}

/// Returns a hand-over to each of two keys by whoever makes it: two are a fork, and more say no more.
fn branches(heard: Vec<Statement>, key: NodeId, to: &[NodeId]) -> Vec<Statement> {
    let mut kept: Vec<Statement> = Vec::new();
    for statement in heard {
        let Statement::Handover(handover) = &statement else { continue };
        let same = |other: &Statement| matches!(other, Statement::Handover(h) if h.to() == handover.to() && h.by() == handover.by());
        let of_fork = handover.from() == key && to.iter().take(2).any(|to| *to == handover.to());
        if of_fork && !kept.iter().any(same) && kept.len() < BRANCHES_MAX {
            kept.push(statement);
        }
    }
    kept
}

struct Walk<'a> {
    accepted: &'a [Statement],
    statements: &'a [Statement],
    owners: &'a Owners,
    now: Timestamp,
}

/// What happens after one key.
enum Next<'a> {
    Stays,
    HandedOver(&'a Handover),
    Revoked(&'a Revocation),
    Fork(BTreeSet<NodeId>),
}

impl<'a> Walk<'a> {
    /// Goes from key to key; returns where it ends and what it has followed.
    fn follow(&self, origin: NodeId) -> (Standing, Vec<Statement>) {
        let (mut keys, mut followed) = (vec![origin], Vec::new());
        loop {
            let key = keys[keys.len() - 1];
            match self.next(key, &keys) {
                Next::Stays => return (Standing::Current(key), followed),
                Next::Fork(to) => {
                    return (Standing::Unknown(Doubt::Fork { key, to: to.into_iter().collect() }), followed);
                }
                Next::Revoked(revocation) => {
                    followed.push(revocation.clone().into());
                    let (by, at, reason) = (revocation.by(), revocation.at(), revocation.reason().to_owned());
                    return (Standing::Revoked { key, by, at, reason }, followed);
                }
                Next::HandedOver(handover) if keys.contains(&handover.to()) => {
                    return (Standing::Unknown(Doubt::Loop { key: handover.to() }), followed);
                }
                Next::HandedOver(_) if keys.len() > HANDOVERS_MAX => {
                    return (Standing::Unknown(Doubt::TooLong), followed);
                }
                Next::HandedOver(handover) => {
                    followed.push(handover.clone().into());
                    keys.push(handover.to());
                }
            }
        }
    }

    /// Chooses, by the ranks in the header of the module.
    fn next(&self, key: NodeId, keys: &[NodeId]) -> Next<'a> {
        let owner = |by: NodeId, at: Timestamp, accepted: bool| {
            by != key && (accepted || self.owners.speaks_for(&by, keys, at))
        };
        let handovers: Vec<(&Handover, bool)> = self.handovers(key).collect();
        let revocations: Vec<(&Revocation, bool)> = self.revocations(key).collect();

        let by_owner = handovers.iter().filter(|(h, accepted)| owner(h.by(), h.at(), *accepted)).map(|(h, _)| *h);
        if let Some(next) = only(by_owner) {
            return next;
        }
        let by_owner = revocations.iter().filter(|(r, accepted)| owner(r.by(), r.at(), *accepted)).map(|(r, _)| *r);
        if let Some(revocation) = earliest(by_owner) {
            return Next::Revoked(revocation);
        }
        let of_key = handovers.iter().filter(|(h, _)| h.by() == key);
        if let Some((handover, _)) = of_key.clone().find(|(_, accepted)| *accepted) {
            return Next::HandedOver(handover);
        }
        let itself = revocations.iter().filter(|(r, _)| r.by() == key).map(|(r, _)| *r);
        if let Some(revocation) = earliest(itself) {
            return Next::Revoked(revocation);
        }
        only(of_key.map(|(h, _)| *h)).unwrap_or(Next::Stays)
    }

    fn handovers(&self, key: NodeId) -> impl Iterator<Item = (&'a Handover, bool)> {
        self.live(key).filter_map(|(statement, accepted)| match statement {
            Statement::Handover(handover) => Some((handover, accepted)),
            Statement::Revocation(_) => None,
        })
    }

    fn revocations(&self, key: NodeId) -> impl Iterator<Item = (&'a Revocation, bool)> {
        self.live(key).filter_map(|(statement, accepted)| match statement {
            Statement::Revocation(revocation) => Some((revocation, accepted)),
            Statement::Handover(_) => None,
        })
    }

    /// What is about a key and not of the future, and whether it was accepted before. What was accepted stays so whatever
    /// the clock says now, and whoever is the owner now.
    fn live(&self, key: NodeId) -> impl Iterator<Item = (&'a Statement, bool)> {
        let latest = self.now.checked_add(CLOCK_SKEW_LEEWAY).unwrap_or(Timestamp::MAX);
        let at = |statement: &Statement| match statement {
            Statement::Handover(handover) => handover.at(),
            Statement::Revocation(revocation) => revocation.at(),
        };
        let accepted = self.accepted.iter().map(|statement| (statement, true));
        let heard = self.statements.iter().filter(move |s| at(s) <= latest).map(|statement| (statement, false));
        accepted.chain(heard).filter(move |(statement, _)| statement.about() == key)
    }
}

/// One key takes the place, or it is a fork; `None` if there is no hand-over. Of several to one key, the earliest is kept.
fn only<'a>(handovers: impl Iterator<Item = &'a Handover> + Clone) -> Option<Next<'a>> {
    let to: BTreeSet<NodeId> = handovers.clone().map(Handover::to).collect();
    if to.len() > 1 {
        return Some(Next::Fork(to));
    }
    handovers.min_by_key(|handover| (handover.at(), handover.by())).map(Next::HandedOver)
}

fn earliest<'a>(revocations: impl Iterator<Item = &'a Revocation>) -> Option<&'a Revocation> {
    revocations.min_by_key(|revocation| (revocation.at(), revocation.by(), revocation.reason()))
}
