//! Nodes that measure, receipt and bill, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod keys;
mod money;
mod support;
mod two_nodes;
