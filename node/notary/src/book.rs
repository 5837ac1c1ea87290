//! The log in memory. Pure: what a record does, and which record is needed.

use std::collections::{BTreeSet, HashMap, HashSet};

use fluidos_log::{Entry, EntryKind, Hash, TREE_SIZE_MAX, Tree};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::records;

/// One line of the journal.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    /// The log begins, or begins anew: what was before is forgotten.
    Epoch(u64),
    /// The next leaf.
    Entry(Entry),
    /// The next leaf, of which only the hash is known: a witness kept it.
    Hash(Hash),
    /// What one of the leaves known by their hash says.
    Known(Entry),
}

/// The log of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Book {
    epoch: u64,
    tree: Tree,
    entries: Vec<Option<Entry>>,
    places: HashMap<Hash, usize>,
    /// Leaves before this one may stay unknown: the owner has accepted it.
    accepted: usize,
    /// Places of the contracts that the log knows no end of.
    running: BTreeSet<usize>,
    /// The leaf that would be the end of each of them.
    ends: HashMap<Hash, usize>,
}

impl Book {
    /// Does what a record says.
    ///
    /// # Errors
    /// Why it cannot be, in words: the journal was not written by this node.
    pub fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Epoch(epoch) => {
                *self = Self { epoch: *epoch, ..Self::default() };
                Ok(())
            }
            Record::Hash(hash) => self.push(*hash, None),
            Record::Entry(entry) => {
                let hash = entry.hash().map_err(|error| error.to_string())?;
                self.push(hash, Some(entry.clone()))?;
                if entry.kind == EntryKind::LossAccepted {
                    self.accepted = self.entries.len();
                }
                Ok(())
            }
            Record::Known(entry) => {
                let hash = entry.hash().map_err(|error| error.to_string())?;
                let place = *self.places.get(&hash).ok_or("it tells what a leaf says that is not there")?;
                self.entries[place] = Some(entry.clone());
                self.runs(place);
                Ok(())
            }
        }
    }

    /// Says whether all of these can be done, one after the other: what is on disk must be.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn may(&self, records: &[Record]) -> Result<(), String> {
        if self.tree.size() + records.len() as u64 > TREE_SIZE_MAX {
            return Err(format!("the log has room for {TREE_SIZE_MAX} entries, and has {}", self.tree.size()));
        }
        let mut new = HashSet::new();
        for record in records {
            let (hash, known) = match record {
                Record::Epoch(_) => return Err("a log begins anew as a whole".into()),
                Record::Hash(hash) => (*hash, false),
                Record::Entry(entry) => (entry.hash().map_err(|error| error.to_string())?, false),
                Record::Known(entry) => (entry.hash().map_err(|error| error.to_string())?, true),
            };
            if known != self.places.contains_key(&hash) || !known && !new.insert(hash) {
                return Err(format!("leaf {hash} is there twice, or not at all"));
            }
        }
        Ok(())
    }

    fn push(&mut self, hash: Hash, entry: Option<Entry>) -> Result<(), String> {
        if self.places.contains_key(&hash) {
            return Err(format!("leaf {hash} is there twice"));
        }
        if !self.tree.push(hash) {
            return Err(format!("the log has {TREE_SIZE_MAX} entries, which is the most it can have"));
        }
        let place = self.entries.len();
        self.places.insert(hash, place);
        self.entries.push(entry);
        if let Some(over) = self.ends.remove(&hash) {
            self.running.remove(&over);
        }
        self.runs(place);
        Ok(())
    }

    /// Remembers that the contract at this place runs, if it is one and does.
    fn runs(&mut self, place: usize) {
        let entry = self.entries.get(place).and_then(Option::as_ref);
        let signed = entry.filter(|entry| entry.kind == EntryKind::ContractSigned);
        let Some(end) = signed.and_then(|entry| records::ended(entry).hash().ok()) else { return };
        if !self.places.contains_key(&end) {
            self.running.insert(place);
            self.ends.insert(end, place);
        }
    }

    /// Returns the contracts that were signed and of whose end the log knows nothing. A log has thousands that are over: they are not looked at.
    pub fn running(&self) -> impl Iterator<Item = &Entry> {
        self.running.iter().filter_map(|place| self.entries.get(*place)?.as_ref())
    }

    /// Returns the record that is needed for an entry to stand in the log; `None` if it does.
    pub fn needed(&self, entry: &Entry) -> Option<Record> {
        let hash = entry.hash().ok()?;
        match self.places.get(&hash) {
            None => Some(Record::Entry(entry.clone())),
            Some(place) if self.entries[*place].is_none() => Some(Record::Known(entry.clone())),
            Some(_) => None,
        }
    }

    /// Returns which leaf has this hash, from 0.
    pub fn place(&self, leaf: &Hash) -> Option<u64> {
        self.places.get(leaf).map(|place| *place as u64)
    }

    /// Says whether the log has this leaf, known or by its hash.
    pub fn has(&self, entry: &Entry) -> bool {
        entry.hash().is_ok_and(|hash| self.places.contains_key(&hash))
    }

    /// Returns the book that has these leaves, then what this one had and they have not. What this one knows of them stays known.
    ///
    /// # Errors
    /// As [`Book::apply`].
    pub fn adopt(&self, epoch: u64, leaves: &[Hash]) -> Result<Self, String> {
        let mut book = Self { epoch, ..Self::default() };
        for leaf in leaves {
            let known = self.places.get(leaf).and_then(|place| self.entries[*place].clone());
            book.apply(&known.map_or(Record::Hash(*leaf), Record::Entry))?;
        }
        for entry in self.entries.iter().flatten().filter(|entry| entry.kind != EntryKind::LossAccepted) {
            if !book.has(entry) {
                book.apply(&Record::Entry(entry.clone()))?;
            }
        }
        Ok(book)
    }

    /// Returns the records that make this book from nothing.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let leaf = |(hash, entry): (&Hash, &Option<Entry>)| match entry {
            Some(entry) => Record::Entry(entry.clone()),
            None => Record::Hash(*hash),
        };
        std::iter::once(Record::Epoch(self.epoch)).chain(self.tree.leaves().iter().zip(&self.entries).map(leaf))
    }

    /// Returns the renewals of a contract, the last first: the documents of earlier ones are not kept.
    pub fn renewals(&self, contract: &str) -> impl Iterator<Item = &Entry> {
        let renewals = self.entries.iter().rev().flatten().filter(|entry| entry.kind == EntryKind::ContractRenewed);
        renewals.filter(move |entry| entry.of == contract)
    }

    /// Returns how often the log was begun anew.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns what each leaf says, `None` where only its hash is known.
    pub fn entries(&self) -> &[Option<Entry>] {
        &self.entries
    }

    /// Returns the leaves of which only the hash is known, and whose loss nobody has accepted.
    pub fn missing(&self) -> Vec<Hash> {
        let leaves = self.tree.leaves().iter().zip(&self.entries).skip(self.accepted);
        leaves.filter(|(_, entry)| entry.is_none()).map(|(hash, _)| *hash).collect()
    }

    /// Returns the entry by which the owner accepts that so many leaves stay unknown.
    pub fn loss(&self, at: &str) -> Entry {
        let digest = self.missing().iter().fold(Sha256::new(), |digest, hash| digest.chain_update(hash.0)).finalize();
        Entry {
            kind: EntryKind::LossAccepted,
            of: format!("{} entries", self.missing().len()),
            digest: Hash(digest.into()),
            at: Some(at.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_log::leaf_hash;

    use super::*;

    pub fn entry(name: &str) -> Entry {
        let digest = leaf_hash(name.as_bytes());
        Entry { kind: EntryKind::ContractSigned, of: name.into(), digest, at: Some("2026-01-01T00:00:00Z".into()) }
    }

    fn book(names: &[&str]) -> Book {
        let mut book = Book::default();
        names.iter().for_each(|name| book.apply(&Record::Entry(entry(name))).unwrap());
        book
    }

    #[test]
    fn a_contract_runs_until_its_end_is_in_the_log_whichever_of_the_two_is_known_first() {
        let running = |book: &Book| book.running().map(|entry| entry.of.clone()).collect::<Vec<_>>();
        let mut whole = book(&["a", "b", "c"]);
        assert_eq!(running(&whole), ["a", "b", "c"]);
        whole.apply(&Record::Entry(records::ended(&entry("b")))).unwrap();
        assert_eq!(running(&whole), ["a", "c"]);
        // Of a log that was lost only hashes are known at first, and the end of "b" comes back before its beginning.
        let mut back = Book::default().adopt(0, whole.tree().leaves()).unwrap();
        assert!(running(&back).is_empty());
        for known in [records::ended(&entry("b")), entry("b"), entry("c")] {
            back.apply(&Record::Known(known)).unwrap();
        }
        assert_eq!(running(&back), ["c"]);
        back.apply(&Record::Known(entry("a"))).unwrap();
        assert_eq!(running(&back), ["a", "c"]);
    }

    #[test]
    fn a_leaf_known_by_its_hash_is_recognised_when_its_document_comes_back() {
        let whole = book(&["a", "b", "c"]);
        // The disk had "a" only, and something that was not witnessed.
        let mut back = book(&["a", "x"]).adopt(0, whole.tree().leaves()).unwrap();
        assert_eq!(back.tree().root_at(3), Some(whole.tree().root()));
        assert_eq!((back.tree().size(), back.missing().len()), (4, 2));
        assert!(back.has(&entry("b")) && !back.has(&entry("y")));
        assert_eq!(back.needed(&entry("a")), None);
        for name in ["b", "c"] {
            let record = back.needed(&entry(name)).unwrap();
            assert_eq!(record, Record::Known(entry(name)));
            back.apply(&record).unwrap();
        }
        assert!(back.missing().is_empty());
        let mut again = Book::default();
        back.records().for_each(|record| again.apply(&record).unwrap());
        assert_eq!(again, back);
        assert!(back.apply(&Record::Entry(entry("a"))).unwrap_err().contains("twice"));
        let new = || Record::Entry(entry("new"));
        assert_eq!(back.may(&[new(), Record::Known(entry("b"))]), Ok(()));
        for wrong in [
            vec![new(), new()],
            vec![Record::Entry(entry("a"))],
            vec![Record::Known(entry("y"))],
            vec![Record::Epoch(1)],
        ] {
            assert!(back.may(&wrong).is_err(), "{wrong:?}");
        }
        assert!(back.apply(&Record::Known(entry("y"))).is_err());
    }

    #[test]
    fn what_is_accepted_as_lost_is_not_missing_and_stays_in_the_log() {
        let mut back = Book::default().adopt(0, book(&["a", "b"]).tree().leaves()).unwrap();
        let root = back.tree().root();
        let loss = back.loss("2026-02-01T00:00:00Z");
        assert_eq!(loss.of, "2 entries");
        back.apply(&back.needed(&loss).unwrap()).unwrap();
        assert!(back.missing().is_empty());
        assert_eq!(back.tree().root_at(2), Some(root), "nothing was rewritten");
        // Something that is lost later is missing again.
        back.apply(&Record::Hash(leaf_hash(b"later"))).unwrap();
        assert_eq!(back.missing().len(), 1);
    }
}
