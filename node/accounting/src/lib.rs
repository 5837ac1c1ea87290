//! Accounting (D2.1 §6.4.3, contract manager): what contracts used and what that costs, in books that agree on both sides.
//!
//! An *account* is the running books of one contract at one party: its own meter, and the chain of receipts that both have signed.
//! It outlives the contract until everything has its receipt.
//!
//! ```text
//!  Contract ──▶ keeper ─ opens ─▶ Account ◀─ a look every few seconds: Nodes, Allocations, Pods, [`Meters`]
//!                                   │ an hour, or the contract, is over
//!    buyer: settle ── POST …/receipts (REAR) ──▶ seller: answer        propose, complete, sign, sign
//!                                   │
//!                                   ▼
//!                     Receipt ─▶ Receipt ─▶ …  ── a month, or the contract, is over ──▶ Invoice ◀─ fluidos invoice paid
//! ```
//! Watches Contracts, Allocations, Nodes, Pods, KnownClusters and Invoices; writes Accounts, Receipts and Invoices, the only
//! writer of each. What is decided is decided by [`fluidos_model::receipt`], which is pure.
//!
//! *Crashes*: a receipt is written before the account that counts it, and found again when the account is loaded; a meter is written
//! every 15 s, so a killed process loses at most that much of its own measure, which is below the usual tolerance of an hour.
//!
//! A party may have another key than the one that has signed the contract: the account notes it, and the chain goes on ([`parties`]).
//! A line that is disputed and books that are wrong are told in an Event on the Contract, too.
//!
//! Limits: bytes are counted for each pair of nodes and stand in the receipts of the first of its contracts by name; a receipt lists 16
//! pods, and says how many more there were.

mod accounts;
mod answer;
mod chain;
mod error;
mod events;
mod forget;
mod invoices;
mod keeper;
mod parties;
mod readings;
mod restore;
mod settle;

use std::collections::BTreeSet;
use std::sync::Arc;

use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_rear as rear;
use kube::Client;
use substrate_client::Caches;

pub use accounts::Accounts;
pub use chain::{bill, signed_receipt};
pub use error::Error;
pub use keeper::start;

/// Who writes, in events.
pub const MANAGER: &str = "fluidos-accounting";

/// Makes a client of a peer. It must prove the key that the target names.
pub type Dial = Arc<dyn Fn(rear::Target) -> Result<rear::Client, String> + Send + Sync>;

/// Bytes of packets since this process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// From here to the peer.
    pub to_peer: u64,
    /// From the peer to here.
    pub from_peer: u64,
}

/// What a pod has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Milliseconds of CPU since it started.
    pub cpu_ms: u64,
    /// MiB of memory now.
    pub memory_mib: u64,
}

/// What is measured outside the API. `None` is what cannot be known here: it is left out of receipts, never 0.
pub trait Meters: Send + Sync + 'static {
    /// Says whether there is a link to a peer now.
    fn is_up(&self, peer: &NodeId) -> bool;

    /// Returns the packets that were exchanged with a peer; 0 with one that none were exchanged with.
    fn traffic(&self, peer: &NodeId) -> Option<Traffic>;

    /// Returns what a pod of this machine uses.
    fn usage(&self, pod_uid: &str) -> Option<Usage>;
}

/// What accounting is told.
#[derive(Clone)]
pub struct Options {
    /// Reads what it watches and writes its kinds.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: Caches,
    /// The node's key: receipts are signed with it.
    pub key: NodeKey,
    /// Every key that the node has had: contracts name the one that signed them.
    pub keys: BTreeSet<NodeId>,
    /// Which key speaks for whom now.
    pub speakers: Speakers,
    /// The way to a peer.
    pub dial: Dial,
    /// What is measured outside the API.
    pub meters: Arc<dyn Meters>,
}
