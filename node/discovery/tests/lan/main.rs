//! Nodes that find each other on a LAN by real multicast, over real links, with an API server each. Needs root.
//!
//! ```text
//!  thread flt-lan: flt-lan (bridge) ─┬─ lan0 192.0.2.1 ─ thread flt-node-1: API, Links, discovery
//!                                    ├─ lan0 192.0.2.2 ─ thread flt-node-2: the same
//!                                    └─ lan0 192.0.2.3 ─ thread flt-node-3: a catalog, or avahi
//! ```
//! The sockets of multicast DNS and of links belong to the namespace of the thread that opens them, so each machine is one
//! thread with a network namespace of its own; all of it is gone with the threads.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod calls;
mod catalogs;
mod multicast;
mod others;
mod stage;
