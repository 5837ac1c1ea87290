//! What stands in the Ledger itself and what on pages. Pure.
//!
//! ```text
//!  a promise is made, or changes ──▶ the Ledger ──── it is long: what is sold moves ────▶ a new page
//!  one of a page ends, or changes ─▶ noted as gone ─ there are many: what is left moves ─▶ a new page, the old one goes
//! ```
//! So each change writes the Ledger, which is short, and one in some sixteen a page.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use fluidos_model::kinds::{
    LedgerCommitment, LedgerError, LedgerPageReference, LedgerPageSpec, LedgerSpec, commitments,
};
use fluidos_model::market::{Amounts, Commitment, Pool};

/// Promises in the Ledger itself, some 600 bytes each: what is written at every change.
const HEAD_MAX: usize = 32;
/// Promises of one page: as many as its schema takes.
const PAGE_MAX: usize = 64;
/// Promises that are noted as gone, some 40 bytes each.
const GONE_MAX: usize = 128;

/// Promises that never change.
pub(crate) type Leaf = Arc<Vec<Arc<Commitment>>>;

/// One page as it counts.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    /// Name of the LedgerPage.
    pub name: String,
    /// What stands on it.
    pub leaf: Leaf,
    /// Transactions of it that do not count.
    pub gone: BTreeSet<String>,
}

impl Sheet {
    /// What of it counts.
    fn standing(&self) -> impl Iterator<Item = &Arc<Commitment>> {
        self.leaf.iter().filter(|known| !self.gone.contains(&known.transaction))
    }

    fn is_small(&self) -> bool {
        self.leaf.len() - self.gone.len() < PAGE_MAX / 2
    }

    /// What a new page holds.
    pub fn spec(&self) -> LedgerPageSpec {
        LedgerPageSpec { commitments: self.leaf.iter().map(|known| LedgerCommitment::from(known.as_ref())).collect() }
    }
}

/// Why what stands in the API is no pool.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// Somebody has written nonsense into it.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
    /// A page that counts is not there.
    #[error(
        "ledger page {name}: not there, needed what is promised on it; put it back from a backup, or take it out of the Ledger with all that it promised"
    )]
    Missing {
        /// Its name.
        name: String,
    },
}

/// What stands in the API: the pool, and its pages.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub pool: Arc<Pool>,
    pub sheets: Vec<Sheet>,
}

impl Standing {
    /// Reads a Ledger; `leaf` finds a page, `None` if it is not there.
    pub fn read(
        ledger: &LedgerSpec,
        mut leaf: impl FnMut(&str) -> Result<Option<Leaf>, LedgerError>,
    ) -> Result<Self, StandingError> {
        let capacity = ledger.capacity.amounts("capacity")?;
        let mut all = Vec::new();
        let mut sheets = Vec::with_capacity(ledger.pages.len());
        for LedgerPageReference { name, gone } in &ledger.pages {
            let leaf = leaf(name)?.ok_or_else(|| StandingError::Missing { name: name.clone() })?;
            let of_it = |transaction: &&String| leaf.iter().any(|known| known.transaction == **transaction);
            let gone = gone.iter().filter(of_it).cloned().collect();
            let sheet = Sheet { name: name.clone(), leaf, gone };
            all.extend(sheet.standing().cloned());
            sheets.push(sheet);
        }
        all.extend(commitments(&ledger.commitments)?);
        Ok(Self { pool: Arc::new(Pool { capacity, commitments: all }), sheets })
    }
}

/// Where everything of a pool is to stand.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In the Ledger itself.
    pub head: Vec<Arc<Commitment>>,
    /// The pages that count; those from `kept` on are new.
    pub sheets: Vec<Sheet>,
    /// How many of them are there already.
    pub kept: usize,
    /// Pages that do not count any more.
    pub dropped: Vec<String>,
}

