//! Keeps the log: asks at the start, notes what was signed, has it witnessed, restores. Every effect on the TransparencyLog is here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fluidos_identity::{NodeId, Shown};
use fluidos_log::Entry;
use fluidos_model::kinds::{
    Account, Contract, Invoice, KnownCluster, LogState, Receipt, RestoredRecords, TransparencyLog, TransparencyLogSpec,
    TransparencyLogStatus, names,
};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use substrate_client::Cache;
use tokio::task::JoinSet;

use crate::ask::{Published, ask, publish};
use crate::book::{Book, Record};
use crate::remembered::{Remembered, remember, remembered};
use crate::restore::{Peer, Report, anew, restore};
use crate::standing::{Relation, View, Word, relation, standing, told, witnesses};
use crate::{Notary, events, records};

/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(50);
/// What time alone brings: somebody who was silent is asked again.
const LOOK: Duration = Duration::from_secs(5);
/// While the node is closed somebody waits.
const LOOK_CLOSED: Duration = Duration::from_millis(500);
/// Exchanges at a time; each is a few small requests.
const EXCHANGES_MAX: usize = 16;
/// After an exchange that failed; doubled each time up to the most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Of somebody of whom nothing is known while nothing is missing, as often as a link is tried: a thousand that are away are one in two seconds,
/// and are asked six times in the first quarter of an hour.
const RETRY_STRANGER: Duration = Duration::from_secs(1800);
const DOUBLINGS_MAX: u32 = 10;
/// Between two tries to restore: others come back meanwhile.
const RESTORE_AGAIN: Duration = Duration::from_secs(2);
/// Names of about 60 bytes.
const NOTED_MAX: usize = 65_536;
/// What the status has room for.
const TOLD_MAX: usize = 64;

struct Caches {
    contracts: Cache<Contract>,
    accounts: Cache<Account>,
    receipts: Cache<Receipt>,
    invoices: Cache<Invoice>,
    known: Cache<KnownCluster>,
    logs: Cache<TransparencyLog>,
}

/// Somebody that is asked.
#[derive(Default)]
struct Asked {
    word: Option<Word>,
    failures: u32,
    not_before: Option<Instant>,
    busy: bool,
}

/// What an exchange has brought.
enum Brought {
    Word(NodeId, Word),
    Published(NodeId, Box<Published>),
    Restored(Report),
}

struct Keeper {
    notary: Arc<Notary>,
    caches: Caches,
    started: Instant,
    asked: BTreeMap<NodeId, Asked>,
    remembered: BTreeMap<NodeId, Remembered>,
    /// Objects whose entry is in the log: they do not change.
    noted: BTreeSet<String>,
    /// Contracts that this process has seen: their end is one.
    seen: BTreeSet<String>,
    exchanges: JoinSet<Brought>,
    restoring: bool,
    restore_after: Option<Instant>,
    restored: RestoredRecords,
    note: String,
    opened: bool,
}

pub(crate) async fn run(notary: Arc<Notary>) {
    let caches = &notary.options.caches;
    let caches = Caches {
        contracts: caches.namespaced(names::NAMESPACE),
        accounts: caches.namespaced(names::NAMESPACE),
        receipts: caches.namespaced(names::NAMESPACE),
        invoices: caches.namespaced(names::NAMESPACE),
        known: caches.namespaced(names::NAMESPACE),
        logs: caches.namespaced(names::NAMESPACE),
    };
    let Caches { contracts, accounts, receipts, invoices, known, logs } = &caches;
    tokio::join!(
        contracts.synced(),
        accounts.synced(),
        receipts.synced(),
        invoices.synced(),
        known.synced(),
        logs.synced()
    );
    let remembered = remembered(&notary.options.directory).unwrap_or_else(|reason| {
        tracing::warn!(reason, "who has witnessed the log is not known any more");
        Vec::new()
    });
    let mut keeper = Keeper {
        notary,
        caches,
        started: Instant::now(),
        asked: BTreeMap::new(),
        remembered: remembered.into_iter().map(|one| (one.did, one)).collect(),
        noted: BTreeSet::new(),
        seen: BTreeSet::new(),
        exchanges: JoinSet::new(),
        restoring: false,
        restore_after: None,
        restored: RestoredRecords::default(),
        note: String::new(),
        opened: false,
    };
    keeper.keep().await;
}

