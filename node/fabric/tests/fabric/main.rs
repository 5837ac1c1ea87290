//! Nodes that lend each other pods, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod hostile;
mod peering;
mod support;
mod three_nodes;
mod two_nodes;
