//! The network of one machine: pods get a namespace, an address and a way out; Services get addresses that work.
//!
//! A **node network** is everything one node owns on its machine. Several nodes may share a machine, even one network
//! namespace, so every name carries the node's *instance* and every rule matches only what carries it.
//!
//! ```text
//!   pod namespace               the node's network namespace
//!  ┌──────────────┐   veth    ┌──────────────────────────────────────────────────┐
//!  │ eth0 a.b.c.d ├───────────┤ v<instance>-<number>   route    a.b.c.d/32      │
//!  │ default via g│           │                                                  │   masquerade
//!  └──────────────┘           │ sb-<instance>  gateway g; routes pod and service ├──────────────▶ outside
//!  ┌──────────────┐           │                ranges nobody else claims         │
//!  │ eth0 …       ├───────────┤ v<instance>…                                     │
//!  └──────────────┘           │ nftables table substrate-<instance>              │
//!                             └──────────────────────────────────────────────────┘
//! ```
//!
//! Pods share no Ethernet segment: each has a cable of its own to the machine and everything between two pods is routed.
//! So replies of a translated connection always pass the place that has to translate them back, a pod cannot answer ARP
//! for another, and what claims another address than the one its cable leads to is dropped: a rule that names a pod's
//! address names that pod.
//!
//! A node has both families where it is told ranges of both ([`Ipv6`]): then each pod but those that are confined has an address of each, and
//! the same rules hold for both, in two tables that change together. Where a pod has no IPv6 address it is switched off on its cable, so that
//! it is no way around a rule. Over IPv6 a pod's way out is the link-local address of its cable's other end, which is the same for all.
//!
//! Limits: pods of other nodes are reached over IPv4.
//!
//! Needs root. `unsafe` is not used: sockets and namespaces go through `nix`.
mod address;
mod both;
mod conntrack;
mod dns;
mod error;
mod health_check;
mod here;
mod machines;
mod namespace;
mod node;
mod policies;
mod policy_agent;
mod proxy;
mod rules;
mod services;

pub use both::{Both, Ipv6};
pub use dns::{DnsOptions, DnsServer};
pub use engine_packets::Cidr;
pub use engine_packets::nftables::Protocol;
pub use error::Error;
pub use machines::MachineRoutes;
pub use node::{Attachment, HostPort, NodeNetwork, Options};
pub use policy_agent::PolicyAgent;
pub use proxy::{ServiceCaches, ServiceProxy};
pub use rules::{Allowed, ConfinedPod, FabricAccess, FabricRoute, Isolated, MachineRoute, Peers, Ports, ServicePort};
