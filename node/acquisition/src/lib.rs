//! Resource Acquisition Manager (§6.4.3): buys capacity from other owners and sells this owner's.
//!
//! A *contract* is terms that both parties have signed over the same bytes; each keeps its own copy as a `Contract`. A *hold*
//! is capacity promised for a minute, while a buyer makes up its mind. What is held or sold stands in the `Ledger`, which is
//! the truth: everything else is derived from it.
//!
//! ```text
//!          buyer                                             seller
//!  Solver ─▶ importer ──── list, reserve, purchase ────▶ exporter ─▶ Ledger `pool`
//!             │ Discovery, PeeringCandidates,                │
//!             │ Reservation, Transaction                     │
//!             ▼                                              ▼
//!          Contract, Allocation                          Contract, Allocation
//!             ▲                                              ▲
//!  contract_manager ◀──────────── release ───────────▶ contract_manager
//!             └────────────────── renew ───────────────▶ exporter
//! ```
//! What is needed later is bought ahead by [`buffers`], which write Solvers like anybody else.
//! What peers say of the flavors that a Solver has found is kept current by the subscriber, as long as a Solver is interested.
//!
//! Watches Solvers, KnownClusters, Reservations, Contracts, Allocations and AcquisitionPolicies; writes those of its own, the Ledger,
//! the status of policies, and nothing else. Reads SharingPolicies, and Flavors, which are the Local Resource Manager's.
//!
//! Limits: K8Slices and services only; from official nodes, which sign nothing, K8Slices up to the contract.

#[cfg(feature = "bench")]
pub mod bench;
mod contracts;
mod convert;
mod events;
mod expenses;
mod paying;
mod renewals;
mod terms;

pub mod buffers;
pub mod contract_manager;
pub mod exporter;
pub mod importer;
pub mod restore;
pub mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::{NodeKey, Speakers};
use fluidos_model::kinds::NodeIdentity;
use fluidos_model::market::Amounts;
use fluidos_rear as rear;

pub use fluidos_ledger::BooksError;
pub use paying::Paying;
pub use terms::CONTRACT_TERM;

/// Who writes, in events.
pub const MANAGER: &str = "fluidos-acquisition";
/// A buyer compares, signs and buys within seconds; a minute leaves room for a lost answer that is asked for again.
pub const HOLD: Duration = Duration::from_secs(60);

/// Makes a client of a peer. It must prove the key that the target names, if it names one.
pub type Dial = Arc<dyn Fn(rear::Target) -> Result<rear::Client, String> + Send + Sync>;

/// Why nothing is sold for now, in words that a peer may read.
pub type Closed = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What the Resource Acquisition Manager is told.
#[derive(Clone)]
pub struct Options {
    /// The node's key: contracts are signed with it.
    pub key: NodeKey,
    /// Who the node says it is; `ip` is where peers reach its REAR.
    pub identity: NodeIdentity,
    /// What the owner consents to sell; `None` sells nothing.
    pub offer: Option<Amounts>,
    /// How long a hold lasts where no policy says it.
    pub hold: Duration,
    /// The way to a peer.
    pub dial: Dial,
    /// Who may see, hold and buy what is offered; `None` is everybody, as far as the offer goes.
    pub decide: Option<exporter::Decide>,
    /// What may be bought from official nodes, which prove no key; `None` is nothing.
    pub acquire: Option<importer::Acquire>,
    /// Says why nothing is sold for now, to be tried again later; `None` always sells.
    pub closed: Option<Closed>,
    /// Which key speaks for whom now: a contract goes on under another key of its party.
    pub speakers: Speakers,
    /// Whose turn it is to pay: importer and exporter of a node share it.
    pub paying: Paying,
}

impl Options {
    /// Returns options with the usual hold, HTTPS as the way to peers, and the key's DID in the identity.
    pub fn new(key: NodeKey, mut identity: NodeIdentity, offer: Option<Amounts>) -> Self {
        identity.additional_information.get_or_insert_default().did = Some(key.id().to_string());
        let dialling = key.clone();
        let dial = move |target| rear::Client::new(&dialling, target).map_err(|error| error.to_string());
        Self {
            key,
            identity,
            offer,
            hold: HOLD,
            dial: Arc::new(dial),
            decide: None,
            acquire: None,
            closed: None,
            speakers: Speakers::default(),
            paying: Paying::default(),
        }
    }
}

/// Cuts a text of somebody else to a length, so that it fits into a status or an event.
fn bounded(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
