//! Which key speaks for whom now: a table that whoever meets peers keeps, and all others read.
//!
//! ```text
//!   Acquaintances ──▶ Speakers ──┬─▶ a contract names K0: K1 speaks for it, or nobody
//!   own history ─────┘           ├─▶ K0 proves itself: it was handed over, it has nothing to say
//!                                └─▶ addresses of K1 follow from K0
//! ```
//! A key of which nothing was said speaks for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{NodeId, Standing};

/// The table. Clones are the same one; an empty one lets every key speak for itself.
#[derive(Clone, Default, Debug)]
pub struct Speakers {
    table: Arc<RwLock<Table>>,
}

#[derive(Clone, Default, PartialEq, Debug)]
struct Table {
    standings: BTreeMap<NodeId, Standing>,
    first: BTreeMap<NodeId, NodeId>,
    version: u64,
}

impl Speakers {
    /// Says how every key stands that is known, and the first keys of those that have had others; `true` if it is new.
    pub fn set(&self, standings: BTreeMap<NodeId, Standing>, first: BTreeMap<NodeId, NodeId>) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let version = table.version;
        let fresh = Table { standings, first, version };
        let changed = *table != fresh;
        *table = Table { version: version + u64::from(changed), ..fresh };
        changed
    }

    /// How often the table has changed: what was read of it holds as long as this is the same.
    pub fn version(&self) -> u64 {
        self.read(|table| table.version)
    }

    /// Returns how the node stands that is named by this key, as in a contract.
    pub fn standing(&self, named: &NodeId) -> Standing {
        self.read(|table| table.standings.get(named).cloned()).unwrap_or(Standing::Current(*named))
    }

    /// Returns the key that speaks for the node that is named by this one; itself if none does.
    pub fn current(&self, named: &NodeId) -> NodeId {
        match self.read(|table| table.standings.get(named).cloned()) {
            Some(Standing::Current(key)) => key,
            _ => *named,
        }
    }

    /// Says whether this key may speak for anybody.
    ///
    /// # Errors
    /// Why not: it was handed over, it was revoked, or nobody can say.
    pub fn counts(&self, key: &NodeId) -> Result<(), String> {
        match self.standing(key) {
            Standing::Current(current) if current == *key => Ok(()),
            Standing::Current(current) => Err(format!("{key} was handed over to {current}")),
            other => Err(other.to_string()),
        }
    }

    /// Returns the key from which the addresses of a node follow, see [`crate::first_key`].
    pub fn first(&self, key: &NodeId) -> NodeId {
        let current = self.current(key);
        self.read(|table| table.first.get(&current).copied()).unwrap_or(current)
    }

    /// Says whether other keys were handed over to this one.
    pub fn has_predecessors(&self, key: &NodeId) -> bool {
        self.read(|table| {
            table.standings.iter().any(|(other, standing)| other != key && *standing == Standing::Current(*key))
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;
    use crate::NodeKey;

    #[test]
    fn a_key_speaks_for_itself_until_something_was_said() {
        let [k0, k1, k2, other] = [1, 2, 3, 4].map(|seed| NodeKey::from_seed([seed; 32]).unwrap().id());
        let speakers = Speakers::default();
        assert_eq!((speakers.current(&k0), speakers.first(&k0), speakers.counts(&k0)), (k0, k0, Ok(())));
        let revoked = Standing::Revoked { key: k2, by: k2, at: jiff::Timestamp::UNIX_EPOCH, reason: "stolen".into() };
        let standings: BTreeMap<_, _> =
            [(k0, Standing::Current(k1)), (k1, Standing::Current(k1)), (k2, revoked)].into();
        assert!(speakers.set(standings.clone(), [(k1, k0)].into()));
        let version = speakers.version();
        assert!(!speakers.set(standings.clone(), [(k1, k0)].into()), "nothing new");
        assert_eq!(speakers.version(), version);
        assert!(speakers.set(standings.clone(), BTreeMap::new()) && speakers.version() == version + 1);
        assert!(speakers.set(standings, [(k1, k0)].into()) && speakers.version() == version + 2);
        assert_eq!((speakers.current(&k0), speakers.current(&other)), (k1, other));
        assert_eq!((speakers.first(&k1), speakers.first(&k0), speakers.first(&other)), (k0, k0, other));
        assert_eq!(speakers.counts(&k1), Ok(()));
        assert!(speakers.has_predecessors(&k1) && !speakers.has_predecessors(&k0));
        assert!(speakers.counts(&k0).unwrap_err().contains("was handed over to"));
        assert!(speakers.counts(&k2).unwrap_err().contains("stolen"));
    }
}