impl Layout {
    /// Plans where `pool` stands, when these pages are there. `name` makes names that nobody has.
    pub fn of(pool: &Pool, sheets: &[Sheet], name: impl FnMut() -> String) -> Self {
        let mut placed: HashSet<&str> = HashSet::with_capacity(pool.commitments.len());
        let now: HashMap<&str, &Arc<Commitment>> =
            pool.commitments.iter().map(|known| (known.transaction.as_str(), known)).collect();
        let mut kept: Vec<Sheet> = Vec::with_capacity(sheets.len());
        for sheet in sheets {
            let mut gone = BTreeSet::new();
            for known in sheet.leaf.iter() {
                // What came back as it was stands here again; nothing stands twice.
                let stands = now.get(known.transaction.as_str()).is_some_and(|now| *now == known)
                    && placed.insert(&known.transaction);
                if !stands {
                    gone.insert(known.transaction.clone());
                }
            }
            kept.push(Sheet { gone, ..sheet.clone() });
        }
        let head = pool.commitments.iter().filter(|known| !placed.contains(known.transaction.as_str()));
        let mut layout = Self { head: head.cloned().collect(), sheets: kept, kept: 0, dropped: Vec::new() };
        layout.drop_where(|sheet| sheet.leaf.len() == sheet.gone.len());
        let gone: usize = layout.gone();
        layout.kept = layout.sheets.len();
        if layout.head.len() > HEAD_MAX || gone > GONE_MAX {
            layout.turn_over(name);
        }
        layout
    }

    fn gone(&self) -> usize {
        self.sheets.iter().map(|sheet| sheet.gone.len()).sum()
    }

    /// Moves what is to move onto new pages.
    fn turn_over(&mut self, mut name: impl FnMut() -> String) {
        let mut moved: Vec<Arc<Commitment>> = Vec::new();
        if self.head.len() > HEAD_MAX {
            let sold = self.head.iter().filter(|known| !known.is_held()).count();
            let held = self.head.len() - sold;
            // Holds change soon: they move only when there is nearly nothing else, or too many of them.
            let stays = |known: &Arc<Commitment>| sold >= HEAD_MAX / 2 && held <= HEAD_MAX && known.is_held();
            let (head, rest) = std::mem::take(&mut self.head).into_iter().partition(stays);
            self.head = head;
            moved.extend::<Vec<_>>(rest);
        }
        let mut gone = self.gone();
        self.sheets.sort_by_key(|sheet| std::cmp::Reverse(sheet.gone.len()));
        self.drop_where(|sheet| {
            let many = gone > GONE_MAX / 2 && !sheet.gone.is_empty();
            // Small pages are put together, or there would be one for each time that this was done.
            let drops = many || sheet.is_small();
            if drops {
                gone -= sheet.gone.len();
                moved.extend(sheet.standing().cloned());
            }
            drops
        });
        self.kept = self.sheets.len();
        for leaf in moved.chunks(PAGE_MAX) {
            self.sheets.push(Sheet { name: name(), leaf: Arc::new(leaf.to_vec()), gone: BTreeSet::new() });
        }
    }

    fn drop_where(&mut self, mut drops: impl FnMut(&Sheet) -> bool) {
        let dropped = &mut self.dropped;
        self.sheets.retain(|sheet| {
            let drops = drops(sheet);
            if drops {
                dropped.push(sheet.name.clone());
            }
            !drops
        });
    }

    /// The pages that are to be written.
    pub fn fresh(&self) -> &[Sheet] {
        self.sheets.get(self.kept..).unwrap_or_default()
    }

    /// What is to be written into the Ledger.
    pub fn spec(&self, capacity: &Amounts) -> LedgerSpec {
        let pages = self
            .sheets
            .iter()
            .map(|sheet| LedgerPageReference { name: sheet.name.clone(), gone: sheet.gone.iter().cloned().collect() });
        LedgerSpec {
            capacity: capacity.into(),
            commitments: self.head.iter().map(|known| LedgerCommitment::from(known.as_ref())).collect(),
            pages: pages.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
