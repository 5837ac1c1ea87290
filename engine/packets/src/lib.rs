//! What the kernel is told about packets: devices, addresses and routes, and the rules of nftables.
//!
//! ```text
//!  Ruleset (a value) ─▶ nftables ─┐
//!                                 ├─▶ netlink ─▶ the kernel, in the network namespace in which the socket was opened
//!  links, addresses, routes ──────┘
//! ```
//! A **ruleset** is everything in one table; it is replaced in one transaction. All of it is there for
//! IPv4 and for IPv6, in a type each.
mod cidr;
pub mod netlink;
pub mod nftables;
pub mod probe;
pub mod route;

pub use cidr::{Address, Cidr};
