//! Exchanges with others: who is asked when, and what becomes of the answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;
use fluidos_model::kinds::{LogState, RestoredRecords};

use super::{Addresses, Brought, Caches, Keeper, restoring_file};
use crate::ask::{Published, ask, publish};
use crate::remembered::{Remembered, remember};
use crate::restore::{Peer, restore};
use crate::standing::Word;

/// Exchanges at a time; each is a few small requests.
pub(super) const EXCHANGES_MAX: usize = 16;
/// After an exchange that failed; doubled each time up to the most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Of somebody of whom nothing is known while nothing is missing, as often as a link is tried: a thousand that are away are one in two seconds,
/// and are asked six times in the first quarter of an hour.
const RETRY_STRANGER: Duration = Duration::from_secs(1800);
const DOUBLINGS_MAX: u32 = 10;
/// Between two tries to restore: others come back meanwhile.
const RESTORE_AGAIN: Duration = Duration::from_secs(2);

/// Somebody that is asked.
#[derive(Default)]
pub(super) struct Asked {
    pub word: Option<Word>,
    failures: u32,
    not_before: Option<Instant>,
    pub busy: bool,
}

impl Keeper {
    /// Where nodes may be: where they are known to be, then where they said they were.
    pub(super) fn addresses(&mut self) -> Arc<Addresses> {
        let Caches { known, contracts, accounts, .. } = &self.caches;
        let speakers = self.notary.options.speakers.version();
        let walked = [known.version(), contracts.version(), accounts.version(), speakers, self.remembered_count];
        let mut gathered = std::mem::take(&mut self.gathered);
        let all = gathered.get(walked, || self.walk());
        self.gathered = gathered;
        all
    }

    fn walk(&self) -> Addresses {
        let mut all = Addresses::new();
        let mut add = |did: &str, address: &str| {
            let Ok(did) = did.parse::<NodeId>() else { return };
            let did = self.notary.options.speakers.current(&did);
            if self.notary.options.keys.contains(&did) {
                return;
            }
            let known = all.entry(did).or_default();
            if let Ok(address) = address.parse()
                && !known.contains(&address)
            {
                known.push(address);
            }
        };
        for known in self.caches.known.list() {
            add(known.spec.did.as_deref().unwrap_or_default(), &known.spec.address);
        }
        for contract in self.caches.contracts.list() {
            for party in [&contract.spec.buyer, &contract.spec.seller] {
                let did = party.additional_information.as_ref().and_then(|more| more.did.as_deref());
                add(did.unwrap_or_default(), &party.ip);
            }
        }
        for account in self.caches.accounts.list() {
            add(&account.spec.peer, &account.spec.peer_address);
        }
        for remembered in self.remembered.values() {
            add(&remembered.did.to_string(), &remembered.address);
        }
        all
    }

    /// The other parties of contracts and accounts.
    pub(super) fn parties(&self) -> BTreeSet<NodeId> {
        let accounts = self.caches.accounts.list();
        let contracts = self.caches.contracts.list();
        let of_contracts = contracts.iter().filter(|contract| contract.spec.signed_terms.is_some());
        let of_contracts = of_contracts.flat_map(|contract| [&contract.spec.buyer, &contract.spec.seller]);
        let named = of_contracts.filter_map(|party| party.additional_information.as_ref()?.did.clone());
        let all = named.chain(accounts.iter().map(|account| account.spec.peer.clone()));
        let current = |did: String| Some(self.notary.options.speakers.current(&did.parse().ok()?));
        all.filter_map(current).filter(|did| !self.notary.options.keys.contains(did)).collect()
    }

    /// Asks whoever is known and has not answered; while something is missing, again.
    pub(super) fn ask_all(&mut self, addresses: &Addresses, state: LogState) {
        self.asked.retain(|did, asked| addresses.contains_key(did) || asked.busy);
        let now = Instant::now();
        for (did, addresses) in addresses {
            let asked = self.asked.entry(*did).or_default();
            let again = match &asked.word {
                None => true,
                Some(Word::Silent(_)) => asked.not_before.is_none_or(|at| at <= now),
                Some(_) => state == LogState::Restoring && asked.not_before.is_none_or(|at| at <= now),
            };
            if asked.busy || !again || self.exchanges.len() >= EXCHANGES_MAX {
                continue;
            }
            asked.busy = true;
            let (notary, did, addresses) = (self.notary.clone(), *did, addresses.clone());
            self.exchanges.spawn(async move {
                let word = ask(&notary.options, did, &addresses).await;
                Brought::Word(did, word)
            });
        }
    }

    /// Shows the log to the witnesses that have not seen all of it.
    pub(super) async fn publish_all(&mut self, addresses: &Addresses, chosen: &BTreeSet<NodeId>) {
        let book = self.notary.own.lock().await.book.clone();
        if book.tree().size() == 0 {
            return;
        }
        for did in chosen {
            let Some(asked) = self.asked.get_mut(did).filter(|asked| !asked.busy) else { continue };
            let seen = match &asked.word {
                Some(Word::Keeps { head, .. }) => {
                    head.epoch == book.epoch() && head.size == book.tree().size() && head.root == book.tree().root()
                }
                Some(Word::Nothing) => false,
                Some(Word::Silent(_)) | None => continue,
            };
            let countersigned = self.remembered.contains_key(did);
            if seen && countersigned
                || asked.not_before.is_some_and(|at| at > Instant::now())
                || self.exchanges.len() >= EXCHANGES_MAX
            {
                continue;
            }
            asked.busy = true;
            let (notary, did, book, before) = (self.notary.clone(), *did, book.clone(), asked.word.clone());
            let addresses = addresses.get(&did).cloned().unwrap_or_default();
            self.exchanges.spawn(async move {
                let published = publish(&notary.options, &book, did, &addresses, before.as_ref()).await;
                Brought::Published(did, Box::new(published))
            });
        }
    }

