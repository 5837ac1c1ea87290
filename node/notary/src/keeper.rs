//! Keeps the log: asks at the start, notes what was signed, has it witnessed, compares what others were shown, restores.
//!
//! ```text
//!   look ─┬─ noting       what was signed ─▶ log
//!         ├─ stands       may the node sell?
//!         ├─ exchanges    who is asked, shown the log, restored from
//!         ├─ comparing    are others shown the same logs?
//!         ├─ inclusion    has the other party our contracts in its log?
//!         └─ telling      TransparencyLog
//! ```
//! It looks when something has changed, and every 5 s. That somebody who was silent is silent again changes nothing: a thousand strangers who are
//! away are asked and asked again without a look at everything for each of them.

mod comparing;
mod exchanges;
mod gathered;
mod inclusion;
mod noting;
mod stands;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    Account, Contract, Invoice, KnownCluster, LogState, Receipt, RestoredRecords, TransparencyLog, names,
};
use kube::ResourceExt as _;
use substrate_client::{Cache, Pace};
use tokio::task::JoinSet;

use crate::Notary;
use crate::ask::Published;
use crate::compare::Compared;
use crate::included::{Answer, Inclusions, Leaves};
use crate::remembered::{Remembered, remembered};
use crate::restore::Report;
use crate::rounds::Rounds;
use crate::standing::{Word, witnesses};
use exchanges::Asked;
use gathered::Gathered;

/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(50);
/// What time alone brings: somebody who was silent is asked again.
const LOOK: Duration = Duration::from_secs(5);
/// While the node is closed somebody waits.
const LOOK_CLOSED: Duration = Duration::from_millis(500);
/// Names of about 60 bytes.
const NOTED_MAX: usize = 65_536;

struct Caches {
    contracts: Cache<Contract>,
    accounts: Cache<Account>,
    receipts: Cache<Receipt>,
    invoices: Cache<Invoice>,
    known: Cache<KnownCluster>,
    logs: Cache<TransparencyLog>,
}

/// What an exchange has brought.
enum Brought {
    Word(NodeId, Word),
    Published(NodeId, Box<Published>),
    Restored(Report),
    Compared(NodeId, Result<Vec<Compared>, String>),
    Asked(NodeId, Vec<(String, Answer)>),
}

/// The file that stands while the node is being restored: contracts are back before their books are, and once they are all there nothing
/// else would tell that a node which was killed has more to ask for.
fn restoring_file(directory: &Path) -> PathBuf {
    directory.join("restoring")
}

/// Where nodes may be.
type Addresses = BTreeMap<NodeId, Vec<SocketAddr>>;
/// How often known nodes, contracts, accounts, speakers and remembered witnesses had changed.
type Walked = [u64; 5];

struct Keeper {
    notary: Arc<Notary>,
    caches: Caches,
    started: Instant,
    asked: BTreeMap<NodeId, Asked>,
    remembered: BTreeMap<NodeId, Remembered>,
    /// How often one was remembered.
    remembered_count: u64,
    gathered: Gathered<Walked, Addresses>,
    /// As the last look has found them.
    addresses: Arc<Addresses>,
    state: LogState,
    /// Objects whose entry is in the log: they do not change.
    noted: BTreeSet<String>,
    /// Contracts that this process has seen: their end is one.
    seen: BTreeSet<String>,
    exchanges: JoinSet<Brought>,
    restoring: bool,
    /// It was being restored when the process before this one ended.
    unfinished: bool,
    restore_after: Option<Instant>,
    restored: RestoredRecords,
    note: String,
    opened: bool,
    /// Which logs were compared with whom.
    rounds: Rounds,
    /// Of which log who keeps a head that nobody has shown to fit.
    unproven: BTreeMap<(NodeId, NodeId), String>,
    inclusion: Inclusions,
    /// What is to be in logs of others, of each contract as it was signed last.
    questions: BTreeMap<String, (String, Option<Leaves>)>,
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
    let unfinished = restoring_file(&notary.options.directory).exists();
    let mut keeper = Keeper {
        notary,
        caches,
        started: Instant::now(),
        asked: BTreeMap::new(),
        remembered: remembered.into_iter().map(|one| (one.did, one)).collect(),
        remembered_count: 0,
        gathered: Gathered::default(),
        addresses: Arc::default(),
        state: LogState::Comparing,
        noted: BTreeSet::new(),
        seen: BTreeSet::new(),
        exchanges: JoinSet::new(),
        restoring: false,
        unfinished,
        restore_after: None,
        restored: RestoredRecords::default(),
        note: String::new(),
        opened: false,
        rounds: Rounds::default(),
        unproven: BTreeMap::new(),
        inclusion: Inclusions::default(),
        questions: BTreeMap::new(),
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
        let (mut news, mut looked_at) = (true, Instant::now());
        let mut pace = Pace::default();
        loop {
            if news {
                pace.begin().await;
                changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
                self.look().await;
                pace.end();
                looked_at = Instant::now();
            } else {
                self.ask_all(&self.addresses.clone(), self.state);
            }
            let closed = notary.closed().is_some();
            let look_at = looked_at + if closed { LOOK_CLOSED } else { LOOK };
            let [a, b, c, d, e, f] = &mut changes;
            news = true;
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
                () = tokio::time::sleep_until(look_at.into()) => {}
                Some(done) = self.exchanges.join_next() => match done {
                    Ok(brought) => news = self.take(brought).await,
                    Err(error) => {
                        tracing::error!(%error, "an exchange about the log broke off");
                        self.restoring = false;
                        self.asked.values_mut().for_each(|asked| asked.busy = false);
                    }
                },
            }
            while let Some(Ok(brought)) = self.exchanges.try_join_next() {
                news |= self.take(brought).await;
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
        (self.addresses, self.state) = (addresses.clone(), state);
        if state == LogState::Complete {
            self.note_ends().await;
        }
        if let Some(reason) = policy.annotations().get(names::ANNOTATION_ACCEPT_LOSS) {
            self.accept_loss(reason, state).await;
        }
        self.ask_all(&addresses, state);
        match state {
            LogState::Complete => {
                self.publish_all(&addresses, &chosen).await;
                self.ask_inclusion(&addresses);
                self.compare_next(&addresses, &chosen, &parties).await;
            }
            LogState::Restoring => self.restore(&addresses),
            LogState::Comparing => {}
        }
        self.tell(state, message, &chosen, &policy).await;
    }
}
