//! The scheduler at an API server in process, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bindings;
mod preemption;
mod volumes;
mod world;
