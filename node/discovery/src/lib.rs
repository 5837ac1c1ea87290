//! Discovery Manager (§6.4.1): who could be a peer, and how it is reached.
//!
//! A *sighting* is one source's word that a node is somewhere. The *peering candidates database* is one KnownCluster for each
//! node that was seen: it holds what sightings said and what the link proved. A node *is* its key: no sighting changes what
//! is known about another key.
//!
//! ```text
//! multicast DNS ─┐                          ┌─▶ KnownCluster (create, change, expire)
//! catalogs       │
//! --peer         ├─ Sighting ─▶ plan(View) ─┤─▶ Links::dial: known nodes are called until they answer
//! who dials us  ─┘                          └─▶ rejected, with the reason (the last 64)
//! Links: up, down, round trip ─▶ KnownCluster.status.link
//! ```
//! A *DiscoveryPolicy* says what is told of this node by which approach, and who becomes a candidate; its status tells who was
//! rejected and why. Watches KnownClusters (also those that a user writes), DiscoveryPolicies, Contracts (a party of one is
//! not dropped), PeeringCandidates (what was offered to Solvers) and links; writes KnownClusters and the status of the DiscoveryPolicy `default`.
//!
//! Who a node is, beyond its key: [`introductions`]. What it sells: [`offers`]. What others say of it: `words`.
//!
//! *Brokers* ([`Broker`](fluidos_model::kinds::Broker)) are kept as official nodes write them; their condition says that nothing connects to them.
//!
//! Limits: addresses of one cable only (`fe80::`) are not used; an inbound peer says its features once a session.

mod act;
mod brokers;
pub mod catalog;
pub mod features;
pub mod introductions;
mod manager;
pub mod mdns;
pub mod offers;
pub mod plan;
pub mod policy;
mod signature;
mod status;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, SocketAddr};

use fluidos_identity::NodeId;
use fluidos_model::kinds::KnownClusterOffer;

pub use features::Features;
pub use introductions::position_word;
pub use manager::{Options, run};
pub use plan::Trust;
pub use status::Handle;

/// Where the word came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The owner named its address.
    Static,
    /// It announced itself on the LAN.
    Multicast,
    /// It called us.
    Inbound,
    /// A catalog lists it.
    Catalog,
}

/// One source's word that a node is somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose word.
    pub source: Source,
    /// The node's key; for multicast and catalogs as signed, for others as the link proved.
    pub id: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Whose it says it is.
    pub domain: String,
    /// Where its REAR listens.
    pub rear: SocketAddr,
    /// Where its link listens, if it is known.
    pub link: Option<SocketAddr>,
    /// Where else it may be, at the same ports.
    pub further: Vec<IpAddr>,
    /// What it says of itself; `None` if this source says nothing about it.
    pub features: Option<Features>,
    /// What it says it sells; `None` if this source says nothing about it.
    pub offers: Option<Vec<KnownClusterOffer>>,
}

/// Attribute of a link's hello: the port of REAR.
pub const ATTRIBUTE_REAR_PORT: &str = "rear-port";
/// Attribute of a link's hello: the port on which links are accepted.
pub const ATTRIBUTE_LINK_PORT: &str = "link-port";
/// Attribute of a link's hello: what the node says of itself, as [`Features`] writes it.
pub const ATTRIBUTE_FEATURES: &str = "features";
