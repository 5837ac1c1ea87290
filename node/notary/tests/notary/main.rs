//! Nodes that witness, lose and restore logs, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod hostile;
mod keys;
mod killed;
mod nodes;
mod openapi;
mod resale;
mod services;
mod split_views;
mod support;
