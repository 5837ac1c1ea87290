//! What was signed gets into the log, and the end of what is over.

use std::collections::BTreeSet;

use fluidos_identity::Shown;
use fluidos_log::Entry;
use fluidos_model::kinds::names;
use kube::ResourceExt as _;

use super::Keeper;
use crate::book::{Book, Record};
use crate::records;
use crate::standing::{Relation, Word, relation};

impl Keeper {
    /// Has everything that was signed stand in the log. While something is missing, only what is missing is filled in: what comes next is
    /// not known.
    pub(super) async fn note_signed(&mut self) {
        let mut found: Vec<(String, Entry)> = Vec::new();
        let fresh = |noted: &BTreeSet<String>, kind: &str, name: &str| {
            let key = format!("{kind}/{name}");
            (!noted.contains(&key)).then_some(key)
        };
        for contract in self.caches.contracts.list() {
            self.seen.insert(contract.name_any());
            if let Some(key) = fresh(&self.noted, "contract", &contract.name_any())
                && let Some(entry) = records::of_contract(&contract)
            {
                found.push((key, entry));
            }
            let renewal = contract.spec.renewal.as_ref().map(records::renewal_mark);
            if let Some(renewal) = renewal
                && let Some(key) = fresh(&self.noted, "renewal", &format!("{}/{renewal}", contract.name_any()))
                && let Some(entry) = records::of_renewal(&contract)
            {
                found.push((key, entry));
            }
        }
        // A contract that came and went between two looks was never seen; what was signed stands in its account.
        for account in self.caches.accounts.list() {
            let Some(key) = fresh(&self.noted, "contract", &account.spec.contract) else { continue };
            match records::of_account(&account) {
                Some(entry) => found.push((key, entry)),
                None => drop(self.noted.insert(key)),
            }
        }
        for receipt in self.caches.receipts.list() {
            let Some(key) = fresh(&self.noted, "receipt", &receipt.name_any()) else { continue };
            match records::of_receipt(&receipt) {
                Some(entry) => found.push((key, entry)),
                None => drop(self.noted.insert(key)),
            }
        }
        for invoice in self.caches.invoices.list() {
            if let Some(key) = fresh(&self.noted, "invoice", &invoice.name_any())
                && let Some(entry) = records::of_invoice(&invoice)
            {
                found.push((key, entry));
            }
        }
        let history = Shown::read(&self.notary.options.identity, &self.notary.options.key.id()).history;
        let keys = records::of_statements(&history).into_iter().map(|entry| (String::new(), entry));
        let found: Vec<_> = found.into_iter().chain(keys).collect();
        let mut own = self.notary.own.lock().await;
        let open = self.opened && own.book.missing().is_empty() && !self.somebody_keeps_more(&own.book);
        let (mut needed, mut done) = (Vec::new(), Vec::new());
        let mut known: BTreeSet<fluidos_log::Hash> = BTreeSet::new();
        for (key, entry) in found {
            match own.book.needed(&entry) {
                Some(Record::Entry(_)) if !open => continue,
                Some(record) => {
                    needed.extend(entry.hash().is_ok_and(|hash| known.insert(hash)).then_some(record));
                }
                None => {}
            }
            done.push(key);
        }
        if needed.is_empty() {
            self.noted.extend(done);
            return;
        }
        match own.keep(&needed) {
            Ok(()) => self.noted.extend(done),
            Err(reason) => tracing::warn!(reason, "what was signed is not in the log yet"),
        }
    }

    pub(super) fn somebody_keeps_more(&self, book: &Book) -> bool {
        self.asked.values().any(|asked| match &asked.word {
            Some(Word::Keeps { head, .. }) => matches!(relation(book, head), Relation::More | Relation::Differs),
            _ => false,
        })
    }

    /// Contracts of the log that run as far as it says, and of which there is no object: with an account or seen by this process they
    /// have ended, others are gone.
    pub(super) fn without_contract(&self, book: &Book) -> (Vec<Entry>, Vec<String>) {
        let (mut ended, mut gone) = (Vec::new(), Vec::new());
        for entry in book.running() {
            if self.caches.contracts.get(names::NAMESPACE, &entry.of).is_some() {
                continue;
            }
            let over = records::ended(entry);
            if self.seen.contains(&entry.of) || self.caches.accounts.get(names::NAMESPACE, &entry.of).is_some() {
                ended.push(over);
            } else {
                gone.push(entry.of.clone());
            }
        }
        (ended, gone)
    }

    pub(super) async fn note_ends(&mut self) {
        let mut own = self.notary.own.lock().await;
        let (ended, _) = self.without_contract(&own.book);
        let needed: Vec<Record> = ended.iter().filter_map(|entry| own.book.needed(entry)).collect();
        if !needed.is_empty()
            && let Err(reason) = own.keep(&needed)
        {
            tracing::warn!(reason, "the end of a contract is not in the log yet");
        }
    }
}