impl Keeper {
    async fn keep(&mut self) {
        let Caches { contracts, accounts, receipts, invoices, known, logs } = &self.caches;
        let mut changes = [
            contracts.changes(),
            accounts.changes(),
            receipts.changes(),
            invoices.changes(),
            known.changes(),
            logs.changes(),
        ];
        let notary = self.notary.clone();
        loop {
            changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
            self.look().await;
            let closed = notary.closed().is_some();
            let wait = if closed { LOOK_CLOSED } else { LOOK };
            let [a, b, c, d, e, f] = &mut changes;
            // Each arm only waits, or takes a result that is kept here: losing the race loses nothing.
            tokio::select! {
                _ = a.changed() => {}
                _ = b.changed() => {}
                _ = c.changed() => {}
                _ = d.changed() => {}
                // A thousand nodes are seen again all the time; whom to ask is looked at soon enough.
                _ = e.changed(), if closed => {}
                _ = f.changed() => {}
                () = notary.due.notified() => {}
                () = tokio::time::sleep(wait) => {}
                Some(done) = self.exchanges.join_next() => match done {
                    Ok(brought) => self.take(brought).await,
                    Err(error) => {
                        tracing::error!(%error, "an exchange about the log broke off");
                        self.restoring = false;
                        self.asked.values_mut().for_each(|asked| asked.busy = false);
                    }
                },
            }
            while let Some(Ok(brought)) = self.exchanges.try_join_next() {
                self.take(brought).await;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// One look at everything.
    async fn look(&mut self) {
        let policy = self.policy().await;
        let addresses = self.addresses();
        let parties = self.parties();
        *self.notary.parties.write().unwrap_or_else(PoisonError::into_inner) = parties.clone();
        let known = self.caches.known.list();
        let own = |did: &NodeId| self.notary.options.keys.contains(did);
        let chosen = witnesses(&policy.spec, &parties, known.iter().map(AsRef::as_ref), own);
        if self.noted.len() > NOTED_MAX {
            // They are compared with the log again.
            self.noted.clear();
        }
        self.note_signed().await;
        let (state, message) = self.stand(&policy.spec).await;
        if state == LogState::Complete {
            self.note_ends().await;
        }
        if let Some(reason) = policy.annotations().get(names::ANNOTATION_ACCEPT_LOSS) {
            self.accept_loss(reason, state).await;
        }
        self.ask_all(&addresses, state);
        match state {
            LogState::Complete => self.publish_all(&addresses, &chosen).await,
            LogState::Restoring => self.restore(&addresses),
            LogState::Comparing => {}
        }
        self.tell(state, message, &chosen, &policy).await;
    }

    /// The one object, made if it is not there.
    async fn policy(&self) -> TransparencyLog {
        if let Some(known) = self.caches.logs.get(names::NAMESPACE, names::LOG) {
            return known.as_ref().clone();
        }
        let mut log = TransparencyLog::new(names::LOG, TransparencyLogSpec::default());
        log.metadata.namespace = Some(names::NAMESPACE.into());
        let api = Api::<TransparencyLog>::namespaced(self.notary.options.client.clone(), names::NAMESPACE);
        match api.create(&PostParams::default(), &log).await {
            Ok(made) => made,
            Err(error) => {
                if !matches!(&error, kube::Error::Api(status) if status.code == 409) {
                    tracing::warn!(%error, "the TransparencyLog is not written");
                }
                log
            }
        }
    }

    /// Where nodes may be: where they are known to be, then where they said they were.
    fn addresses(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let mut all: BTreeMap<NodeId, Vec<SocketAddr>> = BTreeMap::new();
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
    fn parties(&self) -> BTreeSet<NodeId> {
        let accounts = self.caches.accounts.list();
        let contracts = self.caches.contracts.list();
        let of_contracts = contracts.iter().filter(|contract| contract.spec.signed_terms.is_some());
        let of_contracts = of_contracts.flat_map(|contract| [&contract.spec.buyer, &contract.spec.seller]);
        let named = of_contracts.filter_map(|party| party.additional_information.as_ref()?.did.clone());
        let all = named.chain(accounts.iter().map(|account| account.spec.peer.clone()));
        let current = |did: String| Some(self.notary.options.speakers.current(&did.parse().ok()?));
        all.filter_map(current).filter(|did| !self.notary.options.keys.contains(did)).collect()
    }

    /// Has everything that was signed stand in the log. While something is missing, only what is missing is filled in: what comes next is
    /// not known.
    async fn note_signed(&mut self) {
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

    fn somebody_keeps_more(&self, book: &Book) -> bool {
        self.asked.values().any(|asked| match &asked.word {
            Some(Word::Keeps { head, .. }) => matches!(relation(book, head), Relation::More | Relation::Differs),
            _ => false,
        })
    }

    /// Contracts of the log that run as far as it says, and of which there is no object: with an account or seen by this process they
    /// have ended, others are gone.
    fn without_contract(&self, book: &Book) -> (Vec<Entry>, Vec<String>) {
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

    async fn note_ends(&mut self) {
        let mut own = self.notary.own.lock().await;
        let (ended, _) = self.without_contract(&own.book);
        let needed: Vec<Record> = ended.iter().filter_map(|entry| own.book.needed(entry)).collect();
        if !needed.is_empty()
            && let Err(reason) = own.keep(&needed)
        {
            tracing::warn!(reason, "the end of a contract is not in the log yet");
        }
    }

    /// Decides whether the node may sell.
    async fn stand(&mut self, policy: &TransparencyLogSpec) -> (LogState, String) {
        let mut own = self.notary.own.lock().await;
        let (_, gone) = self.without_contract(&own.book);
        let words: BTreeMap<NodeId, Option<Word>> =
            self.asked.iter().map(|(did, asked)| (*did, asked.word.clone())).collect();
        let decided = standing(&View {
            book: &own.book,
            lost: own.lost.as_deref(),
            words: &words,
            witnesses: &self.remembered.keys().copied().collect(),
            gone: &gone,
            note: &self.note,
            waited: self.started.elapsed(),
            wait: self.notary.options.wait,
            opened: self.opened,
            when_unreachable: policy.when_unreachable.unwrap_or_default(),
        });
        if decided.0 == LogState::Complete {
            if own.lost.is_some() {
                match own.journal.compared() {
                    Ok(()) => own.lost = None,
                    Err(error) => tracing::warn!(%error, "that the log was compared is not kept"),
                }
            }
            self.opened = true;
        }
        drop(own);
        let before = {
            let mut standing = self.notary.standing.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *standing, decided.clone())
        };
        if before != decided {
            match decided.0 {
                LogState::Restoring => {
                    tracing::warn!(why = decided.1, "nothing is sold: this node has lost records");
                    events::write(&self.notary.options.client, true, "Restoring", &decided.1).await;
                }
                LogState::Complete if before.0 == LogState::Restoring => {
                    let RestoredRecords { contracts, receipts, invoices, .. } = &self.restored;
                    let message =
                        format!("{contracts} contracts, {receipts} receipts and {invoices} invoices are back");
                    tracing::info!(message, "restored: this node sells again");
                    events::write(&self.notary.options.client, false, "Restored", &message).await;
                }
                LogState::Complete | LogState::Comparing => {}
            }
        }
        decided
    }

    /// Asks whoever is known and has not answered; while something is missing, again.
    fn ask_all(&mut self, addresses: &BTreeMap<NodeId, Vec<SocketAddr>>, state: LogState) {
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
    async fn publish_all(&mut self, addresses: &BTreeMap<NodeId, Vec<SocketAddr>>, chosen: &BTreeSet<NodeId>) {
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

    fn restore(&mut self, addresses: &BTreeMap<NodeId, Vec<SocketAddr>>) {
        if self.restoring || self.restore_after.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let peers = self.asked.iter().filter_map(|(did, asked)| {
            let word = asked.word.clone().filter(|word| !matches!(word, Word::Silent(_)))?;
            Some(Peer { did: *did, addresses: addresses.get(did).cloned().unwrap_or_default(), word })
        });
        let peers = peers.collect::<Vec<_>>();
        self.restoring = true;
        let notary = self.notary.clone();
        self.exchanges.spawn(async move { Brought::Restored(restore(&notary, &peers).await) });
    }

    async fn take(&mut self, brought: Brought) {
        match brought {
            Brought::Word(did, word) => {
                let most = self.retry_most(&did);
                if let Some(asked) = self.asked.get_mut(&did) {
                    asked.answered(word, most);
                }
            }
            Brought::Published(did, published) => {
                let Published { word, head } = *published;
                if let Some(asked) = self.asked.get_mut(&did) {
                    asked.answered(word, RETRY_MOST);
                }
                if let Some((head, address)) = head {
                    let one = Remembered { did, address: address.to_string(), head: head.envelope() };
                    self.remembered.insert(did, one);
                    if let Err(reason) = remember(&self.notary.options.directory, &self.remembered) {
                        tracing::warn!(reason, "what a witness has signed is not kept");
                    }
                }
            }
            Brought::Restored(report) => {
                self.restoring = false;
                self.restore_after = Some(Instant::now() + RESTORE_AGAIN);
                self.note = report.note;
                let RestoredRecords { contracts, receipts, invoices, refused } = report.records;
                self.restored.contracts += contracts;
                self.restored.receipts += receipts;
                self.restored.invoices += invoices;
                self.restored.refused = refused;
            }
        }
    }

    fn retry_most(&self, did: &NodeId) -> Duration {
        let matters = self.notary.closed().is_some() || self.remembered.contains_key(did) || self.notary.is_party(did);
        if matters { RETRY_MOST } else { RETRY_STRANGER }
    }

    /// The owner has said that what is missing is lost.
    async fn accept_loss(&mut self, reason: &str, state: LogState) {
        let at = Timestamp::now().to_string();
        let mut own = self.notary.own.lock().await;
        let (_, gone) = self.without_contract(&own.book);
        let missing = own.book.missing().len();
        let words: BTreeMap<NodeId, Option<Word>> =
            self.asked.iter().map(|(did, asked)| (*did, asked.word.clone())).collect();
        let done = if self.somebody_keeps_more(&own.book) {
            anew(&own.book, &words, &at).and_then(|book| own.replace(book))
        } else if missing > 0 {
            let loss = own.book.loss(&at);
            own.keep(&[Record::Entry(loss)])
        } else {
            Ok(())
        };
        let ends: Vec<Record> = own
            .book
            .running()
            .filter(|entry| gone.contains(&entry.of))
            .filter_map(|entry| own.book.needed(&records::ended(entry)))
            .collect();
        let done = done.and_then(|()| if ends.is_empty() { Ok(()) } else { own.keep(&ends) });
        if done.is_ok() && own.lost.is_some() && own.journal.compared().is_ok() {
            own.lost = None;
        }
        drop(own);
        if let Err(reason) = done {
            tracing::warn!(reason, "the loss is not noted yet");
            return;
        }
        if state != LogState::Complete {
            let message = format!("{missing} entries and {} contracts are given up: {reason}", gone.len());
            tracing::warn!(message, "the owner accepts what is lost");
            events::write(&self.notary.options.client, true, "LossAccepted", &message).await;
        }
        let api = Api::<TransparencyLog>::namespaced(self.notary.options.client.clone(), names::NAMESPACE);
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_ACCEPT_LOSS: null}}});
        if let Err(error) = api.patch(names::LOG, &PatchParams::default(), &Patch::Merge(patch)).await {
            tracing::warn!(%error, "the loss is accepted, and its annotation is still there");
        }
    }

    async fn tell(&self, state: LogState, message: String, chosen: &BTreeSet<NodeId>, before: &TransparencyLog) {
        let rewritten = self.notary.shelf.lock().await.rewritten();
        let own = self.notary.own.lock().await;
        let mut asked: Vec<_> = self.asked.iter().map(|(did, asked)| (*did, asked.word.as_ref())).collect();
        // Those that matter first.
        asked.sort_by_key(|(did, _)| (!chosen.contains(did), *did));
        let status = TransparencyLogStatus {
            state,
            message,
            origin: self.notary.options.origin.to_string(),
            epoch: own.book.epoch(),
            size: own.book.tree().size(),
            root: own.book.tree().root().to_string(),
            missing: own.book.missing().len() as u64,
            restored: (self.restored != RestoredRecords::default()).then(|| self.restored.clone()),
            witnesses: asked
                .into_iter()
                .take(TOLD_MAX)
                .map(|(did, word)| told(&own.book, did, word, chosen.contains(&did)))
                .collect(),
            rewritten: rewritten.iter().take(TOLD_MAX).map(|did| format!("{did} has rewritten its history")).collect(),
        };
        drop(own);
        if before.status.as_ref() == Some(&status) {
            return;
        }
        let api = Api::<TransparencyLog>::namespaced(self.notary.options.client.clone(), names::NAMESPACE);
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(names::LOG, &PatchParams::default(), &patch).await {
            Err(error) if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) => {
                tracing::warn!(%error, "how the log stands is not written");
            }
            _ => {}
        }
    }
}

impl Asked {
    fn answered(&mut self, word: Word, most: Duration) {
        self.busy = false;
        self.failures = if matches!(word, Word::Silent(_)) { self.failures.saturating_add(1) } else { 0 };
        let growth = if most > RETRY_MOST { 2 } else { 1 };
        let doublings = growth * self.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        self.not_before = Some(Instant::now() + (RETRY_FIRST * 2u32.pow(doublings)).min(most));
        // Who cannot be reached now has not taken back what it said.
        if !matches!((&self.word, &word), (Some(Word::Keeps { .. } | Word::Nothing), Word::Silent(_))) {
            self.word = Some(word);
        }
    }
}
