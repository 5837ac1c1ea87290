//! Notary (§5.2.1, §6.4.3): keeps the log of this node, has others witness it, witnesses theirs, and takes back what this node has lost.
//!
//! An *entry* of the log is the digest of a document: a contract, its end, its last receipt, an invoice, a statement about a key. A
//! *witness* is a node that keeps the last head of the log, and countersigns only what continues it ([`fluidos_log`]). A node is
//! *restoring* if and only if somebody keeps more of its log than it has itself, or of what it has some documents are not here.
//!
//! ```text
//!  Contract, Receipt, Invoice, history.json ─▶ keeper ─▶ journal (DIR/log) ── head, proof, leaves ──▶ witnesses
//!                                                │  ▲
//!                       TransparencyLog ◀─status─┤  └── at the start: what do you keep of me? ◀── nodes that are known
//!                                                │                    │ more than there is here
//!                       exporter: closed? ◀──────┘                    ▼
//!                                       leaves from witnesses, contracts and books from the other parties ─▶ [`Records`]
//! ```
//! What it keeps of others it compares with what other nodes keep of them, and each contract's other party is asked to show that the
//! contract is in its log, too: that is the condition `LoggedByOtherParty` of the Contract.
//!
//! Watches Contracts, Accounts, Receipts, Invoices, KnownClusters and the TransparencyLog, whose status it alone writes, as the conditions of Contracts; Contracts and
//! books are written by their own rooms, which are introduced as [`Records`].
//!
//! *Crashes*: a document is written before its entry, and found again at the next start; a log that is replaced is the old one or the new
//! one; every step of restoring may be done again.
//!
//! Limits: receipts are in the log by the last of each contract and by the invoices of its months, which name them all; the receipts of a
//! month that runs are guarded by their chain and both signatures alone.

mod allowance;
mod answer;
mod ask;
mod book;
mod compare;
mod events;
mod included;
mod journal;
mod keeper;
mod records;
mod remembered;
mod restore;
mod rounds;
mod shelf;
mod standing;
mod witness;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use fluidos_identity::{Envelope, NodeId, NodeKey, Speakers};
use fluidos_model::kinds::{Contract, LogState};
use fluidos_model::market::Ended;
use fluidos_rear as rear;
use kube::Client;
use serde_json::Value;
use tokio::sync::{Mutex, Notify};

pub use ask::{Comparison, Kept, compare, sight};
pub use book::Book;
pub use journal::{Found, JournalError, begin, read};
pub use remembered::{Remembered, remembered};

/// Who writes, in events.
pub const MANAGER: &str = "fluidos-notary";
/// The folder of the log in a node's directory.
pub const LOG_DIRECTORY: &str = "log";
/// Who does not answer a request does not within two of its time-outs.
const WAIT: Duration = Duration::from_secs(10);

/// Makes a client of a peer. It must prove the key that the target names.
pub type Dial = Arc<dyn Fn(rear::Target) -> Result<rear::Client, String> + Send + Sync>;

/// Who keeps what the log is about. Everything may be asked again, and changes nothing then.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Returns what the other party of a contract is told of it.
    fn told(&self, contract: &Contract) -> rear::Contract;

    /// Takes a contract back from the other party's copy, with its last renewal; returns it as it stands here, and whether anything had to be
    /// written.
    async fn contract(
        &self,
        contract: &rear::Contract,
        renewal: Option<&Envelope>,
        ended: Ended,
    ) -> Result<(Contract, bool), String>;

    /// Returns the number of the last receipt of a contract that is here; 0 before the first.
    async fn number(&self, contract: &str) -> u64;

    /// Takes receipts and invoices of a contract back; returns how many of each were not here.
    async fn books(&self, contract: &Contract, receipts: &[Envelope], invoices: &[Value])
    -> Result<(u64, u64), String>;
}

/// What the notary is told.
#[derive(Clone)]
pub struct Options {
    /// Reads what it watches and writes the TransparencyLog.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: substrate_client::Caches,
    /// The node's key: heads are signed with it.
    pub key: NodeKey,
    /// The first of the node's keys: it names the log.
    pub origin: NodeId,
    /// Every key that the node has had; heads that any of them has signed are its own.
    pub keys: BTreeSet<NodeId>,
    /// Where the log is.
    pub directory: PathBuf,
    /// Where the statements about the node's own keys are.
    pub identity: PathBuf,
    /// The way to a peer.
    pub dial: Dial,
    /// Which key speaks for whom now.
    pub speakers: Speakers,
    /// Who keeps the documents.
    pub records: Arc<dyn Records>,
    /// How long those who do not answer are waited for after a start.
    pub wait: Duration,
}

impl Options {
    /// Returns how long those who do not answer are usually waited for.
    pub fn usual_wait() -> Duration {
        WAIT
    }
}

/// Why there is no notary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is kept of others cannot be read.
    #[error("{0}")]
    Shelf(String),
}

/// The notary of a node: answers peers ([`rear::Notary`]), and says whether the node may sell.
pub struct Notary {
    options: Options,
    own: Mutex<Own>,
    shelf: Mutex<shelf::Shelf>,
    /// Of what contracts and accounts say: they have a place as witnesses and as those who are witnessed.
    parties: RwLock<BTreeSet<NodeId>>,
    standing: RwLock<(LogState, String)>,
    /// What is computed for whoever asks about the logs of others.
    allowance: std::sync::Mutex<allowance::Allowance>,
    /// Something is to be looked at.
    due: Notify,
}

/// The log of this node, in memory and on disk.
struct Own {
    journal: journal::Journal,
    /// Shared with exchanges that show it to witnesses.
    book: Arc<Book>,
    lost: Option<String>,
}

impl Own {
    /// Keeps records in both; then they count.
    fn keep(&mut self, records: &[book::Record]) -> Result<(), String> {
        self.book.may(records)?;
        self.journal.append(records).map_err(|error| error.to_string())?;
        let book = Arc::make_mut(&mut self.book);
        records.iter().try_for_each(|record| book.apply(record))
    }

    fn replace(&mut self, book: Book) -> Result<(), String> {
        self.journal.replace(&book).map_err(|error| error.to_string())?;
        self.book = Arc::new(book);
        Ok(())
    }
}

impl Notary {
    /// Says why nothing is sold for now, `None` if the node may sell. Peers may read it.
    pub fn closed(&self) -> Option<String> {
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
        match &*standing {
            (LogState::Complete, _) => None,
            (LogState::Comparing, why) => Some(format!("nothing is sold yet: {why}")),
            (LogState::Restoring, why) => Some(format!("restoring, nothing is sold: {why}")),
        }
    }

    fn is_party(&self, node: &NodeId) -> bool {
        self.parties.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }
}

/// Opens the log and returns the notary with what keeps it, for ever. Nothing is sold before it runs.
///
/// # Errors
/// [`Error`] if the log cannot be read or written.
pub fn start(options: Options) -> Result<(Arc<Notary>, impl Future<Output = ()> + Send + 'static), Error> {
    let (journal, book, lost) = journal::Journal::open(&options.directory)?;
    let shelf = shelf::Shelf::open(&options.directory).map_err(|error| Error::Shelf(error.to_string()))?;
    let notary = Arc::new(Notary {
        own: Mutex::new(Own { journal, book: Arc::new(book), lost }),
        shelf: Mutex::new(shelf),
        parties: RwLock::default(),
        standing: RwLock::new((LogState::Comparing, "the node has just started".into())),
        allowance: std::sync::Mutex::default(),
        due: Notify::new(),
        options,
    });
    let keeping = notary.clone();
    Ok((notary, async move { keeper::run(keeping).await }))
}