    pub(super) fn restore(&mut self, addresses: &Addresses) {
        if self.restoring || self.restore_after.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let peers = self.asked.iter().filter_map(|(did, asked)| {
            let word = asked.word.clone().filter(|word| !matches!(word, Word::Silent(_)))?;
            Some(Peer { did: *did, addresses: addresses.get(did).cloned().unwrap_or_default(), word })
        });
        let peers = peers.collect::<Vec<_>>();
        if let Err(error) = std::fs::write(restoring_file(&self.notary.options.directory), "") {
            tracing::warn!(%error, "that this node is being restored is not kept");
        }
        self.restoring = true;
        let notary = self.notary.clone();
        self.exchanges.spawn(async move { Brought::Restored(restore(&notary, &peers).await) });
    }

    /// Takes what an exchange has brought; returns whether there is something new to look at.
    pub(super) async fn take(&mut self, brought: Brought) -> bool {
        match brought {
            Brought::Word(did, word) => {
                let most = self.retry_most(&did);
                let closed = self.notary.closed().is_some();
                return self.asked.get_mut(&did).is_some_and(|asked| asked.answered(word, most)) || closed;
            }
            Brought::Published(did, published) => {
                let Published { word, head } = *published;
                if let Some(asked) = self.asked.get_mut(&did) {
                    asked.answered(word, RETRY_MOST);
                }
                if let Some((head, address)) = head {
                    let one = Remembered { did, address: address.to_string(), head: head.envelope() };
                    self.remembered.insert(did, one);
                    self.remembered_count += 1;
                    if let Err(reason) = remember(&self.notary.options.directory, &self.remembered) {
                        tracing::warn!(reason, "what a witness has signed is not kept");
                    }
                }
            }
            Brought::Compared(peer, brought) => self.compared(peer, brought),
            Brought::Asked(peer, answers) => self.answered_inclusion(peer, answers).await,
            Brought::Restored(report) => {
                self.restoring = false;
                self.unfinished = false;
                // Who was silent may have more.
                if self.asked.values().all(|asked| matches!(&asked.word, Some(Word::Nothing | Word::Keeps { .. }))) {
                    let _ = std::fs::remove_file(restoring_file(&self.notary.options.directory)); // it may not be there
                }
                self.restore_after = Some(Instant::now() + RESTORE_AGAIN);
                self.note = report.note;
                let RestoredRecords { contracts, receipts, invoices, refused } = report.records;
                self.restored.contracts += contracts;
                self.restored.receipts += receipts;
                self.restored.invoices += invoices;
                self.restored.refused = refused;
            }
        }
        true
    }

    pub(super) fn retry_most(&self, did: &NodeId) -> Duration {
        let matters = self.notary.closed().is_some() || self.remembered.contains_key(did) || self.notary.is_party(did);
        if matters { RETRY_MOST } else { RETRY_STRANGER }
    }
}

impl Asked {
    /// Takes an answer; returns whether it is another than before. Why somebody is silent may change all the time.
    fn answered(&mut self, word: Word, most: Duration) -> bool {
        self.busy = false;
        self.failures = if matches!(word, Word::Silent(_)) { self.failures.saturating_add(1) } else { 0 };
        let growth = if most > RETRY_MOST { 2 } else { 1 };
        let doublings = growth * self.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        self.not_before = Some(Instant::now() + (RETRY_FIRST * 2u32.pow(doublings)).min(most));
        // Who cannot be reached now has not taken back what it said.
        if matches!((&self.word, &word), (Some(Word::Keeps { .. } | Word::Nothing), Word::Silent(_))) {
            return false;
        }
        let silent = |word: Option<&Word>| matches!(word, Some(Word::Silent(_)));
        let is_new = self.word.as_ref() != Some(&word) && !(silent(self.word.as_ref()) && silent(Some(&word)));
        self.word = Some(word);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_again_is_no_news() {
        let silent = |why: &str| Word::Silent(why.into());
        let mut asked = Asked { busy: true, ..Asked::default() };
        assert!(asked.answered(silent("no answer"), RETRY_STRANGER), "nothing was known of it");
        assert!(!asked.busy);
        let first = asked.not_before;
        assert!(!asked.answered(silent("refused"), RETRY_STRANGER));
        assert!(asked.not_before > first, "it is asked later and later all the same");
        assert!(asked.answered(Word::Nothing, RETRY_STRANGER), "it is there");
        assert!(!asked.answered(Word::Nothing, RETRY_STRANGER));
        assert!(!asked.answered(silent("no answer"), RETRY_STRANGER), "it has not taken back what it said");
        assert_eq!(asked.word, Some(Word::Nothing));
    }
}
