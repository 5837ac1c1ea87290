//! Privacy and Security Manager (§6.4.5): who may do what, and what is known of those who ask.
//!
//! The *decision point* answers whether a peer may do something, from the policies in force. A *rating* is what this node has
//! seen of a peer. *Exposure* is what a peer can see or do here now.
//!
//! ```text
//! --offer, --trust ─▶ AccessPolicy offer, trust ─┐
//! the owner ────────▶ AccessPolicies ────────────┼─▶ policy::compile ─▶ Point::decide ◀─ REAR: list, reserve, purchase
//!                     KnownClusters, Ratings ────┘        │
//!                                                         └─▶ KnownCluster.spec.trust (action Receive)
//! KnownClusters, Reservations, Allocations, Contracts ─▶ rating::plan ─▶ Ratings
//! ```
//! Watches AccessPolicies, KnownClusters, Reservations, Allocations and Contracts. Writes the AccessPolicies `offer` and
//! `trust`, the status of all, Ratings, and the trust of KnownClusters; the only writer of each.
//!
//! Who a peer is beyond its key (owner, proven domain, evidence) stands in its KnownCluster, where discovery writes it; a key
//! that was handed over or revoked may do nothing, whatever a policy says.
//!
//! Limits: workloads that run when trust is taken away run on under their contract.

pub mod exposure;
mod keeper;
mod point;
pub mod policy;
pub mod rating;

pub use keeper::{Options, start};
pub use point::{Handle, Question};

/// Who writes.
pub const MANAGER: &str = "fluidos-security";
